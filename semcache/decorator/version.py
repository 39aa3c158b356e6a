"""A digest of what a function does, so that an edited function does not serve its old answers.

It covers the function's code; what it uses of its own module: functions, classes and constants, as
they are written there; the values that it captures; and its prompt templates, that is, texts with
spaces in them among the global names that it uses. Decorators, docstrings and comments are left
out. So are values that are not written in the module: a key, an address or a counter may change
with every process. A function of an SDK has no digest, so that an upgrade of the SDK leaves its
answers valid.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from types import CodeType, SimpleNamespace
from typing import Any, NamedTuple

from semcache.decorator.forwarding import is_of_an_sdk
from semcache.errors import RequestError
from semcache.keys.canonical import canonical_json

_MAX_DEPTH = 3
"""How many levels of captured functions are included."""


def code_digest(function: Callable[..., Any]) -> str:
    """The digest, in hexadecimal; "" for a function of an SDK."""
    if is_of_an_sdk(function):
        return ""
    text = "\n".join(_described(function, _MAX_DEPTH))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _described(function: Any, depth: int) -> Iterator[str]:
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        yield type(function).__qualname__
        return
    yield _source(function) or "\n".join(_constants(code))
    yield from _globals(code, getattr(function, "__globals__", {}))
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


# ------------------------------------------------------------------------ global names


class _Definition(NamedTuple):
    """What a module says of one of its global names, and the names that are used there."""

    text: str
    names: frozenset[str]


def _globals(code: CodeType, values: dict[str, Any]) -> Iterator[str]:
    """The definitions of the global names that a function uses, directly or through others."""
    definitions = _definitions("".join(linecache.getlines(code.co_filename, values)))
    waiting, seen = set(_names(code)), set[str]()
    while waiting:
        name = min(waiting)
        waiting.discard(name)
        seen.add(name)
        if (definition := definitions.get(name)) is not None:
            yield f"{name}: {definition.text}"
            waiting |= definition.names - seen
        value = values.get(name)
        if isinstance(value, str) and " " in value:
            yield f"{name}={value!r}"


@lru_cache(maxsize=16)
def _definitions(source: str) -> dict[str, _Definition]:
    """The functions, classes and assignments of a module, by name."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    texts: dict[str, list[ast.AST]] = {}
    for statement in tree.body:
        for name in _defined(statement):
            texts.setdefault(name, []).append(statement)
    return {name: _definition(statements) for name, statements in texts.items()}


def _defined(statement: ast.AST) -> list[str]:
    """The names that a statement defines, also inside of `if` and `try`."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return []
    return [
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def _definition(statements: list[ast.AST]) -> _Definition:
    names = {
        node.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    text = "\n".join(ast.unparse(_Bare().visit(statement)) for statement in statements)
    return _Definition(text, frozenset(names))


class _Bare(ast.NodeTransformer):
    """Removes decorators and docstrings."""

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        return node


# --------------------------------------------------------------------- the function itself


def _source(function: Callable[..., Any]) -> str | None:
    """The source in normalised form; None if it is not available, as for a lambda."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    definition = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    return ast.unparse(_Bare().visit(definition))


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
    """A captured value in canonical form, or the type of an object that has none."""
    plain = vars(value) if isinstance(value, SimpleNamespace) else value
    with suppress(RequestError):
        return f"{type(value).__qualname__} {canonical_json(plain)}"
    return type(value).__qualname__
