"""A decorated function passes wherever the undecorated one does: copied, pickled, inspected, bound.

What can be compared is compared with the undecorated function itself.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import importlib
import inspect
import multiprocessing
import pickle
import pydoc
import sys
import typing
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from semcache import CacheInfo, SemanticCache

CITIZENS = '''
"""Decorated functions at the top of a module, where programs have them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.helpers import open_cache

cache = open_cache(Path(__file__).parent / "cache")
calls = []


@cache.cached
def function(prompt: str, *, style: str = "s") -> str:
    """Answers at once."""
    calls.append(prompt)
    return f"{prompt} {style}"


@cache.cached
async def coroutine(prompt: str, *, style: str = "s") -> str:
    """Answers later."""
    calls.append(prompt)
    return f"{prompt} {style}"


@cache.cached
def generator(prompt: str, *, style: str = "s") -> Iterator[str]:
    """Answers in pieces."""
    calls.append(prompt)
    yield from (prompt, style)


@cache.cached
async def async_generator(prompt: str, *, style: str = "s") -> AsyncIterator[str]:
    """Answers in pieces, later."""
    calls.append(prompt)
    for piece in (prompt, style):
        yield piece


def marked(prompt: str) -> str:
    return prompt


marked.owner = "us"
marked = cache.cached(marked)


@dataclasses.dataclass(frozen=True)
class Bot:
    style: str = "s"

    @cache.cached
    def function(self, prompt: str) -> str:
        """Answers at once."""
        calls.append(prompt)
        return f"{prompt} {self.style}"

    @cache.cached
    async def coroutine(self, prompt: str) -> str:
        """Answers later."""
        calls.append(prompt)
        return f"{prompt} {self.style}"

    @cache.cached
    def generator(self, prompt: str) -> Iterator[str]:
        """Answers in pieces."""
        calls.append(prompt)
        yield from (prompt, self.style)

    @cache.cached
    async def async_generator(self, prompt: str) -> AsyncIterator[str]:
        """Answers in pieces, later."""
        calls.append(prompt)
        for piece in (prompt, self.style):
            yield piece


@dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True)
class Slotted:
    style: str = "s"

    @cache.cached
    def function(self, prompt: str) -> str:
        calls.append(prompt)
        return f"{prompt} {self.style}"


class Keyed:
    __slots__ = ("__weakref__", "style")

    def __init__(self, style: str = "s") -> None:
        self.style = style

    def __semcache_key__(self) -> str:
        return self.style

    @cache.cached
    def function(self, prompt: str) -> str:
        calls.append(prompt)
        return f"{prompt} {self.style}"


class Told:
    style = "s"

    @cache.cached(ignore={"self"})
    def function(self, prompt: str) -> str:
        calls.append(prompt)
        return f"{prompt} {self.style}"
