"""Converts entries to rows of the database and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from semcache.errors import StoreError
from semcache.types import NO_USAGE, Completion, Entry, NewEntry, Selection, ToolCallPart, Usage

logger = logging.getLogger("semcache")

ENTRY_COLUMNS = (
    "id, exact_key, scope, namespace, model, question, text, extra, prompt_tokens,"
    " completion_tokens, cost_usd, created_at, expires_at, last_hit_at, hits, stale_at, sliding"
)


_TEXT: frozenset[type] = frozenset({str})
_BLOB: frozenset[type] = frozenset({bytes})
_INTEGER: frozenset[type] = frozenset({int})
_REAL: frozenset[type] = frozenset({float, int})
_OPTIONAL: frozenset[type] = frozenset({type(None)})
COLUMNS: tuple[tuple[str, frozenset[type]], ...] = (
    ("id", _INTEGER),
    ("exact_key", _BLOB),
    ("scope", _BLOB),
    ("namespace", _TEXT),
    ("model", _TEXT),
    ("question", _TEXT | _OPTIONAL),
    ("text", _TEXT),
    ("extra", _TEXT | _OPTIONAL),
    ("prompt_tokens", _INTEGER | _OPTIONAL),
    ("completion_tokens", _INTEGER | _OPTIONAL),
    ("cost_usd", _REAL | _OPTIONAL),
    ("created_at", _REAL),
    ("expires_at", _REAL | _OPTIONAL),
    ("last_hit_at", _REAL | _OPTIONAL),
    ("hits", _INTEGER),
    ("stale_at", _REAL | _OPTIONAL),
    ("sliding", _REAL | _OPTIONAL),
)
"""The columns of an entry, and the types that their values may have."""
_sound: set[tuple[type, ...]] = set()
"""Combinations of column types that have passed the check already."""


def _check(row: tuple[Any, ...]) -> None:
    """Raise `DamagedRowError` if a value has a type that its column never holds."""
    types = tuple(map(type, row))
    if types in _sound:
        return
    for (name, allowed), found in zip(COLUMNS, types, strict=True):
        if found not in allowed:
            raise DamagedRowError(row[0], f"its {name} has the type {found.__name__}")
    _sound.add(types)


class DamagedRowError(StoreError):
    """A row of the database does not hold a valid entry."""

    def __init__(self, entry_id: Any, reason: str) -> None:
        super().__init__(
            f"Entry {entry_id!r:.20} is damaged: {reason}. `semcache check --fix` deletes such "
            "entries."
        )


def entries_from_rows(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Entry, tuple[Any, ...]]]:
    """(entry, row) of each row; damaged ones are left out, with a warning in the log."""
    for row in rows:
        try:
            yield entry_from_row(row), row
        except DamagedRowError as error:
            logger.warning("%s", error)


def entry_from_row(row: tuple[Any, ...]) -> Entry:
    """The entry of a row that begins with `ENTRY_COLUMNS`.

    Raises:
        DamagedRowError: the row does not hold a valid entry.
    """
    _check(row[:17])
    try:
        return _entry(row)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedRowError(
            row[0], f"its answer cannot be read ({type(error).__name__})"
        ) from None


def _entry(row: tuple[Any, ...]) -> Entry:
    (entry_id, key, scope, namespace, model, question, text, extra, *usage) = row[:11]
    return Entry(
        entry_id,
        key,
        scope,
        namespace,
        model,
        question,
        completion_from_columns(text, extra, *usage),
        *row[11:17],
    )


def summary_of(stored: Any) -> dict[str, Any]:
    """The summary of a request; {} if it cannot be read, since it is for people only."""
    try:
        summary = json.loads(stored)
    except (ValueError, TypeError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def completion_from_columns(
    text: str,
    extra: str | None,
    prompt_tokens: int | None,
    completion_tokens: int | None,
    cost_usd: float | None,
) -> Completion:
    if prompt_tokens is None and completion_tokens is None and cost_usd is None:
        usage = NO_USAGE
    else:
        usage = Usage(prompt_tokens, completion_tokens, cost_usd)
    if extra is None:
        return Completion(text, usage=usage)
    fields = json.loads(extra)
    calls = tuple(ToolCallPart(*call) for call in fields.pop("tool_calls", ()))
    return Completion(text, usage=usage, tool_calls=calls, **fields)


def completion_extra(completion: Completion) -> str | None:
    """The fields of a completion besides text and usage, as JSON; None if there are none."""
    extra = {
        name: value
        for name in (
            "finish_reason",
            "provider",
            "model",
            "has_tool_calls",
            "payload",
            "payload_kind",
        )
        if (value := getattr(completion, name)) not in (None, False)
        or (name == "payload" and completion.payload_kind is not None)
    }
    if completion.tool_calls:
        extra["tool_calls"] = [
            [call.id, call.name, call.arguments] for call in completion.tool_calls
        ]
    return json.dumps(extra, ensure_ascii=False, separators=(",", ":")) if extra else None


def row_from_entry(entry: NewEntry) -> dict[str, Any]:
    """The row to insert for an entry. `bytes` is the size of its texts."""
    completion = entry.completion
    summary = json.dumps(entry.summary, ensure_ascii=False, separators=(",", ":"))
    extra = completion_extra(completion)
    texts = (summary, completion.text, extra or "", entry.question or "")
    return {
        "exact_key": entry.exact_key,
        "scope": entry.scope,
        "namespace": entry.namespace,
        "model": entry.model,
        "question": entry.question,
        "summary": summary,
        "text": completion.text,
        "extra": extra,
        "prompt_tokens": completion.usage.prompt_tokens,
        "completion_tokens": completion.usage.completion_tokens,
        "cost_usd": completion.usage.cost_usd,
        "key_version": entry.key_version,
        "created_at": entry.created_at,
        "expires_at": entry.expires_at,
        "last_hit_at": entry.last_hit_at,
        "hits": entry.hits,
        "stale_at": entry.stale_at,
        "sliding": entry.sliding,
        "bytes": sum(len(t.encode()) for t in texts),
    }


def condition(selection: Selection) -> tuple[str, list[Any]]:
    """A selection as a SQL condition and its values."""
    conditions: list[str] = ["1"]
    values: list[Any] = []
    for column in ("namespace", "model"):
        if (value := getattr(selection, column)) is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if selection.tag is not None:
        conditions.append("id IN (SELECT entry_id FROM tags WHERE tag = ?)")
        values.append(selection.tag)
    if selection.ids is not None:
        conditions.append(f"id IN ({','.join(str(int(i)) for i in selection.ids)})")
    if selection.created_before is not None:
        conditions.append("created_at < ?")
        values.append(selection.created_before)
    if selection.expired_at is not None:
        conditions.append("expires_at <= ?")
        values.append(selection.expired_at)
    return " AND ".join(conditions), values
