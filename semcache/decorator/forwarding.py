"""Arguments that cannot change the answer, and so are not part of the scope.

Some never do, such as timeouts. Identifiers, such as trace ids, are left out if the function only
logs them, puts them in headers or passes them on. Others, such as `user`, inform the provider, but
an application's own function may depend on them. They are left out only if the function does not
use them, or passes them on, under the same name, to a function named like an SDK's.
"""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any

TRANSPORT = frozenset(
    {
        "extra_headers",
        "idempotency_key",
        "max_retries",
        "num_retries",
        "request_timeout",
        "stream",
        "stream_options",
        "timeout",
        "traceparent",
        "tracestate",
    }
)
"""How a call is made, not what it asks."""

IDENTIFIERS = frozenset({"request_id", "span_id", "trace_id"})
"""Identifiers of a call in logs and headers."""

FOR_THE_PROVIDER = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Information for the provider that does not change the answer."""


_MODEL_CALLS = frozenset(
    {
        "acompletion",
        "aresponses",
        "completion",
        "generate_content",
        "generate_content_stream",
    }
)
"""Names of functions that call a model."""
_RESOURCES = frozenset({"chat", "completions", "embeddings", "messages", "responses"})
"""Resources of clients, whose functions `create`, `parse` and `stream` call a model."""


def ignorable(function: Callable[..., Any], keywords: str | None) -> frozenset[str]:
    """Names of arguments that cannot change a function's answer.

    Args:
        keywords: the name of the parameter that takes any other keyword arguments, if there is one.
    """
    if is_of_an_sdk(function):
        return TRANSPORT | IDENTIFIERS | FOR_THE_PROVIDER
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
        used, told = _used(tree), _used_beside_logs(tree)
    except (OSError, TypeError, SyntaxError, ValueError):
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is None:
            return TRANSPORT | IDENTIFIERS
        used = told = set(_loaded(code))
    if used & {"locals", "vars", "eval", "exec"}:
        return TRANSPORT
    if keywords in used or hasattr(function, "__wrapped__"):  # may use any argument
        return TRANSPORT
    return TRANSPORT | (IDENTIFIERS - told) | (FOR_THE_PROVIDER - used)


def wants_raw_response(headers: Any) -> bool:
    """Whether the SDK was asked for the HTTP response instead of its object."""
    return isinstance(headers, Mapping) and any(
        str(name).lower() == "x-stainless-raw-response" for name in headers
    )


def wants_usage(arguments: Mapping[str, Any]) -> bool:
    """Whether a stream was asked to end with its usage, in OpenAI's way."""
    options = arguments.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def is_of_an_sdk(function: Callable[..., Any]) -> bool:
    """Whether a function belongs to the package of an SDK, which only passes arguments on."""
    module = getattr(inspect.unwrap(function), "__module__", None) or ""
    return module.partition(".")[0] in _SDKS or module.startswith("google.genai")


_SDKS = frozenset({"anthropic", "cohere", "groq", "litellm", "mistralai", "ollama", "openai"})
"""Packages of SDKs, recognised by name, because site-packages may hold applications too."""


def _used(tree: ast.AST) -> set[str]:
    """Names and strings that the code uses other than to pass them on to a model call."""
    passed_on = {
        id(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _calls_a_model(node.func)
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Name) and keyword.arg in (None, keyword.value.id)
    }
    names = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and id(node) not in passed_on
    }
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return names | texts


_LOGS = frozenset(
    {
        "add_event", "bind", "bind_contextvars", "critical", "debug", "error", "exception", "info",
        "log", "print", "set_attribute", "set_tag", "trace", "warn", "warning",
    }
)  # fmt: skip
"""Names of functions that write logs and traces."""
_TRACES = frozenset({"span_id", "trace_id"})
"""Identifiers that, passed on as a keyword argument of the same name, are assumed to be used for
tracing only, even by the application's own functions."""
_HEADERS = frozenset({"extra", "extra_headers", "headers", "metadata"})
"""Names of arguments that hold identifiers of a call."""


def _used_beside_logs(tree: ast.AST) -> set[str]:
    """Names and strings that the code uses other than to log, send in headers, or pass on."""
    return set(_beside_logs(tree))


def _beside_logs(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and (_name(node.func) in _LOGS or _calls_a_model(node.func)):
        return
    if isinstance(node, ast.keyword) and (
        node.arg in _HEADERS
        or (isinstance(node.value, ast.Name) and node.arg == node.value.id and node.arg in _TRACES)
    ):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _beside_logs(child)


def _loaded(code: CodeType) -> Iterator[str]:
    """The names and strings that compiled code loads, for a function without source."""
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        if instruction.opname.startswith("LOAD_"):
            yield from value if isinstance(value, tuple) else (str(value),)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded(constant)


def _calls_a_model(function: ast.expr) -> bool:
    name = _name(function)
    if name in ("create", "parse", "stream"):
        return isinstance(function, ast.Attribute) and _name(function.value) in _RESOURCES
    return name in _MODEL_CALLS


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
