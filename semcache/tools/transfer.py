"""Exports entries to JSON Lines and imports them again.

The first line names the format and the embedder that made the vectors; every further line is an
entry, signed with a secret of the cache that wrote it. Whoever can write an export can put an
answer under any question of any scope, so a line without a signature of this cache is not trusted:
it must have the exact key of its question and the scope of its namespace and model, and its
question is embedded again. `trust=True` trusts every line.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from semcache.backends.base import Backend, Entries, EntryDetails, Metadata, Progress
from semcache.embedders.base import Embedder
from semcache.errors import EmbedderError, ReadOnlyError, RequestError
from semcache.keys.keys import KEY_VERSION, exact_key
from semcache.keys.keys import query as query_of
from semcache.keys.parse import name_of
from semcache.keys.parse import request as make_request
from semcache.tools.exported_answers import completion_of
from semcache.types import EXACT_ONLY, Entry, NewEntry, Selection

if TYPE_CHECKING:
    from semcache.types import Vector

FORMAT = "semcache-export-1"
_PAGE = 500
_SECRET = "export_secret"
_MAX_CHARS = 64 * 1024 * 1024
"""Maximum length of a line, in characters."""

EmbedderOf = Callable[[], Embedder]


def export_lines(backend: Backend, selection: Selection = Selection()) -> Iterator[str]:
    """Yield the lines of an export without line ends, oldest entry first."""
    catalogue, key = backend.catalogue, _secret(backend.metadata, create=True)
    yield json.dumps({"format": FORMAT, "embedder": backend.embedder})
    last = 0
    while page := catalogue.page_after(last, selection, _PAGE):
        details = catalogue.details([entry.id for entry in page])
        for entry in page:
            if entry.id in details:  # otherwise it has just been deleted
                fields = _entry_json(entry, details[entry.id])
                if key is not None:
                    fields["signature"] = _signature(fields, key)
                yield json.dumps(fields, ensure_ascii=False)
        last = page[-1].id


def _secret(metadata: Metadata, *, create: bool) -> bytes | None:
    """The secret with which a cache signs what it exports; None if there is none."""
    stored = metadata.meta(_SECRET)
    if stored is None and create:
        try:
            metadata.set_meta(_SECRET, secrets.token_hex(32))
        except ReadOnlyError:
            return None
        stored = metadata.meta(_SECRET)
    return None if stored is None else stored.encode()


def _signature(fields: dict[str, Any], key: bytes) -> str:
    text = json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


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


class ImportOptions(NamedTuple):
    """How lines are imported.

    Attributes:
        trust: take scopes and vectors from any file as they are.
        reembed: embed every question again.
        namespace: put all entries into this namespace; only those whose scope is a namespace, a
            model and nothing else can be moved.
        skip: if some lines cannot be imported, import the others; by default, import nothing.
    """

    trust: bool = False
    reembed: bool = False
    namespace: str | None = None
    skip: bool = False


class ImportReport(NamedTuple):
    """What became of the lines of an import.

    Attributes:
        imported: how many entries were stored.
        problems: for each other line, its number and why it was not imported.
    """

    imported: int
    problems: list[str]


def import_lines(
    lines: Callable[[], Iterable[str]],
    entries: Entries,
    embedder: EmbedderOf,
    metadata: Metadata,
    *,
    fingerprint: str | None,
    dimension: int | None = None,
    options: ImportOptions = ImportOptions(),
    progress: Progress = lambda done, total: None,  # noqa: ARG005 - no report
) -> ImportReport:
    """Store the entries of an export; each replaces a stored entry for the same request.

    All lines are checked before the first is stored.

    Args:
        lines: returns the lines from the start; called up to three times.
        embedder: returns the cache's embedder; called only if its fingerprint or new vectors
            are needed.
        metadata: the cache's metadata, which holds the secret that signs its exports.
        fingerprint: fingerprint of the cache's embedder, whose vectors are imported as they are;
            None means that of `embedder()`.
        dimension: length of those vectors; None if unknown.
        progress: called with the number of entries imported so far, and how many there are.

    Raises:
        RequestError: the file is not an export, or some lines (named in the message) cannot be
            imported; nothing was imported.
        StoreError: the backend failed.
        EmbedderError: the embedder failed.
    """
    reader = _Reader(options, _secret(metadata, create=False), dimension)
    header = _parsed(next(iter(lines()), ""), 1)
    if header.get("format") != FORMAT:
        raise RequestError(
            f"The file is not a semcache export: its first line must have format {FORMAT!r}."
        )
    source = header.get("embedder")
    usable = isinstance(source, str) and not options.reembed
    usable = usable and source == (fingerprint or embedder().fingerprint)
    found, problems = 0, list[str]()
    for _, outcome in reader.read(lines(), usable=usable):
        found += not isinstance(outcome, str)
        problems += [outcome] if isinstance(outcome, str) else []
    if problems and not options.skip:
        raise RequestError(
            f"Nothing was imported: {_listed(problems)} To import the other {found:,}, pass "
            "--skip-bad-lines."
        )
    done = 0
    for _, outcome in reader.read(lines(), usable=usable):
        if not isinstance(outcome, str):
            entry, vector = outcome
            entries.record(entry, _embedded(entry, embedder) if vector is _EMBED else vector)
            done += 1
            progress(done, found)
    return ImportReport(done, problems)


def _listed(problems: list[str], most: int = 5) -> str:
    more = len(problems) - most
    return " ".join(problems[:most]) + (f" ... and {more:,} more." if more > 0 else "")


class _Reader:
    """Reads and checks lines.

    Args:
        key: the secret of this cache's own exports.
        dimension: length of the cache's vectors; None if unknown.
    """

    def __init__(self, options: ImportOptions, key: bytes | None, dimension: int | None) -> None:
        self._options = options
        self._key = key
        self._dimension = dimension

    def read(
        self, lines: Iterable[str], *, usable: bool
    ) -> Iterator[tuple[int, str | tuple[NewEntry, _Stored]]]:
        """Yield (number, what is wrong with the line, or else its entry and vector) for each line.

        Args:
            usable: whether the vectors were made by the cache's embedder.
        """
        for number, line in enumerate(lines, start=1):
            if number == 1 or not line.strip():
                continue
            try:
                fields = _parsed(line, number)
            except RequestError as error:
                yield number, str(error)
                continue
            try:
                yield number, self._entry(fields, usable=usable)
            except Exception as error:  # the file may contain any value
                yield number, f"Line {number} is not an entry of an export: {_short(error)}."

    def _entry(self, fields: dict[str, Any], *, usable: bool) -> tuple[NewEntry, _Stored]:
        own = self._is_own(fields)
        blob, answer = fields.pop("vector", None), fields.pop("completion")
        scope, key = _key(fields.pop("scope")), _key(fields.pop("exact_key"))
        entry = NewEntry(
            exact_key=key,
            scope=scope,
            completion=completion_of(answer),
            tags=tuple(fields.pop("tags", ())),
            **fields,
        )
        if entry.key_version == 1:
            entry = replace(
                entry, exact_key=exact_key(scope, entry.question), key_version=KEY_VERSION
            )
        _check_values(entry)
        entry = self._in_its_scope(entry, trusted=own or self._options.trust)
        if entry.summary.get(EXACT_ONLY):
            return entry, None
        if not usable or not (own or self._options.trust):
            return entry, _EMBED
        return entry, None if blob is None else _vector(blob, self._dimension)

    def _is_own(self, fields: dict[str, Any]) -> bool:
        """Whether this cache wrote the line, and nobody has changed it since."""
        given = fields.pop("signature", None)
        if self._key is None or not isinstance(given, str):
            return False
        return hmac.compare_digest(given.encode(), _signature(fields, self._key).encode())

    def _in_its_scope(self, entry: NewEntry, *, trusted: bool) -> NewEntry:
        """The entry, with its key and scope checked; in another namespace, if the options say so.

        Raises:
            ValueError: the key is wrong, the entry cannot be moved, or its scope cannot be checked
                and the line is not trusted.
        """
        plain = _plain(entry, entry.namespace)
        is_plain = plain is not None and plain.scope == entry.scope
        if self._options.namespace is not None:
            moved = _plain(entry, self._options.namespace)
            if not is_plain or moved is None:
                raise ValueError(
                    "its scope is more than a namespace and a model, so it cannot be moved to "
                    "another namespace"
                )
            return moved
        if entry.question is not None and exact_key(entry.scope, entry.question) != entry.exact_key:
            raise ValueError("its exact key does not match its question")
        if is_plain or trusted:
            return entry
        raise ValueError(
            "this cache did not write the line, and whether its scope belongs to its namespace "
            "cannot be checked; if you trust the file, pass --trust"
        )


_Stored = Any
"""The vector to store with an entry: None for no vector, `_EMBED` to compute the vector first."""
_EMBED = object()


def _plain(entry: NewEntry, namespace: str) -> NewEntry | None:
    """The entry in a scope of only this namespace and its model; None if it has no question."""
    if entry.question is None:
        return None
    query = query_of(
        make_request(prompt=entry.question, model=entry.model or None, namespace=namespace)
    )
    return replace(entry, namespace=namespace, scope=query.scope.digest, exact_key=query.exact_key)


def _parsed(line: str, number: int) -> dict[str, Any]:
    if len(line) > _MAX_CHARS:
        raise RequestError(f"Line {number} is longer than {_MAX_CHARS:,} characters.")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"Line {number} is not UTF-8, at character {error.start}.") from None
    try:
        value = json.loads(line, parse_constant=_not_json)
    except ValueError as error:
        raise RequestError(f"Line {number} is not JSON: {_short(error)}.") from None
    except RecursionError:
        raise RequestError(f"Line {number} is nested too deeply.") from None
    if not isinstance(value, dict):
        raise RequestError(f"Line {number} is not a JSON object.")
    return value


def _not_json(name: str) -> Any:
    raise ValueError(f"{name} is not valid in JSON")


def _short(error: Exception) -> str:
    text = str(error).removesuffix(".") or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text if len(text) <= 200 else text[:199] + "…"


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
    "summary": dict,
}
_DATES = ("created_at", "expires_at", "stale_at", "last_hit_at")
_LATEST = 253_402_300_799.0
"""The end of the year 9999, in seconds since 1970."""


def _check_values(entry: NewEntry) -> None:
    for name, kind in _TYPES.items():
        value = getattr(entry, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name} has the wrong type: {value!r:.50}")
    for name in (*_DATES, "sliding"):
        value = getattr(entry, name)
        if value is not None and not (math.isfinite(value) and 0 <= value <= _LATEST):
            raise ValueError(f"{name} is {value!r:.50}, which is not a time")
    if entry.created_at > time.time() + 86_400:
        raise ValueError("created_at is in the future")
    if entry.key_version != KEY_VERSION:
        raise ValueError(f"key_version is {entry.key_version}, which this version cannot read")
    if entry.hits < 0:
        raise ValueError("hits is negative")
    names = [("namespace", entry.namespace), ("model", entry.model)]
    for what, value in (*names, *(("tag", tag) for tag in entry.tags)):
        if value != "" and name_of(value, what, "") != value:
            raise ValueError(f"{what} {value!r:.50} is not in its normal form")
    if not entry.namespace:
        raise ValueError("namespace is empty")


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError(f"a key must have 32 bytes, not {len(key)}")
    return key


def _vector(blob: str, dimension: int | None) -> Vector:
    import numpy as np

    from semcache.embedders.vectors import unit_rows

    raw = np.frombuffer(base64.b64decode(blob, validate=True), np.float32)
    try:
        vector: Vector = unit_rows(raw[None], 1, dimension, "the export")[0]
    except EmbedderError as error:
        raise ValueError(str(error)) from None
    return vector


def _embedded(entry: NewEntry, embedder: EmbedderOf) -> Vector | None:
    """The vector of an entry's question; None if it has no question, or one that is too long."""
    if entry.question is None:
        return None
    model = embedder()
    if model.window is not None and model.count_tokens(entry.question) > model.window:
        return None  # the vector of a truncated question stands for a different one
    vector: Vector = model.embed([entry.question])[0]
    return vector
