"""What makes two calls one question: nothing that changes the answer may be left out of the key.

And what cannot change it does not split the key. Calls share an answer if the second is an exact
hit after the first; most tables here compare the keys themselves, which is the same and faster.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import linecache
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from semcache import ConfigError, RequestError, SemanticCache
from tests.helpers import ROOT, open_cache


def refused(attempt: Callable[[], Any]) -> bool:
    """Whether it raises ConfigError, which Python 3.11 wraps if `__set_name__` raises it."""
    try:
        attempt()
    except ConfigError:
        return True
    except RuntimeError as error:
        if isinstance(error.__cause__, ConfigError):
            return True
        raise
    return False


def key(ask: Any, *args: Any, **kwargs: Any) -> bytes:
    """The exact key of a call."""
    found: bytes = ask.lookup(*args, **kwargs).query.exact_key
    return found


# ------------------------------------------------------------------------------- receivers


def plain(cached: Any) -> Any:
    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = style

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def slots(cached: Any) -> Any:
    class Bot:
        __slots__ = ("style",)

        def __init__(self, style: Any) -> None:
            self.style = style

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def mutable_dataclass(cached: Any) -> Any:
    @dataclasses.dataclass
    class Bot:
        style: Any

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def frozen_dataclass(cached: Any) -> Any:
    @dataclasses.dataclass(frozen=True)
    class Bot:
        style: Any

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def frozen_with_slots(cached: Any) -> Any:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Bot:
        style: Any

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def key_method(cached: Any) -> Any:
    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = style

        def __semcache_key__(self) -> Any:
            return self.style

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def key_property(cached: Any) -> Any:
    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = style

        @property
        def __semcache_key__(self) -> Any:
            return {"style": self.style}

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def key_attribute(cached: Any) -> Any:
    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = self.__semcache_key__ = style

        @cached
        def ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

    return Bot


def function_of_self(cached: Any) -> Any:
    @cached
    def ask(self: Any, prompt: str) -> str:
        return f"{self.style}: {prompt}"

    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = style

        def ask(self, prompt: str) -> Any:
            return ask(self, prompt)

    return Bot


def coroutine_of_plain(cached: Any) -> Any:
    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = style

        @cached
        async def _ask(self, prompt: str) -> str:
            return f"{self.style}: {prompt}"

        def ask(self, prompt: str) -> Any:
            return asyncio.run(awaited(self._ask(prompt)))

    return Bot


def generator_of_plain(cached: Any) -> Any:
    class Bot:
        def __init__(self, style: Any) -> None:
            self.style = style

        @cached
        def _ask(self, prompt: str) -> Iterator[str]:
            yield f"{self.style}: {prompt}"

        def ask(self, prompt: str) -> Any:
            return "".join(self._ask(prompt))

    return Bot


async def awaited(result: Any) -> Any:
    return await result


ACCEPTED = [frozen_dataclass, frozen_with_slots, key_method, key_property, key_attribute]
REFUSED = [
    plain, slots, mutable_dataclass, function_of_self, coroutine_of_plain, generator_of_plain,
]  # fmt: skip


@pytest.mark.parametrize("made", [*ACCEPTED, *REFUSED])
def test_two_instances_never_share_an_answer(cache: SemanticCache, made: Any) -> None:
    """Whatever kind of receiver; refusing to decorate it is also no sharing."""
    answers: list[str] = []

    def asked() -> None:
        bot = made(cache.cached())
        answers.extend(bot(style).ask("q") for style in ("pirate", "lawyer", "pirate"))

    if not refused(asked):
        assert answers == ["pirate: q", "lawyer: q", "pirate: q"]


@pytest.mark.parametrize("made", REFUSED)
def test_a_receiver_without_a_key_is_refused(cache: SemanticCache, made: Any) -> None:
    """With ConfigError: when it is decorated, when its class is made, or at the first call."""
    assert refused(lambda: made(cache.cached())("pirate").ask("q"))


@pytest.mark.parametrize("made", ACCEPTED)
def test_a_receiver_with_a_key_shares_with_its_equals(cache: SemanticCache, made: Any) -> None:
    """Equal keys, one question; a changed key, another."""
    bot = made(cache.cached())
    assert bot("pirate").ask("q") == "pirate: q"
    assert bot("pirate").ask.lookup("q").tier == "exact"
    assert bot("lawyer").ask.lookup("q").tier is None
    assert bot("pirate").ask.lookup("r").tier is None


@pytest.mark.parametrize(
    ("options", "shared"),
    [
        ({"ignore": {"self"}}, True),
        ({"namespace": lambda self, prompt: self.style}, False),
        ({"key": lambda self, prompt: f"{self.style} {prompt}"}, False),
        ({"namespace": "bots"}, False),
    ],
    ids=["ignored", "namespace by call", "key by call", "one namespace"],
)
def test_the_receiver_may_be_told_apart_by_options(
    cache: SemanticCache, options: Any, shared: bool
) -> None:
    """Options that say what becomes of self; a fixed namespace says nothing about it."""
    answers: list[str] = []

    def asked() -> None:
        bot = plain(cache.cached(**options))
        answers.extend(bot(style).ask("q") for style in ("pirate", "lawyer"))
        assert bot("pirate").ask.lookup("q").tier == "exact"

    if not (refused(asked) and options == {"namespace": "bots"}):
        assert answers == ["pirate: q", "pirate: q" if shared else "lawyer: q"]


@pytest.mark.parametrize("made", [key_method, key_property, frozen_dataclass])
def test_a_changed_object_asks_another_question(cache: SemanticCache, made: Any) -> None:
    """The key is that of the time of the call."""
    bot = made(cache.cached())(["pirate"])
    assert bot.ask("q") == "['pirate']: q"
    bot.style.append("loud")
    assert bot.ask("q") == "['pirate', 'loud']: q"
    del bot.style[1]
    assert bot.ask.lookup("q").tier == "exact"


@pytest.mark.parametrize("made", ACCEPTED)
def test_a_subclass_asks_another_question(cache: SemanticCache, made: Any) -> None:
    """Equal fields of another class are another receiver."""
    base = made(cache.cached())
    derived = type("Derived", (base,), {"__doc__": "Answers otherwise."})
    assert base("pirate").ask("q") == "pirate: q"
    assert derived("pirate").ask.lookup("q").tier is None
    derived("pirate").ask("q")
    assert derived("pirate").ask.lookup("q").tier == "exact"


def test_a_tenant_in_an_attribute_is_a_namespace(cache: SemanticCache) -> None:
    """A namespace function is given self."""
    bot = plain(cache.cached(namespace=lambda self, prompt: self.style))
    assert [bot(t).ask("q") for t in ("a", "b", "a")] == ["a: q", "b: q", "a: q"]
    assert {entry.namespace for entry in cache.entries()} == {"a", "b"}


def test_a_key_that_cannot_be_read_is_no_key(cache: SemanticCache) -> None:
    """A frozen dataclass with a field that has no canonical form shares with nobody."""
    bot = frozen_dataclass(cache.cached())
    one, other = object(), object()
    assert bot(one).ask("q") == f"{one}: q"
    assert bot(other).ask("q") == f"{other}: q"


# --------------------------------------------------------------------- functions of one name


def lambdas() -> list[Any]:
    return [lambda prompt: "one", lambda prompt: "two"]


def closures(*captured: Any) -> list[Any]:
    def made(value: Any) -> Any:
        def ask(prompt: str) -> str:
            return f"{value}: {prompt}"

        return ask

    return [made(value) for value in captured]


def closures_over_functions() -> list[Any]:
    def made(helper: Any) -> Any:
        def ask(prompt: str) -> str:
            return f"{helper(prompt)}: {prompt}"

        return ask

    return [made(helper) for helper in lambdas()]


def bound_methods() -> list[Any]:
    bot = plain(lambda function: function)
    return [bot("pirate").ask, bot("lawyer").ask]


PAIRS: dict[str, Callable[[], list[Any]]] = {
    "lambdas": lambdas,
    "closures": lambda: closures("pirate", "lawyer"),
    "closures over numbers": lambda: closures(1, 2),
    "closures over lists": lambda: closures(["pirate"], ["lawyer"]),
    "closures over dicts": lambda: closures({"style": 1}, {"style": 2}),
    "closures over objects": lambda: closures(SimpleNamespace(style=1), SimpleNamespace(style=2)),
    "closures over functions": lambda: closures_over_functions(),
    "bound methods": bound_methods,
}


@pytest.mark.parametrize("where", ["one program", "another program"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_functions_of_one_name_never_share(
    cache: SemanticCache, pair: Callable[[], list[Any]], where: str
) -> None:
    """The second is refused, or has answers of its own: also in another program's cache."""
    first, second = pair()
    right = second("q")
    with open_cache(cache.path) as other:
        if refused(lambda: cache.cached()(first)):
            return
        assert cache.cached()(first)("q") == first("q")
        answers: list[str] = []
        chosen = cache if where == "one program" else other
        if not refused(lambda: answers.append(chosen.cached()(second)("q"))):
            assert answers == [right]


