"""A call to a model, and how the cache sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from semcache.types.base import JSON


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, a file or a sound: bytes, or a reference (a URL, a provider's file id)."""

    kind: str
    media_type: str | None = None
    data: bytes | None = None
    reference: str | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """The model asks for a tool. `arguments` is parsed JSON, or the text that would not parse."""

    id: str
    name: str
    arguments: JSON


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered to the call with the same id."""

    call_id: str
    parts: tuple[Part, ...]
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A content block of a kind that semcache does not know; kept and compared as JSON."""

    value: JSON


Part: TypeAlias = TextPart | MediaPart | ToolCallPart | ToolResultPart | OpaquePart


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, whatever provider's form it came in."""

    role: str
    parts: tuple[Part, ...]
    name: str | None = None
    extra: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model.

    Made by `keys.parse.request` from a plain string or from chat messages.

    Attributes:
        messages: the conversation, oldest first; system prompts are messages with role
            "system".
        model: the model asked for, or "" where the caller names none.
        namespace: the caller's partition (a tenant, an application).
        params: sampling parameters and whatever else changes the answer, by name.
        tools: tool definitions, as the provider takes them.
        response_format: the wanted form of the answer, as the provider takes it.
        tags: labels for `invalidate`; they change no key.
        task_type: what kind of work it is, for a router to choose by ("bulk_processing").
    """

    messages: tuple[Message, ...]
    model: str = ""
    namespace: str = "default"
    params: Mapping[str, JSON] = field(default_factory=dict)
    tools: JSON = None
    response_format: JSON = None
    tags: tuple[str, ...] = ()
    task_type: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What must be equal for a stored answer to be a candidate at all.

    Attributes:
        digest: SHA-256 (32 bytes) over everything but the question.
        parts: what went into the digest, as JSON, for people to read.
    """

    digest: bytes
    parts: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Query:
    """A request as the cache sees it.

    Attributes:
        exact_key: SHA-256 (32 bytes) over scope and question.
        scope: the partition in which candidates are looked for.
        question: the text that is embedded; None where there is none (the exact tier only).
    """

    request: Request
    exact_key: bytes
    scope: Scope
    question: str | None
