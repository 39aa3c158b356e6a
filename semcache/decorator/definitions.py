"""The definitions of a module's global names in its source, without comments and docstrings."""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, NamedTuple


class Definition(NamedTuple):
    """The source of one name, normalised, and the names and attributes that it uses.

    Attributes:
        members: for a class, the definitions in its body, by name.
    """

    text: str
    names: frozenset[str]
    members: dict[str, Definition]


def definitions_around(code: CodeType, names: dict[str, Any]) -> dict[str, Definition]:
    """The functions, classes and assignments of the file in which a function is written."""
    return definitions_in("".join(linecache.getlines(code.co_filename, names)))


@lru_cache(maxsize=16)
def definitions_in(source: str) -> dict[str, Definition]:
    """The functions, classes and assignments in a source text."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    return _by_name(tree.body)


def _by_name(statements: list[ast.stmt]) -> dict[str, Definition]:
    found: dict[str, list[ast.stmt]] = {}
    for statement in statements:
        for name in _defined(statement):
            found.setdefault(name, []).append(statement)
    return {name: _definition(written) for name, written in found.items()}


def _defined(statement: ast.AST) -> list[str]:
    """The names that a statement defines, assigns or changes, also inside `if` and `try`."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return []
    names = []
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            names += _root(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            names += _root(node.func)  # `RULES.append(...)` changes RULES
    return names


def _root(node: ast.expr) -> list[str]:
    """The name at the start of an expression such as `a.b[c]`; [] if it starts with no name."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return [node.id] if isinstance(node, ast.Name) else []


def _definition(statements: list[ast.stmt]) -> Definition:
    last = statements[-1]
    members = _by_name(last.body) if isinstance(last, ast.ClassDef) else {}
    names = frozenset(name for statement in statements for name in _loaded(statement))
    text = "\n".join(ast.unparse(_Bare().visit(statement)) for statement in statements)
    return Definition(text, names, members)


def _loaded(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _caches(decorator: ast.expr) -> bool:
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(call, ast.Attribute) and call.attr == "cached"


class _Bare(ast.NodeTransformer):
    """Removes docstrings, and the decorators that cache, whose options change no answer."""

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = [d for d in node.decorator_list if not _caches(d)]
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        return node


def written(function: FunctionType) -> str:
    """The source of a function; its compiled form if there is none, as for a lambda."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.__code__)))
    except (OSError, TypeError, SyntaxError, ValueError):
        tree = ast.Module([], [])
    definition = tree.body[0] if len(tree.body) == 1 else None
    if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.unparse(_Bare().visit(definition))
    return "\n".join(_compiled(function.__code__))


def _compiled(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _compiled(constant)
        elif isinstance(constant, frozenset):  # whose order differs between processes
            yield f"frozenset({sorted(map(repr, constant))})"
        else:
            yield repr(constant)


def names_assigned(code: CodeType) -> set[str]:
    """The global names that a function assigns to, such as a counter."""
    return {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_GLOBAL"}


def names_of(code: CodeType) -> Iterator[str]:
    """The global names and the attributes that compiled code uses."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_of(constant)