PROGRAM = """
import sys
from tests.helpers import open_cache
cache = open_cache(sys.argv[1])
{source}
ask = cache.cached(ask)
print(ask("q"), ask.cache_info().exact_hits)
cache.close()
"""
BODY = "def ask(prompt):\n    return {answer!r}\n"
PROGRAMS = {
    "functions": (BODY, "one", "two"),
    "lambdas": ("ask = lambda prompt: {answer!r}\n", "one", "two"),
    "templates": (f"TEMPLATE = {{answer!r}}\n{BODY.format(answer='')}".replace("''", "TEMPLATE"),
                  "one answer", "two answers"),
    "closures": (
        "def made(style):\n    def ask(prompt):\n        return style\n    return ask\n"
        "ask = made({answer!r})\n", "one", "two",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ["file", "-c"])
@pytest.mark.parametrize(("source", "one", "two"), PROGRAMS.values(), ids=PROGRAMS)
def test_two_programs_do_not_share_main(
    tmp_path: Path, source: str, one: str, two: str, how: str
) -> None:
    """`__main__.ask` of one program is not that of another; the same program again is."""

    def run(name: str, answer: str) -> str:
        code = PROGRAM.format(source=source.format(answer=answer))
        script = tmp_path / f"{name}.py"
        script.write_text(code)
        start = [str(script)] if how == "file" else ["-c", code]
        done = subprocess.run(
            [sys.executable, *start, str(tmp_path / "cache")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run("a", one) == f"{one} 0"
    assert run("b", two) == f"{two} 0"
    assert run("a", one) == f"{one} 1"


def defined(cache: SemanticCache, source: str) -> Any:
    """`ask` of some source, decorated, as of a module that has been edited and run again."""
    filename = f"<edition {hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names: dict[str, Any] = {"__name__": "edited"}
    exec(compile(source, filename, "exec"), names)
    return cache.cached()(names["ask"])


ASK = "def ask(prompt):\n    return {} + prompt\n"
EDITS: dict[str, tuple[str, str, str]] = {
    "body": (ASK.format("'one '"), "one", "two"),
    "default": ("def ask(prompt, style='one'):\n    return style + prompt\n", "one", "two"),
    "keyword default": ("def ask(prompt, *, n=1):\n    return str(n) + prompt\n", "n=1", "n=2"),
    "template": ("T = 'Be one. '\n" + ASK.format("T"), "one", "two"),
    "template of one word": ("T = 'one'\n" + ASK.format("T"), "one", "two"),
    "number": ("N = 1\n" + ASK.format("str(N)"), "N = 1", "N = 2"),
    "tuple": ("T = ('one', 'x')\n" + ASK.format("T[0]"), "one", "two"),
    "examples in a list": ("T = ['an one']\n" + ASK.format("T[0]"), "one", "two"),
    "settings in a dict": ("T = {'a': 'an one'}\n" + ASK.format("T['a']"), "one", "two"),
    "string.Template": (
        "from string import Template\nT = Template('an one $x')\n"
        + ASK.format("T.substitute(x=1)"), "one", "two",
    ),
    "helper": ("def helper():\n    return 'one '\n" + ASK.format("helper()"), "one", "two"),
    "helper's helper": (
        "def inner():\n    return 'one '\ndef helper():\n    return inner()\n"
        + ASK.format("helper()"), "one", "two",
    ),
    "helper's template": (
        "T = 'Be one. '\ndef helper():\n    return T\n" + ASK.format("helper()"), "one", "two",
    ),
    "helper's default": (
        "def helper(t='one'):\n    return t\n" + ASK.format("helper()"), "one", "two",
    ),
    "lambda helper": ("helper = lambda: 'one '\n" + ASK.format("helper()"), "one", "two"),
    "method of a helper class": (
        "class H:\n    def text(self):\n        return 'one '\n" + ASK.format("H().text()"),
        "one", "two",
    ),
    "constant of a class": ("class H:\n    T = 'an one'\n" + ASK.format("H.T"), "one", "two"),
    "attribute of an object": (
        "from types import SimpleNamespace\nC0 = SimpleNamespace(t='one')\n" + ASK.format("C0.t"),
        "one", "two",
    ),
    "inner function": (
        "def ask(prompt):\n    def inner():\n        return 'one '\n    return inner() + prompt\n",
        "one", "two",
    ),
}  # fmt: skip
SAME: dict[str, tuple[str, str, str]] = {
    "nothing": (ASK.format("'one '"), "one", "one"),
    "a comment": ("# one\n" + ASK.format("'x'"), "one", "two"),
    "a docstring": ("def ask(prompt):\n    'one'\n    return 'x' + prompt\n", "one", "two"),
    "an unused constant": ("N = 1\n" + ASK.format("'x'"), "N = 1", "N = 2"),
    "an unused helper": ("def other():\n    return 1\n" + ASK.format("'x'"), "1", "2"),
    "a helper's docstring": (
        "def helper():\n    'one'\n    return 'x'\n" + ASK.format("helper()"), "one", "two",
    ),
    "an object": ("LOCK = object()\n" + ASK.format("str(bool(LOCK))"), "LOCK", "LOCK"),
    "helpers that call each other": (
        "def a(n):\n    return b(n) if n else 'x'\ndef b(n):\n    return a(n - 1)\n"
        + ASK.format("a(1)"), "x", "x",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("source", "one", "two"), EDITS.values(), ids=EDITS)
def test_what_was_edited_starts_anew(cache: SemanticCache, source: str, one: str, two: str) -> None:
    """In the function, and in whatever it uses of its module."""
    before, after = defined(cache, source), defined(cache, source.replace(one, two))
    answer = before("q")
    assert after.lookup("q").tier is None
    assert after("q") != answer


@pytest.mark.parametrize(("source", "one", "two"), SAME.values(), ids=SAME)
def test_what_cannot_matter_is_kept(cache: SemanticCache, source: str, one: str, two: str) -> None:
    """An edit of what the function does not use, or that changes nothing."""
    before, after = defined(cache, source), defined(cache, source.replace(one, two))
    before("q")
    assert after.lookup("q").tier == "exact"


# ------------------------------------------------------------------------------- arguments


def test_a_namespace_of_none_is_an_error(cache: SemanticCache) -> None:
    """A tenant who is not known must not get the answers of everybody."""

    @cache.cached(namespace=lambda prompt, tenant=None: tenant)
    def ask(prompt: str, tenant: str | None = None) -> str:
        return f"{tenant}: {prompt}"

    assert ask("q", "a") == "a: q"
    for call in (ask, ask.lookup):
        with pytest.raises((RequestError, ConfigError), match="namespace"):
            call("q")


SENTINELS = [
    "openai.NOT_GIVEN", "openai.not_given", "openai.omit", "anthropic.NOT_GIVEN",
    "anthropic.not_given", "anthropic.omit",
]  # fmt: skip


@pytest.mark.parametrize("name", SENTINELS)
def test_a_sentinel_of_an_sdk_is_an_absent_argument(cache: SemanticCache, name: str) -> None:
    """Given, or as the default."""
    package, _, attribute = name.partition(".")
    absent = getattr(pytest.importorskip(package), attribute)

    @cache.cached(name="one", prompt="prompt", version="1")
    def ask(prompt: str, **options: Any) -> str:
        return prompt

    @cache.cached(name="one", prompt="prompt", version="1")
    def ask_by_default(prompt: str, temperature: Any = absent, tools: Any = absent) -> str:
        return prompt

    bare = key(ask, "q")
    for argument in ("temperature", "stop", "model", "system", "tools", "response_format"):
        assert key(ask, "q", **{argument: absent}) == bare, argument
    assert key(ask_by_default, "q") == bare
    assert key(ask_by_default, "q", 0.5) == key(ask, "q", temperature=0.5) != bare
    assert key(ask, [{"role": "user", "content": "q", "name": absent}]) == bare


IRRELEVANT: dict[str, list[Any]] = {
    "timeout": [1, 2.5],
    "user": ["u1", "u2"],
    "extra_headers": [{"X-Trace": "1"}, {"X-Trace": "2"}],
    "metadata": [{"run": "1"}, {"run": "2"}],
    "request_id": ["r1", "r2"],
    "trace_id": ["t1", "t2"],
    "stream": [True, False],
}
RELEVANT: dict[str, list[Any]] = {
    "temperature": [0, 1],
    "seed": [1, 2],
    "max_tokens": [5, 6],
    "extra_body": [{"top_k": 1}, {"top_k": 2}],
    "style": ["a", "b"],
}


@pytest.mark.parametrize("shape", ["options", "parameter"])
@pytest.mark.parametrize(
    ("name", "splits"), [*((n, False) for n in IRRELEVANT), *((n, True) for n in RELEVANT)]
)
def test_arguments_that_change_no_answer(
    cache: SemanticCache, name: str, splits: bool, shape: str
) -> None:
    """Who asks, how long they wait and what they log does not split the key; the rest does."""
    names: dict[str, Any] = {}
    parameters = "**options" if shape == "options" else f"{name}=None"
    exec(f"def ask(prompt, {parameters}) -> str:\n    return prompt\n", names)
    ask = cache.cached(prompt="prompt")(names["ask"])
    keys = {key(ask, "q")}
    keys |= {key(ask, "q", **{name: value}) for value in (IRRELEVANT | RELEVANT)[name]}
    assert len(keys) == (3 if splits else 1)


def test_the_limit_of_tokens_has_two_names(cache: SemanticCache) -> None:
    """max_tokens and max_completion_tokens are one."""

    @cache.cached(prompt="prompt")
    def ask(prompt: str, **options: Any) -> str:
        return prompt

    assert key(ask, "q", max_tokens=5) == key(ask, "q", max_completion_tokens=5) != key(ask, "q")
    assert key(ask, "q", max_completion_tokens=6) != key(ask, "q", max_tokens=5)


def test_a_stream_is_not_a_whole_answer(cache: SemanticCache) -> None:
    """Of a function that returns either, each gets its own, in either order."""

    @cache.cached
    def ask(prompt: str, stream: bool = False) -> Any:
        return iter(["Hi", "!"]) if stream else "Hi!"

    for _ in range(2):
        assert ask("q") == "Hi!"
        assert "".join(ask("q", stream=True)) == "Hi!"
        assert list(ask("r", stream=True)) == ["Hi", "!"]
        assert ask("r") == "Hi!"


# -------------------------------------------------------------------------------- messages


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def conversation(where: str, **fields: Any) -> list[dict[str, Any]]:
    """A conversation with some fields added in one place."""
    block = {"type": "text", "text": "hello"}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        user("earlier"),
        {"role": "assistant", "content": "yes"},
        user([block]),
    ]
    places = {"system": 0, "earlier": 1, "assistant": 2, "question": 3}
    (block if where == "block" else messages[places[where]]).update(fields)
    return messages


@pytest.mark.parametrize("where", ["system", "earlier", "assistant", "question", "block"])
@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": {"type": "ephemeral"}},
        {"id": "msg_1"},
        {"timestamp": 1700000000},
        {"metadata": {"a": 1}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_bookkeeping_in_messages_does_not_count(
    cache: SemanticCache, where: str, fields: dict[str, Any]
) -> None:
    """Wherever in the conversation it is."""

    @cache.cached
    def chat(messages: Any) -> str:
        return "answer"

    assert key(chat, conversation(where, **fields)) == key(chat, conversation(where))
    other = conversation(where, text="changed") if where == "block" else conversation(where, tag=1)
    assert key(chat, other) != key(chat, conversation(where))


TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
BLOCKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "image by file": (
        {"type": "image_url", "image_url": {"file_id": "A"}},
        {"type": "image_url", "image_url": {"file_id": "B"}},
    ),
    "image_url": (
        {"type": "image_url", "image_url": {"url": "u"}},
        {"type": "image_url", "image_url": {"url": "u", "crop": 1}},
    ),
    "beside image_url": (
        {"type": "image_url", "image_url": "u"},
        {"type": "image_url", "image_url": "u", "crop": 1},
    ),
    "text": ({"type": "text", "text": "t"}, {"type": "text", "text": "t", "lang": "fr"}),
    "input_audio": (
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav", "speed": 2}},
    ),
    "audio by file": (
        {"type": "input_audio", "input_audio": {"file_id": "A"}},
        {"type": "input_audio", "input_audio": {"file_id": "B"}},
    ),
    "file by url": (
        {"type": "file", "file": {"file_url": "A"}},
        {"type": "file", "file": {"file_url": "B"}},
    ),
    "source": (
        {"type": "image", "source": IMAGE},
        {"type": "image", "source": {**IMAGE, "page": 2}},
    ),
    "beside source": (
        {"type": "document", "source": IMAGE},
        {"type": "document", "source": IMAGE, "pages": [1, 2]},
    ),
    "citations asked for": (
        {"type": "document", "source": IMAGE},
        {"type": "document", "source": IMAGE, "citations": {"enabled": True}},
    ),
    "tool_use": (
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}, "caller": "x"},
    ),
    "tool_result": (
        {"type": "tool_result", "tool_use_id": "c", "content": "r"},
        {"type": "tool_result", "tool_use_id": "c", "content": "r", "status": "old"},
    ),
    "unknown": ({"type": "video", "video": "A"}, {"type": "video", "video": "B"}),
}


@pytest.mark.parametrize("last", [True, False], ids=["question", "earlier"])
@pytest.mark.parametrize(("one", "two"), BLOCKS.values(), ids=BLOCKS)
def test_unknown_fields_of_blocks_count(
    cache: SemanticCache, one: dict[str, Any], two: dict[str, Any], last: bool
) -> None:
    """What is not known to be irrelevant is part of the key."""

    @cache.cached
    def chat(messages: Any) -> str:
        return "answer"

    def asked(block: dict[str, Any]) -> list[dict[str, Any]]:
        turn = user([{"type": "text", "text": "look"}, block])
        return [turn] if last else [turn, {"role": "assistant", "content": "yes"}, user("and")]

    assert key(chat, asked(one)) == key(chat, asked(dict(one)))
    assert key(chat, asked(one)) != key(chat, asked(two))


def test_unknown_fields_of_tool_calls_count(cache: SemanticCache) -> None:
    """As of blocks; the id does not, because it is random."""

    @cache.cached
    def chat(messages: Any) -> str:
        return "answer"

    def asked(**fields: Any) -> list[dict[str, Any]]:
        call = {**TOOL_CALL, **fields}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "r"}
        return [user("q"), {"role": "assistant", "content": None, "tool_calls": [call]}, result]

    assert key(chat, asked()) == key(chat, asked(id="d"))
    assert key(chat, asked()) != key(chat, asked(extra_content={"signature": "x"}))


