"""Google's Gemini API: generateContent and streamGenerateContent.

Source: Gemini API reference, "Generating content".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from semcache.providers import base
from semcache.providers.answers import (
    Delta,
    EventReader,
    ToolDelta,
    combined_reason,
    finish_reason,
    mapping,
    mappings,
    usage_of,
)
from semcache.providers.http_messages import HTTPReply, HTTPRequest
from semcache.types import (
    Completion,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)

if TYPE_CHECKING:
    from pydantic import SecretStr

GEMINI_URL = "https://generativelanguage.googleapis.com"

_CONFIG = {
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "max_output_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "stop_sequences": "stopSequences",
}
"""The names in `generationConfig` for other providers' parameters."""
_TOP_LEVEL = frozenset({"safetySettings", "safety_settings", "cachedContent", "cached_content"})
"""Parameters that belong next to `generationConfig`, not in it."""
_UNSUPPORTED = frozenset(
    {
        "logit_bias",
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "reasoning_effort",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "thinking",
        "tool_choice",
        "user",
        "verbosity",
    }
)
"""Other providers' parameters that this API rejects: translated or left out, for fallbacks."""


class Gemini(base.HTTPProvider):
    """Google's Gemini API. See `base.HTTPProvider`."""

    def __init__(
        self,
        *,
        name: str = "gemini",
        base_url: str = GEMINI_URL,
        api_key: str | SecretStr | None = None,
        model: str | None = None,
        models: Sequence[str] = ("gemini-*",),
        headers: Mapping[str, str | SecretStr] | None = None,
        price_list: str | None = None,
    ) -> None:
        own = f"{base_url}/".startswith(f"{GEMINI_URL}/")
        super().__init__(
            name=name,
            base_url=base_url.rstrip("/").removesuffix("/v1beta"),
            api_key=api_key,
            model=model,
            models=models,
            headers=headers,
            price_list=price_list or ("google" if own else None),
        )

    def build(self, request: Request, *, model: str, stream: bool) -> HTTPRequest:
        system, turns = base.conversation(request)
        body: dict[str, Any] = {"contents": self._contents(turns)}
        if system:
            text = "\n\n".join(base.text_of(message.parts) for message in system)
            body["systemInstruction"] = {"parts": [{"text": text}]}
        if request.tools is not None:
            body["tools"] = _tools(request.tools)
        choice = base.tool_choice_of(request.params.get("tool_choice"))
        if choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _mode(choice)}
        config, top_level = _params(request)
        body.update(top_level)
        if config:
            body["generationConfig"] = config
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        name = quote(model.removeprefix("models/"), safe="")
        secrets = {} if self._key is None else {"x-goog-api-key": self._key}
        return self._post(f"/v1beta/models/{name}:{method}", body, secrets)

    def read(self, reply: HTTPReply) -> Completion:
        return self._answer(reply, completion_of)

    def reader(self) -> EventReader:
        calls = 0

        def numbered_delta(chunk: Mapping[str, Any]) -> Delta:
            """Number the tool calls, which arrive whole and without an index."""
            nonlocal calls
            delta = delta_of(chunk, first=calls)
            calls += len(delta.tools)
            return delta

        return self._events(numbered_delta)

    def _contents(self, turns: Sequence[Message]) -> list[dict[str, Any]]:
        names: dict[str, str] = {}
        contents: list[dict[str, Any]] = []
        for message in turns:
            role = "model" if message.role in ("assistant", "model") else "user"
            parts = [built for part in message.parts for built in self._parts(part, names)]
            if not parts:
                continue
            if contents and contents[-1]["role"] == role:
                contents[-1]["parts"] += parts
            else:
                contents.append({"role": role, "parts": parts})
        return contents

    def _parts(self, part: Part, names: dict[str, str]) -> Iterator[dict[str, Any]]:
        match part:
            case TextPart(text):
                yield {"text": text}
            case MediaPart(data=None, reference=reference):
                media_type = {"mimeType": part.media_type} if part.media_type else {}
                yield {"fileData": {**media_type, "fileUri": reference}}
            case MediaPart():
                mime_type = base.media_type_of(part)
                if part.kind == "audio" and "/" not in mime_type:
                    mime_type = f"audio/{mime_type}"
                yield {"inlineData": {"mimeType": mime_type, "data": base.base64_of(part)}}
            case ToolCallPart(call_id, name, arguments):
                names[call_id] = name
                args = arguments if isinstance(arguments, Mapping) else {"arguments": arguments}
                yield {"functionCall": {"name": name, "args": args}}
            case ToolResultPart(call_id, parts, is_error):
                name = names.get(call_id, call_id)
                response = {"error" if is_error else "result": base.text_of(parts)}
                yield {"functionResponse": {"name": name, "response": response}}
                media = [inner for inner in parts if not isinstance(inner, TextPart)]
                for inner in media:
                    yield from self._parts(inner, names)
            case OpaquePart(value):
                yield dict(value)


def _tools(value: Any) -> list[Mapping[str, Any]]:
    tools = base.tools_of(value)
    declared = [_declaration(tool) for tool in tools if isinstance(tool, base.Tool)]
    others = [tool for tool in tools if not isinstance(tool, base.Tool)]
    return [{"functionDeclarations": declared}, *others] if declared else others


