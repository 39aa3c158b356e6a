"""Logs of calls to models, in the forms that people have them in.

One JSON object a line (gzip or not), or one JSON list. A record is told by its fields:

- `{"prompt": ..., "response": ...}`, with whatever else a request has;
- OpenAI's request and response: `{"request": {...}, "response": {...}}`, or a batch's `body`;
- LiteLLM's standard logging payload: `messages`, `response`, `response_cost`, `startTime`;
- Langfuse's observations of type GENERATION: `input`, `output`, `usage`, `calculatedTotalCost`.

An `answer_id` stands for the answer itself: equal ids, the same answer.

Sources: OpenAI API reference; LiteLLM docs, "StandardLoggingPayload"; Langfuse docs, "Export".
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from semcache.errors import RequestError
from semcache.keys.parse import request
from semcache.providers.answers import mapping, usage_of
from semcache.providers.reading import read_answer
from semcache.types import Completion, Request, Usage

_FIELDS = ("system", "model", "namespace", "params", "tools", "response_format", "tags")
_NOT_PARAMS = frozenset(
    {
        "messages",
        "model",
        "tools",
        "response_format",
        "stream",
        "stream_options",
        "metadata",
        "user",
    }
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a log.

    Attributes:
        number: of its line or its place, from 1. at: seconds since the epoch, if it is known.
        completion: the answer, with its usage as far as the log tells it.
        answer_id: what somebody calls this answer, if the log says it.
    """

    number: int
    request: Request
    completion: Completion
    at: float | None
    answer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A record that could not be used, and why."""

    number: int
    reason: str


def read_log(path: Path) -> Iterator[Call | Unread]:
    """The calls of a log, in its order.

    Raises:
        OSError: it cannot be read.
    """
    for number, record in _records(path):
        try:
            yield _call(number, record)
        except (RequestError, ValueError, TypeError, AttributeError) as error:
            yield Unread(number, str(error))


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as file:
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        if first == "[":
            try:
                whole = json.loads(first + file.read())
            except ValueError as error:
                raise RequestError(f"{path} begins as a JSON list and is none: {error}") from None
            yield from enumerate(whole, 1)
            return
        for number, line in enumerate(file, 1):
            text = first + line if number == 1 else line
            if text.strip():
                yield number, _parsed(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        return error


def _call(number: int, record: Any) -> Call:
    if isinstance(record, ValueError):
        raise ValueError(f"it is no JSON: {record}")
    if not isinstance(record, Mapping):
        raise ValueError("it is no JSON object")
    asked, answered = _asked(record), _answered(record)
    if answered is None:
        raise ValueError("it holds no answer (response, output)")
    usage = _usage(record, answered.usage)
    moment = next(
        (
            record[n]
            for n in ("startTime", "start_time", "timestamp", "created_at", "t")
            if record.get(n)
        ),
        None,
    )
    completion = replace(answered, usage=usage, model=answered.model or asked.model or None)
    answer_id = record.get("answer_id")
    named = None if answer_id is None else str(answer_id)
    return Call(number, asked, completion, _seconds(moment), named)


def _asked(record: Mapping[str, Any]) -> Request:
    body = mapping(record.get("request")) or mapping(record.get("body"))
    if body:  # OpenAI's own
        fields = {
            k: v for k, v in body.items() if k in ("messages", "model", "tools", "response_format")
        }
        fields["params"] = {k: v for k, v in body.items() if k not in _NOT_PARAMS}
        return request(**fields, namespace=record.get("namespace") or record.get("tenant"))
    given = record.get("prompt", record.get("messages", record.get("input")))
    inner = mapping(given)
    if "messages" in inner:  # Langfuse keeps the whole input
        given = inner["messages"]
    fields = {name: record[name] for name in _FIELDS if record.get(name) is not None}
    fields["namespace"] = fields.get("namespace") or record.get("tenant")
    if not fields.get("params"):
        parameters = mapping(record.get("model_parameters")) or mapping(
            record.get("modelParameters")
        )
        fields["params"] = {k: v for k, v in parameters.items() if k not in _NOT_PARAMS}
    if isinstance(given, str):
        return request(given, **fields)
    if isinstance(given, list):
        return request(messages=given, **fields)
    if given is None:
        raise ValueError("it holds no prompt (prompt, messages, input, request)")
    raise ValueError(f"its prompt is a {type(given).__name__}, not text or messages")


def _answered(record: Mapping[str, Any]) -> Completion | None:
    names = ("response", "output", "answer", "completion")
    found = next((record[name] for name in names if record.get(name)), None)
    if found is None and record.get("answer_id") is not None:
        return Completion(str(record["answer_id"]))
    if isinstance(found, str):
        return Completion(found)
    if not isinstance(found, Mapping):
        return None
    if isinstance(found.get("body"), Mapping):  # a line of a batch's results
        found = found["body"]
    answer = read_answer(found)
    if answer is None and isinstance(found.get("content"), str):  # one message
        answer = Completion(found["content"])
    return answer


def _usage(record: Mapping[str, Any], known: Usage) -> Usage:
    counts = {**mapping(record.get("usage")), **mapping(record.get("usageDetails")), **record}
    told = usage_of(
        counts.get("prompt_tokens", counts.get("promptTokens", counts.get("input_tokens"))),
        counts.get(
            "completion_tokens", counts.get("completionTokens", counts.get("output_tokens"))
        ),
    )
    if told.prompt_tokens is None and isinstance(mapping(record.get("usage")).get("input"), int):
        told = usage_of(record["usage"].get("input"), record["usage"].get("output"))
    names = ("response_cost", "cost_usd", "calculatedTotalCost", "totalCost", "cost")
    cost = next((record[n] for n in names if isinstance(record.get(n), int | float)), None)
    return Usage(
        known.prompt_tokens if known.prompt_tokens is not None else told.prompt_tokens,
        known.completion_tokens if known.completion_tokens is not None else told.completion_tokens,
        None if cost is None else float(cost),
        known.cached_tokens,
        known.cache_write_tokens,
    )


def _seconds(moment: Any) -> float | None:
    if isinstance(moment, int | float):
        return float(moment) / (1000 if moment > 1e11 else 1)
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return None
