"""Parses plain strings and chat messages, in OpenAI's or Anthropic's format, into a `Request`.

The format is recognised block by block, so a list may even mix formats. The result is the same for
both: equal conversations have equal keys, whichever provider's client they were written for. Text
is kept as written, including white space, because it may be sent to a provider; `keys` strips all
but the question before hashing.

Sources: OpenAI chat completions and Anthropic messages API references.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from semcache.errors import RequestError
from semcache.keys.canonical import decode_base64, plain, valid_text
from semcache.types import (
    JSON,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

MAX_PROMPT_CHARS = 8_000_000
"""Maximum length of a request in characters: about twice a context of a million tokens."""
_LONGEST_NAME = 1000
"""Longest name, in characters, that is normalised: a long run of accents would take minutes."""

_MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "function_call"}
_IRRELEVANT_KEYS = {"cache_control", "citations"}


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
        conversation = (Message("system", _parts(system, "system")), *conversation)
    return Request(
        messages=conversation,
        model=name_of(model, "model", ""),
        namespace=name_of(namespace, "namespace", "default"),
        params={k: v for k, v in params.items() if v is not None} if params else {},
        tools=tools or None,
        response_format=response_format,
        tags=tags_of(tags),
        task_type=name_of(task_type, "task_type", "") or None,
    )


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
    """The name of a model, namespace or tag, as it is stored: stripped, and in Unicode NFC.

    A name that looks the same selects the same entries, however it was typed.

    Raises:
        RequestError: the name is not a string, or is an empty namespace.
    """
    if value is None:
        return default
    if not isinstance(value, str):
        raise RequestError(f"{what} is a {type(value).__name__}, not a string.")
    name = valid_text(value, what).strip()
    if not name.isascii() and len(name) <= _LONGEST_NAME:
        name = unicodedata.normalize("NFC", name)
    if what == "namespace" and not name:
        raise RequestError(
            'namespace is an empty string. Leave it out for the namespace "default": an empty '
            "tenant name is more often a bug in the caller than a tenant."
        )
    return name


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
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise RequestError(
            f"messages is a {type(messages).__name__}; pass a list of messages such as "
            '[{"role": "user", "content": "..."}].'
        )
    return list(messages)


def _check_conversation(conversation: Sequence[Message]) -> None:
    if not conversation:
        raise RequestError("messages is an empty list: there is nothing to ask.")
    _check_length(sum(_length(part) for message in conversation for part in message.parts))
    if not any(_has_content(part) for message in conversation for part in message.parts):
        raise RequestError("Every message is empty: there is nothing to ask.")


def _length(part: Part) -> int:
    return len(part.text) if isinstance(part, TextPart) else 0


def _has_content(part: Part) -> bool:
    return not isinstance(part, TextPart) or bool(part.text.strip())


# --------------------------------------------------------------------------- messages


def _message(raw: Any, index: int) -> Message:
    where = f"messages[{index}]"
    if isinstance(raw, Message):
        return raw
    fields = _mapping(raw, where)
    role = fields.get("role")
    if not isinstance(role, str) or not role:
        raise RequestError(f'{where} has no "role" (such as "user" or "assistant").')
    parts = _parts(fields.get("content"), f"{where}.content")
    if fields.get("tool_call_id") is not None:
        parts = (ToolResultPart(str(fields["tool_call_id"]), parts),)
    calls = fields.get("tool_calls") or ()
    parts += tuple(_openai_tool_call(call, where) for call in calls)
    if fields.get("function_call"):
        parts += (_openai_tool_call({"id": "", "function": fields["function_call"]}, where),)
    extra = {k: v for k, v in fields.items() if k not in _MESSAGE_KEYS and v not in (None, [], {})}
    name = fields.get("name")
    return Message(role, parts, None if name is None else str(name), extra or None)


def _mapping(raw: Any, where: str) -> Mapping[str, Any]:
    if hasattr(raw, "model_dump"):
        raw = raw.model_dump()
    if not isinstance(raw, Mapping):
        raise RequestError(
            f"{where} is a {type(raw).__name__}; a message or a content block is a mapping "
            'such as {"role": "user", "content": "..."}.'
        )
    return raw


def _parts(content: Any, where: str) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (_text(content, where),) if content.strip() else ()
    if isinstance(content, Mapping) or hasattr(content, "model_dump"):
        content = [content]
    if not isinstance(content, Iterable):
        raise RequestError(f"{where} is a {type(content).__name__}, not text or a list of blocks.")
    parts = (_block(block, f"{where}[{i}]") for i, block in enumerate(content))
    return tuple(part for part in parts if _has_content(part))


def _text(text: str, where: str) -> TextPart:
    valid_text(text, where)  # raises if the text is not valid Unicode
    return TextPart(text)


def _block(raw: Any, where: str) -> Part:
    if isinstance(raw, str):
        return _text(raw, where)
    block = _mapping(raw, where)
    reader = _BLOCKS.get(str(block.get("type")))
    if reader is not None:
        return reader(block, where)
    content = {k: v for k, v in block.items() if k not in _IRRELEVANT_KEYS and v is not None}
    return OpaquePart(plain(content, where))


def _text_block(block: Mapping[str, Any], where: str) -> Part:
    text = block.get("text")
    if not isinstance(text, str):
        raise RequestError(f'{where} is a text block without a "text" string.')
    return _text(text, where)


def _image_url_block(block: Mapping[str, Any], where: str) -> Part:
    image = block.get("image_url") or {}
    url = image if isinstance(image, str) else _mapping(image, where).get("url")
    detail = {} if isinstance(image, str) else {"detail": image.get("detail") or "auto"}
    return _media_from_url("image", str(url or ""), detail if detail != {"detail": "auto"} else {})


def _media_from_url(kind: str, url: str, detail: Mapping[str, JSON]) -> Part:
    if url.startswith("data:"):
        head, _, body = url.partition(",")
        media_type = head[5:].removesuffix(";base64") or None
        data = decode_base64(body, f"{kind} data URL") if ";base64" in head else body.encode()
        return MediaPart(kind, media_type, data=data, detail=detail)
    return MediaPart(kind, reference=valid_text(url, f"{kind} url"), detail=detail)


def _source_block(block: Mapping[str, Any], where: str) -> Part:
    """Anthropic's image and document blocks: {"type", "source": {"type": base64|url|file|text}}."""
    kind = "image" if block["type"] == "image" else "file"
    source = _mapping(block.get("source"), f"{where}.source")
    detail = {k: block[k] for k in ("title", "context") if block.get(k)}
    if source.get("type") == "base64":
        data = decode_base64(str(source.get("data")), f"{where}.source.data")
        return MediaPart(kind, source.get("media_type"), data=data, detail=detail)
    if source.get("type") == "text":
        data = valid_text(str(source.get("data")), where).encode()
        return MediaPart(kind, source.get("media_type"), data=data, detail=detail)
    reference = source.get("url") or source.get("file_id")
    if reference is None:
        return OpaquePart(plain(block, where))
    return MediaPart(kind, reference=valid_text(str(reference), where), detail=detail)


