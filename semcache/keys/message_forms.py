"""Messages in forms other than a mapping with a role: objects, pairs, items, LangChain's messages.

Sources: OpenAI responses API reference, "Input items"; LangChain reference, "Messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcache.errors import RequestError
from semcache.keys.blocks import as_mapping, content_parts, parsed
from semcache.keys.canonical import is_absent, plain
from semcache.types import Message, OpaquePart, ToolCallPart, ToolResultPart

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant"}
"""LangChain's and Gemini's names for roles."""
_PAIR_ROLES = ("user", "human", "assistant", "ai", "model", "system", "developer", "tool")
_LANGCHAIN = frozenset({"human", "ai", "system", "tool", "function", "chat"})
_LANGCHAIN_CHUNKS = "MessageChunk"
_LANGCHAIN_FIELDS = ("content", "name", "tool_calls", "tool_call_id", "role")
_OBJECT_FIELDS = ("content", "parts", "name", "tool_calls", "tool_call_id", "function_call")


def message_fields(raw: Any, where: str) -> Mapping[str, Any]:
    """The fields of a message in any form.

    Raises:
        RequestError: the form is unknown.
    """
    if isinstance(raw, tuple | list) and len(raw) == 2 and raw[0] in _PAIR_ROLES:
        return {"role": _ROLES.get(raw[0], raw[0]), "content": raw[1]}
    if hasattr(raw, "model_dump"):
        raw = as_mapping(raw, where)
    if isinstance(raw, Mapping):
        given = {name: value for name, value in raw.items() if not is_absent(value)}
        return _from_langchain(given) if _is_langchain(given) else given
    fields = {name: getattr(raw, name) for name in _OBJECT_FIELDS if hasattr(raw, name)}
    role = getattr(raw, "role", None)
    if role is None and fields:
        kind = getattr(raw, "type", None)
        role = _ROLES.get(str(kind), kind)
    if role is None or not fields:
        raise RequestError(
            f"{where} is a {type(raw).__name__}; a message is a mapping such as "
            '{"role": "user", "content": "..."}, or an object with a role and a content.'
        )
    role = getattr(role, "value", role)  # of an enumeration
    return {"role": _ROLES.get(str(role), str(role)), **fields}


def _is_langchain(fields: Mapping[str, Any]) -> bool:
    kind = str(fields.get("type"))
    return "content" in fields and (
        (kind in _LANGCHAIN and "role" not in fields) or kind.endswith(_LANGCHAIN_CHUNKS)
    )


def _from_langchain(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A LangChain message, without the metadata of the call that produced it."""
    kind = str(fields["type"])
    role = {"AIMessageChunk": "assistant", "HumanMessageChunk": "user"}.get(kind)
    kept = {name: fields[name] for name in _LANGCHAIN_FIELDS if fields.get(name) is not None}
    return {"role": role or _ROLES.get(kind, kind), **kept}


def item_message(fields: Mapping[str, Any], where: str) -> Message | None:
    """The message for an item without a role, as in OpenAI's responses API; else None.

    Raises:
        RequestError: the item is malformed.
    """
    kind = fields.get("type")
    if not isinstance(kind, str) or "role" in fields:
        return None
    if kind in ("function_call", "custom_tool_call"):
        arguments = parsed(fields.get("arguments", fields.get("input")), where)
        call = ToolCallPart(str(fields.get("call_id")), str(fields.get("name")), arguments)
        return Message("assistant", (call,))
    if kind in ("function_call_output", "custom_tool_call_output"):
        parts = content_parts(fields.get("output"), f"{where}.output")
        return Message("tool", (ToolResultPart(str(fields.get("call_id")), parts),))
    item = {name: value for name, value in fields.items() if value is not None and name != "status"}
    return Message("assistant", (OpaquePart(plain(item, where)),))
