"""Deletes everything that a cache holds about a user: entries, labels, served hits and counts.

Copies outside the cache are listed, so that they can be dealt with: backups and exports that were
made with the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semcache.errors import ConfigError, ReadOnlyError
from semcache.verification.memory import forget_namespace

if TYPE_CHECKING:
    from semcache.backends.base import Backend, Entries, Metadata
    from semcache.types import Selection

_COPIES = "copies"
_MAX_COPIES = 200
"""The most copies of a cache that are remembered; the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a cache, made with the command line.

    Attributes:
        kind: "backup" or "export".
        path: where it was written.
        at: when it was made, in seconds since the epoch.
    """

    kind: str
    path: str
    at: float


@dataclass(frozen=True, slots=True)
class Erased:
    """What was deleted, and which copies may still hold it.

    Attributes:
        entries: number of entries deleted, with the hits that they served and the comparisons that
            waited for them.
        labels: number of labels deleted.
        copies: the backups and exports made since the oldest of these entries was stored; all that
            are known if there was no entry.
    """

    entries: int
    labels: int
    copies: tuple[Copy, ...] = ()


def erase(
    backend: Backend,
    entries: Entries,
    selection: Selection,
    forget: Callable[[str], None] | None = None,
) -> Erased:
    """Delete the selected entries and everything that was learned from them.

    Args:
        selection: a namespace or a tag.
        forget: drops what a running cache has learned about a namespace.

    Raises:
        ConfigError: neither a namespace nor a tag is selected.
        StoreError: something could not be deleted; entries may be left.
    """
    if selection.namespace is None and selection.tag is None:
        raise ConfigError("erase() needs a namespace or a tag; clear() deletes all entries.")
    oldest = backend.catalogue.select(selection, order="oldest", limit=1)
    labels = backend.ledger.forget(selection)
    deleted = entries.delete(selection)
    if selection.namespace is not None and selection.tag is None:
        if forget is not None:
            forget(selection.namespace)
        forget_namespace(backend.metadata, selection.namespace)
    since = oldest[0].created_at if oldest else 0.0
    made = [copy for copy in copies(backend.metadata) if copy.at >= since]
    return Erased(deleted, labels, tuple(made))


def note_copy(metadata: Metadata, copy: Copy) -> None:
    """Remember that a copy was made. A read-only cache remembers nothing.

    Raises:
        StoreError: it could not be written.
    """
    known = [*copies(metadata), copy]
    try:
        metadata.set_meta(_COPIES, json.dumps([_json(one) for one in known[-_MAX_COPIES:]]))
    except ReadOnlyError:
        return


def copies(metadata: Metadata) -> list[Copy]:
    """The copies that were made, oldest first."""
    try:
        stored = json.loads(metadata.meta(_COPIES) or "[]")
        return [Copy(str(one["kind"]), str(one["path"]), float(one["at"])) for one in stored]
    except (ValueError, TypeError, KeyError):  # damaged: the list is only advice
        return []


def _json(copy: Copy) -> dict[str, Any]:
    return {"kind": copy.kind, "path": copy.path, "at": copy.at}