# ---------------------------------------------------------------------------- request forms


class Turn:
    """A message of a framework: neither a mapping nor a model."""

    def __init__(self, role: str, content: Any) -> None:
        self.role = role
        self.content = content


class SlottedTurn:
    __slots__ = ("content", "role")

    def __init__(self, role: str, content: Any) -> None:
        self.role = role
        self.content = content


class LangChain:
    """As LangChain's messages are: a type instead of a role, and bookkeeping."""

    def __init__(self, kind: str, content: Any, **bookkeeping: Any) -> None:
        self.type = kind
        self.content = content
        self.id = bookkeeping.get("id")
        self.name = None
        self.additional_kwargs: dict[str, Any] = {}
        self.response_metadata = bookkeeping.get("response_metadata", {})


def called(item: dict[str, Any], call_id: str = "c1", arguments: str = "{}") -> list[Any]:
    """A conversation in OpenAI's Responses format in which a tool is called."""
    call = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": arguments}
    return [user("q"), call, {"type": "function_call_output", "call_id": call_id, **item}]


def gemini(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "parts": [{"text": text}]} for role, text in turns]


CHAT = [
    {"role": "system", "content": "Be kind."},
    user("hello"),
    {"role": "assistant", "content": "yes"},
    user("and now?"),
]
OTHER_CHAT = [*CHAT[:2], {"role": "assistant", "content": "no"}, CHAT[3]]
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"}
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]}
LANGCHAIN_TYPES = {"system": "system", "user": "human", "assistant": "ai"}


