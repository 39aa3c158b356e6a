"""Opens the backend for a location: a directory, ":memory:", or a URL.

Other packages add backends as entry points of the group `semcache.backends`: the name is the
scheme of their URLs, the object a subclass of `BackendKind`.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from os import PathLike, fspath
from pathlib import Path

from semcache.backends.base import Backend
from semcache.backends.kinds import BackendKind
from semcache.credentials import without_password
from semcache.errors import ConfigError

GROUP = "semcache.backends"
MEMORY = ":memory:"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def location_of(where: str | Path) -> str:
    """The location as text.

    Raises:
        ConfigError: the location is empty, as from an unset environment variable.
    """
    if where == "":
        raise ConfigError("path is empty. Write '.' for the current directory.")
    if not isinstance(where, str | PathLike):
        raise ConfigError(
            f"path is {where!r}; give a directory, such as './cache', or ':memory:' for a cache "
            "that lives in this process only."
        )
    location = fspath(where)
    if not isinstance(location, str) or "\0" in location:
        raise ConfigError(f"path is {location!r:.100}, which is not the name of a directory.")
    if location == MEMORY or _URL.match(location):
        return location
    return str(Path(location).expanduser())


def backend_kind(location: str) -> BackendKind:
    """The kind of backend for this location.

    Raises:
        ConfigError: no installed backend supports URLs of this scheme.
    """
    if location == MEMORY:
        from semcache.backends.memory import MemoryKind

        return MemoryKind()
    url = _URL.match(location)
    if url is None:
        from semcache.backends.local import LocalKind

        return LocalKind()
    scheme = url.group(1).lower()
    points = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in points:
        known = ", ".join(f"{name}://" for name in sorted(points))
        others = f" Installed: {known}." if known else ""
        shown = without_password(location)
        raise ConfigError(
            f"No installed backend supports {scheme}:// URLs ({shown}).{others} "
            "Give a directory or ':memory:', or install a package that provides one (entry point "
            f"{scheme!r} of the group {GROUP!r})."
        )
    kind = points[scheme].load()()
    if not isinstance(kind, BackendKind):
        raise ConfigError(f"The entry point {scheme!r} of {GROUP} is not a BackendKind class.")
    return kind


def open_backend(where: str | Path, *, create: bool = True, options: object = None) -> Backend:
    """Open a backend.

    Args:
        where: a directory, ":memory:", or a URL.
        create: create a cache if there is none.
        options: options of this kind of backend, such as `LocalOptions`; None means the defaults.

    Raises:
        ConfigError: the location or an option is wrong.
        StoreError: the backend cannot be opened.
    """
    location = location_of(where)
    return backend_kind(location).open(location, create=create, options=options)
