"""Reads answers in any known provider's form, which is recognised by its fields.

An answer in a provider's form is whole only if it says so: it has a finish reason, and a stream
came to its own end. A value of an application's own form says nothing of the kind, and is taken
as whole, although it may have a field such as `status`, `error` or `choices`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from semcache.providers import anthropic, gemini
from semcache.providers import openai_answers as openai
from semcache.providers.answers import (
    Delta,
    StreamedAnswer,
    ToolDelta,
    combined_reason,
    finish_reason,
    mapping,
    mappings,
    usage_of,
)
from semcache.types import UNFINISHED, Completion


def read_answer(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in an answer; None if its form is unknown.

    Known forms are OpenAI's chat completions, text completions and responses, Anthropic's
    messages, Gemini's generateContent, Ollama's chat, Bedrock's Converse, Cohere's chat, LangChain
    messages, and the native answers of llama.cpp and Text Generation Inference.
    """
    for reader in (
        openai.completion_of,
        anthropic.completion_of,
        openai.response_of,
        gemini.completion_of,
        _ollama,
        _other,
    ):
        completion = reader(answer)
        if completion is not None:
            return completion
    return Completion("", finish_reason="error") if _is_error(answer) else None


def read_stream(chunks: Sequence[Any]) -> Completion:
    """The whole answer from the chunks of a stream: text, or events in a provider's form."""
    answer = StreamedAnswer()
    from_provider = False
    for chunk in chunks:
        if isinstance(chunk, Mapping):
            delta = _delta(chunk)
            from_provider = from_provider or (delta is not None and chunk.get("type") != "ping")
            answer.add(delta or Delta())
        else:
            answer.add(Delta(str(chunk or "")))
    completion = answer.completion()
    reason = completion.finish_reason
    if from_provider and (reason is None or (reason == "stop" and not answer.complete)):
        return dataclasses.replace(completion, finish_reason=UNFINISHED)
    return completion


_ERROR_FIELDS = frozenset({"error", "type", "request_id", "user_id", "object", "status_code"})


def _is_error(answer: Mapping[str, Any]) -> bool:
    """Whether this is a provider's error, sent in place of an answer."""
    if answer.get("object") == "error":
        return isinstance(answer.get("message"), str)
    error = answer.get("error")
    if isinstance(error, Mapping):
        return isinstance(error.get("message"), str) and answer.keys() <= _ERROR_FIELDS
    return isinstance(error, str) and bool(error) and len(answer) == 1


def _ollama(answer: Mapping[str, Any]) -> Completion | None:
    """An answer of Ollama's own chat and generate, or a chunk of its stream."""
    message = answer.get("message")
    named = bool({"model", "created_at", "done_reason"} & answer.keys())
    has_text = isinstance(answer.get("response"), str) and (named or answer.get("done") is True)
    if isinstance(message, Mapping):
        has_text = named or not message or bool({"content", "role"} & message.keys())
    done = answer.get("done", "done_reason" in answer or None)
    if not isinstance(done, bool) or not has_text:
        return None
    reason = finish_reason(answer.get("done_reason") or "stop") if done else UNFINISHED
    calls = openai.tool_calls_of(mapping(message))
    return Completion(
        str(mapping(message).get("content") or answer.get("response") or ""),
        finish_reason=reason,
        usage=usage_of(answer.get("prompt_eval_count"), answer.get("eval_count")),
        model=answer.get("model"),
        has_tool_calls=bool(calls),
        tool_calls=calls,
    )


_OTHER_FORMS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("output", "message", "content"), ("stopReason",)),  # Bedrock's Converse
    (("message", "content"), ("finish_reason",)),  # Cohere
    (("content",), ("response_metadata", "finish_reason")),  # LangChain
    (("content",), ("response_metadata", "stop_reason")),
    (("content",), ("response_metadata", "done_reason")),
    (("generated_text",), ("details", "finish_reason")),  # Text Generation Inference
    (("content",), ("stop_type",)),  # llama.cpp's own
)
"""Other forms: where their text is, and where their finish reason."""


def _other(answer: Mapping[str, Any]) -> Completion | None:
    for text_path, reason_path in _OTHER_FORMS:
        content = _at(answer, text_path)
        parent = _at(answer, reason_path[:-1])
        if not isinstance(content, str | list) or reason_path[-1] not in mapping(parent):
            continue
        text = content if isinstance(content, str) else "".join(map(_block_text, content))
        calls = mappings(answer.get("tool_calls")) or [
            block for block in mappings(content) if "toolUse" in block
        ]
        reason = finish_reason(mapping(parent)[reason_path[-1]])
        if reason_path == ("stop_type",) and reason not in ("stop", "length", "none"):
            continue
        return Completion(text, combined_reason([reason]), has_tool_calls=bool(calls))
    return None


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = mapping(value).get(name)
    return value


