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
    EventReader,
    mapping,
)
from semcache.providers.http_messages import HTTPReply, HTTPRequest
from semcache.providers.openai_answers import completion_of, delta_of
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
            case TextPart(text, extra):
                return {"type": "text", "text": text, **(extra or {})}
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