def in_langchain(chat: list[Any], **bookkeeping: Any) -> list[Any]:
    return [LangChain(LANGCHAIN_TYPES[m["role"]], m["content"], **bookkeeping) for m in chat]


def in_tuples(chat: list[Any], names: dict[str, str] | None = None) -> list[Any]:
    return [((names or {}).get(m["role"], m["role"]), m["content"]) for m in chat]


FORMS: dict[str, tuple[list[Any], list[Any]]] = {
    # name: (requests that are one, requests that all differ from them and from each other)
    "text": (["q", [user("q")], [user([{"type": "text", "text": "q"}])], [ITEM]], ["r"]),
    "responses item": ([[ITEM], [{**ITEM, "id": "msg_1", "status": "completed"}]], [[ITEM, ITEM]]),
    "function_call": (
        [called({"output": "r"}), called({"output": "r"}, call_id="c2"),
         called({"output": "r", "id": "fc_1", "status": "completed"})],
        [called({"output": "s"}), called({"output": "r"}, arguments='{"a": 1}')],
    ),
    "reasoning": (
        [[user("q"), REASONING], [user("q"), dict(REASONING)]],
        [[user("q"), {**REASONING, "encrypted_content": "BBBB"}], [user("q")]],
    ),
    "item_reference": (
        [[user("q"), {"type": "item_reference", "id": "a"}]],
        [[user("q"), {"type": "item_reference", "id": "b"}], [user("q")]],
    ),
    "gemini": (
        [gemini(("user", "q")), [{"parts": [{"text": "q"}]}], "q", gemini(("user", "q"))[0]],
        [gemini(("user", "r")), gemini(("user", "q"), ("model", "a"), ("user", "q")),
         gemini(("user", "q"), ("model", "b"), ("user", "q"))],
    ),
    "gemini data": (
        [[{"role": "user", "parts": [{"inline_data": {"mime_type": "i/p", "data": "AAAA"}}]}]],
        [[{"role": "user", "parts": [{"inline_data": {"mime_type": "i/p", "data": "BBBB"}}]}],
         [{"role": "user", "parts": [{"file_data": {"file_uri": "A"}}]}],
         [{"role": "user", "parts": [{"file_data": {"file_uri": "B"}}]}],
         [{"role": "model", "parts": [{"function_call": {"name": "f", "args": {"a": 1}}}]}],
         [{"role": "model", "parts": [{"function_call": {"name": "f", "args": {"a": 2}}}]}]],
    ),
    "gemini as openai": ([gemini(("user", "q"), ("model", "a"), ("user", "r")),
                          [user("q"), {"role": "assistant", "content": "a"}, user("r")]], []),
    "objects": (
        [CHAT, [Turn(**m) for m in CHAT], [SlottedTurn(**m) for m in CHAT],
         [SimpleNamespace(**m) for m in CHAT]],
        [[Turn(**m) for m in OTHER_CHAT]],
    ),
    "objects with blocks": (
        [[Turn("user", [SimpleNamespace(type="text", text="q")])], [user("q")]],
        [[Turn("user", [SimpleNamespace(type="text", text="r")])]],
    ),
    "langchain": (
        [CHAT, in_langchain(CHAT), in_langchain(CHAT, id="run-1", response_metadata={"t": 1})],
        [in_langchain(OTHER_CHAT)],
    ),
    "tuples": (
        [CHAT, in_tuples(CHAT), in_tuples(CHAT, LANGCHAIN_TYPES), [list(t) for t in
                                                                   in_tuples(CHAT)]],
        [in_tuples(OTHER_CHAT)],
    ),
    "list of texts": ([["a", "b"], ("a", "b")], [["b", "a"], ["a"], ["a b"], ["a", "b", "c"], "a"]),
}  # fmt: skip


