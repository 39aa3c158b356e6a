"""The decorator, in its four shapes, from one table of cases."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import linecache
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

import pydantic
import pytest

from semcache import Cached, CacheInfo, ConfigError, FaultEvent, RequestError, SemanticCache
from semcache.keys.parse import request
from tests.helpers import Heard, open_cache

SHAPES = ["function", "coroutine", "generator", "async generator"]


class Asked:
    """A function in any of the four shapes that notes how often it is called."""

    def __init__(self, cache: SemanticCache, shape: str, **options: Any) -> None:
        self.calls: list[Any] = []
        self.error: BaseException | None = None
        self.pause = 0.0
        self.shape = shape
        self.cached: Cached[..., Any] = cache.cached(**options)(self._made(shape))

    def _answer(self, prompt: str, style: str) -> list[str]:
        self.calls.append(prompt)
        if self.error is not None:
            raise self.error
        return [prompt.upper(), "!", style]

    def _made(self, shape: str) -> Callable[..., Any]:
        def function(prompt: str, style: str = "plain") -> str:
            time.sleep(self.pause)
            return "".join(self._answer(prompt, style))

        async def coroutine(prompt: str, style: str = "plain") -> str:
            await asyncio.sleep(self.pause)
            return "".join(self._answer(prompt, style))

        def generator(prompt: str, style: str = "plain") -> Iterator[str]:
            time.sleep(self.pause)
            yield from self._answer(prompt, style)

        async def async_generator(prompt: str, style: str = "plain") -> AsyncIterator[str]:
            await asyncio.sleep(self.pause)
            for chunk in self._answer(prompt, style):
                yield chunk

        made = (function, coroutine, generator, async_generator)
        return dict(zip(SHAPES, made, strict=True))[shape]

    def __call__(self, *args: Any, how: str = "__call__", **kwargs: Any) -> str:
        """The whole answer as text, whatever the shape."""
        result = getattr(self.cached, how)(*args, **kwargs)
        if self.shape == "coroutine":
            return str(asyncio.run(result))
        if self.shape == "async generator":
            return asyncio.run(joined(result))
        return "".join(result)


async def joined(chunks: AsyncIterator[str]) -> str:
    return "".join([chunk async for chunk in chunks])


@pytest.fixture(params=SHAPES)
def ask(request: pytest.FixtureRequest, cache: SemanticCache) -> Asked:
    return Asked(cache, request.param)


def test_a_repeat_is_served(ask: Asked) -> None:
    """The second call gives the same answer without calling the function."""
    assert ask("hello") == ask("hello") == ask(prompt="hello") == "HELLO!plain"
    assert ask.calls == ["hello"]
    assert ask.cached.cache_info() == CacheInfo(2, 0, 1)


def test_other_arguments_belong_to_the_scope(ask: Asked) -> None:
    """Another style is another answer; a default given explicitly is the same call."""
    assert ask("hello", style="loud") == "HELLO!loud"
    assert ask("hello") == "HELLO!plain"
    assert ask("hello", "plain") == "HELLO!plain"
    assert ask.calls == ["hello", "hello"]


def test_refresh_asks_again_and_replaces(ask: Asked, cache: SemanticCache) -> None:
    """refresh calls the function whatever is stored, and stores its answer."""
    ask("hello")
    ask("hello", how="refresh")
    assert len(ask.calls) == 2
    assert len(cache) == 1
    ask("hello")
    assert len(ask.calls) == 2
    assert ask.cached.lookup("hello there hello hello").similarity is not None, "still embedded"


def test_bypass_leaves_the_cache_alone(ask: Asked, cache: SemanticCache) -> None:
    """bypass neither looks nor stores."""
    assert ask("hello", how="bypass") == "HELLO!plain"
    assert len(cache) == 0
    assert cache.stats().lookups == 0


def test_lookup_shows_without_calling(ask: Asked) -> None:
    """lookup finds what the function has stored."""
    assert ask.cached.lookup("hello").completion is None
    ask("hello")
    found = ask.cached.lookup("hello")
    assert found.tier == "exact"
    assert found.completion is not None
    assert found.completion.text == "HELLO!plain"
    assert ask.cached.explain("hello").tier == "exact"
    assert len(ask.calls) == 1


def test_errors_pass_unchanged_and_are_not_stored(ask: Asked, cache: SemanticCache) -> None:
    """The function's own exception, itself; the next call tries again."""
    ask.error = ValueError("mine")
    with pytest.raises(ValueError) as caught:
        ask("hello")
    assert caught.value is ask.error
    assert len(cache) == 0
    ask.error = None
    assert ask("hello") == "HELLO!plain"


