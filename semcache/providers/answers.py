"""What the providers' answers have in common once they are read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from semcache.errors import ProviderError, UnavailableError
from semcache.providers.http_messages import ServerEvent
from semcache.types import NO_USAGE, Completion, ToolCallPart, Usage

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "incomplete": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
}


def finish_reason(said: Any) -> str | None:
    """A provider's reason to stop in OpenAI's words, where there is one for it."""
    if said is None:
        return None
    word = str(getattr(said, "value", said)).lower()
    return _REASONS.get(word, word)


def usage_of(
    prompt: Any,
    completion: Any,
    cached: Any = None,
    cache_write: Any = None,
) -> Usage:
    """Counts that are whole numbers; anything else is unknown."""
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


def parsed(arguments: Any) -> Any:
    """A tool's arguments as JSON; the text itself where it is none."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool call in a stream; `arguments` is JSON text, or the whole value.

    Without an index, an id begins the next call, and no id goes on with the last one.
    """

    index: int | None
    id: str = ""
    name: str = ""
    arguments: Any = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream adds to the answer.

    Attributes:
        ends: the answer is whole with it. last: nothing more is to come.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    model: str | None = None
    tools: tuple[ToolDelta, ...] = ()
    ends: bool = False
    last: bool = False


class Gathered:
    """A stream's deltas, put together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reason: str | None = None
        self._usage = NO_USAGE
        self._model: str | None = None
        self._tools: dict[int, list[Any]] = {}
        self.ended = False
        self.over = False

    def add(self, delta: Delta) -> None:
        self._text.append(delta.text)
        self._reason = delta.finish_reason or self._reason
        self._usage = _merged(self._usage, delta.usage)
        self._model = delta.model or self._model
        self.ended = self.ended or delta.ends
        self.over = self.over or delta.last
        for piece in delta.tools:
            index = piece.index
            if index is None:
                last = max(self._tools, default=-1)
                begins = bool(piece.id) or last < 0
                index = last + 1 if begins else last
            call = self._tools.setdefault(index, ["", "", ""])
            call[0] = piece.id or call[0]
            call[1] = piece.name or call[1]
            if not isinstance(piece.arguments, str):
                call[2] = piece.arguments
            elif piece.arguments:
                call[2] = (call[2] if isinstance(call[2], str) else "") + piece.arguments

    def completion(self) -> Completion:
        calls = tuple(
            ToolCallPart(call[0], call[1], parsed(call[2]))
            for _, call in sorted(self._tools.items())
        )
        return Completion(
            "".join(self._text),
            finish_reason=self._reason,
            usage=self._usage,
            model=self._model,
            has_tool_calls=bool(calls),
            tool_calls=calls,
        )


class EventReader:
    """Reads a stream whose events are JSON objects.

    Args:
        provider: the provider's name, for messages.
        delta_of: what an event's object adds.
        failure: the error that an object tells of, or None.
        scrubbed: takes keys out of a provider's words.
    """

    def __init__(
        self,
        provider: str,
        delta_of: Callable[[Mapping[str, Any]], Delta],
        failure: Callable[[Mapping[str, Any]], ProviderError | None],
        scrubbed: Callable[[str], str],
    ) -> None:
        self._scrubbed = scrubbed
        self._provider = provider
        self._delta_of = delta_of
        self._failure = failure
        self._gathered = Gathered()
        self._events = 0

    @property
    def ended(self) -> bool:
        return self._gathered.over

    def feed(self, event: ServerEvent) -> str:
        data = event.data.strip()
        if not data or event.name == "ping":
            return ""
        if data == "[DONE]":
            self._gathered.add(Delta(ends=True, last=True))
            return ""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise UnavailableError(
                f"event {self._events + 1} of its stream is no JSON: "
                f"{self._scrubbed(data[:200])!r}",
                provider=self._provider,
            ) from None
        self._events += 1
        value = mapping(value)
        failed = self._failure(value)
        if failed is not None:
            raise failed
        delta = self._delta_of(value)
        self._gathered.add(delta)
        return delta.text

    def finish(self) -> Completion:
        if not self._gathered.ended:
            raise UnavailableError(
                f"its stream broke off after {self._events} events, before the answer's end",
                provider=self._provider,
            )
        return self._gathered.completion()


def _merged(one: Usage, two: Usage) -> Usage:
    """The later count of each kind, where there is one."""
    if two is NO_USAGE:
        return one
    values = (
        getattr(two, field.name)
        if getattr(two, field.name) is not None
        else getattr(one, field.name)
        for field in dataclasses.fields(Usage)
    )
    return Usage(*values)