'''

KINDS = ["function", "coroutine", "generator", "async_generator"]
CLASSES = ["Bot", "Slotted", "Keyed", "Told"]


@pytest.fixture
def citizens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module above, which other processes can import as well."""
    (tmp_path / "citizens.py").write_text(CITIZENS)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("citizens")
    yield module
    del sys.modules["citizens"]
    module.cache.close()


def answer(result: Any) -> str:
    """The whole answer as text, whatever the kind of function."""
    if inspect.isasyncgen(result):
        return asyncio.run(joined(result))
    if inspect.isawaitable(result):
        return str(asyncio.run(awaited(result)))
    return result if isinstance(result, str) else " ".join(result)


async def awaited(result: Any) -> Any:
    return await result


async def joined(pieces: AsyncIterator[str]) -> str:
    return " ".join([piece async for piece in pieces])


# ------------------------------------------------------------------ copies and processes

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy within": lambda f: copy.deepcopy({"ask": [f]})["ask"][0],
    "pickle": lambda f: pickle.loads(pickle.dumps(f)),
    "oldest pickle": lambda f: pickle.loads(pickle.dumps(f, 0)),
    "asdict": lambda f: dataclasses.asdict(Holder(f))["ask"],
    "astuple": lambda f: dataclasses.astuple(Holder(f))[0],
    "replace": lambda f: dataclasses.replace(Holder(f)).ask,
}


@dataclasses.dataclass
class Holder:
    ask: Any


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_the_function_itself(
    citizens: Any, kind: str, copied: Callable[[Any], Any]
) -> None:
    """As for any function of a module."""
    ask = getattr(citizens, kind)
    assert copied(ask) is ask


def test_a_local_function_is_copied_and_not_pickled(cache: SemanticCache) -> None:
    """As for any local function: the error is pickle's own about its name, not about a lock."""

    @cache.cached
    def ask(prompt: str) -> str:
        return prompt

    assert copy.copy(ask) is copy.deepcopy(ask) is ask
    with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
        pickle.dumps(ask)


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_bound_method_is_copied_with_its_instance(citizens: Any, name: str, how: str) -> None:
    """As for any bound method."""
    bot = getattr(citizens, name)()
    assert bot.function("q") == "q s"
    assert COPIES[how](bot.function)("q") == "q s"
    assert citizens.calls == ["q"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_pool_calls_it(citizens: Any, method: str) -> None:
    """The function is sent by name, and the other process finds what this one has stored."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    assert citizens.function("stored") == "stored s"
    pool = ProcessPoolExecutor(1, multiprocessing.get_context(method))
    try:
        assert pool.submit(citizens.function, "q").result(60) == "q s"
        assert pool.submit(citizens.Bot("b").function, "q").result(60) == "q b"
        assert list(pool.map(citizens.function, ["q", "r"], timeout=60)) == ["q s", "r s"]
        found = pool.submit(looked_up, citizens.function, "stored").result(60)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    assert found == "exact"
    assert citizens.function.lookup("q").tier == "exact"


def looked_up(ask: Any, prompt: str) -> str | None:
    return ask.lookup(prompt).tier  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------- inspection

SEEN: dict[str, Callable[[Any], Any]] = {
    "callable": callable,
    "iscoroutinefunction": inspect.iscoroutinefunction,
    "isgeneratorfunction": inspect.isgeneratorfunction,
    "isasyncgenfunction": inspect.isasyncgenfunction,
    "asyncio.iscoroutinefunction": asyncio.iscoroutinefunction,
    "isroutine": inspect.isroutine,
    "a partial's kind": lambda f: [
        look(functools.partial(f, style="t"))
        for look in (inspect.iscoroutinefunction, inspect.isgeneratorfunction)
    ],
    "signature": inspect.signature,
    "name": lambda f: (f.__name__, f.__qualname__, f.__module__),
    "doc": inspect.getdoc,
    "help": lambda f: pydoc.plain(pydoc.render_doc(f)).splitlines()[2:],
    "source": inspect.getsource,
    "annotations": inspect.get_annotations,
    "type hints": typing.get_type_hints,
    "code and defaults": lambda f: (f.__code__, f.__defaults__, f.__kwdefaults__),
    "what it returns": lambda f: kind_of_result(f("q")),
}


def kind_of_result(result: Any) -> list[bool]:
    """Whether it is a coroutine, a generator, an async generator."""
    looks = (inspect.iscoroutine, inspect.isgenerator, inspect.isasyncgen)
    kinds = [look(result) for look in looks]
    if kinds[0]:
        result.close()
    return kinds


@pytest.mark.filterwarnings("ignore:.*iscoroutinefunction:DeprecationWarning")
@pytest.mark.parametrize("look", SEEN.values(), ids=SEEN)
@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_like_the_undecorated_function(
    citizens: Any, kind: str, look: Callable[[Any], Any]
) -> None:
    """To `inspect`, `pydoc`, frameworks and readers."""
    ask = getattr(citizens, kind)
    assert look(ask) == look(ask.__wrapped__)


def test_attributes_of_the_function_stay(citizens: Any) -> None:
    """What others have written on it is read through the decorator."""
    assert citizens.marked.owner == "us"
    assert not hasattr(citizens.marked, "nothing")
    citizens.marked.note = "new"
    assert citizens.marked.note == "new"


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_wrapped_hashed_compared_and_referred_to(citizens: Any, kind: str) -> None:
    """Another decorator on top, sets, weak references."""
    ask = getattr(citizens, kind)

    @functools.wraps(ask)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return ask(*args, **kwargs)

    assert answer(outer("q")) == answer(outer("q")) == "q s"
    assert outer.__wrapped__ is ask
    assert inspect.unwrap(outer) is ask.__wrapped__
    assert inspect.signature(outer) == inspect.signature(ask.__wrapped__)
    assert ask in {ask: 1}
    assert ask != ask.__wrapped__
    assert weakref.ref(ask)() is ask
    assert citizens.calls == ["q"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_call_fails_when_it_is_made(citizens: Any, kind: str) -> None:
    """With the function's own TypeError, before anything is awaited or read."""
    ask = getattr(citizens, kind)
    with pytest.raises(TypeError, match="nonsense"):
        close(ask("q", nonsense=1))


def close(result: Any) -> None:
    """Else a coroutine warns that it was never awaited."""
    if hasattr(result, "close"):
        result.close()


# --------------------------------------------------------------------------------- methods


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_method_looks_like_one(citizens: Any, kind: str) -> None:
    """Its signature lacks self, its kind is the function's, and it knows its instance."""
    bot = citizens.Bot()
    method, undecorated = getattr(bot, kind), getattr(citizens.Bot, kind).__wrapped__
    looks = [inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction]
    assert str(inspect.signature(method)).startswith("(prompt: 'str')")
    assert list(inspect.signature(getattr(citizens.Bot, kind)).parameters) == ["self", "prompt"]
    assert [look(method) for look in looks] == [look(undecorated) for look in looks]
    assert (method.__name__, method.__doc__) == (kind, undecorated.__doc__)
    assert "(prompt: 'str')" in pydoc.plain(pydoc.render_doc(method))


BOUND: dict[str, Callable[[Any], Any]] = {
    "lookup": lambda bot: bot.function.lookup("q").tier == "exact",
    "explain": lambda bot: bot.function.explain("q").tier == "exact",
    "refresh": lambda bot: bot.function.refresh("q") == "q s",
    "bypass": lambda bot: bot.function.bypass("q") == "q s",
    "cache_info": lambda bot: bot.function.cache_info() == CacheInfo(1, 0, 1),
    "cache_info of the class": lambda bot: type(bot).function.cache_info() == CacheInfo(1, 0, 1),
    "self": lambda bot: bot.function.__self__ is bot,
    "equal": lambda bot: bot.function == bot.function != type(bot)("t").function,
    "hash": lambda bot: len({bot.function, bot.function}) == 1,
    "weak": lambda bot: weakref.WeakMethod(bot.function)()("q") == "q s",
    "wraps": lambda bot: functools.wraps(bot.function)(lambda p: bot.function(p))("q") == "q s",
    "partial": lambda bot: functools.partial(bot.function, "q")() == "q s",
    "by the class": lambda bot: type(bot).function(bot, "q") == "q s",
    "lookup by the class": lambda bot: type(bot).function.lookup(bot, "q").tier == "exact",
    "by keyword": lambda bot: bot.function(prompt="q") == "q s",
    "the class's own": lambda bot: type(bot).function is vars(type(bot))["function"],
}


@pytest.mark.parametrize("check", BOUND.values(), ids=BOUND)
@pytest.mark.parametrize("name", ["Bot", "Slotted", "Keyed"])
def test_methods_work_as_methods(citizens: Any, name: str, check: Callable[[Any], bool]) -> None:
    """On frozen dataclasses, with and without slots, and on a class that says its key."""
    bot = getattr(citizens, name)()
    assert [bot.function("q"), bot.function("q")] == ["q s", "q s"]
    assert citizens.calls == ["q"]
    assert check(bot)


@pytest.mark.parametrize("inner", [True, False], ids=["cached below", "cached on top"])
@pytest.mark.parametrize("wrapper", [classmethod, staticmethod])
def test_class_and_static_methods_in_either_order(
    cache: SemanticCache, wrapper: Any, inner: bool
) -> None:
    """`@cache.cached` above or below `@classmethod` and `@staticmethod`."""
    calls: list[str] = []

    def of_class(cls: type, prompt: str) -> str:
        calls.append(prompt)
        return f"{cls.__name__} {prompt}"

    def of_none(prompt: str) -> str:
        calls.append(prompt)
        return f"Base {prompt}"

    of_class.__qualname__ = of_none.__qualname__ = "Base.ask"
    function = of_class if wrapper is classmethod else of_none
    ask = wrapper(cache.cached(function)) if inner else cache.cached(wrapper(function))
    base: Any = type("Base", (), {"ask": ask})
    derived: Any = type("Derived", (base,), {})
    assert [base.ask("q"), base.ask("q"), base().ask("q")] == ["Base q"] * 3
    assert calls == ["q"]
    if not (inner and wrapper is classmethod and sys.version_info >= (3, 13)):
        # From 3.13 on, a classmethod does not bind what it wraps: there is no class to look up for.
        assert base.ask.lookup("q").tier == base().ask.lookup("q").tier == "exact"
    assert list(inspect.signature(base.ask).parameters) == ["prompt"]
    assert derived.ask("q") == ("Derived q" if wrapper is classmethod else "Base q")


# ------------------------------------------------------------------------------ generators

NEXT = ("send", None)
STEPS: dict[str, list[tuple[Any, ...]]] = {
    "read to the end": [NEXT] * 4,
    "sent": [NEXT, ("send", "x"), ("send", "y"), NEXT],
    "sent at once": [("send", "x"), NEXT],
    "thrown and caught": [NEXT, ("throw", ValueError("v")), NEXT, NEXT],
    "thrown and not caught": [NEXT, ("throw", KeyError("k")), NEXT],
    "thrown at once": [("throw", KeyError("k")), NEXT],
    "closed": [NEXT, ("close",), NEXT],
    "closed at once": [("close",), NEXT],
    "thrown after the end": [NEXT] * 3 + [("throw", KeyError("k"))],
}


class Talk:
    """A generator function of either kind that answers what is sent and thrown in."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.log: list[str] = []
        log = self.log

        def generator(prompt: str) -> Any:
            log.append("begins")
            try:
                heard = yield "one"
                heard = yield f"two {heard}"
            except ValueError as error:
                heard = yield f"caught {error}"
            finally:
                log.append("ends")
            return f"returns {heard}"

        async def async_generator(prompt: str) -> Any:
            log.append("begins")
            try:
                heard = yield "one"
                yield f"two {heard}"
            except ValueError as error:
                yield f"caught {error}"
            finally:
                log.append("ends")

        self.function = generator if kind == "generator" else async_generator

    def play(self, function: Callable[[str], Any], steps: list[tuple[Any, ...]]) -> list[Any]:
        """What happens step by step: values, errors, and what the function has logged."""
        return asyncio.run(self._play(function, steps))

    async def _play(
        self, function: Callable[[str], Any], steps: list[tuple[Any, ...]]
    ) -> list[Any]:
        seen: list[Any] = []
        talk = function("q")
        for name, *values in steps:
            try:
                if self.kind == "generator":
                    seen.append(getattr(talk, name)(*values))
                else:
                    seen.append(await getattr(talk, f"a{name}")(*values))
            except BaseException as error:
                seen.append(repr(error))
        await talk.aclose() if self.kind == "async_generator" else talk.close()
        seen.append(list(self.log))
        self.log.clear()
        return seen


@pytest.fixture(params=["generator", "async_generator"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(request.param)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_miss_plays_like_the_undecorated_generator(
    cache: SemanticCache, talk: Talk, steps: list[tuple[Any, ...]]
) -> None:
    """send, throw, close and the value returned, with the same effects in the function."""
    assert talk.play(cache.cached(talk.function), steps) == talk.play(talk.function, steps)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_what_was_sent_in_is_not_served_to_a_reader(
    cache: SemanticCache, talk: Talk, steps: list[tuple[Any, ...]]
) -> None:
    """Whatever was done to the first stream, a reader of the next gets the pieces of reading."""
    ask = cache.cached(talk.function)
    talk.play(ask, steps)
    assert talk.play(ask, [NEXT, NEXT])[:2] == ["one", "two None"]


def test_a_hit_returns_the_value_too(cache: SemanticCache) -> None:
    """The value of `yield from` is restored, or the function is asked again."""

    @cache.cached
    def ask(prompt: str) -> Any:
        yield "piece"
        return {"usage": 7}

    def reader() -> Any:
        return (yield from ask("q"))

    for _ in range(2):
        stream = reader()
        assert next(stream) == "piece"
        with pytest.raises(StopIteration) as end:
            next(stream)
        assert end.value.value == {"usage": 7}


@pytest.mark.parametrize("name", ["thrown and not caught", "thrown at once", "closed"])
def test_a_hit_can_be_thrown_into_and_closed(cache: SemanticCache, talk: Talk, name: str) -> None:
    """The error thrown in comes out, and after that, the stream is over."""
    ask = cache.cached(talk.function)
    talk.play(ask, STEPS["read to the end"])
    assert talk.play(ask, STEPS[name])[:-1] == talk.play(talk.function, STEPS[name])[:-1]
