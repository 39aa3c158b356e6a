"""Entries to JSON Lines and back.

The first line says what the file is and which embedder made its vectors; then each
line is an entry. Vectors travel along (base64 of float32), so that a cache with the
same embedder takes the file without embedding anything; another embeds anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from semcache.backends.local.repository import Repository
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.backends.vectors import decoded
from semcache.embedders.base import Embedder
from semcache.errors import EmbedderError, RequestError
from semcache.types import Completion, Entry, NewEntry, Selection, Usage

if TYPE_CHECKING:
    from semcache.types import Vector

FORMAT = "semcache-export-1"
_PAGE = 500


def export_lines(store: SQLiteStore, selection: Selection = Selection()) -> Iterator[str]:
    """The lines of an export, oldest entry first, without their line ends."""
    header = {"format": FORMAT, "embedder": store.meta("fingerprint")}
    yield json.dumps(header)
    last = 0
    while page := store.page_after(last, selection, _PAGE):
        for entry in page:
            yield json.dumps(_entry_json(store, entry), ensure_ascii=False)
        last = page[-1].id


def _entry_json(store: SQLiteStore, entry: Entry) -> dict[str, Any]:
    vector = store.vectors([entry.id]).get(entry.id)
    if vector is not None:
        dimension = int(store.meta("dimension") or 0)
        vector = decoded([vector], dimension).tobytes()
    return {
        "exact_key": entry.exact_key.hex(),
        "scope": entry.scope.hex(),
        "namespace": entry.namespace,
        "model": entry.model,
        "question": entry.question,
        "summary": json.loads(store.summary(entry.id)),
        "completion": asdict(entry.completion),
        "key_version": store.key_version(entry.id),
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
        "stale_at": entry.stale_at,
        "sliding": entry.sliding,
        "last_hit_at": entry.last_hit_at,
        "hits": entry.hits,
        "tags": list(store.tags(entry.id)),
        "vector": None if vector is None else base64.b64encode(vector).decode(),
    }


def import_lines(
    lines: Iterable[str],
    repository: Repository[Any],
    embedder: Callable[[], Embedder],
    progress: Callable[[int], None] = lambda done: None,  # noqa: ARG005 - says nothing
) -> int:
    """Store the entries of an export, each in place of one for the same request.

    Args:
        embedder: asked for only where vectors must be made anew.
        progress: told how many entries are in.

    Raises:
        RequestError: a line is not what it should be; names it. The entries before it are in.
        StoreError, EmbedderError: a part failed.
    """
    numbered = enumerate(lines, start=1)
    number, first = next(numbered, (0, ""))
    header = _parsed(first, number)
    if header.get("format") != FORMAT:
        raise RequestError(
            f"The file is no export of semcache: its first line must say format {FORMAT!r}."
        )
    usable = repository.accepts(header.get("embedder"))
    done = 0
    for number, line in numbered:
        if line.strip():
            _import(_parsed(line, number), number, repository, None if usable else embedder)
            done += 1
            progress(done)
    return done


class _VectorError(Exception):
    """A vector in the file cannot be used."""


def _parsed(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise RequestError(f"Line {number} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise RequestError(f"Line {number} is not a JSON object.")
    return value


def _import(
    fields: dict[str, Any],
    number: int,
    repository: Repository[Any],
    embedder: Callable[[], Embedder] | None,
) -> None:
    try:
        blob = fields.pop("vector", None)
        answer = fields.pop("completion")
        entry = NewEntry(
            exact_key=_key(fields.pop("exact_key")),
            scope=_key(fields.pop("scope")),
            completion=Completion(**{**answer, "usage": Usage(**answer["usage"])}),
            tags=tuple(fields.pop("tags", ())),
            **fields,
        )
        dimension = int(repository.store.meta("dimension") or 0) or None
        vector = None if blob is None else _vector(entry, blob, embedder, dimension)
        _check_types(entry)
    except (KeyError, TypeError, ValueError, AttributeError, _VectorError) as error:
        raise RequestError(f"Line {number} is no entry of an export: {error!r}.") from None
    repository.record(entry, vector)


_TYPES: dict[str, Any] = {
    "namespace": str,
    "model": str,
    "question": str | None,
    "key_version": int,
    "created_at": int | float,
    "expires_at": int | float | None,
    "stale_at": int | float | None,
    "sliding": int | float | None,
    "last_hit_at": int | float | None,
    "hits": int,
}


def _check_types(entry: NewEntry) -> None:
    for name, kind in _TYPES.items():
        if not isinstance(getattr(entry, name), kind):
            raise TypeError(f"{name} is {getattr(entry, name)!r}")
    if not isinstance(entry.completion.text, str):
        raise TypeError(f"the answer's text is {entry.completion.text!r}")
    if not all(isinstance(tag, str) for tag in entry.tags):
        raise TypeError(f"tags are {entry.tags!r}")


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    return key


def _vector(
    entry: NewEntry, blob: str, embedder: Callable[[], Embedder] | None, dimension: int | None
) -> Vector | None:
    import numpy as np

    if embedder is None:
        from semcache.embedders.vectors import unit_rows

        raw = np.frombuffer(base64.b64decode(blob, validate=True), np.float32)
        try:
            found: Vector = unit_rows(raw[None], 1, dimension, "the export")[0]
        except EmbedderError as error:
            raise _VectorError(str(error)) from None
        return found
    chosen, question = embedder(), entry.question or ""
    if chosen.window is not None and chosen.count_tokens(question) > chosen.window:
        return None  # cut short it would be another question's vector
    vector: Vector = chosen.embed([question])[0]
    return vector
