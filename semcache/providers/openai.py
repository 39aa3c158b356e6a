"""OpenAI's chat completions API, and the many servers that are compatible with it.

OpenRouter (and DeepSeek through it), Ollama, vLLM, llama.cpp and others differ only in
their address. Source: OpenAI API reference, "Chat" and "Chat streaming".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from semcache.errors import RejectedError
from semcache.providers import base
from semcache.providers.answers import (
    Delta,
    EventReader,
    ToolDelta,
    combined_reason,
    finish_reason,
    mapping,
    mappings,
    parse_arguments,
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

OPENAI_URL = "https://api.openai.com/v1"
OPENROUTER_URL = "https://openrouter.ai/api/v1"
OLLAMA_URL = "http://localhost:11434/v1"

_PARAMETER_NAMES = {"stop_sequences": "stop", "max_output_tokens": "max_tokens"}
"""OpenAI's names for other providers' parameters with the same meaning."""


class OpenAICompatible(base.HTTPProvider):
    """A provider with OpenAI's chat completions API. See `base.HTTPProvider`.

    Args:
        stream_usage: whether to ask for the usage at the end of a stream.
        max_tokens_name: the name of the parameter that limits the answer. OpenAI's newer
            models accept only "max_completion_tokens", many other servers only "max_tokens".
            None means the former at OpenAI's own address, and the caller's name elsewhere.
    """

    def __init__(
        self,
        *,
        name: str = "openai",
        base_url: str = OPENAI_URL,
        api_key: str | SecretStr | None = None,
        model: str | None = None,
        models: Sequence[str] = (),
        headers: Mapping[str, str | SecretStr] | None = None,
        price_list: str | None = None,
        stream_usage: bool = True,
        max_tokens_name: str | None = None,
    ) -> None:
        own = base_url.rstrip("/") == OPENAI_URL
        super().__init__(
            name=name,
            base_url=base_url,
            api_key=api_key,
            model=model,
            models=models or (("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*") if own else ()),
            headers=headers,
            price_list=price_list or _price_list(base_url),
        )
        self._stream_usage = stream_usage
        self._max_tokens_name = max_tokens_name or ("max_completion_tokens" if own else None)

    def build(self, request: Request, *, model: str, stream: bool) -> HTTPRequest:
        body = {"model": model, "messages": self.messages(request), **self._params(request)}
        if request.tools is not None:
            body["tools"] = [_tool(tool) for tool in base.tools_of(request.tools)]
        if (choice := base.tool_choice_of(request.params.get("tool_choice"))) is not None:
            body["tool_choice"] = (
                choice if isinstance(choice, str) else {"type": "function", "function": choice}
            )
        if (response_format := _response_format(request.response_format)) is not None:
            body["response_format"] = response_format
        if stream:
            body["stream"] = True
            if self._stream_usage:
                body["stream_options"] = {"include_usage": True}
        return self._post("/chat/completions", body, self._bearer())

    def messages(self, request: Request) -> list[dict[str, Any]]:
        """The conversation in OpenAI's form."""
        return [built for message in request.messages for built in self._messages(message)]

    def read(self, reply: HTTPReply) -> Completion:
        return self._answer(reply, completion_of)

    def reader(self) -> EventReader:
        return self._events(delta_of)

    def _params(self, request: Request) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for name, value in request.params.items():
            if name in ("tool_choice", "stream", "stream_options"):
                continue
            name = _PARAMETER_NAMES.get(name, name)
            if name in ("max_tokens", "max_completion_tokens") and self._max_tokens_name:
                name = self._max_tokens_name
            params[name] = value
        return params

    def _messages(self, message: Message) -> Iterator[dict[str, Any]]:
        results = [part for part in message.parts if isinstance(part, ToolResultPart)]
        for result in results:
            text = base.text_only(result.parts)
            content = [self._block(part) for part in result.parts] if text is None else text
            yield {"role": "tool", "tool_call_id": result.call_id, "content": content}
        rest = [part for part in message.parts if not isinstance(part, ToolResultPart)]
        if rest or not results:
            yield self._message(message, rest)

    def _message(self, message: Message, parts: Sequence[Part]) -> dict[str, Any]:
        calls = [part for part in parts if isinstance(part, ToolCallPart)]
        others = [part for part in parts if not isinstance(part, ToolCallPart)]
        built: dict[str, Any] = {"role": message.role, **(message.extra or {})}
        if message.name is not None:
            built["name"] = message.name
        text = base.text_only(others)
        if text is None:
            built["content"] = [self._block(part) for part in others]
        elif others or not calls:
            built["content"] = text
        else:
            built["content"] = None
        if calls:
            built["tool_calls"] = [_call(call) for call in calls]
        return built

    def _block(self, part: Part) -> dict[str, Any]:
        match part:
            case TextPart(text):
                return {"type": "text", "text": text}
            case MediaPart(kind="image"):
                return {"type": "image_url", "image_url": {"url": _url(part), **part.detail}}
            case MediaPart(kind="audio"):
                audio_format = (part.media_type or "wav").removeprefix("audio/")
                audio = {"data": base.base64_of(part), "format": audio_format}
                return {"type": "input_audio", "input_audio": audio}
            case MediaPart():
                return {"type": "file", "file": _file(part)}
            case OpaquePart(value):
                return dict(value)
            case ToolCallPart() | ToolResultPart():
                raise RejectedError(
                    "a tool result contains a tool call or another result", provider=self.name
                )