@pytest.mark.parametrize(("equal", "different"), FORMS.values(), ids=FORMS)
def test_requests_in_every_form(
    cache: SemanticCache, equal: list[Any], different: list[Any]
) -> None:
    """Each has a key; equal requests in different forms have the same, different ones do not."""

    @cache.cached
    def ask(messages: Any) -> str:
        return "answer"

    keys = {key(ask, request) for request in equal}
    assert len(keys) == 1, "equal requests have different keys"
    keys |= {key(ask, request) for request in different}
    assert len(keys) == 1 + len(different), "different requests have equal keys"
    assert [ask(request) for request in equal] == ["answer"] * len(equal)
    assert ask.cache_info().misses == 1


def test_genai_types_are_as_their_dicts(cache: SemanticCache) -> None:
    """Google's own classes."""
    types = pytest.importorskip("google.genai.types")

    @cache.cached
    def ask(contents: Any, model: str = "gemini") -> str:
        return "answer"

    content = types.Content(role="user", parts=[types.Part(text="q")])
    assert key(ask, [content]) == key(ask, content) == key(ask, gemini(("user", "q")))
    assert key(ask, content) == key(ask, "q") != key(ask, "r")


@pytest.mark.parametrize("name", ["input", "contents", "messages", "prompt"])
def test_the_apis_own_names_hold_the_prompt(cache: SemanticCache, name: str) -> None:
    """Of a function that takes what an API takes."""
    names: dict[str, Any] = {}
    exec(f"def ask(*, model, {name}, temperature=1):\n    return model\n", names)
    ask = cache.cached(names["ask"])
    assert ask.lookup(model="m", **{name: "q"}).query.question == "q"


