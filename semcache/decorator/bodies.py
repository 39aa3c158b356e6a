"""Arguments with a structure of their own: request bodies and the contents of a Gemini call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

PROMPT = "\0prompt"
"""The key of the prompt or the messages among the fields of a body."""

BODY = "@body"
"""The request parameter that holds the body's type and the name of its prompt field."""

PROMPT_NAMES = ("prompt", "question", "query", "message", "user_message", "text")
"""Usual names of a parameter, or of a field of a body, that holds the prompt."""
MESSAGES_NAMES = ("messages", "input", "contents")
"""Names of the parameter that holds the input in OpenAI's, Anthropic's and Gemini's APIs."""


def body_fields(body: Any) -> dict[str, Any] | None:
    """The fields of a request body, such as FastAPI's.

    `PROMPT` maps to the messages or the prompt, and `BODY` to the body's type and the name of the
    field that held them. Returns None for text, a list of messages, or a single message.
    """
    if isinstance(body, Mapping):
        fields = dict(body)
    elif hasattr(type(body), "model_fields"):
        fields = {name: getattr(body, name) for name in type(body).model_fields}
        fields.update(getattr(body, "__pydantic_extra__", None) or {})
    elif dataclasses.is_dataclass(body):
        fields = {field.name: getattr(body, field.name) for field in dataclasses.fields(body)}
    else:
        return None
    names = (*MESSAGES_NAMES, *PROMPT_NAMES)
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        return None
    cls = type(body)
    kind = "" if isinstance(body, Mapping) else f"{cls.__module__}.{cls.__qualname__}."
    return {PROMPT: fields.pop(name), BODY: f"{kind}{name}", **fields}


def gemini_contents(contents: Any) -> Any:
    """Contents of a Gemini call as messages: loose texts and parts make up one user message."""
    if isinstance(contents, str) or not isinstance(contents, list | tuple):
        return contents
    if any(_role(content) is not None for content in contents):
        return contents
    return [{"role": "user", "parts": list(contents)}]


def _role(content: Any) -> Any:
    return content.get("role") if isinstance(content, Mapping) else getattr(content, "role", None)
