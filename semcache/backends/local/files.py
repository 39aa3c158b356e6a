"""The files of a cache directory, which all have the permissions of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from semcache.private_files import mode_of

DATABASE: Final = "semcache.db"
SNAPSHOT: Final = "semcache.index"
LEASES: Final = "semcache-leases.db"


def mode_beside(path: Path) -> int:
    """The permissions of a new file in the directory of a cache."""
    return mode_of(path.parent / DATABASE)
