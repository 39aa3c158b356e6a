"""Anthropic's messages API.

Its two versions accept different requests. Since 2026-10-21 the API rejects `temperature`,
`top_p` and `top_k` with any value and expects the key as a bearer token. With that version,
the default, these parameters are left out, so that a route can fall back to this provider
from one that accepts them; `version="2023-06-01"` sends them.

Source: Anthropic API reference, "Messages", "Streaming" and "Versions".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
    NO_USAGE,
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

ANTHROPIC_URL = "https://api.anthropic.com"
VERSION = "2026-10-21"
MAX_TOKENS = 4096
"""Sent if the caller sets no limit on the answer, since the API requires one."""

_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_UNSUPPORTED = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "seed",
        "store",
        "stream",
        "stream_options",
        "tool_choice",
        "top_logprobs",
        "user",
        "verbosity",
    }
)
"""OpenAI's parameters that this API rejects: translated or left out, so that a fallback works."""


class Anthropic(base.HTTPProvider):
    """Anthropic's messages API. See `base.HTTPProvider`.

    Args:
        version: the value of the `anthropic-version` header.
    """

    def __init__(
        self,
        *,
        name: str = "anthropic",
        base_url: str = ANTHROPIC_URL,
        api_key: str | SecretStr | None = None,
        model: str | None = None,
        models: Sequence[str] = ("claude-*",),
        headers: Mapping[str, str | SecretStr] | None = None,
        price_list: str | None = None,
        version: str = VERSION,
    ) -> None:
        own = f"{base_url}/".startswith(f"{ANTHROPIC_URL}/")
        super().__init__(
            name=name,
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            api_key=api_key,
            model=model,
            models=models,
            headers={"anthropic-version": version, **(headers or {})},
            price_list=price_list or ("anthropic" if own else None),
        )
        self._is_old_version = version < VERSION

    def build(self, request: Request, *, model: str, stream: bool) -> HTTPRequest:
        system, turns = base.conversation(request)
        body: dict[str, Any] = {"model": model, **self._params(request)}
        if system:
            body["system"] = "\n\n".join(base.text_of(message.parts) for message in system)
        body["messages"] = self._turns(turns)
        if request.tools is not None:
            body["tools"] = [_tool(tool) for tool in base.tools_of(request.tools)]
            if (choice := _tool_choice(request.params)) is not None:
                body["tool_choice"] = choice
        schema, wants_json = base.schema_of(request.response_format)
        if schema is not None:
            output_format = {"type": "json_schema", "schema": schema}
            output_config = mapping(body.get("output_config"))
            body["output_config"] = {**output_config, "format": output_format}
        elif wants_json:
            instruction = "Answer with one JSON value and nothing else."
            body["system"] = "\n\n".join(filter(None, (body.get("system"), instruction)))
        if stream:
            body["stream"] = True
        return self._post("/v1/messages", body, self._auth())

    def read(self, reply: HTTPReply) -> Completion:
        return self._answer(reply, completion_of)

    def reader(self) -> EventReader:
        return self._events(delta_of)

    def _auth(self) -> Mapping[str, SecretStr]:
        if self._is_old_version and self._key is not None:
            return {"x-api-key": self._key}
        return self._bearer()

    def _params(self, request: Request) -> dict[str, Any]:
        params = request.params
        translated: dict[str, Any] = {
            "max_tokens": params.get("max_tokens")
            or params.get("max_completion_tokens")
            or params.get("max_output_tokens")
            or MAX_TOKENS
        }
        stop = params.get("stop_sequences", params.get("stop"))
        if stop:
            translated["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
        if params.get("user"):
            translated["metadata"] = {"user_id": str(params["user"])}
        done = {
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "stop",
            "stop_sequences",
        }
        unsupported = _UNSUPPORTED if self._is_old_version else _UNSUPPORTED | _SAMPLING
        rest = {k: v for k, v in params.items() if k not in done | unsupported}
        return {**translated, **rest}

    def _turns(self, turns: Sequence[Message]) -> list[dict[str, Any]]:
        """The turns as alternating messages: consecutive ones of the same role are merged."""
        built: list[dict[str, Any]] = []
        for message in turns:
            role = "assistant" if message.role == "assistant" else "user"
            blocks = [block for part in message.parts for block in self._blocks(part)]
            if not blocks:
                continue
            if built and built[-1]["role"] == role:
                built[-1]["content"] += blocks
            else:
                built.append({"role": role, "content": blocks})
        return built

    def _blocks(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case TextPart(text, extra):
                yield {"type": "text", "text": text, **(extra or {})}
            case MediaPart(kind="audio"):
                self._raise_unsupported("audio")
            case MediaPart():
                yield self._media(part)
            case ToolCallPart(call_id, name, arguments):
                value = arguments if isinstance(arguments, Mapping) else {"arguments": arguments}
                yield {"type": "tool_use", "id": call_id, "name": name, "input": value}
            case ToolResultPart(call_id, parts, is_error):
                content = [block for inner in parts for block in self._blocks(inner)]
                result: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id}
                if content:
                    result["content"] = content
                yield {**result, "is_error": True} if is_error else result
            case OpaquePart(value):
                yield dict(value)

    def _media(self, part: MediaPart) -> dict[str, Any]:
        kind = "image" if part.kind == "image" else "document"
        detail = {k: v for k, v in part.detail.items() if k in ("title", "context")}
        return {"type": kind, "source": _source(part), **detail}


def _source(part: MediaPart) -> dict[str, Any]:
    if part.data is None:
        reference = part.reference or ""
        if reference.startswith(("http://", "https://")):
            return {"type": "url", "url": reference}
        return {"type": "file", "file_id": reference}
    media_type = base.media_type_of(part)
    if part.kind != "image" and media_type.startswith(("text/", "application/octet-stream")):
        text = part.data.decode(errors="replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "base64", "media_type": media_type, "data": base.base64_of(part)}


def _tool(tool: base.Tool | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tool, base.Tool):
        return tool
    built: dict[str, Any] = {"name": tool.name, "input_schema": tool.schema}
    if tool.description is not None:
        built["description"] = tool.description
    if tool.strict is not None:
        built["strict"] = tool.strict
    return built


def _tool_choice(params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    choice = base.tool_choice_of(params.get("tool_choice"))
    sequential = params.get("parallel_tool_calls") is False
    if choice is None:
        return {"type": "auto", "disable_parallel_tool_use": True} if sequential else None
    if not isinstance(choice, str):
        built: dict[str, Any] = {"type": "tool", **choice}
    else:
        built = {"type": "any" if choice == "required" else choice}
    if sequential and choice != "none":
        return {**built, "disable_parallel_tool_use": True}
    return built


# ---------------------------------------------------------------------------- reading


def completion_of(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in a message of this API; None if the answer has another form."""
    content = answer.get("content")
    named = answer.get("type") == "message" and isinstance(answer.get("usage"), Mapping)
    named = named and bool({"stop_reason", "model"} & answer.keys())
    ends = "stop_reason" in answer and all("type" in block for block in mappings(content))
    if not isinstance(content, list) or not (named or (ends and mappings(content) == content)):
        return None
    blocks = mappings(content)
    calls = tuple(
        ToolCallPart(str(b.get("id")), str(b.get("name")), b.get("input"))
        for b in blocks
        if b.get("type") == "tool_use"
    )
    return Completion(
        "".join(str(block.get("text") or "") for block in blocks if block.get("type") == "text"),
        finish_reason=combined_reason([finish_reason(answer.get("stop_reason"))]),
        usage=usage(answer.get("usage")),
        model=answer.get("model"),
        has_tool_calls=bool(calls),
        tool_calls=calls,
    )


def usage(counts: Any) -> Usage:
    """The usage of a message. This API does not count cached tokens as `input_tokens`."""
    counts = mapping(counts)
    cached = counts.get("cache_read_input_tokens")
    cache_write = counts.get("cache_creation_input_tokens")
    prompt = counts.get("input_tokens")
    if isinstance(prompt, int):
        prompt += sum(n for n in (cached, cache_write) if isinstance(n, int))
    return usage_of(prompt, counts.get("output_tokens"), cached, cache_write)


_EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    }
)


def is_event(event: Mapping[str, Any]) -> bool:
    """Whether this is an event of a message stream."""
    return event.get("type") in _EVENTS


def delta_of(event: Mapping[str, Any]) -> Delta:
    """What an event of a message stream adds to the answer."""
    match event.get("type"):
        case "message_start":
            message = mapping(event.get("message"))
            return Delta(usage=usage(message.get("usage")), model=message.get("model"))
        case "content_block_start":
            block = mapping(event.get("content_block"))
            if block.get("type") != "tool_use":
                return Delta(str(block.get("text") or ""))
            call = ToolDelta(_index(event), str(block.get("id")), str(block.get("name")))
            return Delta(tools=(call,))
        case "content_block_delta":
            delta = mapping(event.get("delta"))
            if delta.get("type") == "input_json_delta":
                piece = str(delta.get("partial_json") or "")
                return Delta(tools=(ToolDelta(_index(event), arguments=piece),))
            return Delta(str(delta.get("text") or ""))
        case "message_delta":
            reason = finish_reason(mapping(event.get("delta")).get("stop_reason"))
            counts = event.get("usage")
            return Delta(finish_reason=reason, usage=usage(counts) if counts else NO_USAGE)
        case "message_stop":
            return Delta(ends=True, last=True)
        case _:
            return Delta()


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0