def _block_text(block: Any) -> str:
    return block if isinstance(block, str) else str(mapping(block).get("text") or "")


# ------------------------------------------------------------------------------- streams


def _delta(chunk: Mapping[str, Any]) -> Delta | None:
    """What a chunk adds to the answer; None if it has an application's own form."""
    kind = str(chunk.get("type"))
    if kind == "chunk" and isinstance(chunk.get("chunk"), Mapping):
        return _delta(chunk["chunk"])  # from the OpenAI package's streaming helper
    if openai.is_chunk(chunk):
        return openai.delta_of(chunk)
    if _RESPONSE_EVENT.match(kind):
        return _response_event(chunk)
    if anthropic.is_event(chunk):
        return anthropic.delta_of(chunk)
    if gemini.is_chunk(chunk):
        return gemini.delta_of(chunk)
    if (completion := _ollama(chunk)) is not None:
        return _as_delta(completion, ends=completion.finish_reason != UNFINISHED)
    if kind == "error" and (isinstance(chunk.get("error"), Mapping) or "param" in chunk):
        return Delta(finish_reason="error")
    return Delta(finish_reason="error") if _is_error(chunk) else _other_delta(chunk)


def _other_delta(chunk: Mapping[str, Any]) -> Delta | None:
    """A chunk of Cohere's, Bedrock's, Text Generation Inference's, llama.cpp's or LangChain's."""
    kind = str(chunk.get("type"))
    inner = mapping(chunk.get("delta"))
    if kind in ("content-delta", "message-start", "message-end") and "delta" in chunk:
        return _piece(_at(inner, ("message", "content", "text")), inner.get("finish_reason"))
    if isinstance(chunk.get("contentBlockDelta"), Mapping):
        return _piece(_at(chunk, ("contentBlockDelta", "delta", "text")), None)
    if isinstance(chunk.get("messageStop"), Mapping):
        return _piece("", chunk["messageStop"].get("stopReason"))
    if len(chunk) == 1 and str(next(iter(chunk))).endswith("Exception"):
        return Delta(finish_reason="error")
    if isinstance(chunk.get("token"), Mapping) and "generated_text" in chunk:
        reason = mapping(chunk.get("details")).get("finish_reason")
        return _piece(chunk["token"].get("text"), reason)
    if isinstance(chunk.get("stop"), bool) and {"content", "id_slot"} <= chunk.keys():
        return _piece(chunk["content"], chunk.get("stop_type") if chunk["stop"] else None)
    if kind.endswith("MessageChunk") and "response_metadata" in chunk:
        metadata = mapping(chunk["response_metadata"])
        reasons = (metadata.get(name) for name in ("finish_reason", "stop_reason", "done_reason"))
        return _piece(chunk.get("content"), next((r for r in reasons if r is not None), None))
    return None


def _piece(text: Any, reason: Any) -> Delta:
    reason = finish_reason(reason)
    return Delta(text if isinstance(text, str) else "", reason, ends=reason is not None)


_RESPONSE_EVENT = re.compile(
    r"response\.(created|queued|in_progress|completed|failed|incomplete|(output_item|content_part|"
    r"output_text|refusal|function_call_arguments|reasoning\w*|audio|\w+_call|mcp_\w+)\.\w+)"
)
"""Types of events of OpenAI's responses API."""
_NAMED = {"object": "response"}
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


def _response_event(event: Mapping[str, Any]) -> Delta:
    """An event of OpenAI's responses API.

    The last one repeats the whole response, of which the text has been added before.
    """
    kind = event["type"]
    if kind == "response.output_text.delta":
        return Delta(str(event.get("delta") or ""))
    if kind not in _RESPONSE_ENDS:
        return Delta()
    completion = openai.response_of({"output": [], **mapping(event.get("response")), **_NAMED})
    delta = _as_delta(completion or Completion("", UNFINISHED), ends=True)
    return dataclasses.replace(delta, text="")


def _as_delta(completion: Completion, *, ends: bool) -> Delta:
    calls = [ToolDelta(i, c.id, c.name, c.arguments) for i, c in enumerate(completion.tool_calls)]
    return Delta(
        completion.text,
        completion.finish_reason if ends else None,
        completion.usage,
        completion.model,
        tuple(calls),
        ends=ends,
    )
