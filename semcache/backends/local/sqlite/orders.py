"""The orders in which entries are listed and evicted, and the indexes for eviction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from semcache.backends.retention import EVICTION

_LAST_USED = "coalesce(last_hit_at, created_at)"
ORDER_BY: Mapping[str, str] = {
    "newest": "id DESC",
    "oldest": "id",
    "most_hits": "hits DESC, id DESC",
    "least_recently_used": f"{_LAST_USED}, id",
    "least_frequently_used": f"hits, {_LAST_USED}, id",
}


class Index(NamedTuple):
    """An index, and the statement that creates it."""

    name: str
    statement: str


def eviction_index(order: str, *, by_namespace: bool) -> Index | None:
    """The index with which eviction reads only what it deletes; None if it needs none."""
    columns = ORDER_BY[order].removesuffix("id").removesuffix(", ")
    if by_namespace:
        columns = f"namespace, {columns}" if columns else "namespace"
    if not columns:
        return None
    name = f"entries_{'namespace_' if by_namespace else ''}{order}"
    return Index(name, f"CREATE INDEX IF NOT EXISTS {name} ON entries({columns})")


def eviction_indexes() -> Iterator[Index]:
    """All indexes for eviction that a database may have."""
    for order in EVICTION.values():
        for by_namespace in (False, True):
            index = eviction_index(order, by_namespace=by_namespace)
            if index is not None:
                yield index