def _audio_block(block: Mapping[str, Any], where: str) -> Part:
    audio = _mapping(block.get("input_audio"), where)
    data = decode_base64(str(audio.get("data")), f"{where}.input_audio.data")
    return MediaPart("audio", audio.get("format"), data=data)


def _file_block(block: Mapping[str, Any], where: str) -> Part:
    file = _mapping(block.get("file"), where)
    detail = {"filename": file["filename"]} if file.get("filename") else {}
    if file.get("file_data"):
        text = str(file["file_data"])
        url = text if text.startswith("data:") else f"data:,{text}"
        return _media_from_url("file", url, detail)
    return MediaPart("file", reference=str(file.get("file_id")), detail=detail)


def _tool_use_block(block: Mapping[str, Any], where: str) -> Part:
    return ToolCallPart(
        str(block.get("id")), str(block.get("name")), plain(block.get("input"), where)
    )


def _tool_result_block(block: Mapping[str, Any], where: str) -> Part:
    parts = _parts(block.get("content"), f"{where}.content")
    return ToolResultPart(str(block.get("tool_use_id")), parts, bool(block.get("is_error")))


def _openai_tool_call(raw: Any, where: str) -> Part:
    call = _mapping(raw, f"{where}.tool_calls")
    function = call.get("function") or call.get("custom")
    if function is None:
        return OpaquePart(plain(call, where))
    function = _mapping(function, f"{where}.tool_calls")
    arguments = function.get("arguments", function.get("input"))
    return ToolCallPart(
        str(call.get("id")), str(function.get("name")), _arguments(arguments, where)
    )


def _arguments(arguments: Any, where: str) -> JSON:
    """OpenAI sends arguments as text: parse them, so that equal JSON is equal however spaced."""
    if not isinstance(arguments, str):
        return plain(arguments, where)
    try:
        return plain(json.loads(arguments), where)
    except (ValueError, RecursionError):
        return valid_text(arguments, where)


_BLOCKS = {
    "text": _text_block,
    "input_text": _text_block,
    "output_text": _text_block,
    "image_url": _image_url_block,
    "image": _source_block,
    "document": _source_block,
    "input_audio": _audio_block,
    "file": _file_block,
    "tool_use": _tool_use_block,
    "tool_result": _tool_result_block,
}
