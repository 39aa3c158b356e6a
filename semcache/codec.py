"""A function's values to completions and back.

Stored is JSON. A string is stored as text; what the function's annotation names
(dataclasses, pydantic models, TypedDicts, unions, containers of them) goes through
pydantic and comes back as the same type; without an annotation, JSON values come back
as they were and a dataclass or pydantic model as the class it was, if the program has
imported that class by then. Nothing is ever imported, let alone run, because stored data
asks for it.

From answers in OpenAI's or Anthropic's form, whether SDK objects or plain dicts, the
text, the finish reason, the usage and the model are read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, lru_cache
from typing import Any, cast

from semcache.types import NO_USAGE, Completion, Usage

_PLAIN = (str, bool, int, float, type(None), object)


class ValueCodec:
    """Values of one function.

    Args:
        annotation: the function's return type, or `Any`.
    """

    def __init__(self, annotation: Any = Any) -> None:
        self._annotation = annotation

    @cached_property
    def _adapter(self) -> Any:
        """pydantic's reading of the annotation; None where it says nothing."""
        if self._annotation is Any or self._annotation in _PLAIN:
            return None
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

        try:
            return TypeAdapter(self._annotation)
        except (PydanticUserError, PydanticUndefinedAnnotation):
            return None

    def keep(self, chunk: Any) -> Any:
        """A single value has no chunks."""
        return chunk

    def dump(self, value: Any) -> Completion:
        """Raises `TypeError` for a value that would not come back as it is."""
        if type(value) is str:
            return Completion(value)
        payload, kind = self.dump_payload(value)
        if kind == "text":
            return Completion(payload)
        return details(value if kind == "json" else payload, payload, kind)

    def load(self, completion: Completion) -> Any:
        """Raises `TypeError` or `ValueError` if the stored form is no value of this type."""
        if completion.payload_kind is None:
            return self.load_payload(completion.text, "text")
        if completion.payload_kind == "chunks":
            raise TypeError("a stream is stored for this request, not a single value")
        return self.load_payload(completion.payload, completion.payload_kind)

    def dump_payload(self, value: Any) -> tuple[Any, str]:
        """(JSON, its kind), held against the value by loading it again."""
        if type(value) is str:
            return value, "text"
        if isinstance(value, Iterator | AsyncIterator | Awaitable):
            raise TypeError(
                f"a {type(value).__qualname__} can be read only once: make the function itself a "
                "generator, or return a list, for it to be cached"
            )
        payload, kind = self._payload(value)
        again = self.load_payload(json.loads(json.dumps(payload, allow_nan=False)), kind)
        if not _same(again, value):
            raise TypeError(
                f"a {type(value).__qualname__} would not come back as it is; annotate the "
                "function's return type with the type that it returns"
            )
        return payload, kind

    def _payload(self, value: Any) -> tuple[Any, str]:
        if self._adapter is not None:
            return _dump(self._adapter, value), "typed"
        if is_json(value):
            return deepcopy(value), "json"
        if hasattr(value, "model_dump") or dataclasses.is_dataclass(value):
            adapter = _adapter_of(cast(Hashable, type(value)))
            return _dump(adapter, value), _class_kind(value)
        raise TypeError(
            f"a {type(value).__qualname__} is no JSON value; annotate the function's return type, "
            "or return text, JSON, a dataclass or a pydantic model, for it to be cached"
        )

    def load_payload(self, payload: Any, kind: str) -> Any:
        if kind == "text":
            if self._annotation in (str, Any, object) or self._adapter is None:
                return payload
            return self._adapter.validate_python(payload)
        if kind == "typed":
            if self._adapter is None:
                raise TypeError("the stored value needs the return annotation it was stored with")
            return self._adapter.validate_python(payload)
        if kind == "json":
            return payload
        return _adapter_of(cast(Hashable, _class_of(kind))).validate_python(payload)


class ChunkCodec:
    """The chunks of a stream, each a value of the annotated type."""

    def __init__(self, annotation: Any = Any) -> None:
        self._chunk = ValueCodec(annotation)

    def keep(self, chunk: Any) -> tuple[Any, str]:
        """The chunk as JSON, with its kind."""
        return self._chunk.dump_payload(chunk)

    def dump(self, kept: Sequence[tuple[Any, str]]) -> Completion:
        """The whole stream from its kept chunks."""
        if all(kind == "text" for _, kind in kept):
            payload: Any = [text for text, _ in kept]
            return Completion("".join(payload), payload=payload, payload_kind="chunks")
        payload = [{"kind": kind, "value": value} for value, kind in kept]
        joined = details_of_stream([value for value, _ in kept])
        return dataclasses.replace(joined, payload=payload, payload_kind="chunks")

    def load(self, completion: Completion) -> list[Any]:
        if completion.payload_kind is None:
            return [self._chunk.load_payload(completion.text, "text")]
        if completion.payload_kind != "chunks":
            raise TypeError("a single value is stored for this request, not a stream")
        return [
            self._chunk.load_payload(chunk, "text")
            if isinstance(chunk, str)
            else self._chunk.load_payload(chunk["value"], chunk["kind"])
            for chunk in completion.payload
        ]


