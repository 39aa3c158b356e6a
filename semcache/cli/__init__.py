"""The command line.

Exit codes: 0 success; 1 an error, reported on standard error; 2 wrong usage; 3 nothing was
found, a check found problems that remain, or lines of a batch failed; 130 interrupted, or a batch
was stopped before its end.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its exit code."""
    from semcache.cli.app import application
    from semcache.cli.terminal import echo
    from semcache.errors import SemcacheError

    try:
        application(sys.argv[1:])()
    except SemcacheError as error:
        echo(f"semcache: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, UnicodeError, OverflowError) as error:
        echo(f"semcache: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        print("semcache: interrupted", file=sys.stderr)
        sys.exit(130)
