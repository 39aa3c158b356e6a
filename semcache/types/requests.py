"""A call to a model, and how the cache sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from semcache.types.base import JSON

DEFAULT_NAMESPACE = "default"
"""The namespace of calls that name none."""


EXACT_ONLY = "exact_only"
"""Name in the summary of an entry that is served for the identical request only."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text. `extra` holds fields of its block that semcache does not know."""

    text: str
    extra: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, a file or audio: bytes, or a reference (a URL, a provider's file id)."""

    kind: str
    media_type: str | None = None
    data: bytes | None = None
    reference: str | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A tool call by the model. `arguments` is parsed JSON, or raw text that did not parse."""

    id: str
    name: str
    arguments: JSON
    extra: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """The result of the tool call with the same id."""

    call_id: str
    parts: tuple[Part, ...]
    is_error: bool = False
    extra: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A content block of an unknown kind, stored and compared as JSON."""

    value: JSON


Part: TypeAlias = TextPart | MediaPart | ToolCallPart | ToolResultPart | OpaquePart


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, in a form common to all providers."""

    role: str
    parts: tuple[Part, ...]
    name: str | None = None
    extra: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model.

    `keys.parse.request` makes one from a plain string or from chat messages.

    Attributes:
        messages: the conversation, oldest first; system prompts are messages with role
            "system".
        model: the requested model; "" if the caller names none.
        namespace: the caller's partition (a tenant, an application).
        params: sampling parameters and anything else that changes the answer, by name; left out of
            the request's repr, because there may be a credential among them.
        tools: tool definitions, in the provider's format.
        response_format: the format of the answer, in the provider's terms.
        tags: labels for `invalidate`; they are not part of any key.
        task_type: the kind of work, such as "bulk_processing", which a router may choose by.
    """

    messages: tuple[Message, ...]
    model: str = ""
    namespace: str = DEFAULT_NAMESPACE
    params: Mapping[str, JSON] = field(default_factory=dict, repr=False)
    tools: JSON = field(default=None, repr=False)
    response_format: JSON = None
    tags: tuple[str, ...] = ()
    task_type: str | None = None


Handling: TypeAlias = Literal["exact", "skip", "user"]


@dataclass(frozen=True, slots=True)
class Personal:
    """Personal data that was found in a request.

    Attributes:
        kinds: what was found, such as "email".
        handling: where answers to the request are stored and served from: "exact" means the exact
            tier only, "skip" nowhere, and "user" a namespace of the user.
    """

    kinds: tuple[str, ...]
    handling: Handling


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything that must be equal for a stored answer to be a candidate.

    Attributes:
        digest: SHA-256 (32 bytes) of everything but the question.
        parts: the contents of the digest as JSON, for people to read.
    """

    digest: bytes
    parts: Mapping[str, JSON] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Query:
    """A request as the cache sees it.

    Attributes:
        exact_key: SHA-256 (32 bytes) of scope and question.
        scope: the partition that is searched for candidates.
        question: the text to embed; None if the request has none (only the exact tier is used).
        personal: the personal data found in the request, and how it is handled; None if none was
            found, or none is looked for.
    """

    request: Request
    exact_key: bytes
    scope: Scope
    question: str | None
    personal: Personal | None = None
