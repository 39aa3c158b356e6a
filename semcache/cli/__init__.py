"""The command line.

Exit codes: 0 done; 1 an error, said on standard error; 2 wrong usage; 3 nothing was
found, or a check found problems that are not mended; 130 interrupted.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from semcache.cli.app import application
    from semcache.errors import SemcacheError

    try:
        application(sys.argv[1:])()
    except SemcacheError as error:
        print(f"semcache: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, UnicodeError, OverflowError) as error:
        print(f"semcache: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("semcache: interrupted", file=sys.stderr)
        sys.exit(130)
