"""The canonical form of values, so that equal requests have equal keys.

It is JSON with sorted keys and no spaces. Strings stay as they are: what Unicode calls equivalent
may still be different to a model. Equal numbers are written alike whatever their type (1, 1.0 and
1e0 as "1", -0.0 as "0"), as in RFC 8785 section 3.2.2.3, except that whole numbers keep all their
digits. NaN, infinities and lone surrogates are rejected, because they cannot be sent to a model.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import PurePath
from typing import Any

from semcache.errors import RequestError
from semcache.types import JSON

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def canonical_json(value: JSON, where: str = "value") -> str:
    """The canonical form of `value`; see `plain` for the types that are supported.

    Raises:
        RequestError: a part of `value` has no canonical form.
    """
    try:
        reduced = plain(value, where)
        written = _encode(reduced)
        return _encode(_escaped(reduced)) if '"$' in written else written
    except RecursionError:
        raise RequestError(f"{where} is nested too deeply, or contains itself.") from None
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{where} cannot be written as JSON: {error}.") from None


def explicit_none() -> JSON:
    """The form of None where it is not the same as an absent value."""
    return _Typed({"$none": True})


_SENTINELS = frozenset({"NotGiven", "Omit"})
"""Names of the classes whose instances the SDKs use to mark an absent argument."""


def is_absent(value: object) -> bool:
    """Whether a value stands for an argument that was not given."""
    cls: Any = type(value)
    return _is_sentinel(cls)


@lru_cache(maxsize=1024)
def _is_sentinel(cls: Any) -> bool:
    return cls.__name__ in _SENTINELS


def valid_text(text: str, where: str = "text") -> str:
    """Check that `text` is valid Unicode and return it unchanged, in linear time.

    Raises:
        RequestError: the text contains a lone surrogate.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{where} contains a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}, which is not valid Unicode text. Decode the input with "
            "errors='replace', or repair it."
        ) from None
    return text


def plain(value: Any, where: str = "value") -> JSON:
    """Reduce a value to canonical JSON types, recursively.

    Besides JSON types, this supports dataclasses, pydantic models, enums, dates, times, UUIDs,
    paths, decimals, fractions, bytes, sets, NumPy arrays and scalars, and PIL images. The type is
    included, so that a set differs from a list with the same members, and a date from its text.
    """
    try:
        return _plain(value, where)
    except RecursionError:
        raise RequestError(f"{where} is nested too deeply, or contains itself.") from None


def _plain(value: Any, where: str) -> JSON:
    if value is None or value is True or value is False:
        return value
    if type(value) is _Typed:
        return value
    if isinstance(value, enum.Enum):
        return _Typed({"$enum": _full_name(type(value)), "value": _plain(value.value, where)})
    if isinstance(value, str):
        return valid_text(str(value), where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value), where)
    if isinstance(value, Mapping):
        return _object(value, where)
    if isinstance(value, tuple) and hasattr(type(value), "_fields"):
        return _Typed({"$type": _full_name(type(value)), "fields": _plain([*value], where)})
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return _special(value, where)


def _number(value: float, where: str) -> int | float:
    if not math.isfinite(value):
        raise RequestError(
            f"{where} is {value!r}: a parameter must be a finite number. "
            "Leave the parameter out to use the model's default."
        )
    return int(value) if value.is_integer() else value


def _object(value: Mapping[Any, Any], where: str) -> dict[str, JSON]:
    result: dict[str, JSON] = {}
    for key, item in value.items():
        name = (
            valid_text(key, where) if isinstance(key, str) else f"${canonical_json([key], where)}"
        )
        if name in result:
            raise RequestError(f"{where} has two keys that are both written {name!r}.")
        result[name] = _plain(item, f"{where}.{name}")
    return result


class _Typed(dict[str, JSON]):
    """The canonical form of a value of a type that JSON lacks: a tag, and what the value holds."""


_TAGS = frozenset(
    {
        "$array",
        "$class",
        "$date",
        "$datetime",
        "$decimal.Decimal",
        "$enum",
        "$fractions.Fraction",
        "$none",
        "$path",
        "$set",
        "$sha256",
        "$time",
        "$timedelta",
        "$type",
        "$uuid.UUID",
    }
)