def is_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it is (so no tuple, and no key but a string)."""
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(is_json, value))
    if type(value) is dict:
        return all(type(key) is str and is_json(item) for key, item in value.items())
    return False


def _dump(adapter: Any, value: Any) -> Any:
    return adapter.dump_python(value, mode="json", by_alias=True, warnings=False)


def _same(one: Any, two: Any) -> bool:
    """Equal and of one type. Private attributes of models (an SDK's request ids) do not count."""
    if type(one) is not type(two):
        return False
    if hasattr(two, "model_dump"):
        return bool(one.model_dump() == two.model_dump())
    return bool(one == two)


@lru_cache(maxsize=256)
def _adapter_of(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _class_kind(value: Any) -> str:
    return f"class:{type(value).__module__}:{type(value).__qualname__}"


def _class_of(kind: str) -> type:
    """The class that a stored value was of, if the program has it; nothing is imported."""
    _, module, name = kind.split(":", 2)
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    is_model = isinstance(found, type) and (
        hasattr(found, "model_validate") or dataclasses.is_dataclass(found)
    )
    if not is_model:
        raise TypeError(
            f"the stored value is a {module}.{name}, which this program has not imported; "
            "annotate the function's return type to have it restored"
        )
    return found  # type: ignore[no-any-return]


# ------------------------------------------------------------------- providers' forms


def details(source: Any, payload: Any, kind: str) -> Completion:
    """A completion with what an answer in a provider's form says of itself."""
    read = read_answer(source) if isinstance(source, Mapping) else None
    found = read or Completion(payload if isinstance(payload, str) else "")
    if kind == "text":
        return found
    return dataclasses.replace(found, payload=payload, payload_kind=kind)


def read_answer(answer: Mapping[str, Any]) -> Completion | None:
    """Text, finish reason, usage and model of a provider's answer; None if it is no such.

    Knows OpenAI's chat completions and responses, Anthropic's messages, Gemini's
    generateContent and Ollama's chat.
    """
    choices, content = answer.get("choices"), answer.get("content")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return _read_openai(answer, choices)
    if isinstance(content, list) and "stop_reason" in answer:
        return _read_anthropic(answer, content)
    if isinstance(answer.get("output"), list) and "status" in answer:
        return _read_responses(answer)
    candidates = answer.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], Mapping):
        return _read_gemini(answer, candidates[0])
    if "done_reason" in answer:
        message = answer.get("message") or {}
        text = message.get("content") or answer.get("response") or ""
        calls = bool(message.get("tool_calls"))
        reason = _reason(answer["done_reason"])
        return Completion(str(text), finish_reason=reason, has_tool_calls=calls)
    if answer.get("error"):
        return Completion("", finish_reason="error")
    return None


def _reason(said: Any) -> str | None:
    """A finish reason in OpenAI's words where there is one for it."""
    if said is None:
        return None
    return {"end_turn": "stop", "stop_sequence": "stop", "completed": "stop"}.get(
        str(said).lower(), str(said).lower()
    )


def _read_responses(answer: Mapping[str, Any]) -> Completion:
    items = [item for item in answer["output"] if isinstance(item, Mapping)]
    blocks = [b for item in items for b in item.get("content") or () if isinstance(b, Mapping)]
    usage = answer.get("usage") or {}
    return Completion(
        "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "output_text"),
        finish_reason="refusal"
        if any(b.get("type") == "refusal" for b in blocks)
        else _reason(answer.get("status")),
        usage=_usage(usage.get("input_tokens"), usage.get("output_tokens")),
        model=answer.get("model"),
        has_tool_calls=any(str(item.get("type")).endswith("_call") for item in items),
    )


