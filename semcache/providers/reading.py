"""Reads answers in any known provider's format, which is recognised by its fields.

An answer in a provider's format counts as whole only if it has a finish reason and, for a stream,
if the stream reached its end. A value in an application's own format has no such marks: it counts
as whole, even if it has a field such as `status`, `error` or `choices`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from semcache.providers import anthropic, gemini
from semcache.providers import openai_answers as openai
from semcache.providers.answers import (
    Delta,
    StreamedAnswer,
    ToolDelta,
    combined_reason,
    finish_reason,
    is_finish_reason,
    mapping,
    mappings,
    usage_of,
)
from semcache.providers.event_text import may_be_events
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


def read_value(value: Any) -> Completion | None:
    """`read_answer` for plain JSON: an answer, a list of one answer, or a value with answers in it.

    A value that only contains answers, for example next to their timings, has an application's own
    format: the result is None, unless one of them is unmistakably a provider's and is cut off.
    """
    if isinstance(value, Mapping):
        if value.get("type") == "constructor" and isinstance(value.get("kwargs"), Mapping):
            return read_value(value["kwargs"])  # LangChain's own serialisation
        completion = read_answer(value)
    else:
        single = isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping)
        completion = read_answer(value[0]) if single else None
    if completion is not None:
        return completion
    reasons = [answer.finish_reason for answer in _held(value, _MAX_DEPTH)]
    cut = combined_reason(reasons) if reasons else "stop"
    return None if cut in ("stop", "tool_calls") else Completion("", finish_reason=cut)


_MAX_DEPTH = 4
"""How many levels of a value in an application's own format are searched for answers."""


def _held(value: Any, depth: int) -> Iterator[Completion]:
    """The answers inside a value that are unmistakably a provider's."""
    if not depth or not isinstance(value, Mapping | list | tuple):
        return
    for inner in value.values() if isinstance(value, Mapping) else value:
        completion = read_answer(inner) if _is_unmistakable(inner) else None
        if completion is not None:
            yield completion
        else:
            yield from _held(inner, depth - 1)


def _is_unmistakable(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    if value.get("object") in ("chat.completion", "text_completion", "response"):
        return True
    if value.get("type") == "message":
        return {"content", "model", "role", "stop_reason"} <= value.keys()
    return {"candidates", "usageMetadata"} <= value.keys()


def read_stream(chunks: Sequence[Any]) -> Completion:
    """The whole answer from the chunks of a stream: text, or events in a provider's form."""
    answer = StreamedAnswer()
    from_provider = False
    for chunk in chunks if (events := server_sent(chunks)) is None else events:
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


def server_sent(chunks: Sequence[Any]) -> list[Any] | None:
    """The events of a stream that is passed on as text; None if it is not one.

    They are server-sent events or JSON Lines, cut into pieces anywhere or at the ends of lines.
    """
    pieces = [c.decode("utf-8", "replace") if isinstance(c, bytes) else c for c in chunks]
    if not all(isinstance(piece, str) for piece in pieces) or not may_be_events(pieces):
        return None
    end = "" if any("\n" in piece for piece in pieces) else "\n"
    events: list[Any] = []
    for line in end.join(pieces).splitlines():
        try:
            event = json.loads(line.removeprefix("data:"))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, Mapping):
            events.append(event)
    return events if any(_delta(event) is not None for event in events) else None


_ERROR_FIELDS = frozenset(
    {"error", "estimated_time", "object", "request_id", "status_code", "type", "user_id"}
)


def _is_error(answer: Mapping[str, Any]) -> bool:
    """Whether this is a provider's error, sent in place of an answer."""
    if answer.get("object") == "error":
        return isinstance(answer.get("message"), str)
    error = answer.get("error")
    if not answer.keys() <= _ERROR_FIELDS or answer.get("type", "error") != "error":
        return False
    if isinstance(error, Mapping):
        return isinstance(error.get("message"), str)
    return isinstance(error, str) and bool(error) and answer.keys() <= {"error", "estimated_time"}


def _ollama(answer: Mapping[str, Any]) -> Completion | None:
    """An answer of Ollama's own chat and generate, or a chunk of its stream."""
    message = answer.get("message")
    named = bool({"model", "created_at", "done_reason"} & answer.keys())
    has_text = isinstance(answer.get("response"), str) and (named or answer.get("done") is True)
    if isinstance(message, Mapping):
        has_text = named or "role" in message or not message
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


class _Form(NamedTuple):
    """The paths of an answer's text and finish reason, and fields that identify the format."""

    text: str
    reason: str
    marks: frozenset[str] = frozenset()


_OTHER_FORMS = (
    _Form("output.message.content", "stopReason"),  # Bedrock's Converse
    _Form("message.content", "finish_reason"),  # Cohere
    _Form("message.tool_calls", "finish_reason"),
    _Form("text", "finish_reason", frozenset({"generation_id"})),  # Cohere before version 2
    _Form("results.0.outputText", "results.0.completionReason"),  # Titan
    _Form("results.0.generated_text", "results.0.stop_reason"),  # watsonx
    _Form("generation", "stop_reason", frozenset({"generation_token_count"})),  # Llama on Bedrock
    _Form("outputs.0.text", "outputs.0.stop_reason"),  # Mistral on Bedrock
    _Form("output.text", "output.finish_reason"),  # DashScope
    _Form("output.choices.0.message.content", "output.choices.0.finish_reason"),
    _Form("content", "response_metadata.finish_reason"),  # LangChain
    _Form("content", "response_metadata.stop_reason"),
    _Form("content", "response_metadata.done_reason"),
    _Form("content", "response_metadata.stopReason"),
    _Form("generated_text", "details.finish_reason"),  # Text Generation Inference
    _Form("content", "stop_type"),  # llama.cpp's own
)
"""Formats of other services and libraries, tried in this order."""


