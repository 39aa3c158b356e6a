"""From a location to a backend: a directory, ":memory:", or a URL.

Backends beyond the built-in ones are entry points of the group `semcache.backends`, named after
the scheme of their URLs, that give a `BackendKind`.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

from semcache.backends.base import Backend
from semcache.backends.kinds import BackendKind
from semcache.errors import ConfigError

GROUP = "semcache.backends"
MEMORY = ":memory:"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def masked(location: str) -> str:
    """A location without the user and password that a URL may hold."""
    return _CREDENTIALS.sub("***@", location)


def location_of(where: str | Path) -> str:
    """A location as text.

    Raises:
        ConfigError: it is empty, as an unset variable is.
    """
    if where == "":
        raise ConfigError("path is empty. Write '.' for the current directory.")
    return str(where.expanduser()) if isinstance(where, Path) else where


def backend_kind(location: str) -> BackendKind:
    """The kind of backend that a location names.

    Raises:
        ConfigError: no installed backend takes URLs of this scheme.
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
        raise ConfigError(
            f"No installed backend takes {scheme}:// URLs ({masked(location)}).{others} Give a "
            "directory, or ':memory:'."
        )
    kind = points[scheme].load()()
    if not isinstance(kind, BackendKind):
        raise ConfigError(f"The entry point {scheme!r} of {GROUP} gives no BackendKind.")
    return kind


def open_backend(where: str | Path, *, create: bool = True, options: object = None) -> Backend:
    """Open a backend.

    Args:
        where: a directory, ":memory:", or a URL.
        create: make it if there is none.
        options: the backend's own options, such as `LocalOptions`.

    Raises:
        ConfigError: the location or an option is wrong.
        StoreError: it cannot be opened.
    """
    location = location_of(where)
    return backend_kind(location).open(location, create=create, options=options)