def _read_gemini(answer: Mapping[str, Any], first: Mapping[str, Any]) -> Completion:
    content = first.get("content") or {}
    parts = [part for part in content.get("parts") or () if isinstance(part, Mapping)]
    usage = answer.get("usageMetadata") or answer.get("usage_metadata") or {}
    counts = [
        usage.get(name, usage.get(other))
        for name, other in (
            ("promptTokenCount", "prompt_token_count"),
            ("candidatesTokenCount", "candidates_token_count"),
        )
    ]
    reason = first.get("finishReason", first.get("finish_reason"))
    return Completion(
        "".join(str(part.get("text") or "") for part in parts),
        finish_reason=_reason(getattr(reason, "value", reason)),
        usage=_usage(*counts),
        has_tool_calls=any(part.get("functionCall") or part.get("function_call") for part in parts),
    )


def _read_openai(answer: Mapping[str, Any], choices: Sequence[Any]) -> Completion:
    first = choices[0]
    message = first.get("message") or first.get("delta") or {}
    reasons = [choice.get("finish_reason") for choice in choices]
    cut = next((reason for reason in reasons if reason not in (None, "stop")), reasons[0])
    if message.get("refusal"):
        cut = "refusal"
    usage = answer.get("usage") or {}
    return Completion(
        str(message.get("content") or first.get("text") or ""),
        finish_reason=_reason(cut),
        usage=_usage(usage.get("prompt_tokens"), usage.get("completion_tokens")),
        model=answer.get("model"),
        has_tool_calls=bool(message.get("tool_calls") or message.get("function_call")),
    )


def _read_anthropic(answer: Mapping[str, Any], content: Sequence[Any]) -> Completion:
    blocks = [block for block in content if isinstance(block, Mapping)]
    reason = answer.get("stop_reason")
    usage = answer.get("usage") or {}
    return Completion(
        "".join(str(block.get("text") or "") for block in blocks if block.get("type") == "text"),
        finish_reason=_reason(reason),
        usage=_usage(usage.get("input_tokens"), usage.get("output_tokens")),
        model=answer.get("model"),
        has_tool_calls=any(block.get("type") == "tool_use" for block in blocks),
    )


def _usage(prompt: Any, completion: Any) -> Usage:
    if not isinstance(prompt, int) and not isinstance(completion, int):
        return NO_USAGE
    return Usage(
        prompt if isinstance(prompt, int) else None,
        completion if isinstance(completion, int) else None,
    )


def details_of_stream(chunks: Sequence[Any]) -> Completion:
    """What the chunks of a stream say of the whole answer."""
    text: list[str] = []
    reason, usage, model, tools = None, NO_USAGE, None, False
    for chunk in chunks:
        read = _read_chunk(chunk) if isinstance(chunk, Mapping) else Completion(str(chunk or ""))
        text.append(read.text)
        reason = read.finish_reason or reason
        usage = read.usage if read.usage is not NO_USAGE else usage
        model = read.model or model
        tools = tools or read.has_tool_calls
    return Completion(
        "".join(text), finish_reason=reason, usage=usage, model=model, has_tool_calls=tools
    )


def _read_chunk(chunk: Mapping[str, Any]) -> Completion:
    """What one event of a provider's stream adds: its words, and what it says of the end."""
    if isinstance(chunk.get("choices"), list) and chunk["choices"]:
        return _read_openai(chunk, chunk["choices"])
    whole = chunk.get("response")
    if isinstance(whole, Mapping):  # OpenAI responses: the end repeats all the words
        found = read_answer(whole) or Completion("")
        ended = chunk.get("type") in ("response.completed", "response.incomplete")
        return dataclasses.replace(
            found, text="", finish_reason=found.finish_reason if ended else None
        )
    if "candidates" in chunk or "done" in chunk:  # Gemini, Ollama
        return read_answer({"done_reason": None, **chunk}) or Completion("")
    delta = chunk.get("delta")
    if isinstance(delta, str):
        text = delta if chunk.get("type") == "response.output_text.delta" else ""
        return Completion(text, has_tool_calls="function_call" in str(chunk.get("type")))
    usage = chunk.get("usage")
    if isinstance(delta, Mapping):  # Anthropic: content_block_delta, message_delta
        return Completion(
            str(delta.get("text") or ""),
            finish_reason=_reason(delta.get("stop_reason")),
            usage=_usage(None, usage.get("output_tokens")) if usage else NO_USAGE,
            has_tool_calls=delta.get("type") == "input_json_delta",
        )
    if chunk.get("type") == "error" or chunk.get("error"):
        return Completion("", finish_reason="error")
    if isinstance(usage, Mapping):  # OpenAI's last chunk has usage and no choices
        counted = _usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        return Completion("", usage=counted, model=chunk.get("model"))
    return Completion("")
