"""Kinds of backends: opened by location, and what can be done without opening one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

from semcache.backends.base import Backend, Progress


class BackendKind:
    """A kind of backend: opens one by its location, and does what needs no open backend.

    A kind overrides what it can do. The rest says that this kind cannot do it.
    """

    label = "This backend"

    def open(self, location: str, *, create: bool = True, options: object = None) -> Backend:
        """Open the backend at a location.

        Args:
            create: make it if there is none.
            options: the kind's own options; None for its defaults.

        Raises:
            ConfigError: there is none and none is to be made, or an option is wrong.
            StoreError: it cannot be opened.
        """
        raise NotImplementedError

    def exists(self, location: str) -> bool:
        """Whether there is a cache at this location."""
        raise NotImplementedError

    def recover(
        self,
        location: str,  # noqa: ARG002 - for kinds that can be damaged
        *,
        fix: bool,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
    ) -> list[str]:
        """What is wrong with a backend that cannot be opened, or what was done about it.

        An empty list: it can be opened. Kinds that a server looks after have nothing to recover.
        """
        return []

    def backup(self, location: str, to: Path, progress: Progress) -> int:  # noqa: ARG002
        """Copy the cache as it is at one moment; return how many entries the copy has."""
        raise self.cannot("copied by semcache: use the backup tools of its server")

    def check_backup(self, source: Path) -> None:  # noqa: ARG002
        """Raises `ConfigError` if there is no copy of this kind in `source`."""
        raise self.cannot("restored by semcache: use the backup tools of its server")

    def restore(self, source: Path, location: str, progress: Progress) -> int:  # noqa: ARG002
        """Put a copy in place of a cache; return how many entries it has."""
        raise self.cannot("restored by semcache: use the backup tools of its server")

    def cannot(self, what: str) -> ConfigError:
        """The error for something that this kind cannot do."""
        return ConfigError(f"{self.label} cannot be {what}.")
