"""A short summary by which a person can recognise a request."""

from __future__ import annotations

from typing import Any

from semcache.credentials import masked, masked_text
from semcache.types import (
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

_CHARS = 2_000


def request_summary(request: Request) -> dict[str, Any]:
    """Parameters, number of tools, shortened messages; {} for a plain question without these.

    Anything that looks like a credential is masked.
    """
    summary: dict[str, Any] = {}
    if request.params:
        summary["params"] = {k: _short(repr(masked(v, k))) for k, v in request.params.items()}
    if request.tools is not None:
        summary["tools"] = len(request.tools) if hasattr(request.tools, "__len__") else 1
    if len(request.messages) > 1 or request.messages[0].role != "user":
        summary["messages"] = [
            {"role": m.role, "text": masked_text(_short(message_text(m)))} for m in request.messages
        ]
    return summary


def message_text(message: Message) -> str:
    """A message as text, with placeholders for media and tools."""
    return "\n".join(_part_text(part) for part in message.parts)


def _part_text(part: Part) -> str:
    match part:
        case TextPart(text):
            return text
        case MediaPart(kind):
            return f"[{kind}]"
        case ToolCallPart(_, name, _):
            return f"[calls {name}]"
        case ToolResultPart(_, parts):
            return "[result] " + " ".join(_part_text(p) for p in parts)
        case OpaquePart():
            return "[block]"


def _short(text: str) -> str:
    return text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"
