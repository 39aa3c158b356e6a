"""Kinds of backends: each opens backends by location, and works on those that are not open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

from semcache.backends.base import Backend, Progress


class BackendKind:
    """A kind of backend: opens backends, and works on those that are not open.

    A subclass overrides the operations that it supports; the others raise `ConfigError`.
    """

    label = "This backend"

    def open(self, location: str, *, create: bool = True, options: object = None) -> Backend:
        """Open the backend at a location.

        Args:
            create: create a cache if there is none.
            options: options of this kind of backend; None means the defaults.

        Raises:
            ConfigError: there is no cache and `create` is False, or an option is wrong.
            StoreError: the backend cannot be opened.
        """
        raise NotImplementedError

    def exists(self, location: str) -> bool:
        """Whether there is a cache at this location."""
        raise NotImplementedError

    def recover(
        self,
        location: str,  # noqa: ARG002 - used by kinds whose files can be damaged
        *,
        fix: bool,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
    ) -> list[str]:
        """Report what is wrong with a backend that cannot be opened, or recover it.

        An empty list means that the backend can be opened. The list is always empty if a server
        maintains the store.

        Args:
            fix: recover what can be recovered, and report what was done.
        """
        return []

    def backup(self, location: str, to: Path, progress: Progress) -> int:  # noqa: ARG002
        """Copy a consistent snapshot of the cache; return the number of entries in the copy."""
        raise self.cannot("backed up by semcache: use the backup tools of its server")

    def check_backup(self, source: Path) -> None:  # noqa: ARG002
        """Raise `ConfigError` if there is no backup of this kind in `source`."""
        raise self.cannot("restored by semcache: use the backup tools of its server")

    def restore(self, source: Path, location: str, progress: Progress) -> int:  # noqa: ARG002
        """Replace a cache with a backup; return the number of entries in it."""
        raise self.cannot("restored by semcache: use the backup tools of its server")

    def cannot(self, what: str) -> ConfigError:
        """The error for an operation that this kind does not support."""
        return ConfigError(f"{self.label} cannot be {what}.")