class Body(pydantic.BaseModel):
    prompt: str
    temperature: float = 1.0


class ChatBody(pydantic.BaseModel):
    messages: list[dict[str, Any]]
    model: str = "m"


@dataclasses.dataclass
class PlainBody:
    prompt: str
    temperature: float = 1.0


@pytest.mark.parametrize(
    ("one", "equal", "other", "question"),
    [
        (Body(prompt="q"), Body(prompt="q", temperature=1), Body(prompt="q", temperature=0), "q"),
        (ChatBody(messages=[user("q")]), ChatBody(messages=[user("q")]),
         ChatBody(messages=[user("q")], model="n"), "q"),
        (PlainBody("q"), PlainBody("q"), PlainBody("q", 0.0), "q"),
    ],
    ids=["prompt", "messages", "dataclass"],
)  # fmt: skip
def test_a_body_is_a_request(
    cache: SemanticCache, one: Any, equal: Any, other: Any, question: str
) -> None:
    """The only argument, as of a handler of a web framework, holds the prompt and the rest."""

    @cache.cached
    def handle(body: Any) -> str:
        return "answer"

    found = handle.lookup(one)
    assert found.query.question == question
    assert key(handle, one) == key(handle, equal)
    assert len({key(handle, one), key(handle, other), key(handle, Body(prompt="r"))}) == 3


