"""Exports entries to JSON Lines and imports them again.

The first line names the format and the embedder that made the vectors; every further line is
an entry. Vectors are included (base64 of float32), so that a cache with the same embedder
imports the file without embedding anything; any other cache embeds the questions again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from semcache.backends.base import Backend, Entries, EntryDetails, Progress
from semcache.embedders.base import Embedder
from semcache.errors import EmbedderError, RequestError
from semcache.keys.keys import KEY_VERSION, exact_key
from semcache.types import Completion, Entry, NewEntry, Selection, Usage

if TYPE_CHECKING:
    from semcache.types import Vector

FORMAT = "semcache-export-1"
_PAGE = 500

EmbedderOf = Callable[[], Embedder]


def export_lines(backend: Backend, selection: Selection = Selection()) -> Iterator[str]:
    """Yield the lines of an export without line ends, oldest entry first."""
    catalogue = backend.catalogue
    yield json.dumps({"format": FORMAT, "embedder": backend.embedder})
    last = 0
    while page := catalogue.page_after(last, selection, _PAGE):
        details = catalogue.details([entry.id for entry in page])
        for entry in page:
            if entry.id in details:  # otherwise it has just been deleted
                yield json.dumps(_entry_json(entry, details[entry.id]), ensure_ascii=False)
        last = page[-1].id


def _entry_json(entry: Entry, details: EntryDetails) -> dict[str, Any]:
    vector = details.vector
    return {
        "exact_key": entry.exact_key.hex(),
        "scope": entry.scope.hex(),
        "namespace": entry.namespace,
        "model": entry.model,
        "question": entry.question,
        "summary": details.summary,
        "completion": asdict(entry.completion),
        "key_version": details.key_version,
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
        "stale_at": entry.stale_at,
        "sliding": entry.sliding,
        "last_hit_at": entry.last_hit_at,
        "hits": entry.hits,
        "tags": list(details.tags),
        "vector": None if vector is None else base64.b64encode(vector.tobytes()).decode(),
    }


def import_lines(
    lines: Iterable[str],
    entries: Entries,
    embedder: EmbedderOf,
    *,
    fingerprint: str | None,
    dimension: int | None = None,
    progress: Progress = lambda done, total: None,  # noqa: ARG005 - no report
) -> int:
    """Store the entries of an export; each replaces a stored entry for the same request.

    Args:
        embedder: returns the cache's embedder; called only if its fingerprint or new vectors
            are needed.
        fingerprint: fingerprint of the cache's embedder, whose vectors are imported as they are;
            None means that of `embedder()`.
        dimension: length of those vectors; None if unknown.
        progress: called with the number of entries imported so far, and 0 as the total, which
            is unknown.

    Returns:
        The number of entries imported.

    Raises:
        RequestError: a line is malformed; the message names the line. The entries before it
            have been imported.
        StoreError: the backend failed.
        EmbedderError: the embedder failed.
    """
    numbered = enumerate(lines, start=1)
    number, first = next(numbered, (0, ""))
    header = _parsed(first, number)
    if header.get("format") != FORMAT:
        raise RequestError(
            f"The file is not a semcache export: its first line must have format {FORMAT!r}."
        )
    source = header.get("embedder")
    usable = source is not None and source == (fingerprint or embedder().fingerprint)
    done = 0
    for number, line in numbered:
        if line.strip():
            fields = _parsed(line, number)
            _import(fields, number, entries, None if usable else embedder, dimension)
            done += 1
            progress(done, 0)
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
    entries: Entries,
    embedder: EmbedderOf | None,
    dimension: int | None,
) -> None:
    try:
        blob = fields.pop("vector", None)
        answer = fields.pop("completion")
        scope, key = _key(fields.pop("scope")), _key(fields.pop("exact_key"))
        if fields["key_version"] == 1:
            key, fields["key_version"] = exact_key(scope, fields["question"]), KEY_VERSION
        entry = NewEntry(
            exact_key=key,
            scope=scope,
            completion=Completion(**{**answer, "usage": Usage(**answer["usage"])}),
            tags=tuple(fields.pop("tags", ())),
            **fields,
        )
        vector = None if blob is None else _vector(entry, blob, embedder, dimension)
        _check_types(entry)
    except (KeyError, TypeError, ValueError, AttributeError, _VectorError) as error:
        raise RequestError(f"Line {number} is not an entry of an export: {error!r}.") from None
    entries.record(entry, vector)


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
            raise TypeError(f"{name} has the wrong type: {getattr(entry, name)!r}")
    if not isinstance(entry.completion.text, str):
        raise TypeError(f"the answer's text is not a string: {entry.completion.text!r}")
    if not all(isinstance(tag, str) for tag in entry.tags):
        raise TypeError(f"tags are not all strings: {entry.tags!r}")


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError(f"a key must have 32 bytes, not {len(key)}")
    return key


def _vector(
    entry: NewEntry, blob: str, embedder: EmbedderOf | None, dimension: int | None
) -> Vector | None:
    import numpy as np

    if embedder is None:
        from semcache.embedders.vectors import unit_rows

        raw = np.frombuffer(base64.b64decode(blob, validate=True), np.float32)
        try:
            imported: Vector = unit_rows(raw[None], 1, dimension, "the export")[0]
        except EmbedderError as error:
            raise _VectorError(str(error)) from None
        return imported
    model, question = embedder(), entry.question or ""
    if model.window is not None and model.count_tokens(question) > model.window:
        return None  # truncated, the vector would stand for a different question
    vector: Vector = model.embed([question])[0]
    return vector