def test_what_has_no_key_is_called_through(ask: Asked, cache: SemanticCache) -> None:
    """An argument that cannot be compared makes a fault and a plain call, not an error."""
    lock: Any = threading.Lock()
    heard = Heard()
    loud = Asked(open_cache(cache.path, hooks=[heard]), ask.shape)
    loud._answer = lambda prompt, style: ["called"]  # type: ignore[method-assign]
    assert loud("hello", style=lock) == "called"
    assert loud("") == "called", "an empty prompt is the function's business"
    assert [event.where for event in heard.of(FaultEvent)] == ["request", "request"]
    assert len(cache) == 0


def test_a_wrong_call_is_the_functions_own_type_error(ask: Asked) -> None:
    """As without the decorator."""
    with pytest.raises(TypeError):
        ask("hello", nonsense=1)
    with pytest.raises(TypeError):
        ask()


def test_store_if_decides(cache: SemanticCache) -> None:
    """What it says no to is passed on and not kept."""
    for shape in SHAPES:
        ask = Asked(cache, shape, store_if=lambda value: "NO" not in "".join(value), name=shape)
        assert ask("no") == "NO!plain"
        ask("no")
        ask("yes")
        ask("yes")
        assert ask.calls == ["no", "no", "yes"]


def test_the_shape_shows_from_outside(ask: Asked) -> None:
    """Name, docstring and signature are the function's."""
    assert ask.cached.__name__ == ask.shape.replace(" ", "_")  # type: ignore[attr-defined]
    assert list(inspect.signature(ask.cached).parameters) == ["prompt", "style"]
    if ask.shape == "coroutine":
        result = ask.cached("hello")
        assert inspect.isawaitable(result)
        asyncio.run(awaited(result))


async def awaited(result: Any) -> Any:
    return await result


# ---------------------------------------------------------------------- single flight


@pytest.mark.parametrize("shape", ["function", "generator"])
def test_equal_calls_on_threads_are_one(cache: SemanticCache, shape: str) -> None:
    """20 threads ask the same; the function is called once."""
    ask = Asked(cache, shape)
    ask.pause = 0.1
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask("hello"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == ["HELLO!plain"] * 20
    assert ask.calls == ["hello"]


@pytest.mark.parametrize("shape", ["coroutine", "async generator"])
def test_equal_calls_of_tasks_are_one(cache: SemanticCache, shape: str) -> None:
    """50 tasks ask the same; the function is called once."""
    ask = Asked(cache, shape)
    ask.pause = 0.1

    async def one() -> str:
        result = ask.cached("hello")
        return await (result if shape == "coroutine" else joined(result))

    async def main() -> list[str]:
        return await asyncio.gather(*(one() for _ in range(50)))

    assert asyncio.run(main()) == ["HELLO!plain"] * 50
    assert ask.calls == ["hello"]


def test_followers_get_the_leaders_error(cache: SemanticCache) -> None:
    """No hang: who waited for a call that failed is told so."""
    ask = Asked(cache, "function")
    ask.pause, ask.error = 0.2, ValueError("mine")
    caught: list[BaseException] = []

    def work() -> None:
        try:
            ask("hello")
        except ValueError as error:
            caught.append(error)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(caught) == 5
    assert 1 <= len(ask.calls) < 5


def test_a_cancelled_leader_leaves_the_others_their_own_try(cache: SemanticCache) -> None:
    """Cancelling one task cancels no other that asks the same."""
    ask = Asked(cache, "coroutine")
    ask.pause = 0.3

    async def main() -> str:
        leader = asyncio.create_task(awaited(ask.cached("hello")))
        await asyncio.sleep(0.1)
        follower = asyncio.create_task(awaited(ask.cached("hello")))
        await asyncio.sleep(0.1)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        return str(await asyncio.wait_for(follower, 10))

    assert asyncio.run(main()) == "HELLO!plain"


def test_a_cancelled_follower_disturbs_nobody(cache: SemanticCache) -> None:
    """The leader and the other followers get their answer."""
    ask = Asked(cache, "coroutine")
    ask.pause = 0.3

    async def main() -> list[str]:
        tasks = [asyncio.create_task(awaited(ask.cached("hello"))) for _ in range(3)]
        await asyncio.sleep(0.1)
        tasks[1].cancel()
        return [str(await tasks[0]), str(await tasks[2])]

    assert asyncio.run(main()) == ["HELLO!plain"] * 2
    assert ask.calls == ["hello"]


def test_a_function_that_asks_itself_does_not_wait_for_itself(cache: SemanticCache) -> None:
    """The inner call is let through."""
    depth = 0

    @cache.cached()
    def ask(prompt: str) -> str:
        nonlocal depth
        depth += 1
        return ask(prompt) if depth < 3 else "deep"

    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(ask("hello")), daemon=True)
    thread.start()
    thread.join(10)
    assert done == ["deep"]


