"""Entries, labels, counters and metadata in dictionaries."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from semcache.backends.base import (
    EntryDetails,
    GroupSize,
    Order,
    Totals,
)
from semcache.backends.memory.ledger import MemoryLedger
from semcache.errors import IndexMismatchError, StoreError
from semcache.types import (
    Candidate,
    Entry,
    Neighbours,
    NewEntry,
    Selection,
)

if TYPE_CHECKING:
    from semcache.types import Vector


@dataclass(slots=True)
class _Row:
    entry: Entry
    details: EntryDetails
    size: int


def _own(entry: Entry) -> Entry:
    """The entry with a copy of its answer, which the caller may change, as with other backends."""
    completion = entry.completion
    if completion.payload is None:
        return entry
    return replace(entry, completion=replace(completion, payload=deepcopy(completion.payload)))


def _last_used(entry: Entry) -> float:
    return entry.created_at if entry.last_hit_at is None else entry.last_hit_at


_ORDER_BY: Mapping[str, Callable[[Entry], Any]] = {
    "newest": lambda entry: -entry.id,
    "oldest": lambda entry: entry.id,
    "most_hits": lambda entry: (-entry.hits, -entry.id),
    "least_recently_used": lambda entry: (_last_used(entry), entry.id),
    "least_frequently_used": lambda entry: (entry.hits, _last_used(entry), entry.id),
}


class MemoryStore(MemoryLedger):
    """Entries, labels, counters and metadata in dictionaries, guarded by one lock."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self._closed = False
        self._rows: dict[int, _Row] = {}
        self._by_key: dict[bytes, int] = {}
        self._scopes: dict[bytes, dict[int, Vector]] = {}
        self._totals: dict[str | None, Totals] = {}
        self._last_id = 0
        self._counters: Counter[str] = Counter()
        self._meta: dict[str, str] = {}

    def close(self) -> None:
        self._closed = True

    def check_open(self) -> None:
        """Raise `StoreError` if the backend is closed."""
        if self._closed:
            raise StoreError("The cache in memory is closed. Open another one.")

    def _exists(self, entry_id: int) -> bool:
        return entry_id in self._rows

    def _selected_ids(self, selection: Selection) -> set[int]:
        return {entry.id for entry in self.select(selection)}

    # --------------------------------------------------------------------------- entries

    def exact(self, exact_key: bytes) -> Entry | None:
        with self.lock:
            self.check_open()
            row = self._rows.get(self._by_key.get(exact_key, 0))
            return None if row is None else _own(row.entry)

    def add(self, entry: NewEntry, vector: Vector | None, fingerprint: str | None) -> int:
        """Store an entry, replacing any with the same exact key, and return its id."""
        with self.lock:
            self.check_open()
            if vector is not None:
                self._claim(fingerprint or "", len(vector))
            replaced = self._rows.get(self._by_key.get(entry.exact_key, 0))
            if replaced is not None:
                if vector is None and replaced.entry.question == entry.question:
                    vector = replaced.details.vector
                self._remove(replaced.entry.id)
            self._last_id += 1
            self._insert(self._last_id, entry, vector)
            return self._last_id

    def _claim(self, fingerprint: str, dimension: int) -> None:
        """The first vector fixes the embedder; vectors of any other are refused."""
        stored = self._meta.setdefault("fingerprint", fingerprint)
        if stored != fingerprint:
            raise IndexMismatchError(stored=stored, given=fingerprint, where="memory")
        if self._meta.setdefault("dimension", str(dimension)) != str(dimension):
            raise StoreError(
                f"A vector of {dimension} numbers cannot be stored beside vectors of "
                f"{self._meta['dimension']}: {fingerprint!r} returns vectors of two lengths."
            )

    def _insert(self, entry_id: int, new: NewEntry, vector: Vector | None) -> None:
        stored_vector = None if vector is None else vector.copy()
        tags = tuple(sorted(set(new.tags)))
        details = EntryDetails(tags, new.summary, new.key_version, stored_vector)
        size = self.size_of(new, vector)
        self._rows[entry_id] = _Row(_own(new.with_id(entry_id)), details, size)
        self._by_key[new.exact_key] = entry_id
        if stored_vector is not None:
            self._scopes.setdefault(new.scope, {})[entry_id] = stored_vector
        self._count(new.namespace, 1, size)

    def _remove(self, entry_id: int) -> None:
        row = self._rows.pop(entry_id)
        del self._by_key[row.entry.exact_key]
        if (scope := self._scopes.get(row.entry.scope)) is not None:
            scope.pop(entry_id, None)
            if not scope:
                del self._scopes[row.entry.scope]
        self._count(row.entry.namespace, -1, -row.size)

    def _count(self, namespace: str, entries: int, size: int) -> None:
        for name in (None, namespace):
            before = self._totals.get(name, Totals(0, 0))
            self._totals[name] = Totals(before.entries + entries, before.size + size)

    def nearest(self, scope: bytes, vector: Vector, k: int, floor: float, now: float) -> Neighbours:
        """See `Entries.nearest`."""
        import numpy as np

        with self.lock:
            self.check_open()
            rows = self._scopes.get(scope)
            if not rows:
                return Neighbours(None, [])
            ids = list(rows)
            similarities = np.stack([rows[i] for i in ids]) @ vector
            order = np.argsort(-similarities, kind="stable")
            entries = {i: self._rows[i].entry for i in ids}
        fresh: list[Candidate] = []
        expired: list[Candidate] = []
        for row in order.tolist():
            similarity = min(float(similarities[row]), 1.0)
            if similarity < floor or len(fresh) >= k:
                break
            candidate = Candidate(_own(entries[ids[row]]), similarity)
            (fresh if candidate.entry.fresh(now) else expired).append(candidate)
        candidates = sorted([*fresh, *expired[:k]], key=lambda c: -c.similarity)
        return Neighbours(min(float(similarities[order[0]]), 1.0), candidates)

    # ------------------------------------------------------------------------- eviction

    def totals(self, namespace: str | None = None) -> Totals:
        with self.lock:
            return self._totals.get(namespace, Totals(0, 0))

    def size_of(self, entry: NewEntry, vector: Vector | None) -> int:
        completion = entry.completion
        texts = (entry.question or "", completion.text, repr(completion.payload or ""))
        size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
        return size + (0 if vector is None else vector.nbytes)

    def delete(self, selection: Selection, limit: int | None = None) -> list[int]:
        with self.lock:
            self.check_open()
            ids = [entry.id for entry in self._selected(selection)][:limit]
            for entry_id in ids:
                self._remove(entry_id)
            return ids

    def evict(
        self, order: str, count: int, *, spare: int, namespace: str | None = None
    ) -> list[int]:
        with self.lock:
            self.check_open()
            entries = [e for e in self._selected(Selection(namespace=namespace)) if e.id != spare]
            ids = [entry.id for entry in sorted(entries, key=_ORDER_BY[order])[:count]]
            for entry_id in ids:
                self._remove(entry_id)
            return ids

    def _selected(self, selection: Selection) -> Iterator[Entry]:
        ids = None if selection.ids is None else set(selection.ids)
        for row in list(self._rows.values()):
            entry = row.entry
            if (
                (selection.namespace is None or entry.namespace == selection.namespace)
                and (selection.model is None or entry.model == selection.model)
                and (selection.tag is None or selection.tag in row.details.tags)
                and (ids is None or entry.id in ids)
                and (
                    selection.created_before is None or entry.created_at < selection.created_before
                )
                and (
                    selection.expired_at is None
                    or (entry.expires_at is not None and entry.expires_at <= selection.expired_at)
                )
            ):
                yield entry

    # ------------------------------------------------------------------------ catalogue

    def get_many(self, ids: Sequence[int]) -> dict[int, Entry]:
        with self.lock:
            return {i: _own(self._rows[i].entry) for i in ids if i in self._rows}

    def details(self, ids: Sequence[int]) -> dict[int, EntryDetails]:
        with self.lock:
            return {i: self._rows[i].details for i in ids if i in self._rows}

    def select(
        self,
        selection: Selection = Selection(),
        *,
        order: Order = "newest",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Entry]:
        with self.lock:
            self.check_open()
            entries = sorted(self._selected(selection), key=_ORDER_BY[order])
        return list(map(_own, entries[offset : None if limit is None else offset + limit]))

    def page_after(self, last: int, selection: Selection, limit: int) -> list[Entry]:
        with self.lock:
            later = [entry for entry in self._selected(selection) if entry.id > last]
        return list(map(_own, later[:limit]))

    def count(self, selection: Selection = Selection()) -> int:
        with self.lock:
            return sum(1 for _ in self._selected(selection))

    def groups(self) -> list[GroupSize]:
        entries: Counter[tuple[str, str]] = Counter()
        hits: Counter[tuple[str, str]] = Counter()
        with self.lock:
            for row in self._rows.values():
                key = (row.entry.namespace, row.entry.model)
                entries[key] += 1
                hits[key] += row.entry.hits
        groups = [GroupSize(*key, count, hits[key]) for key, count in entries.items()]
        return sorted(groups, key=lambda group: (-group.entries, group.namespace, group.model))

    def vectors(self) -> Iterator[tuple[int, Vector]]:
        with self.lock:
            rows = [(i, row.details.vector) for i, row in self._rows.items()]
        for entry_id, vector in rows:
            if vector is not None:
                yield entry_id, vector

    def stored_bytes(self) -> int:
        return self.totals().size

    # ------------------------------------------------------------- counters and metadata

    def add_up(self, counters: Mapping[str, float], hits: Mapping[int, tuple[int, float]]) -> None:
        with self.lock:
            self.check_open()
            for name, amount in counters.items():
                self._counters[name] += amount  # type: ignore[assignment]
            for entry_id, (count, last) in hits.items():
                if (row := self._rows.get(entry_id)) is not None:
                    row.entry = _with_hits(row.entry, count, last)

    def counters(self) -> dict[str, float]:
        with self.lock:
            return dict(self._counters)

    def meta(self, name: str) -> str | None:
        return self._meta.get(name)

    def set_meta(self, name: str, value: str) -> None:
        with self.lock:
            self._meta[name] = value

    def metas(self, prefix: str) -> dict[str, str]:
        with self.lock:
            return {
                name.removeprefix(prefix): value
                for name, value in self._meta.items()
                if name.startswith(prefix)
            }


def _with_hits(entry: Entry, count: int, last: float) -> Entry:
    """The entry after `count` hits; a sliding TTL that had not ended is extended."""
    changed: dict[str, Any] = {
        "hits": entry.hits + count,
        "last_hit_at": max(entry.last_hit_at or 0.0, last),
    }
    fresh_until = entry.expires_at if entry.stale_at is None else entry.stale_at
    if entry.sliding is not None and fresh_until is not None and last < fresh_until:
        extra = max(0.0, last + entry.sliding - fresh_until)
        changed["expires_at"] = None if entry.expires_at is None else entry.expires_at + extra
        changed["stale_at"] = None if entry.stale_at is None else entry.stale_at + extra
    return replace(entry, **changed)
