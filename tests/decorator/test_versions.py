"""Functions that were edited, made by a factory or redefined do not serve each other's answers."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable
from typing import Any, NamedTuple

import pydantic
import pytest

from semcache import ConfigError, SemanticCache
from semcache.decorator.version import CodeVersion


def styled(style: Any) -> Callable[[Any], Any]:
    """A decorator with an argument."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def ask(prompt: str) -> str:
            return f"{style} {function(prompt)}"

        return ask

    return decorate


def base(prompt: str) -> str:
    return prompt


def test_what_a_wrapper_captures_counts(cache: SemanticCache) -> None:
    """Although `functools.wraps` gives both wrappers the function's name and source."""
    pirate = cache.cached(styled("pirate")(base))
    lawyer = cache.cached(styled("lawyer")(base))
    assert [pirate("q"), lawyer("q"), pirate("q")] == ["pirate q", "lawyer q", "pirate q"]
    assert pirate.cache_info().exact_hits == 1


def test_wrappers_that_capture_objects_need_names(cache: SemanticCache) -> None:
    """Nothing tells what the objects do; a function that is decorated again is no other one."""
    first = cache.cached(styled(object())(base))
    with pytest.raises(ConfigError, match="its own name"):
        cache.cached(styled(object())(base))
    cache.cached(name="other")(styled(object())(base))
    del first
    cache.cached(styled(object())(base))


class Module:
    """A module's file, or a notebook's cells, that can be edited and run again."""

    def __init__(self, cache: SemanticCache, name: str) -> None:
        self.names: dict[str, Any] = {"__name__": name, "cache": cache}
        self._cells = 0

    def run(self, source: str) -> Any:
        self._cells += 1
        file = f"<{self.names['__name__']} cell {self._cells}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), self.names)
        return self.names.get("ask")


BOT = """
class Base:
    def build(self, prompt):
        return 'one ' + prompt

class Bot(Base):
    __semcache_key__ = 'bot'
    style = 'plain'

    @property
    def system(self):
        return 'first'

    def unused(self):
        return 'this'

    @cache.cached
    def answer(self, prompt):
        return self.style + self.system + self.build(prompt)

ask = Bot().answer
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [("'one '", "'two '"), ("'plain'", "'bold'"), ("'first'", "'second'")],
    ids=["method of a base", "attribute", "property"],
)
def test_what_a_method_uses_of_its_class_counts(
    cache: SemanticCache, before: str, after: str
) -> None:
    """Methods, properties and attributes, as they are written."""
    module = Module(cache, "edited")
    answer = module.run(BOT)("q")
    assert module.run(BOT)("q") == answer
    assert module.run(BOT.replace(before, after))("q") != answer


def test_what_a_method_does_not_use_does_not_count(cache: SemanticCache) -> None:
    module = Module(cache, "edited")
    module.run(BOT)("q")
    assert module.run(BOT.replace("'this'", "'that'")).lookup("q").tier == "exact"


@pytest.mark.parametrize(
    ("definition", "edited"),
    [
        ("SYSTEM = 'pirate'", "SYSTEM = 'lawyer'"),
        ("def helper(): return 'v1'\nSYSTEM = 'x'", "def helper(): return 'v2'\nSYSTEM = 'x'"),
        ("class C:\n    T = 'a'\nSYSTEM = 'x'", "class C:\n    T = 'b'\nSYSTEM = 'x'"),
        ("SYSTEM = {'a': 1}", "SYSTEM = {'a': 2}"),
    ],
    ids=["text", "function", "class", "dict"],
)
@pytest.mark.parametrize("again", [True, False], ids=["run again", "left"])
def test_another_cell_of_a_notebook_counts(
    cache: SemanticCache, definition: str, edited: str, again: bool
) -> None:
    """Whether or not the cell with the decorated function is run again."""
    cell = (
        "@cache.cached\ndef ask(prompt):\n    parts = [str(SYSTEM)]\n"
        "    if 'helper' in globals():\n        parts.append(helper())\n"
        "    if 'C' in globals():\n        parts.append(C.T)\n"
        "    return ' '.join(parts) + prompt\n"
    )
    notebook = Module(cache, "__notebook__")
    notebook.run(definition)
    ask = notebook.run(cell)
    before = ask("q")
    assert ask("q") == before
    assert ask.cache_info().exact_hits == 1
    notebook.run(edited)
    if again:
        ask = notebook.run(cell)
    assert ask("q") != before


def test_a_counter_of_a_notebooks_function_does_not_count(cache: SemanticCache) -> None:
    """What a function itself assigns to is not what it does."""
    notebook = Module(cache, "__notebook__")
    notebook.run("n = 0")
    ask = notebook.run(
        "@cache.cached\ndef ask(prompt):\n    global n\n    n += 1\n    return 'x' + prompt\n"
    )
    assert [ask("q"), ask("q"), ask("q")] == ["xq"] * 3
    assert ask.cache_info().exact_hits == 2


def test_a_template_that_is_replaced_at_run_time_counts(cache: SemanticCache) -> None:
    """In a module's file, too."""
    ask = cache.cached(from_template)
    before = TEMPLATE["text"]
    assert ask("q") == "You are a pirate. q"
    globals()["PROMPT"] = "You are a lawyer."
    try:
        assert ask("q") == "You are a lawyer. q"
    finally:
        globals()["PROMPT"] = before
    assert ask("q") == "You are a pirate. q"
    assert ask.cache_info().exact_hits == 1


