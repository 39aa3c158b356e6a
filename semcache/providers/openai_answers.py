"""Reads answers of OpenAI's APIs: chat completions, text completions, responses; whole or streamed.

Compatible servers send them too, often with fields missing or added. Source: OpenAI API reference,
"Chat", "Chat streaming", "Completions" and "Responses".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from semcache.providers.answers import (
    Delta,
    ToolDelta,
    combined_reason,
    finish_reason,
    mapping,
    mappings,
    parse_arguments,
    usage_of,
)
from semcache.types import NO_USAGE, Completion, ToolCallPart, Usage


def completion_of(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in a chat or text completion; None if the answer has another form.

    An application's own format may have `choices` too, so each choice is checked.
    """
    choices = mappings(answer.get("choices"))
    if not choices or not (_named(answer) or all(map(_is_choice, choices))):
        return None
    first = choices[0]
    message = mapping(first.get("message"))
    calls = tool_calls_of(message)
    return Completion(
        _text(message.get("content")) or str(first.get("text") or ""),
        finish_reason=combined_reason(map(_reason, choices)),
        usage=usage(answer.get("usage")),
        model=answer.get("model"),
        has_tool_calls=bool(calls),
        tool_calls=calls,
    )


def _named(answer: Mapping[str, Any]) -> bool:
    """Whether an answer, or a chunk of one, says that it is a completion of this API."""
    return answer.get("object") in (
        "chat.completion",
        "chat.completion.chunk",
        "text_completion",
    )


def _is_choice(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message")
    if isinstance(message, Mapping):
        return "finish_reason" in choice or message.get("role") == "assistant"
    return "finish_reason" in choice and isinstance(choice.get("text"), str)


def _reason(choice: Mapping[str, Any]) -> str | None:
    """The finish reason of a choice of an answer or of a chunk."""
    message = mapping(choice.get("message") or choice.get("delta"))
    if message.get("refusal"):
        return "content_filter"
    return finish_reason(choice.get("finish_reason"))


def response_of(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in an answer of OpenAI's responses API; None if it has another form."""
    items = mappings(answer.get("output"))
    blocks = [block for item in items for block in mappings(item.get("content"))]
    named = answer.get("object") == "response" and isinstance(answer.get("output"), list)
    unnamed = {"id", "status"} <= answer.keys() and any(map(_is_item, items))
    if not named and not unnamed:
        return None
    counts = mapping(answer.get("usage"))
    status = finish_reason(answer.get("status"))
    if status == "stop" and _is_full(answer.get("max_output_tokens"), counts):
        status = "length"  # some servers report "completed" for truncated answers
    refused = any(block.get("type") == "refusal" for block in blocks)
    calls = tuple(
        ToolCallPart(
            str(item.get("call_id")),
            str(item.get("name") or item["type"]),
            parse_arguments(item.get("arguments", item.get("input"))),
        )
        for item in items
        if str(item.get("type")).endswith("_call") and item["type"] not in _SERVER_CALLS
    )
    return Completion(
        "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "output_text"),
        finish_reason="content_filter" if refused else combined_reason([status]),
        usage=usage_of(counts.get("input_tokens"), counts.get("output_tokens")),
        model=answer.get("model"),
        has_tool_calls=bool(calls),
        tool_calls=calls,
    )


def _is_full(limit: Any, counts: Mapping[str, Any]) -> bool:
    tokens = counts.get("output_tokens")
    return isinstance(limit, int) and isinstance(tokens, int) and 0 < limit <= tokens


_SERVER_CALLS = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "mcp_call",
        "web_search_call",
    }
)
"""Tools that the server calls itself, which leave nothing for the caller to do."""


def _is_item(item: Mapping[str, Any]) -> bool:
    blocks = mappings(item.get("content"))
    return item.get("type") == "function_call" or any(
        block.get("type") in ("output_text", "refusal") for block in blocks
    )


def usage(counts: Any) -> Usage:
    """The usage of a chat completion."""
    counts = mapping(counts)
    details = mapping(counts.get("prompt_tokens_details"))
    return usage_of(
        counts.get("prompt_tokens"),
        counts.get("completion_tokens"),
        details.get("cached_tokens"),
        details.get("cache_write_tokens"),
    )


def is_chunk(chunk: Mapping[str, Any]) -> bool:
    """Whether this is a chunk of a streamed completion, from this API or a compatible server."""
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return False
    if not choices:  # the last chunk has the usage and no choices
        return _named(chunk) or isinstance(chunk.get("usage"), Mapping)
    return _named(chunk) or any(
        isinstance(c.get("delta"), Mapping) or _is_choice(c) for c in mappings(choices)
    )


def delta_of(chunk: Mapping[str, Any]) -> Delta:
    """What a chunk of a completion adds to the answer; only the first choice's text is read."""
    choices = mappings(chunk.get("choices"))
    counts = usage(chunk["usage"]) if chunk.get("usage") else NO_USAGE
    if not choices:
        return Delta(usage=counts, model=chunk.get("model"))
    reasons = tuple((_index(choice), _reason(choice)) for choice in choices)
    first = next((choice for choice in choices if _index(choice) == 0), None)
    if first is None:
        return Delta(usage=counts, choices=reasons)
    delta = mapping(first.get("delta"))
    return Delta(
        _text(delta.get("content")) or str(first.get("text") or ""),
        _reason(first),
        counts,
        chunk.get("model"),
        tuple(_tool_deltas(delta)),
        reasons,
        ends=finish_reason(first.get("finish_reason")) is not None,
    )


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _text(content: Any) -> str:
    if isinstance(content, list):  # some servers send blocks
        return "".join(str(block.get("text") or "") for block in mappings(content))
    return str(content or "")


def tool_calls_of(message: Mapping[str, Any]) -> tuple[ToolCallPart, ...]:
    """The tool calls in a message."""
    calls = [(call.get("id"), _function(call)) for call in mappings(message.get("tool_calls"))]
    if message.get("function_call"):
        calls.append(("", mapping(message["function_call"])))
    return tuple(
        ToolCallPart(
            str(call_id or ""),
            str(function.get("name")),
            parse_arguments(function.get("arguments", function.get("input"))),
        )
        for call_id, function in calls
    )


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(call.get("function") or call.get("custom"))


def _tool_deltas(delta: Mapping[str, Any]) -> Iterator[ToolDelta]:
    for call in mappings(delta.get("tool_calls")):
        function = _function(call)
        index = call.get("index")
        yield ToolDelta(
            index if isinstance(index, int) else None,
            str(call.get("id") or ""),
            str(function.get("name") or ""),
            function.get("arguments") or function.get("input") or "",
        )
    if delta.get("function_call"):
        function = mapping(delta["function_call"])
        yield ToolDelta(0, "", str(function.get("name") or ""), function.get("arguments") or "")
