"""Reads logs of model calls in the usual formats.

A log is JSON Lines (optionally gzipped) or one JSON list. The format of a record is recognised
by its fields:

- `{"prompt": ..., "response": ...}`, with any other fields of a request;
- OpenAI's request and response: `{"request": {...}, "response": {...}}`, or a batch's `body`;
- LiteLLM's standard logging payload: `messages`, `response`, `response_cost`, `startTime`;
- Langfuse observations of type GENERATION: `input`, `output`, `usage`, `calculatedTotalCost`;
- the output of `semcache batch`: `request`, with `answer` or `response`.

Where answers are not needed, a record may have only a prompt, and a line may be the prompt itself.

An `answer_id` identifies the answer: records with equal ids have the same answer. If a record
has no answer text, its id stands for the text.

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
    """One call from a log.

    Attributes:
        number: line number, or position in the JSON list, from 1.
        completion: the answer, with its usage as far as the log gives it.
        at: time of the call in seconds since the epoch; None if unknown.
        answer_id: identifier of the answer; None if the log has none.
        answered: whether the log has the answer; if not, `completion` is a placeholder.
    """

    number: int
    request: Request
    completion: Completion
    at: float | None
    answer_id: str | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Unread:
    """A record that could not be read, and why."""

    number: int
    reason: str


def read_log(path: Path, *, need_answers: bool = True) -> Iterator[Call | Unread]:
    """Yield the calls of a log in order, and an `Unread` for each record that is unusable.

    Args:
        need_answers: whether a record without an answer is unusable.

    Raises:
        OSError: the file cannot be read.
        RequestError: the file starts as a JSON list but is not valid JSON.
    """
    for number, record in _records(path):
        try:
            yield _call(number, record, need_answers=need_answers)
        except (RequestError, ValueError, TypeError, AttributeError) as error:
            yield Unread(number, str(error))


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    open_file: Any = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rt", encoding="utf-8", errors="replace") as file:
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        if first == "[":
            try:
                whole = json.loads(first + file.read())
            except ValueError as error:
                raise RequestError(
                    f"{path} starts as a JSON list but is not valid JSON: {error}"
                ) from None
            yield from enumerate(whole, 1)
            return
        for number, line in enumerate(file, 1):
            text = first + line if number == 1 else line
            if text.strip():
                yield number, _parsed(text)


def _parsed(text: str) -> Any:
    """A line as JSON; an error if it looks like JSON and is not; else the text itself."""
    try:
        return json.loads(text)
    except ValueError as error:
        return error if text.lstrip().startswith(("{", "[")) else text.strip()


def _call(number: int, record: Any, *, need_answers: bool) -> Call:
    if isinstance(record, str) and not need_answers:
        record = {"prompt": record}
    if isinstance(record, ValueError):
        raise ValueError(f"not valid JSON: {record}")
    if not isinstance(record, Mapping):
        raise ValueError("not a JSON object, so it has no answer")
    call_request, answer = _request(record), _answer(record)
    answered = answer is not None
    if answer is None:
        if need_answers:
            raise ValueError("no answer (response, output, answer, completion, answer_id)")
        answer = Completion(f"(the answer to record {number})")
    usage = _usage(record, answer.usage)
    timestamp = next(
        (
            record[n]
            for n in ("startTime", "start_time", "timestamp", "created_at", "t")
            if record.get(n)
        ),
        None,
    )
    completion = replace(answer, usage=usage, model=answer.model or call_request.model or None)
    answer_id = None if record.get("answer_id") is None else str(record["answer_id"])
    return Call(number, call_request, completion, _seconds(timestamp), answer_id, answered)


def _request(record: Mapping[str, Any]) -> Request:
    body = mapping(record.get("request")) or mapping(record.get("body"))
    if "prompt" in body:  # from `semcache batch`, whose `model` is the one that answered
        record = {**{k: v for k, v in record.items() if k != "model"}, **body}
    elif body:  # OpenAI's format
        fields = {
            k: v for k, v in body.items() if k in ("messages", "model", "tools", "response_format")
        }
        fields["params"] = {k: v for k, v in body.items() if k not in _NOT_PARAMS}
        return request(**fields, namespace=record.get("namespace") or record.get("tenant"))
    prompt = record.get("prompt", record.get("messages", record.get("input")))
    inner = mapping(prompt)
    if "messages" in inner:  # Langfuse logs the whole request as the input
        prompt = inner["messages"]
    fields = {name: record[name] for name in _FIELDS if record.get(name) is not None}
    fields["namespace"] = fields.get("namespace") or record.get("tenant")
    if not fields.get("params"):
        parameters = mapping(record.get("model_parameters")) or mapping(
            record.get("modelParameters")
        )
        fields["params"] = {k: v for k, v in parameters.items() if k not in _NOT_PARAMS}
    if isinstance(prompt, str):
        return request(prompt, **fields)
    if isinstance(prompt, list):
        return request(messages=prompt, **fields)
    if prompt is None:
        raise ValueError("no prompt (prompt, messages, input, request)")
    raise ValueError(f"the prompt is of type {type(prompt).__name__}, not text or messages")


def _answer(record: Mapping[str, Any]) -> Completion | None:
    names = ("response", "output", "answer", "completion")
    response = next((record[name] for name in names if record.get(name)), None)
    if response is None and record.get("answer_id") is not None:
        return Completion(str(record["answer_id"]))
    if isinstance(response, str):
        return Completion(response)
    if not isinstance(response, Mapping):
        return None
    if isinstance(response.get("body"), Mapping):  # a line of a batch's results
        response = response["body"]
    answer = read_answer(response)
    if answer is None and isinstance(response.get("content"), str):  # one message
        answer = Completion(response["content"])
    return answer


def _usage(record: Mapping[str, Any], known: Usage) -> Usage:
    counts = {**mapping(record.get("usage")), **mapping(record.get("usageDetails")), **record}
    logged = usage_of(
        counts.get("prompt_tokens", counts.get("promptTokens", counts.get("input_tokens"))),
        counts.get(
            "completion_tokens", counts.get("completionTokens", counts.get("output_tokens"))
        ),
    )
    if logged.prompt_tokens is None and isinstance(mapping(record.get("usage")).get("input"), int):
        logged = usage_of(record["usage"].get("input"), record["usage"].get("output"))
    names = ("response_cost", "cost_usd", "calculatedTotalCost", "totalCost", "cost")
    cost = next((record[n] for n in names if isinstance(record.get(n), int | float)), None)
    return Usage(
        known.prompt_tokens if known.prompt_tokens is not None else logged.prompt_tokens,
        known.completion_tokens
        if known.completion_tokens is not None
        else logged.completion_tokens,
        None if cost is None else float(cost),
        known.cached_tokens,
        known.cache_write_tokens,
    )


def _seconds(timestamp: Any) -> float | None:
    if isinstance(timestamp, int | float):  # above 1e11 it must be in milliseconds
        return float(timestamp) / (1000 if timestamp > 1e11 else 1)
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return None
