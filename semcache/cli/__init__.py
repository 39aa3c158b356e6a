"""The command line.

Exit codes: 0 done; 1 an error, said on standard error; 2 wrong usage; 3 nothing was
found, or a check found problems that are not mended; 130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from semcache.cli.app import app
    from semcache.errors import SemcacheError

    try:
        app()
    except SemcacheError as error:
        print(f"semcache: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("semcache: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
