"""Reads the contents of a message: text, or blocks in OpenAI's, Anthropic's or Gemini's format.

Sources: OpenAI chat completions and responses, Anthropic messages, and Gemini API references.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from semcache.errors import RequestError
from semcache.keys.canonical import decode_base64, plain, valid_text
from semcache.types import (
    JSON,
    MediaPart,
    OpaquePart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

_IRRELEVANT = frozenset(
    {"type", "cache_control", "id", "timestamp", "created_at", "metadata", "logprobs"}
)
"""Fields of a block that cannot change the answer, or that its reader has already used."""


def content_parts(content: Any, where: str) -> tuple[Part, ...]:
    """The parts of a message's content.

    Raises:
        RequestError: the content is neither text nor a list of blocks, or a block is malformed.
    """
    if content is None:
        return ()
    if isinstance(content, str):
        return (_text(content, where),) if content.strip() else ()
    if isinstance(content, Mapping) or hasattr(content, "model_dump"):
        content = [content]
    if not isinstance(content, Iterable):
        raise RequestError(f"{where} is a {type(content).__name__}, not text or a list of blocks.")
    parts = (_block(block, f"{where}[{i}]") for i, block in enumerate(content))
    return tuple(part for part in parts if has_content(part))


def has_content(part: Part) -> bool:
    return not isinstance(part, TextPart) or bool(part.text.strip())


def as_mapping(raw: Any, where: str) -> Mapping[str, Any]:
    """A block or a message as a mapping; SDK objects are converted.

    Raises:
        RequestError: it is neither a mapping nor such an object.
    """
    if hasattr(raw, "model_dump"):
        raw = raw.model_dump(exclude_none=True, warnings=False)
    elif not isinstance(raw, Mapping) and (hasattr(raw, "type") or hasattr(raw, "text")):
        raw = getattr(raw, "__dict__", raw)
    if not isinstance(raw, Mapping):
        raise RequestError(
            f"{where} is a {type(raw).__name__}; a message or a content block is a mapping "
            'such as {"role": "user", "content": "..."}.'
        )
    return raw


def _text(text: str, where: str) -> TextPart:
    valid_text(text, where)  # raises if the text is not valid Unicode
    return TextPart(text)


def _block(raw: Any, where: str) -> Part:
    if isinstance(raw, str):
        return _text(raw, where)
    block = as_mapping(raw, where)
    reader = _BLOCKS.get(str(block.get("type")))
    if reader is None and "type" not in block:
        reader = next((_GEMINI[name] for name in _GEMINI if block.get(name) is not None), None)
    if reader is not None:
        return reader(block, where)
    content = {k: v for k, v in block.items() if k != "cache_control" and v is not None}
    return OpaquePart(plain(content, where))


def _others(block: Mapping[str, Any], where: str, *read: str) -> dict[str, JSON]:
    """The fields of a block besides those that were read: they may change the answer."""
    names = _IRRELEVANT.union(read)
    others = {k: v for k, v in block.items() if k not in names and v not in (None, [], {})}
    return plain(others, where) if others else {}


def _text_block(block: Mapping[str, Any], where: str) -> Part:
    text = block.get("text")
    if not isinstance(text, str):
        raise RequestError(f'{where} is a text block without a "text" string.')
    valid_text(text, where)
    return TextPart(text, _others(block, where, "text", "citations", "annotations") or None)


def _image_url_block(block: Mapping[str, Any], where: str) -> Part:
    """OpenAI's images: {"image_url": {"url", "detail"}}, {"image_url": url} or {"file_id"}."""
    image = block.get("image_url") or {}
    inner = {"url": image} if isinstance(image, str) else as_mapping(image, where)
    detail = inner.get("detail") or block.get("detail") or "auto"
    others = {
        **_others(block, where, "image_url", "detail", "file_id"),
        **_others(inner, where, "url", "detail"),
        **({} if detail == "auto" else {"detail": detail}),
    }
    url = inner.get("url")
    if url is None and block.get("file_id") is not None:
        return MediaPart("image", reference=valid_text(str(block["file_id"]), where), detail=others)
    return _media_from_url("image", str(url or ""), others)


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
    source = as_mapping(block.get("source"), f"{where}.source")
    detail = {
        **_others(block, where, "source"),
        **_others(source, where, "data", "media_type", "url", "file_id"),
    }
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
    audio = as_mapping(block.get("input_audio"), where)
    data = decode_base64(str(audio.get("data")), f"{where}.input_audio.data")
    others = {
        **_others(block, where, "input_audio"),
        **_others(audio, where, "data", "format"),
    }
    return MediaPart("audio", audio.get("format"), data=data, detail=others)


