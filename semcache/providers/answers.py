"""Shared parts of reading answers: finish reasons, usage, and assembling streamed answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from semcache.errors import ProviderError, UnavailableError
from semcache.providers.http_messages import ServerEvent
from semcache.types import NO_USAGE, UNFINISHED, Completion, ToolCallPart, Usage

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "complete": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "word": "stop",
    "finish": "stop",
    "stop_criteria_met": "stop",
    "length_capped": "length",
    "token_limit": "length",
    "time_limit": "length",
    "not_finished": "length",
    "limit": "length",
    "max_tokens": "length",
    "incomplete": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "tool-calls": "tool_calls",
    "content_filtered": "content_filter",
    "content-filter": "content_filter",
    "guardrail_intervened": "content_filter",
    "error_toxic": "content_filter",
    "error_limit": "length",
    "timeout": "length",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
}


def finish_reason(value: Any) -> str | None:
    """A provider's finish reason as OpenAI names it; in lower case if OpenAI has no name for it."""
    if value is None:
        return None
    reason = str(getattr(value, "value", value)).lower()
    return _REASONS.get(reason, reason)


def is_finish_reason(value: Any) -> bool:
    """Whether this is a finish reason of some provider."""
    reason = finish_reason(value)
    return reason in _KNOWN


_KNOWN = frozenset({*_REASONS.values(), "error", "function_call", "none", "null"})


def combined_reason(reasons: Iterable[str | None]) -> str:
    """The finish reason of an answer with these choices.

    It is `UNFINISHED` if any choice lacks a reason, and "stop" only if all of them stopped.
    """
    known = [UNFINISHED if reason is None else reason for reason in reasons]
    if not known or UNFINISHED in known:
        return UNFINISHED
    return next((reason for reason in known if reason != "stop"), "stop")


def usage_of(
    prompt: Any,
    completion: Any,
    cached: Any = None,
    cache_write: Any = None,
) -> Usage:
    """The `Usage` with these token counts; values that are not integers count as unknown."""
    counts = [
        value if isinstance(value, int) and not isinstance(value, bool) else None
        for value in (prompt, completion, cached, cache_write)
    ]
    if counts[0] is None and counts[1] is None:
        return NO_USAGE
    return Usage(counts[0], counts[1], None, counts[2], counts[3])


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def parse_arguments(arguments: Any) -> Any:
    """A tool call's arguments, parsed from JSON; text that is not JSON is returned as it is."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool call in a stream; `arguments` is JSON text, or the whole value.

    Without an index, an id starts the next call, and a piece without an id continues the
    last one.
    """

    index: int | None
    id: str = ""
    name: str = ""
    arguments: Any = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream adds to the answer.

    Attributes:
        finish_reason: of the first choice, or of the answer.
        choices: the index and finish reason of every choice in the event, for formats with
            several choices; the reason is None while a choice goes on.
        ends: whether the answer is complete with this event.
        last: whether this is the last event of the stream.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    model: str | None = None
    tools: tuple[ToolDelta, ...] = ()
    choices: tuple[tuple[int, str | None], ...] = ()
    ends: bool = False
    last: bool = False


class StreamedAnswer:
    """The answer that the deltas of a stream add up to.

    Attributes:
        complete: whether the answer is complete.
        at_end: whether the last event of the stream has been added.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reason: str | None = None
        self._usage = NO_USAGE
        self._model: str | None = None
        self._tools: dict[int, list[Any]] = {}
        self._choices: dict[int, str | None] = {}
        self.complete = False
        self.at_end = False

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reason = delta.finish_reason or self._reason
        for choice, reason in delta.choices:
            if self._choices.get(choice) in (None, "stop"):  # any reason but "stop" is final
                self._choices[choice] = reason or self._choices.get(choice)
        self._usage = _merged(self._usage, delta.usage)
        self._model = delta.model or self._model
        self.complete = self.complete or delta.ends
        self.at_end = self.at_end or delta.last
        for piece in delta.tools:
            index = piece.index
            if index is None:
                last = max(self._tools, default=-1)
                starts_call = bool(piece.id) or last < 0
                index = last + 1 if starts_call else last
            if index not in self._tools and not (piece.id or piece.name):
                continue  # input of a tool that the server calls itself
            call = self._tools.setdefault(index, ["", "", ""])
            call[0] = piece.id or call[0]
            call[1] = piece.name or call[1]
            if not isinstance(piece.arguments, str):
                call[2] = piece.arguments
            elif piece.arguments:
                call[2] = (call[2] if isinstance(call[2], str) else "") + piece.arguments

    def completion(self) -> Completion:
        calls = tuple(
            ToolCallPart(call[0], call[1], parse_arguments(call[2]))
            for _, call in sorted(self._tools.items())
        )
        return Completion(
            "".join(self._text),
            finish_reason=combined_reason(self._choices.values())
            if self._choices
            else self._reason,
            usage=self._usage,
            model=self._model,
            has_tool_calls=bool(calls),
            tool_calls=calls,
        )


class EventReader:
    """Reads a stream whose events are JSON objects.

    Args:
        provider: the provider's name, for error messages.
        delta_of: returns what an event adds to the answer.
        failure: returns the error that an event reports, or None.
        redact: removes keys from text that the provider sent.
    """

    def __init__(
        self,
        provider: str,
        delta_of: Callable[[Mapping[str, Any]], Delta],
        failure: Callable[[Mapping[str, Any]], ProviderError | None],
        redact: Callable[[str], str],
    ) -> None:
        self._redact = redact
        self._provider = provider
        self._delta_of = delta_of
        self._failure = failure
        self._answer = StreamedAnswer()
        self._events = 0

    @property
    def ended(self) -> bool:
        return self._answer.at_end

    def feed(self, event: ServerEvent) -> str:
        data = event.data.strip()
        if not data or event.name == "ping":
            return ""
        if data == "[DONE]":
            self._answer.add(Delta(ends=True, last=True))
            return ""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise UnavailableError(
                f"event {self._events + 1} of its stream is not JSON: {self._redact(data[:200])!r}",
                provider=self._provider,
            ) from None
        self._events += 1
        value = mapping(value)
        error = self._failure(value)
        if error is not None:
            raise error
        delta = self._delta_of(value)
        self._answer.add(delta)
        return delta.text

    def finish(self) -> Completion:
        if not self._answer.complete:
            raise UnavailableError(
                f"its stream broke off after {self._events} events, before the end of the answer",
                provider=self._provider,
            )
        return self._answer.completion()


def _merged(earlier: Usage, later: Usage) -> Usage:
    """The later value of each count; the earlier one where the later is unknown."""
    if later is NO_USAGE:
        return earlier
    values = (
        getattr(later, field.name)
        if getattr(later, field.name) is not None
        else getattr(earlier, field.name)
        for field in dataclasses.fields(Usage)
    )
    return Usage(*values)