def test_a_stream_left_half_way_frees_the_others(cache: SemanticCache) -> None:
    """Who reads a stream whose first reader leaves gets the rest of it."""
    ask = Asked(cache, "generator")
    reader = ask.cached("hello")
    assert next(reader) == "HELLO"
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(ask("hello")), daemon=True)
    waiting.start()
    time.sleep(0.1)
    reader.close()
    waiting.join(10)
    assert answers == ["HELLO!plain"]
    assert len(ask.calls) == 1


# --------------------------------------------------------------------------- values


@dataclasses.dataclass
class Point:
    x: int
    names: tuple[str, ...] = ()


class Model(pydantic.BaseModel):
    text: str
    score: float = 0.5


class Row(TypedDict):
    a: int


def typed_values() -> list[Any]:
    def text(prompt: str) -> str:
        return "text"

    def point(prompt: str) -> Point:
        return Point(1, ("a", "b"))

    def model(prompt: str) -> Model:
        return Model(text="t")

    def models(prompt: str) -> list[Model] | None:
        return [Model(text="t"), Model(text="u")]

    def row(prompt: str) -> Row:
        return {"a": 1}

    def pair(prompt: str) -> tuple[int, str]:
        return (1, "x")

    def maybe(prompt: str) -> str | None:
        return "here"

    def number(prompt: str) -> float:
        return 2.5

    def loose_json(prompt):  # type: ignore[no-untyped-def]
        return {"a": [1, None, True]}

    def loose_model(prompt):  # type: ignore[no-untyped-def]
        return Model(text="t")

    def loose_point(prompt):  # type: ignore[no-untyped-def]
        return Point(2)

    return [
        text, point, model, models, row, pair, maybe, number, loose_json, loose_model, loose_point,
    ]  # fmt: skip


@pytest.mark.parametrize("function", typed_values(), ids=lambda f: f.__name__)
def test_values_come_back_as_they_were(cache: SemanticCache, function: Any) -> None:
    """Equal, of the same type, and not the same object for mutable ones."""
    calls = []

    def counted(prompt: str) -> Any:
        calls.append(prompt)
        return function(prompt)

    counted.__annotations__ = function.__annotations__
    ask = cache.cached()(counted)
    first, second = ask("hello"), ask("hello")
    assert second == first
    assert type(second) is type(first)
    assert calls == ["hello"]
    if isinstance(first, list | dict | Point | Model):
        assert second is not first


@pytest.mark.parametrize("value", [object(), {"a": object()}, iter("abc"), threading.Lock()])
def test_values_that_would_come_back_changed_are_not_kept(cache: SemanticCache, value: Any) -> None:
    """What has no form that can be stored is passed on and asked for again."""

    @cache.cached()
    def ask(prompt):  # type: ignore[no-untyped-def]
        return value

    assert ask("hello") is value
    assert ask("hello") is value
    assert len(cache) == 0


