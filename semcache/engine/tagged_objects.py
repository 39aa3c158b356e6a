"""Objects as tagged JSON and back: dataclasses, pydantic models, enumerations, arrays, files.

Part of `tagged_json`, which passes its own `encode` and `decode` for what the objects contain.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from semcache.types import JSON

Encode = Callable[[Any, str], JSON]
Decode = Callable[[JSON], Any]


def encode(value: Any, where: str, inner: Encode) -> JSON:
    """An object as tagged JSON; see `tagged_json.encode`."""
    cls = type(value)
    if isinstance(value, enum.Enum):
        return {"$": "enum", "c": _reference(cls, where), "v": inner(value.value, where)}
    if dataclasses.is_dataclass(value):
        return _dataclass(value, where, inner)
    if hasattr(cls, "__pydantic_fields__"):
        return _model(value, where, inner)
    if isinstance(value, tuple) and hasattr(cls, "_fields"):
        return {"$": "namedtuple", "c": _reference(cls, where), "v": inner(list(value), where)}
    if cls.__module__ == "numpy" and hasattr(value, "dtype"):
        return _array(value, where)
    if cls.__name__ == _BINARY:
        return _binary(value)
    raise TypeError(f"{where} has the type {_name(cls)}, which cannot be stored; {_advice(value)}")


def decode(tree: dict[str, Any], inner: Decode) -> Any:
    """The object; see `tagged_json.decode`."""
    decoder = _DECODERS.get(tree["$"])
    if decoder is None:
        raise TypeError(f"{tree['$']!r} is not a kind of value that this version knows")
    return decoder(tree, inner)


def _name(cls: type) -> str:
    name = cls.__qualname__
    return name if cls.__module__ == "builtins" else f"{cls.__module__}.{name}"


def _advice(value: Any) -> str:
    """What to return instead of a value that cannot be stored."""
    if hasattr(value, "http_response") and hasattr(value, "parse"):
        return "return response.parse() instead of the raw response"
    if hasattr(value, "status_code") and hasattr(value, "headers"):
        return "return response.json(), response.text or response.content instead"
    if hasattr(value, "tobytes") and hasattr(value, "save"):
        return "return the image's bytes in a file format, such as PNG"
    return (
        "return text, bytes, JSON, a dataclass or a pydantic model, or annotate the function with "
        "a type that pydantic can convert"
    )


# ------------------------------------------------------------------ classes by reference


def _reference(cls: Any, where: str) -> JSON:
    """A class by module and name; a generic one with its arguments.

    Raises:
        TypeError: the class cannot be found by its name.
    """
    generic = getattr(cls, "__pydantic_generic_metadata__", None) or {}
    if generic.get("origin") is not None:
        return [
            _reference(generic["origin"], where),
            [_reference(argument, where) for argument in generic["args"]],
        ]
    if cls is type(None):
        return None
    name = f"{cls.__module__}:{getattr(cls, '__qualname__', cls.__name__)}"
    if found(name) is not cls or not _is_known(cls):
        raise TypeError(
            f"{where} has the type {_name(cls)}, a class that cannot be found by its name, so it "
            "cannot be restored; define the class at the top level of its module"
        )
    return name


def _class(reference: JSON) -> type:
    """The class of a reference, which the program must have imported.

    Raises:
        TypeError: the program has not imported it, or it is not a kind of class that is restored.
    """
    if reference is None:
        return type(None)
    if isinstance(reference, list):
        origin, arguments = reference
        return _class(origin)[tuple(map(_class, arguments))]  # type: ignore[index,no-any-return]
    cls = found(str(reference))
    if not _is_known(cls):
        raise TypeError(f"the stored value is a {reference}, which this program has not imported")
    return cls  # type: ignore[no-any-return]


def found(reference: str) -> Any:
    """The object that has been imported as "module:qualified.name"; None if there is none."""
    module, _, name = reference.partition(":")
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _is_known(cls: Any) -> bool:
    """Whether this class can be restored, or may be a type argument of one that can."""
    if not isinstance(cls, type):
        return isinstance(cls, TypeVar)
    return (
        dataclasses.is_dataclass(cls)
        or hasattr(cls, "__pydantic_fields__")
        or issubclass(cls, enum.Enum)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
        or cls in (object, str, int, float, bool, list, dict)
    )


@lru_cache(maxsize=1024)
def _shape(cls: type) -> int:
    """A checksum of the names and types of a class's fields."""
    fields = getattr(cls, "__pydantic_fields__", None)
    if fields is not None:
        described = [f"{name}:{field.annotation}" for name, field in fields.items()]
    else:
        described = [f"{f.name}:{f.type}" for f in dataclasses.fields(cls)]
    return zlib.crc32("\n".join(described).encode())


