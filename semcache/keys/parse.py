"""Parses plain strings and chat messages, in any client's format, into a `Request`.

The format is recognised message by message and block by block, so a list may even mix formats. The
result is the same for all: equal conversations have equal keys, whichever client they were written
for. What cannot change the answer, such as a message's id or a mark for the provider's prompt
cache, is left out; unknown fields become part of the key. Text is kept as written, including
white space, because it may be sent to a provider; `keys` strips all but the question before
hashing.

`blocks` reads the contents of a message; `message_forms` reads other forms of messages.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from semcache.errors import RequestError
from semcache.keys.blocks import content_parts, has_content, tool_call
from semcache.keys.canonical import valid_text
from semcache.keys.message_forms import item_message, message_fields
from semcache.types import (
    DEFAULT_NAMESPACE,
    JSON,
    Message,
    OpaquePart,
    Part,
    Request,
    TextPart,
    ToolResultPart,
)

MAX_PROMPT_CHARS = 8_000_000
"""Maximum length of a request in characters: about twice a context of a million tokens."""
MAX_MESSAGES = 20_000
"""Maximum number of messages of a request."""
_LONGEST_NAME = 1000
"""Longest accepted name, in characters: normalising a long run of accents takes minutes."""

_MESSAGE_KEYS = {
    "role",
    "content",
    "parts",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "type",
    "status",
    "id",
    "timestamp",
    "created_at",
    "metadata",
    "cache_control",
}
"""Keys that are read, or that cannot change the answer."""


class RequestFields(TypedDict, total=False):
    """Fields of a request besides its prompt; see `request`."""

    messages: Iterable[Any]
    system: Any
    model: str
    namespace: str
    params: Mapping[str, Any]
    tools: Any
    response_format: Any
    tags: Iterable[str]
    task_type: str


def request(
    prompt: str | None = None,
    *,
    messages: Iterable[Any] | None = None,
    system: Any = None,
    model: str | None = None,
    namespace: str | None = None,
    params: Mapping[str, Any] | None = None,
    tools: Any = None,
    response_format: Any = None,
    tags: Iterable[str] = (),
    task_type: str | None = None,
) -> Request:
    """Make a `Request` from either a prompt or chat messages.

    Args:
        prompt: a plain string; equivalent to a single user message.
        messages: chat messages, oldest first: mappings, or objects with `model_dump`.
        system: the system prompt, if it is not one of the messages (Anthropic's format).
        model: the model's name.
        namespace: the caller's partition; "default" if not given.
        params: sampling parameters and anything else that changes the answer. Parameters that
            are None are left out.
        tools, response_format: in the provider's format.
        tags: labels for `invalidate`.
        task_type: the kind of work, which a router may choose a model by.

    Raises:
        RequestError: the request is empty or malformed.
    """
    if (prompt is None) == (messages is None):
        given = "neither is given" if prompt is None else "both are given"
        raise RequestError(f"Pass either a prompt (a string) or messages=[...]: {given}.")
    conversation: tuple[Message, ...]
    if prompt is not None:
        conversation = question(prompt)
    else:
        conversation = tuple(_message(m, i) for i, m in enumerate(_message_list(messages)))
        _check_conversation(conversation)
    if system is not None:
        conversation = (Message("system", content_parts(system, "system")), *conversation)
    return Request(
        messages=conversation,
        model=name_of(model, "model", ""),
        namespace=name_of(namespace, "namespace", DEFAULT_NAMESPACE),
        params=_params(params) if params else {},
        tools=tools,
        response_format=response_format,
        tags=tags_of(tags),
        task_type=name_of(task_type, "task_type", "") or None,
    )


def _params(params: Mapping[str, JSON]) -> dict[str, JSON]:
    if not isinstance(params, Mapping):
        raise RequestError(f"params is a {type(params).__name__}, not a mapping from names.")
    return {name: value for name, value in params.items() if value is not None}


def question(prompt: str) -> tuple[Message, ...]:
    """A conversation that consists of a plain prompt.

    Raises:
        RequestError: the prompt is not a string, empty, too long or not valid Unicode.
    """
    return (Message("user", (TextPart(_prompt_text(prompt)),)),)


def _prompt_text(prompt: Any) -> str:
    if not isinstance(prompt, str):
        raise RequestError(
            f"The prompt is a {type(prompt).__name__}, not a string. "
            "Pass chat messages as messages=[...]."
        )
    _check_length(len(prompt))
    valid_text(prompt, "prompt")
    if not prompt.strip():
        raise RequestError("The prompt is empty: there is nothing to ask or to look up.")
    return prompt


def _check_length(chars: int) -> None:
    if chars > MAX_PROMPT_CHARS:
        raise RequestError(
            f"The request is {chars:,} characters long; the limit is {MAX_PROMPT_CHARS:,}. "
            "No model reads that much in one call: shorten it, or call the model without the "
            "cache."
        )


def name_of(value: str | None, what: str, default: str) -> str:
    """The name of a model, namespace or tag.

    Namespaces and models that look the same must be the same. So a name that has surrounding white
    space or is not in Unicode form NFC is rejected, neither accepted as a second name nor silently
    changed. Tags, which only select entries, are stripped and normalised instead.

    Raises:
        RequestError: the name is not a string, not normalised, too long, or an empty namespace.
    """
    if value is None:
        return default
    if not isinstance(value, str):
        raise RequestError(f"{what} is a {type(value).__name__}, not a string.")
    plain = value.isascii() and value.isprintable() and 0 < len(value) <= _LONGEST_NAME
    if plain and value[0] != " " != value[-1]:
        return value  # the usual case passes every check below
    name = valid_text(value, what)
    if what == "tag" and len(name) <= _LONGEST_NAME:
        name = unicodedata.normalize("NFC", name.strip())
    if name != name.strip() or any(map(_is_control, name[:_LONGEST_NAME])):
        raise RequestError(
            f"{what} {name[:100]!r} has white space around it or contains control characters; "
            "clean it up at its source."
        )
    if len(name) > _LONGEST_NAME:
        raise RequestError(
            f"{what} is {len(name):,} characters long; the limit is {_LONGEST_NAME:,}."
        )
    if not name.isascii() and name != unicodedata.normalize("NFC", name):
        raise RequestError(
            f"{what} {name[:100]!r} is not in Unicode form NFC; normalise it at its source "
            "with unicodedata.normalize('NFC', name)."
        )
    if what == "namespace" and not name:
        raise RequestError(
            'namespace is an empty string. Leave it out for the namespace "default": an empty '
            "tenant name is more often a bug in the caller than a tenant."
        )
    return name


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp")


def tags_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as they are stored: sorted, without duplicates.

    Raises:
        RequestError: `tags` is not a list of strings.
    """
    if not tags:
        return ()
    if isinstance(tags, str):
        raise RequestError(f"tags is the string {tags!r}; pass a list of tags, [{tags!r}].")
    if not isinstance(tags, Iterable):
        raise RequestError(f"tags is a {type(tags).__name__}; pass a list of strings.")
    return tuple(sorted({name_of(tag, "tag", "") for tag in tags}))


def _message_list(messages: Any) -> Sequence[Any]:
    if isinstance(messages, Iterator):
        raise RequestError(
            "messages is an iterator, which can be read only once; pass a list of messages."
        )
    if _is_message(messages):
        return [messages]
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise RequestError(
            f"messages is a {type(messages).__name__}; pass a list of messages such as "
            '[{"role": "user", "content": "..."}].'
        )
    return list(messages)


def _is_message(value: Any) -> bool:
    """Whether this is a single message, as Gemini's contents may be."""
    if isinstance(value, Mapping):
        return "parts" in value or ("role" in value and "content" in value)
    return hasattr(value, "role") and (hasattr(value, "parts") or hasattr(value, "content"))


def _check_conversation(conversation: Sequence[Message]) -> None:
    if not conversation:
        raise RequestError("messages is an empty list: there is nothing to ask.")
    if len(conversation) > MAX_MESSAGES:
        raise RequestError(
            f"The request has {len(conversation):,} messages; the limit is {MAX_MESSAGES:,}. "
            "Shorten the conversation, or call the model without the cache."
        )
    _check_length(sum(_length(part) for message in conversation for part in message.parts))
    if not any(has_content(part) for message in conversation for part in message.parts):
        raise RequestError("Every message is empty: there is nothing to ask.")


def _length(part: Part) -> int:
    return len(part.text) if isinstance(part, TextPart) else 0


# --------------------------------------------------------------------------- messages


def _message(raw: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if isinstance(raw, Message):
        return raw
    if isinstance(raw, str):  # one of several prompts, as for embeddings
        return Message("user", (OpaquePart({"text": valid_text(raw, where)}),))
    fields = message_fields(raw, where)
    if (item := item_message(fields, where)) is not None:
        return item
    role = fields.get("role", "user" if "parts" in fields else None)
    if not isinstance(role, str) or not role:
        raise RequestError(f'{where} has no "role" (such as "user" or "assistant").')
    content = fields.get("content", fields.get("parts"))
    parts = content_parts(content, f"{where}.content")
    if fields.get("tool_call_id") is not None:
        parts = (ToolResultPart(str(fields["tool_call_id"]), parts),)
    calls = fields.get("tool_calls") or ()
    if isinstance(calls, str | Mapping) or not isinstance(calls, Iterable):
        raise RequestError(f"{where}.tool_calls is a {type(calls).__name__}, not a list.")
    parts += tuple(tool_call(call, where) for call in calls)
    if fields.get("function_call"):
        parts += (tool_call({"id": "", "function": fields["function_call"]}, where),)
    extra = {k: v for k, v in fields.items() if k not in _MESSAGE_KEYS and v not in (None, [], {})}
    name = fields.get("name")
    role = "assistant" if role == "model" else role
    return Message(role, parts, None if name is None else str(name), extra or None)