def test_chunks_of_any_type_are_replayed(cache: SemanticCache) -> None:
    """A stream of models or dicts comes back chunk by chunk, with usage read off its end."""

    @cache.cached()
    def stream(prompt: str) -> Iterator[dict[str, Any]]:
        yield {"choices": [{"delta": {"content": "Hel"}, "finish_reason": None}]}
        yield {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]}
        yield {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    first, second = list(stream("hi")), list(stream("hi"))
    assert first == second
    completion = stream.lookup("hi").completion
    assert completion is not None
    assert (completion.text, completion.finish_reason) == ("Hello", "stop")
    assert completion.usage.completion_tokens == 2


# --------------------------------------------------------------------------- arguments


def test_self_can_be_left_out(cache: SemanticCache) -> None:
    """With ignore={"self"}, an instance does not split the scope; each call gets its own."""

    class Bot:
        def __init__(self, name: str) -> None:
            self.name = name

        @cache.cached(ignore={"self"})
        def ask(self, prompt: str) -> str:
            return f"{self.name}: {prompt}"

        @classmethod
        @cache.cached()
        def shared(cls, prompt: str) -> str:
            return f"{cls.__name__}: {prompt}"

    assert Bot("a").ask("hello") == "a: hello"
    assert Bot("b").ask("hello") == "a: hello"
    assert Bot("b").ask.refresh("hello") == "b: hello"
    assert Bot("c").ask.lookup("hello").tier == "exact"
    assert Bot.shared("hi") == Bot("a").shared("hi") == "Bot: hi"


def test_two_functions_do_not_share_unless_told(cache: SemanticCache) -> None:
    """The same words mean another question to another function."""

    @cache.cached()
    def summarise(text: str) -> str:
        return "summary"

    @cache.cached()
    def translate(text: str) -> str:
        return "translation"

    @cache.cached(name="qa", model="m")
    def one(prompt: str) -> str:
        return "one"

    @cache.cached(name="qa", model="m")
    def two(prompt: str) -> str:
        return "two"

    @cache.cached(name=None, model="m", namespace="n")
    def open_to_all(prompt: str) -> str:
        return "open"

    assert summarise("hello") == "summary"
    assert translate("hello") == "translation"
    assert one("hello") == two("hello") == "one"
    open_to_all("hello")
    assert str(cache.get("hello", model="m", namespace="n")) == "open"


def test_messages_model_and_system_are_understood(cache: SemanticCache) -> None:
    """Arguments of the API's own names become what they mean."""

    @cache.cached(ignore={"user_id"})
    def chat(
        messages: list[dict[str, Any]],
        model: str = "m",
        system: str | None = None,
        *,
        temperature: float = 0.0,
        user_id: int = 0,
    ) -> str:
        return f"{model} {system} {temperature} {user_id}"

    hello = [{"role": "user", "content": "hello"}]
    assert chat(hello) == "m None 0.0 0"
    assert chat(hello, user_id=7) == "m None 0.0 0"
    assert chat(hello, "other") == "other None 0.0 0"
    assert chat(hello, system="Be brief.") == "m Be brief. 0.0 0"
    assert chat(hello, temperature=1) == "m None 1 0"
    request = chat.lookup(hello, "other").query.request
    assert request.model == "other"
    assert request.messages[0].role == "user"


def test_namespace_and_key_may_be_functions(cache: SemanticCache) -> None:
    """A tenant from the arguments; a prompt that is put together from them."""

    @cache.cached(namespace=lambda tenant, prompt: tenant)
    def ask(tenant: str, prompt: str) -> str:
        return f"{tenant}'s answer"

    @cache.cached(key=lambda first, second: f"{first} and {second}")
    def both(first: str, second: str) -> str:
        return first + second

    assert ask("a", "hello") == "a's answer"
    assert ask("b", "hello") == "b's answer"
    assert {entry.namespace for entry in cache.entries()} == {"a", "b"}
    assert both("x", "y") == "xy"
    assert both.lookup("x", "y").query.question == "x and y"


def test_args_and_kwargs_are_bound(cache: SemanticCache) -> None:
    """*args and **kwargs belong to the scope like any argument."""

    @cache.cached(prompt="prompt")
    def ask(prompt: str, *args: int, **kwargs: int) -> str:
        return f"{prompt} {args} {kwargs}"

    assert ask("q", 1, 2, a=3) == "q (1, 2) {'a': 3}"
    assert ask("q", 1, a=3) == "q (1,) {'a': 3}"
    assert ask("q", 1, 2, a=3) == "q (1, 2) {'a': 3}"
    assert ask.cache_info() == CacheInfo(1, 0, 2)


def test_it_must_be_clear_which_argument_is_the_prompt(cache: SemanticCache) -> None:
    """Else ConfigError when the function is decorated, not when it is called."""
    with pytest.raises(ConfigError, match="Which argument"):

        @cache.cached()
        def unclear(a: str, b: str) -> str:
            return a

    with pytest.raises(ConfigError, match="no parameter 'question'"):

        @cache.cached(prompt="question")
        def wrong(prompt: str) -> str:
            return prompt

    @cache.cached(prompt="b")
    def told(a: str, b: str) -> str:
        return a + b

    assert told("1", "2") == "12"
    assert told.lookup("1", "2").query.question == "2"


def test_lookup_says_what_has_no_key(cache: SemanticCache) -> None:
    """Whoever looks on purpose is told why it cannot be found."""

    @cache.cached()
    def ask(prompt: str, client: object = None) -> str:
        return prompt

    with pytest.raises(RequestError, match=r"client.*ignore="):
        ask.lookup("hello", client=object())


# ------------------------------------------------------- found by trying to break it


def test_a_key_that_gives_a_request_stays_in_its_namespace(cache: SemanticCache) -> None:
    """The decorator's namespace and the function's name hold for requests too."""

    def made(namespace: str) -> Any:
        @cache.cached(namespace=namespace, name="n", key=lambda q: request(q))
        def ask(q: str) -> str:
            return f"answer of {namespace}"

        return ask

    for tenant in ("a", "b"):
        assert made(tenant)("reset?") == f"answer of {tenant}"


def test_closures_of_one_name_must_be_told_apart(cache: SemanticCache) -> None:
    """Two functions that may answer differently never share a name by accident."""

    def made(style: str, **options: Any) -> Any:
        @cache.cached(**options)
        def ask(prompt: str) -> str:
            return f"{style}: {prompt}"

        return ask

    made("pirate")
    with pytest.raises(ConfigError, match="name="):
        made("lawyer")
    assert made("a", name="a")("hi") == "a: hi"
    assert made("b", name="b")("hi") == "b: hi"
    cache.cached()(lambda prompt: "one")
    with pytest.raises(ConfigError, match="name="):
        cache.cached()(lambda prompt: "two")


def defined(cache: SemanticCache, source: str, **options: Any) -> Any:
    """`ask` of some source, decorated, as of a cell in a notebook that is run again."""
    filename = f"<cell {hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(source, filename, "exec"), names)
    return cache.cached(**options)(names["ask"])


ASK = "def ask(prompt):\n    return 'one: ' + prompt\n"
TEMPLATE = "TEMPLATE = 'Be kind. {}'\ndef ask(prompt):\n    return TEMPLATE.format(prompt)\n"


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (ASK, ASK, True),
        (ASK, ASK.replace("one", "two"), False),
        (ASK, ASK.replace("'one: ' + prompt", "prompt + 'one: '"), False),
        (ASK, "def ask(prompt):\n    # a comment\n    return 'one: '  + prompt\n", True),
        (ASK, "def ask(prompt):\n    'A docstring.'\n    return 'one: ' + prompt\n", True),
        (TEMPLATE, TEMPLATE, True),
        (TEMPLATE, TEMPLATE.replace("kind", "brief"), False),
        ("KEY = 'k1'\n" + ASK, "KEY = 'k2'\n" + ASK, True),
    ],
    ids=[
        "the same", "a constant", "the code", "a comment", "a docstring", "the same template",
        "another template", "another global name",
    ],
)  # fmt: skip
def test_an_edited_function_starts_anew(
    cache: SemanticCache, first: str, second: str, shared: bool
) -> None:
    """What a function answered before it was edited is not served after."""
    one, other = defined(cache, first), defined(cache, second)
    answer = one("hello there")
    assert (other.lookup("hello there").tier == "exact") is shared
    if not shared:
        assert other("hello there") != answer