def _check_shape(cls: type, tree: Mapping[str, Any]) -> None:
    if "s" in tree and tree["s"] != _shape(cls):
        raise TypeError(f"the fields of {_name(cls)} have changed since the value was stored")


# ------------------------------------------------------------------ dataclasses and models


def _dataclass(value: Any, where: str, inner: Encode) -> JSON:
    cls: Any = type(value)
    names = [field.name for field in dataclasses.fields(value)]
    names += [*_slots(cls), *getattr(value, "__dict__", {})]
    fields = {
        name: inner(getattr(value, name), f"{where}.{name}")
        for name in dict.fromkeys(names)
        if hasattr(value, name) and not _is_cached(cls, name) and name != _ALIAS
    }
    tree: dict[str, JSON] = {"$": "dataclass", "c": _reference(cls, where), "s": _shape(cls)}
    if (alias := getattr(value, _ALIAS, None)) is not None:
        tree["o"] = [
            _reference(alias.__origin__, where),
            [_reference(argument, where) for argument in alias.__args__],
        ]
    return {**tree, "v": fields}


_ALIAS = "__orig_class__"
"""Attribute that `Box[int](1)` sets on its object: the generic class with its arguments."""


def _slots(cls: type) -> list[str]:
    """The names of a class's slots, and of its bases'."""
    names: list[str] = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _read_dataclass(tree: Any, inner: Decode) -> Any:
    cls: Any = _class(tree["c"])
    _check_shape(cls, tree)
    value: Any = object.__new__(cls)
    for name, item in tree["v"].items():
        object.__setattr__(value, name, inner(item))
    if "o" in tree:
        object.__setattr__(value, _ALIAS, _class(tree["o"]))
    return value


def _model(value: Any, where: str, inner: Encode) -> JSON:
    cls: Any = type(value)
    fields: Mapping[str, Any] = cls.__pydantic_fields__
    attributes = value.__dict__

    def encoded(values: Mapping[str, Any]) -> dict[str, JSON]:
        return {name: inner(item, f"{where}.{name}") for name, item in values.items()}

    stored = encoded({n: attributes[n] for n in fields if n in attributes})
    tree: dict[str, JSON] = {"$": "model", "c": _reference(cls, where), "v": stored}
    if not _constructs(cls):
        tree["s"] = _shape(cls)
    given = value.model_fields_set
    if given != stored.keys():
        tree["set"] = sorted(given)
    if value.__pydantic_extra__:
        tree["x"] = encoded(value.__pydantic_extra__)
    others = {n: v for n, v in attributes.items() if n not in fields and not _is_cached(cls, n)}
    if others:
        tree["d"] = encoded(others)
    if value.__pydantic_private__:
        tree["p"] = _private(value, where, inner)
    return tree


def _private(value: Any, where: str, inner: Encode) -> dict[str, JSON]:
    """The private attributes; those that cannot be stored are left to their default factories."""
    result = {}
    for name, item in value.__pydantic_private__.items():
        try:
            result[name] = inner(item, f"{where}.{name}")
        except TypeError:
            declared = type(value).__private_attributes__.get(name)
            if declared is None or declared.default_factory is None:
                raise
    return result


