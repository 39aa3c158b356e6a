"""Text of any form and length costs time linear in it; what is larger than any request is refused.

No time is measured: a quadratic step over a million characters would take hours, and the tests are
ended after a while.
"""

from __future__ import annotations

import inspect
import pkgutil
import random
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

import semcache.verification
from semcache import RequestError, SemanticCache
from semcache.credentials import masked_text
from semcache.keys.keys import MAX_SCOPE_CHARS
from semcache.keys.parse import MAX_MESSAGES, MAX_PROMPT_CHARS
from semcache.providers.reading import read_stream
from tests.helpers import open_cache

pytestmark = pytest.mark.timeout(120)

UNITS = {
    "letters": "a", "marks": "!", "words": "word ", "numbers": "12,345.6 ", "quotes": "\"'`",
    "dots": "a.b.", "negations": "not no never ", "roles": "from a to b ", "capitals": "AbCdE ",
    "paths": "/a/b\\c ", "options": "-d --e +f ", "spaces": " ",
    "lines": "\n", "accents": "e\u0301",
    "ideographs": "你好", "digits": "1", "clauses": "x and y or z, ", "hyphens": "a-",
    "colons": "a:",
    "brackets": "([{", "answers": "answer is ", "equals": "= 1 ", "apostrophes": "a'", "tabs": "\t",
}  # fmt: skip


def texts(size: int) -> dict[str, str]:
    mixed = random.Random(1).choices("ab1 .,!?-'\"()/:;\n", k=size)
    return {name: (unit * size)[:size] for name, unit in UNITS.items()} | {"mixed": "".join(mixed)}


def functions() -> Iterator[Any]:
    """Every function of verification that takes one or two texts and nothing else."""
    for found in pkgutil.iter_modules(semcache.verification.__path__):
        module = import_module(f"semcache.verification.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__:
                continue
            needed = [
                parameter
                for parameter in inspect.signature(function).parameters.values()
                if parameter.default is parameter.empty
            ]
            if 1 <= len(needed) <= 2 and all(p.annotation == "str" for p in needed):
                yield pytest.param(function, len(needed), id=f"{found.name}.{name}")


@pytest.mark.parametrize(("function", "count"), list(functions()))
def test_a_function_over_text_is_linear(function: Callable[..., Any], count: int) -> None:
    """Private functions, too."""
    for text in texts(100_000).values():
        try:
            result = function(*[text] * count)
        except (AssertionError, IndexError, KeyError, ValueError, TypeError):
            continue  # a helper for text of a certain form
        if inspect.isgenerator(result):
            list(result)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
@pytest.mark.parametrize("long_prompts", ["exact", "chunks"])
def test_a_lookup_of_a_long_text_is_linear(size: int, long_prompts: Any) -> None:
    """Of a prompt, a system prompt, a parameter, and the answer that is stored."""
    with open_cache(":memory:", long_prompts=long_prompts) as cache:
        for text in texts(size).values():
            if not text.strip():
                continue
            cache.put(text, text[:1000])
            assert cache.get(text) is not None
            cache.lookup(f"{text}?")
            cache.lookup("short", system=text, params={"style": text})


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_what_is_read_of_answers_is_linear(size: int) -> None:
    for text in texts(size).values():
        masked_text(text)
        read_stream([f"data: {text}", text])
        read_stream(list(text[:100_000]))


def deep(levels: int = 100_000) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def deep_mapping(levels: int = 100_000) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


TOO_MUCH: dict[str, dict[str, Any]] = {
    "a prompt": {"prompt": "x" * (MAX_PROMPT_CHARS + 1)},
    "a parameter": {"prompt": "q", "params": {"a": "x" * (MAX_SCOPE_CHARS + 1)}},
    "tools": {"prompt": "q", "tools": ["x" * (MAX_SCOPE_CHARS + 1)]},
    "deep parameters": {"prompt": "q", "params": {"a": deep()}},
    "deep mappings": {"prompt": "q", "params": deep_mapping()},
    "deep tools": {"prompt": "q", "tools": deep()},
    "a deep format": {"prompt": "q", "response_format": deep_mapping()},
    "a deep message": {"messages": [{"role": "user", "content": "q", "x": deep()}]},
    "deep content": {"messages": [{"role": "user", "content": deep()}]},
    "many messages": {"messages": [{"role": "user", "content": "q"}] * (MAX_MESSAGES + 1)},
    "a long namespace": {"prompt": "q", "namespace": "e\u0301" * 1_000_000},
    "a long model": {"prompt": "q", "model": "e\u0301" * 1_000_000},
}


@pytest.mark.parametrize("request_", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_is_too_much_is_refused(cache: SemanticCache, request_: dict[str, Any]) -> None:
    """With a clear error from the functions that take requests, not a RecursionError."""
    fields = dict(request_)
    prompt = fields.pop("prompt", None)
    with pytest.raises(RequestError):
        cache.lookup(prompt, **fields)
    with pytest.raises(RequestError):
        cache.put(prompt, "answer", **fields)


def test_a_decorated_function_is_called_all_the_same(cache: SemanticCache) -> None:
    @cache.cached
    def ask(prompt: str, **options: Any) -> str:
        return "answer"

    assert ask("q", a=deep()) == ask("q", **deep_mapping()) == ask("x" * 9_000_000) == "answer"
    assert ask.cache_info().faults == 3