PROMPT = "You are a pirate."
TEMPLATE = {"text": PROMPT}


def from_template(prompt: str) -> str:
    return f"{PROMPT} {prompt}"


CAPTURED: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "a partial function": (
        lambda: functools.partial(base_of, style="a"),
        lambda: functools.partial(base_of, style="b"),
    ),
    "a default": (
        lambda: lambda prompt, s="a": s + prompt,
        lambda: lambda prompt, s="b": s + prompt,
    ),
}


def base_of(prompt: str, style: str) -> str:
    return style + prompt


@pytest.mark.parametrize("makers", CAPTURED.values(), ids=CAPTURED)
def test_what_a_captured_function_was_made_with_counts(cache: SemanticCache, makers: Any) -> None:
    def made(inner: Any) -> CodeVersion:
        def ask(prompt: str) -> str:
            return str(inner(prompt))

        return CodeVersion(ask)

    one, other = makers
    assert made(one())() == made(one())() != made(other())()


def test_classes_of_one_name_made_by_a_function(cache: SemanticCache) -> None:
    """What their attributes hold counts."""

    def own(text: str) -> Any:
        class Bot:
            style = text

        Bot.ask = classmethod(cache.cached(ask_of))  # type: ignore[attr-defined]
        return Bot

    def ask_of(cls: Any, prompt: str) -> str:
        return str(cls.style + prompt)

    assert [own("a").ask("q"), own("b").ask("q")] == ["aq", "bq"]


# ------------------------------------------------------------------------------- arguments


class Private(pydantic.BaseModel):
    n: int = 1
    _style: str = pydantic.PrivateAttr("s")


def private(style: str) -> Private:
    made = Private()
    made._style = style
    return made


class Money(NamedTuple):
    value: int


class Weight(NamedTuple):
    value: int


def keyed(cache: SemanticCache, function: Any, **options: Any) -> Callable[..., bytes]:
    cached = cache.cached(**options)(function)
    return lambda *args, **kwargs: cached.lookup(*args, **kwargs).query.exact_key


def test_arguments_that_look_alike_are_told_apart(cache: SemanticCache) -> None:
    """By their types and their private attributes."""
    key = keyed(cache, lambda prompt, value: prompt)
    assert key("q", private("a")) == key("q", private("a")) != key("q", private("b"))
    assert key("q", Money(1)) == key("q", Money(1)) != key("q", Weight(1))


def test_an_argument_of_none_is_told_from_an_absent_one(cache: SemanticCache) -> None:
    """By a function that takes any: `options.get("style", "formal")` is not the same."""

    def ask(prompt: str, **options: Any) -> str:
        return prompt

    key = keyed(cache, ask)
    assert key("q") != key("q", style=None)


def test_a_field_of_a_body_and_an_argument_may_have_one_name(cache: SemanticCache) -> None:
    """Both count, and so does the name of the field that was asked."""

    def ask(body: dict[str, Any], style: str = "x") -> str:
        return ""

    key = keyed(cache, ask, prompt="body")
    keys = [
        key({"prompt": "q", "style": "a"}),
        key({"prompt": "q", "style": "b"}),
        key({"prompt": "q", "style": "b"}, style="y"),
        key({"question": "q", "style": "a"}),
        key({"prompt": "q", "role": "admin"}),
        key({"prompt": "q", "role": "guest"}),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("body", "splits"),
    [
        ("return client.messages.create(prompt, request_id=request_id)", False),
        ("return client.ask(prompt, request_id=request_id)", True),
        ("log.info('asked', extra={'id': request_id})\n    return prompt", False),
        ("return client.ask(prompt, headers={'x-request-id': request_id})", False),
        ("return prompt", False),
        ("return prompt + requests[request_id]", True),
        ("return f'{prompt} about {request_id}'", True),
    ],
)
def test_an_identifier_counts_if_the_answer_depends_on_it(
    cache: SemanticCache, body: str, splits: bool
) -> None:
    """Not if it is only logged or passed on."""
    module = Module(cache, "identifiers")
    ask = module.run(f"@cache.cached\ndef ask(prompt, request_id):\n    {body}\n")
    keys = {ask.lookup("q", name).query.exact_key for name in ("a", "b")}
    assert len(keys) == (2 if splits else 1)


def test_a_method_of_a_pydantic_model(cache: SemanticCache) -> None:
    """The class is created, and its objects are told apart by their fields."""

    class Bot(pydantic.BaseModel, frozen=True):
        style: str

        @cache.cached
        def ask(self, prompt: str) -> str:
            return self.style + prompt

    assert [Bot(style=s).ask("q") for s in "aba"] == ["aq", "bq", "aq"]
    assert Bot.ask.cache_info().exact_hits == 1
