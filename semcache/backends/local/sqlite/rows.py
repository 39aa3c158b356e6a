"""Converts entries to rows of the database and back."""

from __future__ import annotations

import json
from typing import Any

from semcache.types import NO_USAGE, Completion, Entry, NewEntry, ToolCallPart, Usage

ENTRY_COLUMNS = (
    "id, exact_key, scope, namespace, model, question, text, extra, prompt_tokens,"
    " completion_tokens, cost_usd, created_at, expires_at, last_hit_at, hits, stale_at, sliding"
)


def entry_from_row(row: tuple[Any, ...]) -> Entry:
    """The entry of a row that begins with `ENTRY_COLUMNS`."""
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