def test_texts_to_embed_have_no_paraphrase(cache: SemanticCache) -> None:
    """A list of texts is served to the same list only, however near another is."""

    @cache.cached
    def embed(texts: list[str]) -> list[list[float]]:
        return [[float(ord(text[0]))] for text in texts]

    assert embed(["where is it", "b"]) == embed(["where is it", "b"]) == [[119.0], [98.0]]
    assert embed.cache_info().exact_hits == 1
    assert embed(["it is where", "b"]) == [[105.0], [98.0]]
    assert embed(["is where it"]) == [[105.0]]


# ------------------------------------------------------------------- clients wrapped in place


def chat_reply(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def chat_chunk(text: str) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\ndata: [DONE]\n\n"


def response_reply(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    item = {"type": "message", "id": "i", "role": "assistant", "status": "completed"}
    return {
        "id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "m",
        "output": [{**item, "content": content}], "parallel_tool_calls": False,
        "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def messages_reply(text: str) -> dict[str, Any]:
    return {
        "id": "x", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip


class Served:
    """The other end of a client: answers with its name, and counts."""

    def __init__(self, name: str = "Hi") -> None:
        self.name = name
        self.requests = 0

    def __call__(self, request: Any) -> Any:
        import httpx2

        self.requests += 1
        if json.loads(request.content).get("stream"):
            head = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=head, text=chat_chunk(self.name))
        path = request.url.path.rsplit("/", 1)[-1]
        replies = {
            "completions": chat_reply, "responses": response_reply, "messages": messages_reply,
        }  # fmt: skip
        return httpx2.Response(200, json=replies[path](self.name))

    def openai(self, kind: str = "OpenAI") -> Any:
        openai, httpx2 = pytest.importorskip("openai"), pytest.importorskip("httpx2")
        client = getattr(httpx2, "AsyncClient" if kind.startswith("Async") else "Client")
        transport = httpx2.MockTransport(self)
        url = f"https://{self.name.lower()}.example/v1"
        return getattr(openai, kind)(
            api_key="x", base_url=url, http_client=client(transport=transport)
        )

    def anthropic(self) -> Any:
        anthropic, httpx2 = pytest.importorskip("anthropic"), pytest.importorskip("httpx2")
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return anthropic.Anthropic(api_key="x", http_client=client)


def test_openais_chat_is_wrapped_in_place(cache: SemanticCache) -> None:
    """Its answers come back as its own types, and a stream is passed through as a stream."""
    served = Served()
    client = served.openai()
    create = client.chat.completions.create = cache.cached(client.chat.completions.create)
    call = {"model": "m", "messages": [user("hello")]}
    one, two = create(**call), create(**call)
    assert (served.requests, type(two), two) == (1, type(one), one)
    assert create.lookup(**call).query.question == "hello"
    for _ in range(2):
        chunks = list(client.chat.completions.create(**call, stream=True))
        assert {type(chunk).__name__ for chunk in chunks} == {"ChatCompletionChunk"}
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hi"
        assert client.chat.completions.create(**call).choices[0].message.content == "Hi"
    other = {**call, "messages": [user("another question")]}
    with client.chat.completions.create(**other, stream=True) as stream:
        assert stream.response.status_code == 200  # what the SDK's own object has
        assert stream.close() is None
    replayed = client.chat.completions.create(**call, stream=True)
    assert next(replayed)
    assert replayed.response.close() is None
    replayed.close()
    assert list(replayed) == []
    with pytest.raises(AttributeError, match="served from the cache has no cookies"):
        _ = replayed.cookies
    raw = client.chat.completions.with_raw_response.create(**call)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == "Hi"
    served.requests -= 2
    create(**call, timeout=5, user="u", extra_headers={"X-A": "1"}, metadata={"a": "b"})
    assert served.requests == 1


@pytest.mark.parametrize("api", ["responses", "messages"])
def test_other_apis_are_wrapped_in_place(cache: SemanticCache, api: str) -> None:
    """OpenAI's Responses and Anthropic's messages."""
    served = Served()
    client = served.openai() if api == "responses" else served.anthropic()
    resource = getattr(client, api)
    resource.create = cache.cached(resource.create)
    call: dict[str, Any] = {"model": "m", "input": "hello"}
    if api == "messages":
        call = {"model": "m", "messages": [user("hello")], "max_tokens": 5}
    one, two = resource.create(**call), resource.create(**call)
    assert (served.requests, type(two), two) == (1, type(one), one)
    assert resource.create.lookup(**call).query.question == "hello"


def test_an_async_client_is_wrapped_in_place(cache: SemanticCache) -> None:
    """As the blocking one."""
    served = Served()
    client = served.openai("AsyncOpenAI")
    completions = client.chat.completions
    completions.create = cache.cached(completions.create)
    call = {"model": "m", "messages": [user("hello")]}

    async def main() -> list[Any]:
        answers = [await completions.create(**call), await completions.create(**call)]
        stream = await completions.create(**call, stream=True)
        return [*answers, [chunk.choices[0].delta.content or "" async for chunk in stream]]

    one, two, chunks = asyncio.run(main())
    assert (one, "".join(chunks), served.requests) == (two, "Hi", 1)


@pytest.mark.parametrize("where", ["one program", "another program"])
def test_two_clients_wrapped_in_place_do_not_share(cache: SemanticCache, where: str) -> None:
    """They may talk to different servers; the second may also be refused."""
    answers: list[str] = []

    def wrapped(chosen: SemanticCache, name: str) -> None:
        create = chosen.cached(Served(name).openai().chat.completions.create)
        answer = create(model="m", messages=[user("hello")])
        answers.append(answer.choices[0].message.content)

    wrapped(cache, "one")
    with open_cache(cache.path) as other:
        second = cache if where == "one program" else other
        if not refused(lambda: wrapped(second, "two")):
            assert answers == ["one", "two"]


# ------------------------------------------------------------------------------ annotations


@dataclasses.dataclass
class Point:
    x: int
    names: tuple[str, ...] = ()


TYPED = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Client
{define} ask(prompt: str, client: Client | None = None) -> {returned}:
    {body}
"""


@pytest.mark.parametrize(
    ("returned", "body"),
    [
        ("Point", "return Point(1, ('a',))"),
        ("list[Point]", "return [Point(1, ('a',))]"),
        ("tuple[int, Point]", "return (1, Point(1))"),
        ("Iterator[tuple[int, Point]]", "yield (1, Point(1))"),
    ],
)
def test_a_parameter_only_for_type_checkers_does_not_lose_the_type(
    cache: SemanticCache, returned: str, body: str
) -> None:
    """The return annotation is read on its own."""
    names: dict[str, Any] = {"Point": Point, "Iterator": Iterator, "__name__": __name__}
    exec(TYPED.format(define="def", returned=returned, body=body), names)
    ask = cache.cached(names["ask"])
    one, two = ask("q"), ask("q")
    if returned.startswith("Iterator"):
        one, two = list(one), list(two)
    assert (one, type(one)) == (two, type(two))
    assert ask.lookup("q").tier == "exact"


def test_a_body_of_another_user_is_another_request(cache: SemanticCache) -> None:
    """A function of one's own may answer by what its request body holds."""

    class Asked(pydantic.BaseModel):
        question: str
        user: str

    @cache.cached
    def handle(body: Asked) -> str:
        return body.user

    assert [handle(Asked(question="q", user=user)) for user in ("ann", "bob")] == ["ann", "bob"]


def test_a_function_that_reads_its_locals_uses_them_all(cache: SemanticCache) -> None:
    @cache.cached(prompt="prompt")
    def ask(prompt: str, user: str) -> str:
        return "{user}: {prompt}".format(**locals())

    assert [ask("q", user) for user in ("ann", "bob")] == ["ann: q", "bob: q"]


def test_what_a_hit_returns_belongs_to_the_caller() -> None:
    """Also of a cache in memory."""
    with open_cache(":memory:") as cache:

        @cache.cached
        def ask(prompt: str) -> dict[str, list[int]]:
            return {"items": [1]}

        ask("q"), ask("q")["items"].append(2)
        assert ask("q") == {"items": [1]}
