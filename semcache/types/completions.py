"""Answers of models, whole and in pieces, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from semcache.types.base import JSON, Source
from semcache.types.requests import ToolCallPart


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money that one answer cost. None: not known (never 0 for unknown).

    Attributes:
        prompt_tokens: all that the model read, those from the provider's prompt cache included.
        completion_tokens: all that it wrote, its reasoning included.
        cost_usd: in USD.
        cached_tokens: of the prompt, read from the provider's prompt cache; not stored.
        cache_write_tokens: of the prompt, written to the provider's prompt cache; not stored.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


NO_USAGE = Usage()


AttemptResult: TypeAlias = Literal[
    "answered",
    "rate_limited",
    "unavailable",
    "rejected",
    "held_back",
    "breaker_open",
    "abandoned",
    "failed",
]


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """One call to one provider, made or refused by the router itself.

    Attributes:
        provider, model: who was asked.
        result: how it ended. "held_back" (by a limit or the retry budget set here) and
            "breaker_open": nothing was sent. "abandoned": by the caller, who was cancelled or
            has read enough.
        status: the HTTP status, where there was one.
        seconds: how long the call took. waited: how long it was held back before.
        detail: what went wrong, in words; "" for an answer.
    """

    provider: str
    model: str
    result: AttemptResult
    status: int | None = None
    seconds: float = 0.0
    waited: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer of a model.

    Attributes:
        text: the words of the answer; "" where there are none.
        finish_reason: why the model stopped, in OpenAI's words ("stop", "length",
            "tool_calls", "content_filter"), or None where nobody said.
        usage: tokens and cost.
        provider: who answered.
        model: which model answered.
        has_tool_calls: the answer asks for tools.
        payload: the caller's own value as JSON, where text alone does not hold it.
        payload_kind: how `payload` is turned back into the value (see `codec`).
        tool_calls: the tools that the answer asks for.
        attempts: the calls that a router made for this answer; empty for a stored one.
        served_from: where a cache took it from; None: the model was asked.
    """

    text: str
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    provider: str | None = None
    model: str | None = None
    has_tool_calls: bool = False
    payload: JSON = None
    payload_kind: str | None = None
    tool_calls: tuple[ToolCallPart, ...] = ()
    # How it came, and not what it says: two equal answers are equal.
    attempts: tuple[AttemptReport, ...] = field(default=(), compare=False)
    served_from: Source | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer that is still being written.

    Attributes:
        text: the words that it adds; "" for the last one.
        completion: the whole answer, with the last chunk only.
    """

    text: str
    completion: Completion | None = None

    def __str__(self) -> str:
        return self.text
