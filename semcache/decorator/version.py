"""A digest of what a function does, so that an edited function does not serve its old answers.

It covers the function's code without its decorators, docstring and comments; the immutable values
that it captures; and the prompt templates among the global names that it uses, that is, texts with
spaces in them. Other global names are left out: a key, an address or a counter may change with
every process.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from types import CodeType
from typing import Any

from semcache.errors import RequestError
from semcache.keys.canonical import canonical_json

_MAX_DEPTH = 3
"""How many levels of captured functions are included."""


def code_digest(function: Callable[..., Any]) -> str:
    """The digest, in hexadecimal."""
    text = "\n".join(_described(function, _MAX_DEPTH))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _described(function: Any, depth: int) -> Iterator[str]:
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        yield type(function).__qualname__
        return
    yield _source(function) or "\n".join(_constants(code))
    for name in sorted(set(_names(code))):
        value = getattr(function, "__globals__", {}).get(name)
        if isinstance(value, str) and " " in value:
            yield f"{name}={value!r}"
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield f"{name}:"
        if callable(value) and depth:
            yield from _described(value, depth - 1)
        else:
            yield _value(value)


def _source(function: Callable[..., Any]) -> str | None:
    """The source in normalised form; None if it is not available, as for a lambda."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    definition = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    definition.decorator_list = []
    if ast.get_docstring(definition) is not None and len(definition.body) > 1:
        definition.body = definition.body[1:]
    return ast.unparse(definition)


def _constants(code: CodeType) -> Iterator[str]:
    """What a function without source consists of."""
    yield code.co_code.hex()
    yield " ".join(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant)
        else:
            yield repr(constant)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _value(value: Any) -> str:
    """A captured value in canonical form, or its type if it is mutable or has no such form."""
    if not isinstance(value, list | dict | set | bytearray):
        with suppress(RequestError):
            return canonical_json(value)
    return type(value).__qualname__
