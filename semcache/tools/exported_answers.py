"""Reads the answers of an export, whose parts may have any type."""

from __future__ import annotations

from typing import Any

from semcache.types import Completion, ToolCallPart, Usage

_ANSWER_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "has_tool_calls": (bool,),
    "tool_calls": (list,),
    **dict.fromkeys(("finish_reason", "provider", "model", "payload_kind"), (str, type(None))),
}
_USAGE_TYPES = (int, float, type(None))


def completion_of(answer: dict[str, Any]) -> Completion:
    """The answer of a line of an export.

    Raises:
        TypeError: a part of it has a type that it never has in an answer.
        KeyError: a part is missing.
    """
    fields = {k: v for k, v in answer.items() if k not in ("attempts", "served_from")}
    usage = Usage(**fields.pop("usage"))
    for name, kinds in _ANSWER_TYPES.items():
        if name in fields and not isinstance(fields[name], kinds):
            raise TypeError(f"the answer's {name} has the wrong type: {fields[name]!r:.50}")
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cost_usd)
    if not all(type(count) in _USAGE_TYPES for count in counts):
        raise TypeError(f"the answer's usage has the wrong type: {usage!r:.80}")
    calls = tuple(ToolCallPart(**call) for call in fields.pop("tool_calls", ()))
    if not all(isinstance(text, str) for call in calls for text in (call.id, call.name)):
        raise TypeError("a tool call of the answer has no id or name")
    return Completion(**fields, usage=usage, tool_calls=calls)