def _price_list(base_url: str) -> str | None:
    price_lists = {
        OPENAI_URL: "openai",
        OPENROUTER_URL: "openrouter",
        "https://api.deepseek.com": "deepseek",
    }
    return next((name for url, name in price_lists.items() if base_url.startswith(url)), None)


def _url(part: MediaPart) -> str:
    if part.data is None:
        return part.reference or ""
    return f"data:{base.media_type_of(part)};base64,{base.base64_of(part)}"


def _file(part: MediaPart) -> dict[str, Any]:
    name = part.detail.get("filename") or part.detail.get("title")
    filename = {"filename": name} if name else {}
    if part.data is not None:
        return {"file_data": _url(part), **filename}
    return {"file_id": part.reference, **filename}


def _call(call: ToolCallPart) -> dict[str, Any]:
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = base.encode(arguments).decode()
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _tool(tool: base.Tool | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(tool, base.Tool):
        return tool
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _response_format(value: Any) -> Any:
    schema, wants_json = base.schema_of(value)
    if schema is None:
        return {"type": "json_object"} if wants_json else value
    inner = mapping(mapping(value).get("json_schema"))
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **inner}}


# ---------------------------------------------------------------------------- reading


def completion_of(answer: Mapping[str, Any]) -> Completion | None:
    """The completion in a chat or text completion; None if the answer has another form.

    An application's own value may hold a list of choices, too.
    """
    choices = mappings(answer.get("choices"))
    if not choices or not (_named(answer) or all(map(_is_choice, choices))):
        return None
    first = choices[0]
    message = mapping(first.get("message"))
    calls = _calls(message)
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
    if isinstance(choice.get("message"), Mapping):
        return "finish_reason" in choice or "role" in choice["message"]
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
    if not named and not ("status" in answer and any(map(_is_item, items))):
        return None
    counts = mapping(answer.get("usage"))
    status = finish_reason(answer.get("status"))
    refused = any(block.get("type") == "refusal" for block in blocks)
    calls = tuple(
        ToolCallPart(str(i.get("call_id")), str(i.get("name")), parse_arguments(i.get("arguments")))
        for i in items
        if i.get("type") == "function_call"
    )
    return Completion(
        "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "output_text"),
        finish_reason="content_filter" if refused else combined_reason([status]),
        usage=usage_of(counts.get("input_tokens"), counts.get("output_tokens")),
        model=answer.get("model"),
        has_tool_calls=any(str(item.get("type")).endswith("_call") for item in items),
        tool_calls=calls,
    )


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
    return _named(chunk) or any("delta" in c or _is_choice(c) for c in mappings(choices))


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


def _calls(message: Mapping[str, Any]) -> tuple[ToolCallPart, ...]:
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
