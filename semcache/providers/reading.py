"""Reads answers in any known provider's form, which is recognised by its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semcache.providers import anthropic, gemini, openai
from semcache.providers.answers import (
    Delta,
    StreamedAnswer,
    ToolDelta,
    finish_reason,
    mapping,
    usage_of,
)
from semcache.types import Completion


def read_answer(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in an answer; None if its form is unknown.

    Known forms are OpenAI's chat completions and responses, Anthropic's messages, Gemini's
    generateContent and Ollama's chat.
    """
    for reader in (
        openai.completion_of,
        anthropic.completion_of,
        openai.response_of,
        gemini.completion_of,
        _ollama,
    ):
        completion = reader(answer)
        if completion is not None:
            return completion
    return Completion("", finish_reason="error") if answer.get("error") else None


def read_stream(chunks: Sequence[Any]) -> Completion:
    """The whole answer from the chunks of a stream: text, or events in a provider's form."""
    answer = StreamedAnswer()
    for chunk in chunks:
        answer.add(_delta(chunk) if isinstance(chunk, Mapping) else Delta(str(chunk or "")))
    return answer.completion()


def _ollama(answer: Mapping[str, Any]) -> Completion | None:
    if "done_reason" not in answer:
        return None
    message = mapping(answer.get("message"))
    return Completion(
        str(message.get("content") or answer.get("response") or ""),
        finish_reason=finish_reason(answer["done_reason"]),
        usage=usage_of(answer.get("prompt_eval_count"), answer.get("eval_count")),
        has_tool_calls=bool(message.get("tool_calls")),
    )


def _delta(chunk: Mapping[str, Any]) -> Delta:
    if isinstance(chunk.get("choices"), list) and (chunk["choices"] or chunk.get("usage")):
        return openai.delta_of(chunk)
    response = chunk.get("response")
    if isinstance(response, Mapping):
        return _response_event(chunk, response)
    if "candidates" in chunk:
        return gemini.delta_of(chunk)
    if "done" in chunk:
        return _as_delta(_ollama({"done_reason": None, **chunk}))
    kind = str(chunk.get("type"))
    if isinstance(chunk.get("delta"), str):  # OpenAI responses
        text = chunk["delta"] if kind == "response.output_text.delta" else ""
        return _as_delta(Completion(text, has_tool_calls="function_call" in kind))
    if kind == "error" or chunk.get("error"):
        return Delta(finish_reason="error")
    return anthropic.delta_of(chunk)


def _response_event(event: Mapping[str, Any], response: Mapping[str, Any]) -> Delta:
    """An event of OpenAI's responses API with the response so far, whose text is a repetition."""
    completion = read_answer(response) or Completion("")
    at_end = event.get("type") in ("response.completed", "response.incomplete")
    return Delta(
        "",
        completion.finish_reason if at_end else None,
        completion.usage,
        completion.model,
        _as_delta(completion).tools,
    )


def _as_delta(completion: Completion | None) -> Delta:
    if completion is None:
        return Delta()
    calls = [ToolDelta(i, c.id, c.name, c.arguments) for i, c in enumerate(completion.tool_calls)]
    if completion.has_tool_calls and not calls:
        calls = [ToolDelta(0)]
    return Delta(
        completion.text,
        completion.finish_reason,
        completion.usage,
        completion.model,
        tuple(calls),
    )