def _file_block(block: Mapping[str, Any], where: str) -> Part:
    """OpenAI's files: {"type": "file", "file": {...}}, or the same fields in an input_file."""
    nested = block.get("file")
    file = block if nested is None else as_mapping(nested, where)
    detail = {
        **({} if nested is None else _others(block, where, "file")),
        **_others(file, where, "file_data", "file_id", "file_url"),
    }
    if file.get("file_data"):
        text = str(file["file_data"])
        url = text if text.startswith("data:") else f"data:,{text}"
        return _media_from_url("file", url, detail)
    reference = file.get("file_id") or file.get("file_url")
    return MediaPart("file", reference=str(reference), detail=detail)


def _tool_use_block(block: Mapping[str, Any], where: str) -> Part:
    return ToolCallPart(
        str(block.get("id")),
        str(block.get("name")),
        plain(block.get("input"), where),
        _others(block, where, "name", "input") or None,
    )


def _tool_result_block(block: Mapping[str, Any], where: str) -> Part:
    return ToolResultPart(
        str(block.get("tool_use_id")),
        content_parts(block.get("content"), f"{where}.content"),
        bool(block.get("is_error")),
        _others(block, where, "tool_use_id", "content", "is_error") or None,
    )


def tool_call(raw: Any, where: str) -> Part:
    """A tool call in OpenAI's or LangChain's form.

    Raises:
        RequestError: it is not a mapping.
    """
    call = as_mapping(raw, f"{where}.tool_calls")
    function = call.get("function") or call.get("custom")
    if function is None and isinstance(call.get("args"), Mapping):
        return ToolCallPart(str(call.get("id")), str(call.get("name")), plain(call["args"], where))
    if function is None:
        return OpaquePart(plain(call, where))
    function = as_mapping(function, f"{where}.tool_calls")
    arguments = function.get("arguments", function.get("input"))
    return ToolCallPart(
        str(call.get("id")),
        str(function.get("name")),
        parsed(arguments, where),
        _others(call, where, "function", "custom", "index") or None,
    )


def parsed(arguments: Any, where: str) -> JSON:
    """OpenAI sends arguments as text: parse them, so that white space in the JSON is ignored."""
    if not isinstance(arguments, str):
        return plain(arguments, where)
    try:
        return plain(json.loads(arguments), where)
    except (ValueError, RecursionError):
        return valid_text(arguments, where)


# -------------------------------------------------------------------------------- Gemini


def _either(block: Mapping[str, Any], *names: str) -> Any:
    return next((block[name] for name in names if block.get(name) is not None), None)


def _inline_data(block: Mapping[str, Any], where: str) -> Part:
    blob = as_mapping(_either(block, "inline_data", "inlineData"), where)
    data = blob.get("data")
    content = data if isinstance(data, bytes) else decode_base64(str(data), where)
    media_type = _either(blob, "mime_type", "mimeType")
    kind = str(media_type or "file").partition("/")[0]
    others = _others(block, where, "inline_data", "inlineData")
    return MediaPart(
        kind if kind in ("image", "audio") else "file", media_type, data=content, detail=others
    )


def _file_data(block: Mapping[str, Any], where: str) -> Part:
    file = as_mapping(_either(block, "file_data", "fileData"), where)
    reference = str(_either(file, "file_uri", "fileUri"))
    others = _others(block, where, "file_data", "fileData")
    return MediaPart(
        "file", _either(file, "mime_type", "mimeType"), reference=reference, detail=others
    )


def _function_call(block: Mapping[str, Any], where: str) -> Part:
    call = as_mapping(_either(block, "function_call", "functionCall"), where)
    name = str(call.get("name"))
    return ToolCallPart(str(call.get("id") or name), name, plain(call.get("args") or {}, where))


def _function_response(block: Mapping[str, Any], where: str) -> Part:
    response = as_mapping(_either(block, "function_response", "functionResponse"), where)
    content = OpaquePart(plain(response.get("response") or {}, where))
    return ToolResultPart(str(response.get("id") or response.get("name")), (content,))


Reader = Callable[[Mapping[str, Any], str], Part]

_BLOCKS: dict[str, Reader] = {
    "text": _text_block,
    "input_text": _text_block,
    "output_text": _text_block,
    "image_url": _image_url_block,
    "input_image": _image_url_block,
    "image": _source_block,
    "document": _source_block,
    "input_audio": _audio_block,
    "file": _file_block,
    "input_file": _file_block,
    "tool_use": _tool_use_block,
    "tool_result": _tool_result_block,
}
"""Readers of blocks by their type."""
_GEMINI: dict[str, Reader] = {
    "text": _text_block,
    "inline_data": _inline_data,
    "inlineData": _inline_data,
    "file_data": _file_data,
    "fileData": _file_data,
    "function_call": _function_call,
    "functionCall": _function_call,
    "function_response": _function_response,
    "functionResponse": _function_response,
}
"""Readers of Gemini's blocks, which have no type, by the field that they have."""