def _declaration(tool: base.Tool) -> dict[str, Any]:
    description = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, **description, "parametersJsonSchema": tool.schema}


def _mode(choice: str | Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(choice, str):
        return {"mode": "ANY", "allowedFunctionNames": [choice["name"]]}
    return {"mode": {"required": "ANY"}.get(choice, choice.upper())}


def _params(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """(generationConfig, fields next to it)."""
    config: dict[str, Any] = {}
    top_level: dict[str, Any] = {}
    for name, value in request.params.items():
        if name in _TOP_LEVEL:
            top_level[_camel_case(name)] = value
        elif name in ("stop", "stop_sequences"):
            config["stopSequences"] = [value] if isinstance(value, str) else list(value)
        elif name in ("generationConfig", "generation_config"):
            config.update(mapping(value))
        elif name not in _UNSUPPORTED:
            config[_CONFIG.get(name) or _camel_case(name)] = value
    schema, wants_json = base.schema_of(request.response_format)
    if wants_json:
        config["responseMimeType"] = "application/json"
    if schema is not None:
        config["responseJsonSchema"] = schema
    return config, top_level


def _camel_case(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match.group(1).upper(), name)


# ---------------------------------------------------------------------------- reading


def completion_of(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in a generateContent answer; None if the answer has another form.

    Field names may also be in snake case, as in the SDK's objects.
    """
    if not is_chunk(answer):
        return None
    delta = delta_of(answer)
    calls = tuple(ToolCallPart(tool.id, tool.name, tool.arguments) for tool in delta.tools)
    return Completion(
        delta.text,
        finish_reason=delta.finish_reason
        if _blocked(answer)
        else combined_reason(reason for _, reason in delta.choices),
        usage=delta.usage,
        model=delta.model,
        has_tool_calls=bool(calls),
        tool_calls=calls,
    )


def is_chunk(chunk: Mapping[str, Any]) -> bool:
    """Whether this is an answer of generateContent, or a chunk of its stream."""
    candidates = mappings(chunk.get("candidates"))
    if candidates:
        return all(
            bool({"parts", "role"} & mapping(c.get("content")).keys())
            or "finishReason" in c
            or "finish_reason" in c
            for c in candidates
        )
    counts = mapping(_either(chunk, "usageMetadata", "usage_metadata"))
    return _blocked(chunk) or bool({"promptTokenCount", "prompt_token_count"} & counts.keys())


def delta_of(chunk: Mapping[str, Any], first: int = 0) -> Delta:
    """What a chunk of the stream adds to the answer; a whole answer has the same form.

    Args:
        first: the index of the chunk's first tool call.
    """
    model = _either(chunk, "modelVersion", "model_version")
    counts = usage(_either(chunk, "usageMetadata", "usage_metadata"))
    if _blocked(chunk):
        return Delta(finish_reason="content_filter", usage=counts, model=model, ends=True)
    candidates = mappings(chunk.get("candidates"))
    candidate = mapping(next(iter(candidates), None))
    parts = mappings(mapping(candidate.get("content")).get("parts"))
    calls = [c for part in parts if (c := mapping(_either(part, "functionCall", "function_call")))]
    reason = _reason(candidate)
    if reason == "stop" and calls:
        reason = "tool_calls"
    reasons = [reason, *map(_reason, candidates[1:])] if candidates else []
    return Delta(
        "".join(str(part.get("text") or "") for part in parts if not part.get("thought")),
        reason,
        counts,
        model,
        tuple(
            ToolDelta(
                first + i, str(c.get("id") or ""), str(c.get("name")), dict(mapping(c.get("args")))
            )
            for i, c in enumerate(calls)
        ),
        tuple((_index(c, i), r) for i, (c, r) in enumerate(zip(candidates, reasons, strict=True))),
        ends=reason is not None,
    )


def _reason(candidate: Mapping[str, Any]) -> str | None:
    return finish_reason(_either(candidate, "finishReason", "finish_reason"))


def _index(candidate: Mapping[str, Any], position: int) -> int:
    index = candidate.get("index")
    return index if isinstance(index, int) else position


def usage(metadata: Any) -> Usage:
    """The usage of an answer; thinking is billed, and counted, as part of the answer."""
    counts = mapping(metadata)
    answer = _either(counts, "candidatesTokenCount", "candidates_token_count")
    thoughts = _either(counts, "thoughtsTokenCount", "thoughts_token_count")
    if isinstance(thoughts, int):
        answer = thoughts + (answer if isinstance(answer, int) else 0)
    return usage_of(
        _either(counts, "promptTokenCount", "prompt_token_count"),
        answer,
        _either(counts, "cachedContentTokenCount", "cached_content_token_count"),
    )


def _blocked(answer: Mapping[str, Any]) -> bool:
    """Whether the prompt itself was blocked, so that there are no candidates."""
    feedback = mapping(_either(answer, "promptFeedback", "prompt_feedback"))
    return bool(_either(feedback, "blockReason", "block_reason"))


def _either(value: Mapping[str, Any], name: str, other: str) -> Any:
    return value.get(name, value.get(other))