def test_a_version_replaces_the_digest(cache: SemanticCache) -> None:
    """With a version of one's own, the code does not matter, and the version does."""
    one = defined(cache, ASK, version="1")
    other = defined(cache, ASK.replace("one", "two"), version="1")
    third = defined(cache, ASK, version="2")
    assert one("hello there") == other("hello there") == "one: hello there"
    assert third.lookup("hello there").tier is None


def test_cached_needs_no_parentheses(cache: SemanticCache) -> None:
    """`@cache.cached` is `@cache.cached()`."""

    @cache.cached
    def ask(prompt: str) -> str:
        return f"answer to {prompt}"

    assert ask("hi") == "answer to hi"
    assert ask.lookup("hi").tier == "exact"


def test_a_parameter_may_be_called_function(cache: SemanticCache) -> None:
    """No argument's name can hide the function's own."""

    @cache.cached()
    def document(prompt: str, function: str) -> str:
        return f"doc of {function}"

    assert document("explain", "f1") == "doc of f1"
    assert document("explain", "f2") == "doc of f2"


def test_a_subclass_asks_another_question(cache: SemanticCache) -> None:
    """A classmethod's answers belong to its class."""

    class Base:
        @classmethod
        @cache.cached()
        def ask(cls, prompt: str) -> str:
            return cls.__name__

    class Derived(Base):
        pass

    assert Base.ask("x") == "Base"
    assert Derived.ask("x") == "Derived"


