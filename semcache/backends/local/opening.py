"""File names and options of a cache directory, and opening its store."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from semcache.backends.local.files import DATABASE, LEASES, SNAPSHOT
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.vectors import FORMS, Form
from semcache.errors import ConfigError
from semcache.private_files import FILE_MODE, GROUP_FILE_MODE, warnings_about

logger = logging.getLogger("semcache")

__all__ = ["DATABASE", "LEASES", "SNAPSHOT", "LocalOptions", "open_store"]


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Options of a cache in a directory.

    Attributes:
        vectors: how new vectors are stored: "float32", "float16" or "int8". A directory may hold
            a mixture.
        busy_timeout: how many seconds a write waits for another process's write.
        exact_below: scopes with fewer entries than this are not divided into inverted lists;
            None means the default of 8,192.
        index_in_background: whether large indexes are built in the background. False builds them
            inside the call that makes them due, so that equal runs give equal hits.
        share_with_group: whether a new cache may also be used by the user's group; otherwise only
            the user may use it. The permissions of an existing cache stay as they are.

    Raises:
        ConfigError: a value is wrong.
    """

    vectors: Form = "float32"
    busy_timeout: float = 5.0
    exact_below: int | None = None
    index_in_background: bool = True
    share_with_group: bool = False

    def __post_init__(self) -> None:
        if self.vectors not in FORMS:
            known = ", ".join(map(repr, FORMS))
            raise ConfigError(f"vectors is {self.vectors!r}; it must be one of {known}.")
        if not isinstance(self.busy_timeout, int | float) or not self.busy_timeout >= 0:
            raise ConfigError(f"busy_timeout is {self.busy_timeout!r}; give seconds, 0 or more.")


def open_store(
    directory: Path, *, create: bool = True, options: LocalOptions = LocalOptions()
) -> SQLiteStore:
    """Open the store of a cache directory.

    Args:
        create: create a cache if there is none.

    Raises:
        ConfigError: the path is a file, or there is no cache and `create` is False.
        StoreError: the database cannot be opened.
    """
    try:
        is_file = directory.exists() and not directory.is_dir()
    except OSError as error:  # such as a name that is too long
        raise ConfigError(f"{str(directory)[:100]} cannot be used: {error.strerror}.") from None
    if is_file:
        raise ConfigError(f"{directory} is a file; a cache is a directory. Give another path.")
    database = directory / DATABASE
    if not create and not database.exists():
        raise ConfigError(
            f"There is no cache in {directory} (no {DATABASE}). Give the directory of a cache with "
            "--cache PATH or SEMCACHE_PATH."
        )
    store = SQLiteStore(
        database,
        busy_timeout=options.busy_timeout,
        vectors=options.vectors,
        file_mode=GROUP_FILE_MODE if options.share_with_group else FILE_MODE,
    )
    _warn(directory, database)
    return store


_warned: set[Path] = set()


def _warn(directory: Path, database: Path) -> None:
    """Warn once per process about a cache that other users of this machine can read or change."""
    if directory not in _warned and (found := warnings_about(directory, database)):
        _warned.add(directory)
        logger.warning(
            "the cache %s is open to others: %s; chmod 700 the directory, or use another one",
            directory,
            " and ".join(found),
        )
