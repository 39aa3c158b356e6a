"""Answers in whatever provider's form, told apart by the fields they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semcache.providers import anthropic, gemini, openai
from semcache.providers.answers import Delta, Gathered, finish_reason, mapping, usage_of
from semcache.types import Completion


def read_answer(answer: Mapping[str, Any]) -> Completion | None:
    """Text, finish reason, usage, model and tool calls of an answer; None if it is no such.

    Knows OpenAI's chat completions and responses, Anthropic's messages, Gemini's
    generateContent and Ollama's chat.
    """
    for reader in (
        openai.completion_of,
        anthropic.completion_of,
        openai.response_of,
        gemini.completion_of,
        _ollama,
    ):
        found = reader(answer)
        if found is not None:
            return found
    return Completion("", finish_reason="error") if answer.get("error") else None


def read_stream(chunks: Sequence[Any]) -> Completion:
    """The whole answer from the chunks of a stream: text, or events in a provider's form."""
    gathered = Gathered()
    for chunk in chunks:
        gathered.add(_delta(chunk) if isinstance(chunk, Mapping) else Delta(str(chunk or "")))
    return gathered.completion()


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
    whole = chunk.get("response")
    if isinstance(whole, Mapping):
        return _end_of_response(chunk, whole)
    if "candidates" in chunk:
        return gemini.delta_of(chunk)
    if "done" in chunk:
        return _of(_ollama({"done_reason": None, **chunk}))
    kind = str(chunk.get("type"))
    if isinstance(chunk.get("delta"), str):  # OpenAI responses
        text = chunk["delta"] if kind == "response.output_text.delta" else ""
        return _of(Completion(text, has_tool_calls="function_call" in kind))
    if kind == "error" or chunk.get("error"):
        return Delta(finish_reason="error")
    return anthropic.delta_of(chunk)


def _end_of_response(chunk: Mapping[str, Any], whole: Mapping[str, Any]) -> Delta:
    """OpenAI responses: the last event repeats all the words."""
    found = read_answer(whole) or Completion("")
    ended = chunk.get("type") in ("response.completed", "response.incomplete")
    delta = _of(found)
    return Delta("", found.finish_reason if ended else None, found.usage, found.model, delta.tools)


def _of(completion: Completion | None) -> Delta:
    from semcache.providers.answers import ToolDelta

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