class Broken:
    @property
    def model_fields(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("number", range(7))
def test_no_argument_makes_a_decorated_call_fail(cache: SemanticCache, number: int) -> None:
    """Whatever the arguments are, the function is called."""
    endless: list[Any] = []
    endless.append(endless)
    value = [float("nan"), "\ud800", 10**5000, Model, Broken(), endless, object()][number]

    @cache.cached()
    def ask(prompt: str, extra: Any = None) -> str:
        return "called"

    assert ask("hello", value) == "called"
    assert ask("hello", extra=value) == "called"


def test_followers_get_copies_of_their_own(cache: SemanticCache) -> None:
    """What one caller does to its answer shows in nobody else's."""

    @cache.cached()
    def ask(prompt: str) -> dict[str, Any]:
        time.sleep(0.1)
        return {"list": [1]}

    answers: list[dict[str, Any]] = []

    def work() -> None:
        answer = ask("hello")
        answer["list"].append(len(answers))
        answers.append(answer)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(len(answer["list"]) == 2 for answer in answers)
    assert ask("hello") == {"list": [1]}


class Derived(Model):
    more: int = 1


def test_a_value_keeps_its_own_type(cache: SemanticCache) -> None:
    """A subclass under its base's annotation, and tuples in a dict, come back as they were."""
    values: list[Any] = [Derived(text="t"), {1: (1, 2)}]

    def base(prompt: str) -> Model:
        return values[0]  # type: ignore[no-any-return]

    def plain(prompt: str) -> dict[Any, Any]:
        return values[1]  # type: ignore[no-any-return]

    for function, value in ((base, values[0]), (plain, values[1])):
        ask: Any = cache.cached()(function)
        assert ask("hello") is value
        assert ask("hello") == value
        assert type(ask("hello")) is type(value)
    assert len(cache) == 2


def test_a_chunk_that_its_reader_changes_is_replayed_as_it_was(cache: SemanticCache) -> None:
    """Chunks are kept when they arrive."""

    @cache.cached()
    def stream(prompt: str) -> Iterator[dict[str, int]]:
        yield {"a": 1}

    for chunk in stream("x"):
        chunk.clear()
    assert list(stream("x")) == [{"a": 1}]


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "x", "refusal": "no"}, "finish_reason": "stop"}]},
        {"object": "response", "status": "incomplete", "output": []},
        {"id": "r", "status": "completed", "output": [{"type": "function_call"}]},
        {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "MAX_TOKENS"}]},
        {"message": {"content": "x"}, "done_reason": "length"},
        {"content": [{"type": "text", "text": "x"}], "stop_reason": "pause_turn"},
        {"error": {"message": "overloaded"}},
        {"choices": [{"message": {"content": "x"}, "finish_reason": ["odd"]}]},
    ],
)
def test_no_providers_unfinished_answer_is_kept(cache: SemanticCache, answer: Any) -> None:
    """Cut off, refused, asking for tools, failed: passed on, not stored."""

    @cache.cached()
    def ask(prompt: str) -> Any:
        return answer

    assert ask("hello") is answer
    assert len(cache) == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]},
        {
            "id": "r",
            "status": "completed",
            "output": [{"content": [{"type": "output_text", "text": "x"}]}],
        },
        {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]},
        {"message": {"content": "x"}, "done_reason": "stop"},
        {"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn"},
    ],
)
def test_every_providers_whole_answer_is_kept(cache: SemanticCache, answer: Any) -> None:
    """With its words read out of it."""

    @cache.cached()
    def ask(prompt: str) -> Any:
        return answer

    assert ask("hello") == ask("hello") == answer
    found = ask.lookup("hello").completion
    assert found is not None
    assert found.text == "x"