def _other(answer: Mapping[str, Any]) -> Completion | None:
    for form in _OTHER_FORMS:
        content, reason = _at(answer, form.text), _at(answer, form.reason)
        reason = reason[0] if isinstance(reason, list) and len(reason) == 1 else reason
        if not form.marks <= answer.keys() or not isinstance(content, str | list):
            continue
        if not is_finish_reason(reason) and not (reason is None and _has(answer, form.reason)):
            continue
        text = content if isinstance(content, str) else "".join(map(_block_text, content))
        calls = mappings(_at(answer, form.text.rpartition(".")[0] + ".tool_calls")) or [
            *mappings(answer.get("tool_calls")),
            *(block for block in mappings(content) if "toolUse" in block),
        ]
        if calls and finish_reason(reason) == "stop":
            reason = "tool_calls"
        return Completion(
            text, combined_reason([finish_reason(reason)]), has_tool_calls=bool(calls)
        )
    if answer.keys() >= _PREDICTION and answer["status"] in _UNFINISHED_PREDICTIONS:
        return Completion("", finish_reason="error" if answer.get("error") else UNFINISHED)
    return None


_PREDICTION = frozenset({"id", "input", "output", "status", "version"})
"""Fields of a Replicate prediction."""
_UNFINISHED_PREDICTIONS = ("aborted", "canceled", "failed", "processing", "starting")


def _at(value: Any, path: str) -> Any:
    """The value at a path of names, where "0" is the first item of a list; None if missing."""
    for name in path.split("."):
        if name == "0":
            value = value[0] if isinstance(value, list) and value else None
        else:
            value = mapping(value).get(name)
    return value


def _has(value: Any, path: str) -> bool:
    """Whether the last name of a path exists, even if its value is None."""
    parent, _, name = path.rpartition(".")
    return name in mapping(_at(value, parent) if parent else value)


def _block_text(block: Any) -> str:
    return block if isinstance(block, str) else str(mapping(block).get("text") or "")


# ------------------------------------------------------------------------------- streams


def _delta(chunk: Mapping[str, Any]) -> Delta | None:
    """What a chunk adds to the answer; None if it has an application's own format."""
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


_LLAMA_CPP = frozenset({"generation_settings", "id_slot", "slot_id", "stop_type", "tokens"})
"""Fields of a chunk in llama.cpp's native format."""


def _other_delta(chunk: Mapping[str, Any]) -> Delta | None:
    """The delta of a chunk in another known format, such as Cohere's, Bedrock's or LangChain's."""
    kind = str(chunk.get("type"))
    inner = mapping(chunk.get("delta"))
    if kind in ("content-delta", "message-start", "message-end") and "delta" in chunk:
        return _piece(_at(inner, "message.content.text"), inner.get("finish_reason"))
    if isinstance(chunk.get("contentBlockDelta"), Mapping):
        return _piece(_at(chunk, "contentBlockDelta.delta.text"), None)
    if isinstance(chunk.get("messageStop"), Mapping):
        return _piece("", chunk["messageStop"].get("stopReason"))
    if len(chunk) == 1 and str(next(iter(chunk))).endswith("Exception"):
        return Delta(finish_reason="error")
    if isinstance(chunk.get("token"), Mapping) and "generated_text" in chunk:
        reason = mapping(chunk.get("details")).get("finish_reason")
        return _piece(chunk["token"].get("text"), reason)
    if isinstance(chunk.get("stop"), bool) and "content" in chunk and chunk.keys() & _LLAMA_CPP:
        return _piece(chunk["content"], chunk.get("stop_type") if chunk["stop"] else None)
    if kind == "text-delta" and isinstance(chunk.get("delta"), str) and "id" in chunk:  # AI SDK
        return _piece(chunk["delta"], None)
    if kind == "finish" and (len(chunk) == 1 or is_finish_reason(chunk.get("finishReason"))):
        return _piece("", chunk.get("finishReason", "stop"))
    if kind == "error" and isinstance(chunk.get("errorText"), str):
        return Delta(finish_reason="error")
    if isinstance(inner_event := chunk.get("data"), Mapping) and _is_named_chunk(inner_event):
        return _delta(inner_event)
    if chunk.get("object") == "thread.message.delta":
        blocks = mappings(_at(chunk, "delta.content"))
        return _piece("".join(str(_at(block, "text.value") or "") for block in blocks), None)
    if chunk.get("object") == "thread.run":
        status = chunk.get("status")
        return _piece("", status if status in _RUN_ENDS else None)
    if kind.endswith("MessageChunk") and "response_metadata" in chunk:
        metadata = mapping(chunk["response_metadata"])
        reasons = (metadata.get(name) for name in ("finish_reason", "stop_reason", "done_reason"))
        return _piece(chunk.get("content"), next((r for r in reasons if r is not None), None))
    return None


_RUN_ENDS = ("cancelled", "completed", "expired", "failed", "incomplete")


def _is_named_chunk(event: Mapping[str, Any]) -> bool:
    """Whether an event that another one wraps is unmistakably a provider's."""
    return event.get("object") in (
        "chat.completion.chunk",
        "thread.message.delta",
        "thread.run",
    ) or bool(_RESPONSE_EVENT.match(str(event.get("type"))))


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

    The last event repeats the whole response, whose text has already been added.
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