def _escaped(value: JSON) -> JSON:
    """The value with keys that look like type tags escaped: a dict {"$set": [1]} is not a set."""
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if not isinstance(value, dict):
        return value
    if type(value) is _Typed:
        return {name: _escaped(item) for name, item in value.items()}
    return {f"${k}" if k in _TAGS else k: _escaped(item) for k, item in value.items()}


_WRITTEN_AS_TEXT = frozenset({"uuid.UUID", "decimal.Decimal", "fractions.Fraction"})
"""Types that are written as text; listed by name, so that their modules are not imported."""


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _special(value: Any, where: str) -> JSON:
    """Canonical form of supported types that JSON lacks."""
    if isinstance(value, set | frozenset):
        return _Typed({"$set": sorted((plain(item, where) for item in value), key=_encode)})
    for kind in (dt.datetime, dt.date, dt.time):
        if isinstance(value, kind):
            return _Typed({f"${kind.__name__}": _time(value)})
    if isinstance(value, dt.timedelta):
        return _Typed({"$timedelta": [value.days, value.seconds, value.microseconds]})
    if isinstance(value, PurePath):
        return _Typed({"$path": valid_text(str(value), where)})
    if name := _WRITTEN_AS_TEXT.intersection(map(_full_name, type(value).__mro__)):
        return _Typed({f"${min(name)}": str(value)})
    if isinstance(value, bytes | bytearray | memoryview):
        return _Typed({"$sha256": hashlib.sha256(bytes(value)).hexdigest()})
    if isinstance(value, type):
        schema = value.model_json_schema() if hasattr(value, "model_json_schema") else None
        return _Typed({"$class": _full_name(value), "schema": plain(schema, where)})
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _instance(value, fields, getattr(value, "__dict__", {}), where)
    if hasattr(type(value), "model_fields"):
        # Not model_dump(), which omits fields that are marked with exclude=True.
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        fields.update(getattr(value, "__pydantic_extra__", None) or {})
        private = getattr(value, "__pydantic_private__", None) or {}
        return _instance(value, fields, {**getattr(value, "__dict__", {}), **private}, where)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return plain(value.item(), where)
    if hasattr(value, "tobytes") and (shape := _shape(value)) is not None:
        return _Typed({"$array": shape, "sha256": hashlib.sha256(value.tobytes()).hexdigest()})
    type_name = _full_name(type(value)).removeprefix("builtins.")
    raise RequestError(
        f"{where} has the type {type_name}, which has no canonical form, so the cache "
        "cannot tell whether two calls are equal. Pass plain values, name the argument in "
        "ignore={...} if it cannot change the answer, or pass key=callable."
    )


def _instance(
    value: Any, fields: Mapping[str, Any], attributes: Mapping[str, Any], where: str
) -> JSON:
    """An object's fields, and those of its other attributes that have a canonical form."""
    cls = type(value)
    result = {"$type": _full_name(cls), **_object(fields, where)}
    for name, item in attributes.items():
        if name in fields or isinstance(getattr(cls, name, None), cached_property):
            continue
        with suppress(RequestError):
            result[f"${name}"] = plain(item, f"{where}.{name}")
    return _Typed(result)


def _time(value: dt.datetime | dt.date | dt.time) -> JSON:
    """ISO 8601, with the time zone's name and the fold where the text does not imply them."""
    zone = getattr(value, "tzinfo", None)
    name = getattr(zone, "key", None) or (zone and zone.tzname(None))
    fold = getattr(value, "fold", 0)
    if not fold and (name is None or str(name).startswith("UTC")):
        return value.isoformat()
    return [value.isoformat(), name and str(name), fold]


def _shape(value: Any) -> JSON:
    """The type and shape of a NumPy array, or the mode and size of a PIL image; else None."""
    if hasattr(value, "dtype") and value.dtype.kind != "O":
        return [str(value.dtype), list(value.shape)]
    if hasattr(value, "mode") and hasattr(value, "size"):
        return [str(value.mode), list(value.size)]
    return None


def decode_base64(data: str, where: str) -> bytes:
    """Decode base64 text, as in a data URL.

    Raises:
        RequestError: the text is not base64.
    """
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise RequestError(f"{where} is not valid base64: {error}.") from None