def test_an_empty_stream_is_not_kept(cache: SemanticCache) -> None:
    """No chunks are no answer."""

    @cache.cached()
    def stream(prompt: str) -> Iterator[str]:
        yield from ()

    assert list(stream("x")) == []
    assert len(cache) == 0


def test_a_stop_iteration_of_the_function_is_its_own(cache: SemanticCache) -> None:
    """Even an error that generators would swallow passes unchanged."""

    @cache.cached()
    def ask(prompt: str) -> str:
        raise StopIteration("mine")

    with pytest.raises(StopIteration, match="mine"):
        ask("hello")


def test_two_streams_read_in_turns_do_not_wait_for_each_other(cache: SemanticCache) -> None:
    """One thread that reads the same stream twice at once gets both, at once."""
    ask = Asked(cache, "generator")
    start = time.monotonic()
    assert [a == b for a, b in zip(ask.cached("q"), ask.cached("q"), strict=True)] == [True] * 3
    assert time.monotonic() - start < 5


def test_prompt_or_messages_whichever_is_given(cache: SemanticCache) -> None:
    """A function that takes either is cached for either."""

    @cache.cached(ignore={"temperature"})
    def ask(prompt: str | None = None, messages: Any = None, **options: Any) -> str:
        return "answer"

    ask(messages=[{"role": "user", "content": "hello"}])
    assert ask.lookup("hello", temperature=3).tier == "exact"


def test_store_if_may_not_be_async(cache: SemanticCache) -> None:
    """It would never be awaited, and always mean yes."""

    async def never(value: Any) -> bool:
        return False

    with pytest.raises(ConfigError, match="store_if"):
        cache.cached(store_if=never)(lambda prompt: "x")


@pytest.mark.parametrize(
    ("chunks", "kept"),
    [
        ([{"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}], "x"),
        ([{"candidates": [{"content": {"parts": []}, "finishReason": "MAX_TOKENS"}]}], None),
        (
            [
                {"message": {"role": "assistant", "content": "x"}, "done": False},
                {
                    "message": {"role": "assistant", "content": "y"},
                    "done": True,
                    "done_reason": "stop",
                },
            ],
            "xy",
        ),
        (
            [
                {
                    "message": {"role": "assistant", "content": "x"},
                    "done": True,
                    "done_reason": "length",
                }
            ],
            None,
        ),
        (
            [
                {"type": "response.output_text.delta", "delta": "x"},
                {
                    "type": "response.completed",
                    "response": {
                        "status": "completed",
                        "output": [{"content": [{"type": "output_text", "text": "x"}]}],
                    },
                },
            ],
            "x",
        ),
        (
            [{"type": "response.incomplete", "response": {"status": "incomplete", "output": []}}],
            None,
        ),
        (
            [
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}},
                {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {}},
            ],
            None,
        ),
        ([{"type": "error", "error": {"message": "overloaded"}}], None),
    ],
    ids=[
        "gemini",
        "gemini cut",
        "ollama",
        "ollama cut",
        "responses",
        "responses cut",
        "anthropic cut",
        "error",
    ],
)
def test_no_providers_cut_stream_is_kept(
    cache: SemanticCache, chunks: list[dict[str, Any]], kept: str | None
) -> None:
    """The end of a stream says whether it is whole, in each provider's way."""

    @cache.cached()
    def stream(prompt: str) -> Iterator[dict[str, Any]]:
        yield from chunks

    assert list(stream("x")) == chunks
    found = stream.lookup("x").completion
    assert (found and found.text) == kept


def test_a_keyword_called_like_the_prompt_does_not_replace_it(cache: SemanticCache) -> None:
    """A positional-only prompt and a keyword of its name are two things."""

    @cache.cached(prompt="prompt")
    def ask(prompt: str, /, **options: str) -> str:
        return f"{prompt} {options}"

    assert ask("a", prompt="x") == "a {'prompt': 'x'}"
    assert ask("b", prompt="x") == "b {'prompt': 'x'}"


def test_calls_whose_answer_is_not_for_sharing_run_side_by_side(cache: SemanticCache) -> None:
    """Followers of an answer that is not stored do not queue up."""
    ask = Asked(cache, "function", store_if=lambda value: False)
    ask.pause = 0.2
    start = time.monotonic()
    threads = [threading.Thread(target=ask, args=("hello",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() - start < 1.5
    assert len(ask.calls) == 10
