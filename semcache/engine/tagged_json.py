"""Values as JSON and back, with a tag for each type that JSON lacks.

JSON values stand for themselves. Any other value is an object whose key "$" names its kind::

    {"$": "bytes", "v": "aGVsbG8="}
    {"$": "model", "c": "openai.types.chat.chat_completion:Choice", "v": {"index": 0, ...}}

Dataclasses and pydantic models are written field by field, and restored without running their
constructors, validators or serializers. So an answer comes back as the SDK built it, even if its
own schema would reject it, and with the same fields set. Private attributes, such as the request id
that an SDK adds, are included.

Stored data never causes an import, except of a few modules of the standard library: a class is
restored only if the program has imported it, and if it is a dataclass, a pydantic model, a named
tuple or an enumeration.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semcache.engine import tagged_objects
from semcache.types import JSON


def encode(value: Any, where: str = "answer") -> JSON:
    """A value as tagged JSON.

    Args:
        where: names the value in the error.

    Raises:
        TypeError: a part of the value has no such form; the error says which, and what to do.
    """
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
    if type(value) is list:
        return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if type(value) is dict:
        return _mapping(value, where)
    tag = _TAGS.get(type(value))
    if tag in _CONTAINERS:
        return {"$": tag, "v": _CONTAINERS[tag](value, where)}
    if tag is not None:
        return {"$": tag, "v": _SCALARS[tag](value)}
    for tag, (module, name) in _AS_TEXT.items():
        if type(value) is getattr(sys.modules.get(module), name, None):
            return {"$": tag, "v": str(value)}
    return tagged_objects.encode(value, where, encode)


def decode(tree: JSON) -> Any:
    """The value that `encode` was given, from what it returned.

    Raises:
        TypeError, ValueError: the form is unknown, or a class is missing or its fields changed.
    """
    if isinstance(tree, list):
        return [decode(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$" not in tree:
        return {name: decode(item) for name, item in tree.items()}
    decoder = _DECODERS.get(tree["$"])
    return tagged_objects.decode(tree, decode) if decoder is None else decoder(tree["v"])


def plain(tree: JSON) -> JSON:
    """Tagged JSON without its tags: an object becomes a mapping of the fields that were set."""
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$" not in tree:
        return {name: plain(item) for name, item in tree.items()}
    inner = tree.get("v")
    if tree["$"] in ("model", "dataclass") and isinstance(inner, dict):
        given = tree.get("set", inner)
        fields = {name: item for name, item in inner.items() if name in given}
        return {name: plain(item) for name, item in {**fields, **tree.get("x", {})}.items()}
    return plain(inner)


def _mapping(value: dict[Any, Any], where: str) -> JSON:
    if "$" not in value and all(type(name) is str for name in value):
        return {name: encode(item, f"{where}[{name!r}]") for name, item in value.items()}
    pairs = [[encode(k, where), encode(v, f"{where}[{k!r}]")] for k, v in value.items()]
    return {"$": "dict", "v": pairs}


def _items(value: Any, where: str) -> JSON:
    return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]


def _members(value: Any, where: str) -> JSON:
    return sorted((encode(item, where) for item in value), key=repr)


def _base64(value: bytes | bytearray) -> JSON:
    return base64.b64encode(value).decode()


def _time(value: dt.datetime | dt.time) -> JSON:
    """ISO 8601; with the time zone's key, the fold and the zone's name, if it has any of them."""
    key = getattr(value.tzinfo, "key", None)
    name = _own_name(value.tzinfo)
    plain = key is None and name is None and not value.fold
    return value.isoformat() if plain else [value.isoformat(), key, value.fold, name]


def _own_name(zone: dt.tzinfo | None) -> str | None:
    """The name given to a fixed-offset zone; None if it has only the default name."""
    if not isinstance(zone, dt.timezone):
        return None
    name = zone.tzname(None)
    return None if name == dt.timezone(zone.utcoffset(None)).tzname(None) else name


def _read_time(kind: Any) -> Callable[[Any], Any]:
    def read(stored: Any) -> Any:
        if isinstance(stored, str):
            return kind.fromisoformat(stored)
        text, key, fold, *name = stored
        value = kind.fromisoformat(text)
        zone = value.tzinfo
        if key is not None:
            from zoneinfo import ZoneInfo

            zone = ZoneInfo(key)
        elif name and name[0] is not None:
            zone = dt.timezone(zone.utcoffset(None), name[0])
        return value.replace(tzinfo=zone, fold=fold)

    return read


def _read_text_type(tag: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        import importlib

        module, name = _AS_TEXT[tag]  # of the standard library
        return getattr(importlib.import_module(module), name)(text)

    return read


_TAGS: dict[type, str] = {
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    bytes: "bytes",
    bytearray: "bytearray",
    dt.datetime: "datetime",
    dt.date: "date",
    dt.time: "time",
    dt.timedelta: "timedelta",
    type(Path()): "path",
}
_CONTAINERS: dict[str | None, Callable[[Any, str], JSON]] = {
    "tuple": _items,
    "set": _members,
    "frozenset": _members,
}
_SCALARS: dict[str, Callable[[Any], JSON]] = {
    "bytes": _base64,
    "bytearray": _base64,
    "datetime": _time,
    "date": dt.date.isoformat,
    "time": _time,
    "timedelta": lambda value: [value.days, value.seconds, value.microseconds],
    "path": str,
}
_AS_TEXT = {
    "decimal": ("decimal", "Decimal"),
    "uuid": ("uuid", "UUID"),
    "fraction": ("fractions", "Fraction"),
}
"""Types that are written as text; by module and name, so that their modules are not imported."""
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "dict": lambda stored: {decode(k): decode(v) for k, v in stored},
    "tuple": lambda stored: tuple(map(decode, stored)),
    "set": lambda stored: set(map(decode, stored)),
    "frozenset": lambda stored: frozenset(map(decode, stored)),
    "bytes": base64.b64decode,
    "bytearray": lambda stored: bytearray(base64.b64decode(stored)),
    "datetime": _read_time(dt.datetime),
    "date": dt.date.fromisoformat,
    "time": _read_time(dt.time),
    "timedelta": lambda stored: dt.timedelta(*stored),
    "path": Path,
    **{tag: _read_text_type(tag) for tag in _AS_TEXT},
}
