"""Converts lines of a batch into requests, and answers into lines.

A line may have one of two formats: that of OpenAI's batch files (`custom_id`, `method`, `url`,
`body`), or a plain one, `{"prompt": ...}` or `{"messages": [...]}` with any other fields of a
request. The answer is written in the same format as the line. Source: OpenAI API reference,
"Batch" (the request input and output objects).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semcache.credentials import masked, masked_text
from semcache.errors import RequestError, SemcacheError
from semcache.keys.parse import request
from semcache.providers import openai_chat
from semcache.types import Completion, Request

_OWN = frozenset(
    {
        "prompt", "system", "messages", "model", "tools", "response_format", "namespace",
        "params", "tags", "task_type", "custom_id", "id",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the input.

    Attributes:
        number: the number of the line in its file, from 1.
        custom_id: the caller's id for the line, or "line-N".
        request: the request that the line describes.
        openai: whether the line has OpenAI's format; its answer then has it too.
        asked: the fields of the line that describe the request.
    """

    number: int
    custom_id: str
    request: Request
    openai: bool
    asked: Mapping[str, Any]


def read_line(text: bytes, number: int, defaults: Mapping[str, Any]) -> Item:
    """Read one line.

    Args:
        defaults: fields of the request for lines that do not name them.

    Raises:
        RequestError: the line has neither format; the message says what is wrong.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"it is a JSON {type(value).__name__}, not an object")
    named = (value.get(name) for name in ("custom_id", "id"))
    custom_id = str(next((name for name in named if name is not None), f"line-{number}"))
    body = value.get("body")
    if isinstance(body, dict):
        return Item(number, custom_id, openai_chat.read_request(body, defaults), True, body)
    unknown = sorted(set(value) - _OWN)
    if unknown:
        raise RequestError(
            f"it has unknown fields: {', '.join(unknown)} (parameters go into "
            '"params", or use OpenAI\'s format, with a "body")'
        )
    if "prompt" not in value and "messages" not in value:
        raise RequestError('it has no "prompt", "messages" or "body"')
    fields = {k: v for k, v in value.items() if k not in ("custom_id", "id")}
    return Item(number, custom_id, request(**{**defaults, **fields}), False, fields)


def answer_line(item: Item, completion: Completion) -> bytes:
    """The output line for an answer, with the request, so that `semcache replay` can read it."""
    value: dict[str, Any] = {"line": item.number, "custom_id": item.custom_id}
    if item.openai:
        value = {
            "id": f"batch_req_{item.number}",
            "custom_id": item.custom_id,
            "response": {
                "status_code": 200,
                "request_id": f"line-{item.number}",
                "body": openai_chat.response_body(
                    completion,
                    response_id=f"chatcmpl-line-{item.number}",
                    model=item.request.model,
                ),
            },
            "error": None,
            "line": item.number,
        }
    else:
        value |= {
            "answer": completion.text,
            "finish_reason": completion.finish_reason,
            "tool_calls": openai_chat.tool_calls(completion) or None,
            "model": completion.model,
            "provider": completion.provider,
            "prompt_tokens": completion.usage.prompt_tokens,
            "completion_tokens": completion.usage.completion_tokens,
        }
    value["request"] = item.asked
    value["cost_usd"] = None if completion.served_from else completion.usage.cost_usd
    value["served_from"] = completion.served_from
    return _encoded(value)


def failure_line(number: int, text: bytes, error: BaseException) -> bytes:
    """The output line for a failure, with the reason and the text of the input line."""
    details = {
        "type": type(error).__name__,
        "message": str(error),
        "provider": getattr(error, "provider", None),
        "status": getattr(error, "status", None),
        "retryable": isinstance(error, SemcacheError) and not isinstance(error, RequestError),
    }
    return _encoded({"line": number, "error": details, "input": _without_credentials(text)})


def _without_credentials(text: bytes) -> str:
    line = text.decode(errors="replace").strip()
    try:
        return json.dumps(masked(json.loads(line)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return masked_text(line)


def _encoded(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace") + b"\n"  # UTF-8 cannot encode a lone surrogate