def _read_model(tree: Any, inner: Decode) -> Any:
    cls: Any = _class(tree["c"])
    _check_shape(cls, tree)

    def decoded(part: str) -> dict[str, Any]:
        return {name: inner(item) for name, item in tree.get(part, {}).items()}

    stored = decoded("v")
    attributes = {}
    for name, field in cls.__pydantic_fields__.items():
        if name in stored:
            attributes[name] = stored.pop(name)
        elif not field.is_required():
            attributes[name] = field.get_default(
                call_default_factory=True, validated_data=attributes
            )
        elif _constructs(cls):
            attributes[name] = None
        else:
            raise TypeError(f"the stored {_name(cls)} has no {name}")
    extra = {**stored, **decoded("x")} if cls.model_config.get("extra") == "allow" else None
    value = cls.__new__(cls)
    set_attribute = object.__setattr__
    set_attribute(value, "__dict__", {**attributes, **decoded("d")})
    set_attribute(value, "__pydantic_fields_set__", set(tree.get("set", tree["v"])))
    set_attribute(value, "__pydantic_extra__", extra)
    set_attribute(value, "__pydantic_private__", _read_private(cls, decoded("p")))
    return value


def _read_private(cls: Any, stored: dict[str, Any]) -> dict[str, Any] | None:
    declared: Mapping[str, Any] = getattr(cls, "__private_attributes__", {})
    if not declared:
        return None
    made = {
        name: attribute.default_factory()
        for name, attribute in declared.items()
        if name not in stored and attribute.default_factory is not None
    }
    return {**made, **stored}


@lru_cache(maxsize=1024)
def _constructs(cls: Any) -> bool:
    """Whether a class builds its objects without validation, as the SDKs' classes do.

    Such a class gets new fields with every release, and its objects may lack any of them.
    """
    from pydantic import BaseModel

    own: Any = cls.model_construct
    base: Any = BaseModel.model_construct
    return own.__func__ is not base.__func__


def _is_cached(cls: type, name: str) -> bool:
    """Whether an attribute is a cached property, which can be computed again."""
    return isinstance(getattr(cls, name, None), cached_property)


# --------------------------------------------------------------------------------- others

_BINARY = "HttpxBinaryResponseContent"


def _array(value: Any, where: str) -> JSON:
    """A NumPy array or scalar: (dtype, shape or None for a scalar, base64 of its bytes)."""
    if value.dtype.kind not in "biufc":
        raise TypeError(f"{where} is an array of {value.dtype}; return an array of numbers")
    is_array = hasattr(value, "flags") and type(value).__name__ == "ndarray"
    data = base64.b64encode(value.tobytes()).decode()
    return {"$": "numpy", "v": [value.dtype.str, list(value.shape) if is_array else None, data]}


def _read_array(tree: Any, _: Decode) -> Any:
    import numpy as np

    dtype, shape, data = tree["v"]
    if np.dtype(dtype).kind not in "biufc":
        raise TypeError(f"the stored value is an array of {dtype}")
    array = np.frombuffer(base64.b64decode(data), np.dtype(dtype))
    return array[0] if shape is None else array.reshape(shape).copy()


def _binary(value: Any) -> JSON:
    """Audio and other files from the OpenAI package: a wrapper around an HTTP response."""
    response = value.response
    headers = [
        [name, text]
        for name, text in response.headers.items()
        if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    content = base64.b64encode(value.content).decode()
    reference = f"{type(value).__module__}:{type(value).__qualname__}"
    return {"$": "binary", "c": reference, "v": [response.status_code, headers, content]}


def _read_binary(tree: Any, _: Decode) -> Any:
    cls = found(tree["c"])
    httpx = sys.modules.get("httpx")
    if httpx is None or getattr(cls, "__name__", "") != _BINARY:
        raise TypeError(f"the stored value is a {tree['c']}, which this program has not imported")
    status, headers, content = tree["v"]
    return cls(httpx.Response(status, headers=headers, content=base64.b64decode(content)))


def _read_enum(tree: Any, inner: Decode) -> Any:
    cls = _class(tree["c"])
    if not issubclass(cls, enum.Enum):
        raise TypeError(f"{tree['c']} is not an enumeration")
    return cls(inner(tree["v"]))


def _read_namedtuple(tree: Any, inner: Decode) -> Any:
    cls: Any = _class(tree["c"])
    if len(tree["v"]) != len(cls._fields):
        raise TypeError(f"the fields of {_name(cls)} have changed since the value was stored")
    return tuple.__new__(cls, inner(tree["v"]))


_DECODERS: dict[str, Callable[[Any, Decode], Any]] = {
    "enum": _read_enum,
    "namedtuple": _read_namedtuple,
    "dataclass": _read_dataclass,
    "model": _read_model,
    "numpy": _read_array,
    "binary": _read_binary,
}
