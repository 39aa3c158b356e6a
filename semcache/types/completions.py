"""Answers of models, whole or in chunks, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from semcache.types.base import JSON, Source
from semcache.types.requests import ToolCallPart


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money that one answer cost. None, never 0, means unknown.

    Attributes:
        prompt_tokens: tokens the model read, including those from the provider's prompt cache.
        completion_tokens: tokens the model wrote, including its reasoning.
        cost_usd: the cost in USD.
        cached_tokens: prompt tokens read from the provider's prompt cache; not stored.
        cache_write_tokens: prompt tokens written to the provider's prompt cache; not stored.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


NO_USAGE = Usage()

UNFINISHED = "unfinished"
"""Finish reason for an answer without the one that its format requires: it may be cut off."""


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
    """One attempt to call a provider, whether the router sent it or held it back.

    Attributes:
        provider, model: the target of the call.
        result: how the attempt ended. "held_back" (by a local limit or the retry budget) and
            "breaker_open" mean that nothing was sent; "abandoned", that the caller was cancelled
            or stopped reading the stream.
        status: the HTTP status; None if there was no response.
        seconds: how long the call took.
        waited: seconds that the call waited in the router before it was sent.
        detail: what went wrong; "" if the call was answered.
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
        text: the text of the answer; "" if it has none.
        finish_reason: why the model stopped, in OpenAI's terms ("stop", "length", "tool_calls",
            "content_filter"), or "unfinished" if the answer broke off; None if there can be no
            reason, as for plain text.
        usage: tokens and cost.
        provider: the provider that answered.
        model: the model that answered.
        has_tool_calls: whether the answer calls tools.
        payload: the caller's own value as JSON, if text alone cannot represent it.
        payload_kind: how to turn `payload` back into that value (see `engine.value_codecs`).
        tool_calls: the tool calls in the answer.
        attempts: the calls that a router made for this answer; empty for a stored answer.
        served_from: how the cache served the answer; None if the model was called.
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
    # How an answer was obtained does not make it a different answer.
    attempts: tuple[AttemptReport, ...] = field(default=(), compare=False)
    served_from: Source | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer that is being streamed.

    Attributes:
        text: the text that this chunk adds; "" in the last chunk.
        completion: the whole answer, in the last chunk only.
    """

    text: str
    completion: Completion | None = None

    def __str__(self) -> str:
        return self.text
