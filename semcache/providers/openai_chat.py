"""The server's side of OpenAI's chat completions: request bodies in, response bodies out.

`openai` is the client's side. Source: OpenAI API reference, "Chat".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from semcache.errors import RequestError
from semcache.keys.parse import request
from semcache.types import Completion, Request

_FIELDS = frozenset({"messages", "model", "tools", "response_format"})
_IGNORED = frozenset({"stream", "stream_options"})


def read_request(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> Request:
    """Read the body of a chat completion request.

    Args:
        defaults: fields of the request that the body does not set; `params` are merged.

    Raises:
        RequestError: the body is not a valid request, or it asks for several answers.
    """
    fields = {name: value for name, value in body.items() if name in _FIELDS}
    params = {name: value for name, value in body.items() if name not in _FIELDS | _IGNORED}
    if params.get("n", 1) != 1:
        raise RequestError('it asks for several answers ("n"), but only one can be given')
    fields["params"] = {**defaults.get("params", {}), **params}
    return request(**{**defaults, **fields})


def response_body(completion: Completion, *, response_id: str, model: str) -> dict[str, Any]:
    """A completion as the body of a chat completion response.

    Args:
        model: the model's name if the completion does not give it.
    """
    usage = completion.usage
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    if calls := tool_calls(completion):
        message["tool_calls"] = calls
    prompt_tokens, completion_tokens = usage.prompt_tokens, usage.completion_tokens
    return {
        "id": response_id,
        "object": "chat.completion",
        "created": 0,
        "model": completion.model or model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": completion.finish_reason or "stop"}
        ],
        "usage": None
        if prompt_tokens is None or completion_tokens is None
        else {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def tool_calls(completion: Completion) -> list[dict[str, Any]]:
    """The tool calls of a completion, in the form of a chat completion message."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments
                if isinstance(call.arguments, str)
                else json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call in completion.tool_calls
    ]
