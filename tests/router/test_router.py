"""The router as its users see it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from semcache.config.flags import Flags
from semcache.errors import (
    ConfigError,
    DeadlineExceededError,
    RejectedError,
    RouteExhaustedError,
    SemcacheError,
)
from semcache.providers import Anthropic, CallableProvider, Gemini, OpenAICompatible
from semcache.router import Timeouts
from semcache.router.rate_limits import Limit
from semcache.router.resilience import BreakerRules, Retry
from semcache.router.routing import Route, Target
from semcache.telemetry.events import BreakerEvent, RouteEvent
from semcache.types import Completion, Request
from tests.faults import FaultServer, events, ok, raw, slow_body, slow_headers, status
from tests.helpers import Heard
from tests.router.doors import DOORS, KEY, provider, router

Door = Callable[..., Completion]
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@doors
def test_fallback(server: FaultServer, door: Door) -> None:
    """The next provider answers, and the answer says who failed before, and what it cost."""
    asked = router(
        provider(server.case("down", [status(500)]), "first"),
        provider(server.case("up", [ok]), "second", price_list="openai"),
        retry=Retry(attempts=2, base=0.0),
    )
    answer = door(asked)
    assert [(a.provider, a.result, a.status) for a in answer.attempts] == [
        ("first", "unavailable", 500),
        ("first", "unavailable", 500),
        ("second", "answered", None),
    ]
    assert (answer.provider, answer.model) == ("second", "gpt-4o-mini")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert answer.usage.cost_usd == pytest.approx(10 * 0.15e-6 + 5 * 0.6e-6)


@doors
def test_an_unknown_model_costs_none(server: FaultServer, door: Door) -> None:
    """None, and never 0."""
    asked = router(provider(server.case("up", [ok]), price_list="no-such-list"))
    assert door(asked).usage.cost_usd is None


@doors
def test_a_request_s_own_fault_is_not_tried_elsewhere(server: FaultServer, door: Door) -> None:
    """A 400 is the caller's to mend: nobody else is asked, and no breaker counts it."""
    asked = router(
        provider(server.case("picky", [status(400, "temperature is too high")]), "first"),
        provider(server.case("up", [ok]), "second"),
        breaker=BreakerRules(failures=1),
    )
    for _ in range(3):
        with pytest.raises(RejectedError, match="temperature is too high") as caught:
            door(asked)
        assert (caught.value.provider, caught.value.status) == ("first", 400)
    assert server.seen["up"] == []
    assert asked.state()["first"].breaker == "closed"


@doors
def test_an_open_breaker_falls_back_at_once(server: FaultServer, door: Door) -> None:
    """Nothing is sent to the provider that is left alone."""
    heard = Heard()
    asked = router(
        provider(server.case("down", [status(503)]), "first"),
        provider(server.case("up", [ok]), "second"),
        retry=Retry(attempts=1),
        breaker=BreakerRules(failures=2, cooldown=60.0),
        hooks=[heard],
    )
    for _ in range(5):
        answer = door(asked)
    assert len(server.seen["down"]) == 2
    assert [attempt.result for attempt in answer.attempts] == ["breaker_open", "answered"]
    assert [e.state for e in heard.of(BreakerEvent)] == ["open"]
    assert len(heard.of(RouteEvent)) == 10


def test_half_open_lets_one_probe_out(server: FaultServer) -> None:
    """Of many threads at once, one goes to the provider that is being tried."""
    asked = router(
        provider(server.case("sick", [status(500), slow_headers(0.2)]), "first"),
        provider(server.case("up", [ok]), "second"),
        retry=Retry(attempts=1),
        breaker=BreakerRules(failures=1, cooldown=0.2),
    )
    asked.complete("hello")
    time.sleep(0.25)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: asked.complete("hello"), range(16)))
    assert sorted(a.provider for a in answers) == ["first"] + ["second"] * 15
    assert len(server.seen["sick"]) == 2
    assert asked.state()["first"].breaker == "closed"


@doors
def test_the_deadline_covers_waits(server: FaultServer, door: Door) -> None:
    """A turn that would come too late is not waited for."""
    asked = router(
        provider(server.case("up", [ok])), limits={"openai": [Limit(1, 30.0, wait=60.0)]}
    )
    door(asked)
    start = time.monotonic()
    with pytest.raises(RouteExhaustedError, match="too late") as caught:
        door(asked, deadline=0.3)
    assert time.monotonic() - start < 1.0
    assert caught.value.retry_after == pytest.approx(30.0, abs=1.0)


def test_the_deadline_is_for_everything(server: FaultServer) -> None:
    """Retries, pauses and slow providers together end when it is over."""
    asked = router(
        *(provider(server.case(f"slow{i}", [slow_headers(2.0)]), f"p{i}") for i in range(4))
    )
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        asked.complete("hello", deadline=1.0)
    assert time.monotonic() - start < 1.5


def test_calls_at_once_are_limited(server: FaultServer) -> None:
    """No more than the places there are, and nobody is lost."""
    now, most, lock = 0, 0, threading.Lock()

    def answer(request: Request) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return "Fine."

    asked = router(CallableProvider(answer, name="f", model="m"), concurrency=3)
    with ThreadPoolExecutor(12) as pool:
        assert len(list(pool.map(lambda i: asked.complete(f"q{i}"), range(24)))) == 24
    assert most == 3
    assert asked.state()["f"].under_way == 0


def test_a_limit_under_concurrency(server: FaultServer) -> None:
    """Threads and tasks together: the provider sees no more than the limit in any window."""
    asked = router(
        provider(server.case("up", [ok])),
        limits={"openai": [Limit(5, 0.5, shape="sliding_window")]},
        timeouts=Timeouts(read=5.0),
    )

    async def tasks() -> None:
        await asyncio.gather(*(asked.acomplete(f"a{i}") for i in range(8)))
        await asked.aclose()

    with ThreadPoolExecutor(9) as pool:
        done = [pool.submit(asked.complete, f"s{i}") for i in range(8)]
        done.append(pool.submit(asyncio.run, tasks()))
        for future in done:
            future.result()
    times = sorted(exchange.at for exchange in server.seen["up"])
    assert len(times) == 16
    assert times[-1] - times[0] > 1.4, "sixteen calls at five in half a second"


async def cancelled(asked: Any, door: str) -> None:
    async def read() -> None:
        if door == "acomplete":
            await asked.acomplete("hello")
        else:
            async for _ in asked.astream("hello"):
                pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("door", ["acomplete", "astream"])
def test_cancellation_gives_everything_back(server: FaultServer, door: str) -> None:
    """In flight, waiting for a place, waiting for a turn: nothing is left running or reserved."""
    url = server.case("slow", [slow_body(0.05)])

    async def main() -> None:
        asked = router(
            provider(url),
            concurrency=1,
            limits={"openai": [Limit(1, 30.0, wait=60.0)]},
            deadline=None,
        )
        await cancelled(asked, door)  # in flight
        state = asked.state()["openai"]
        assert state.under_way == 0
        await cancelled(asked, door)  # waiting for its turn
        state = asked.state()["openai"]
        assert (state.under_way, state.limits[0][2]) == (0, 0)
        await asked.aclose()
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

        crowded = router(provider(url), concurrency=1, deadline=None)
        first = asyncio.create_task(crowded.acomplete("hello"))
        await asyncio.sleep(0.1)
        await cancelled(crowded, door)  # waiting for a place
        assert crowded.state()["openai"].under_way == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert crowded.state()["openai"].under_way == 0
        await crowded.aclose()

    asyncio.run(main())


def test_a_reader_who_stops_gives_everything_back(server: FaultServer) -> None:
    """A stream that is not read to its end is closed with its connection."""
    asked = router(provider(server.case("up", [ok])), concurrency=1)
    stream = asked.stream("hello")
    assert str(next(stream)) == "Fi"
    assert asked.state()["openai"].under_way == 1
    stream.close()  # type: ignore[attr-defined]
    assert asked.state()["openai"].under_way == 0
    assert asked.complete("hello").text == "Fine."
    asked.close()


def test_one_router_in_many_event_loops(server: FaultServer) -> None:
    """Connections belong to a loop; another loop has its own."""
    asked = router(provider(server.case("up", [ok])))

    async def main() -> str:
        try:
            return (await asked.acomplete("hello")).text
        finally:
            await asked.aclose()

    assert [asyncio.run(main()) for _ in range(3)] == ["Fine."] * 3
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: asyncio.run(main()), range(8))) == {"Fine."}


def test_connections_are_used_again(server: FaultServer) -> None:
    """Calls one after another share a connection."""
    asked = router(provider(server.case("up", [ok])))
    for _ in range(5):
        asked.complete("hello")
    peers = {x.writer.get_extra_info("peername") for x in server.seen["up"]}
    assert len(peers) == 1
    asked.close()


# ----------------------------------------------------------------------------- routes


def named(name: str, model: str = "m", **options: Any) -> CallableProvider:
    return CallableProvider(
        lambda request: f"{name}:{request.model}", name=name, model=model, **options
    )


ROUTES = [
    Route((Target("big", "thinker"),), task_type="complex_reasoning"),
    Route((Target("cheap", "mini"), Target("big")), task_type="bulk_processing"),
    Route((Target("big", "long"),), min_tokens=10_000),
    Route((Target("cheap"), Target("big")), model="gpt-*"),
    Route((Target("big"),), when=lambda request: "seed" in request.params),
    Route((Target("own", "x"),), task_type="summaries"),
    Route((Target("cheap"), Target("big"))),
]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "cheap:m"),
        ({"task_type": "general"}, "cheap:m"),
        ({"task_type": "complex_reasoning"}, "big:thinker"),
        ({"task_type": "bulk_processing"}, "cheap:mini"),
        ({"task_type": "summaries"}, "own:x"),
        ({"task_type": "long_context", "prompt": "long " * 10_000}, "big:long"),
        ({"model": "gpt-4o"}, "cheap:gpt-4o"),
        ({"model": "own/thing"}, "own:thing"),
        ({"model": "claude-x"}, "big:claude-x"),
        ({"params": {"seed": 1}}, "big:m"),
    ],
)
def test_routes(fields: dict[str, Any], expected: str) -> None:
    """By task type, model, length and predicate; a model by name finds its own provider."""
    asked = router(
        named("cheap", models=("gpt-*",)),
        named("big", models=("claude-*",)),
        named("own", models=("x-*",)),
        routes=ROUTES,
    )
    assert asked.complete(fields.pop("prompt", "hello"), **fields).text == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task_type": "bulk_procesing"}, "Did you mean 'bulk_processing'"),
        ({"model": "llama"}, "No provider is for the model 'llama'"),
    ],
)
def test_no_way_to_go(fields: dict[str, Any], says: str) -> None:
    """An error that says what is known."""
    asked = router(named("cheap", models=("gpt-*",)), routes=ROUTES[6:7][:0])
    with pytest.raises(ConfigError, match=says):
        asked.complete("hello", **fields)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: router(), "at least one provider"),
        (lambda: router(named("a"), named("a")), "Two providers"),
        (lambda: router(named("a"), routes=[Route((Target("b"),))]), "no provider 'b'"),
        (lambda: router(named("a"), limits={"b": []}), "no provider 'b'"),
        (lambda: router(named("a"), concurrency={"b": 1}), "no provider 'b'"),
        (lambda: router(named("a"), deadline=0), "deadline"),
        (lambda: router(named("a", model="")).complete("hello"), "names no model"),
    ],
)
def test_wrong_routers_are_refused(build: Callable[[], Any], says: str) -> None:
    """With what is wrong."""
    with pytest.raises(ConfigError, match=says):
        build()


def test_flags_at_call_time() -> None:
    """Bulk work goes to DeepSeek, and streams come in one piece, as long as the flag says so."""
    flags = Flags()
    asked = router(named("cheap"), named("openrouter"), flags=flags)
    assert asked.complete("hello", task_type="bulk_processing").text == "cheap:m"
    with flags.override(use_deepseek_for_bulk=True):
        answer = asked.complete("hello", task_type="bulk_processing")
        assert answer.text == "openrouter:deepseek/deepseek-chat"
        assert asked.complete("hello").text == "cheap:m"
    flags.values = {"use_deepseek_for_bulk": True}
    answer = asked.complete("hello", task_type="bulk_processing")
    assert answer.provider == "openrouter"


def test_streaming_may_be_switched_off(server: FaultServer) -> None:
    """The provider is asked for a whole answer, and the caller gets one piece and the end."""
    asked = router(provider(server.case("up", [ok])))
    with asked.flags.override(streaming_enabled=False):
        chunks = list(asked.stream("hello"))
    assert [chunk.text for chunk in chunks] == ["Fine.", ""]
    assert not server.seen["up"][0].streamed


# ------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("kind", [OpenAICompatible, Anthropic, Gemini])
@doors
def test_keys_are_shown_to_nobody(
    server: FaultServer, door: Door, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a message, a repr, a log, nor among the locals of a trace."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.INFO)  # it logs all headers, on purpose
    heard = Heard()
    for name, acts in (
        ("said", [status(401, f"the key {KEY} is wrong, and so is Bearer {KEY}")]),
        ("cut", [slow_body(0.6)]),
    ):
        url = server.case(name, acts)
        secret = kind(name="p", base_url=url, api_key=KEY, model="m")
        asked = router(secret, hooks=[heard], retry=Retry(attempts=1))
        with pytest.raises(SemcacheError) as caught:
            door(asked)
        sent = server.seen[name][0]
        assert any(KEY in value for value in sent.headers.values()), "it was sent"
        assert KEY not in sent.path
        error = caught.value
        assert error.__traceback__ is not None
        below = error.__traceback__.tb_next  # without this test's own locals
        trace = traceback.TracebackException(type(error), error, below, capture_locals=True)
        shown = "".join(trace.format())
        assert "router.py" in shown
        for text in (shown, repr(secret), repr(asked), repr(heard.events), caplog.text):
            assert KEY not in text
        asked.close()


def test_a_key_that_is_none_is_refused() -> None:
    """A key with a line break in it would break the request's headers; it is not shown."""
    with pytest.raises(ConfigError) as caught:
        provider("http://localhost", api_key="sk-secret\nmore")
    assert "sk-secret" not in str(caught.value)


# --------------------------------------------------------------------- direct providers


def test_a_function_is_a_provider() -> None:
    """Plain, async, generator, async generator; blocking and not."""

    async def anything(request: Request) -> str:
        return f"async {request.model}"

    def batched(request: Request) -> Any:
        yield "pie"
        yield "ces"

    async def apieces(request: Request) -> Any:
        yield "apie"
        yield "ces"

    expected = {
        "plain": (lambda prompt: f"plain {prompt}", "plain hello"),
        "async": (anything, "async m"),
        "generator": (batched, "pieces"),
        "async generator": (apieces, "apieces"),
        "messages": (lambda messages: messages[0]["content"], "hello"),
        "openai's form": (
            lambda request: {
                "choices": [{"message": {"content": "hi"}, "finish_reason": "length"}]
            },
            "hi",
        ),
    }
    for name, (function, text) in expected.items():
        takes = {"plain": "prompt", "messages": "messages"}.get(name, "request")
        own = CallableProvider(function, name="f", model="m", takes=takes)  # type: ignore[arg-type]
        for door in DOORS.values():
            answer = door(router(own), "hello")
            assert answer.text == text, name
            assert answer.finish_reason == ("length" if name == "openai's form" else None)


@doors
def test_a_function_s_connection_errors_are_failures(door: Door) -> None:
    """Retried and fallen back from; a bug is not hidden."""
    calls = []

    def flaky(request: Request) -> str:
        calls.append(1)
        raise ConnectionResetError("gone")

    asked = router(CallableProvider(flaky, name="f", model="m"), named("backup"))
    assert door(asked).text == "backup:m"
    assert len(calls) == 3

    def bug(request: Request) -> str:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        door(router(CallableProvider(bug, name="f", model="m"), named("backup")))


def test_conversations_are_not_cut_down_to_a_prompt() -> None:
    """A function of a prompt is not asked half a conversation."""
    asked = router(CallableProvider(str, name="f", model="m", takes="prompt"), named("backup"))
    answer = asked.complete(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    )
    assert answer.provider == "backup"


def test_httpx_is_not_asked_to_follow(server: FaultServer) -> None:
    """A redirect would carry the key elsewhere."""
    url = server.case("moved", [status(307, headers={"location": "http://127.0.0.1:1/"})])
    asked = router(provider(url))
    with pytest.raises(RouteExhaustedError, match="answered 307"):
        asked.complete("hello")


# --------------------------------------------------------------- what broke it once


@doors
def test_a_limit_of_ours_falls_back_at_once(server: FaultServer, door: Door) -> None:
    """Nothing is retried, no budget spent, and the next provider answers."""
    asked = router(
        provider(server.case("one", [ok]), "first"),
        provider(server.case("two", [ok]), "second"),
        limits={"first": [Limit(1, 30.0, wait=0.0)]},
        retry=Retry(reserve=0.0, budget=0.0),
    )
    door(asked)
    start = time.monotonic()
    answer = door(asked)
    assert time.monotonic() - start < 0.5
    assert [(a.provider, a.result) for a in answer.attempts] == [
        ("first", "held_back"),
        ("second", "answered"),
    ]


@doors
def test_a_call_that_never_fits_goes_elsewhere(server: FaultServer, door: Door) -> None:
    """One larger than its provider's limit is not tried there again."""
    asked = router(
        provider(server.case("one", [ok]), "first"),
        provider(server.case("two", [ok]), "second"),
        limits={"first": [Limit(100, unit="tokens")]},
    )
    answer = door(asked)
    assert [(a.provider, a.result) for a in answer.attempts] == [
        ("first", "held_back"),
        ("second", "answered"),
    ]


def test_nobody_waits_behind_a_probe(server: FaultServer) -> None:
    """While one call tries a half-open provider, the others are answered by the next."""
    asked = router(
        provider(server.case("sick", [status(500), slow_headers(1.0)]), "first"),
        provider(server.case("up", [ok]), "second"),
        concurrency={"first": 1},
        retry=Retry(attempts=1),
        breaker=BreakerRules(failures=1, cooldown=0.1),
        timeouts=Timeouts(read=5.0),
    )
    asked.complete("hello")
    time.sleep(0.15)
    with ThreadPoolExecutor(8) as pool:
        probe = pool.submit(asked.complete, "probe")
        time.sleep(0.1)
        start = time.monotonic()
        answers = list(pool.map(lambda i: asked.complete(f"q{i}"), range(5)))
        assert time.monotonic() - start < 0.5
        assert {a.provider for a in answers} == {"second"}
        assert probe.result().provider == "first"


@pytest.mark.parametrize("door", ["stream", "astream"])
def test_streams_use_connections_again(server: FaultServer, door: str) -> None:
    """What is left after the last event is read, so that the connection is whole."""

    async def polite(exchange: Any) -> None:
        body = b"".join(
            b"data: %s\n\n" % data
            for data in (
                b'{"choices": [{"index": 0, "delta": {"content": "Hi"}}]}',
                b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
                b"[DONE]",
            )
        )
        await exchange.send(200, body, kind="Text/Event-Stream; charset=utf-8")

    asked = router(provider(server.case("up", [polite])))

    async def tasks() -> None:
        for _ in range(5):
            assert "".join([str(c) async for c in asked.astream("hello")]) == "Hi"
        await asked.aclose()

    if door == "stream":
        for _ in range(5):
            assert "".join(map(str, asked.stream("hello"))) == "Hi"
            time.sleep(0.05)
    else:
        asyncio.run(tasks())
    peers = {x.writer.get_extra_info("peername") for x in server.seen["up"]}
    assert len(peers) == 1


def test_loops_that_have_ended_leave_nothing(server: FaultServer) -> None:
    """A program of many short event loops does not run out of sockets."""
    asked = router(provider(server.case("up", [ok])))

    async def main() -> None:
        await asked.acomplete("hello")

    import gc
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(10):
            asyncio.run(main())
        assert len(asked._clients._loops) <= 1
        asked._clients._loops.clear()
        gc.collect()


@doors
def test_contexts_and_keys_fall_back(server: FaultServer, door: Door) -> None:
    """A 400 that tells of a small context or a bad key is another provider's chance."""
    for words in (
        "prompt is too long: 300000 tokens > 200000 maximum",
        "The input token count (2000000) exceeds the maximum number of tokens",
        "API key not valid. Please pass a valid API key.",
        "Your credit balance is too low",
    ):
        asked = router(
            provider(server.case("one", [status(400, words)]), "first"),
            provider(server.case("two", [ok]), "second"),
        )
        assert door(asked).provider == "second"


@doors
def test_endless_nesting_is_a_failure(server: FaultServer, door: Door) -> None:
    """And not an error of Python's to the caller."""
    asked = router(
        provider(server.case("one", [raw(b'{"a":' * 200_000)]), "first"),
        provider(server.case("two", [ok]), "second"),
        retry=Retry(attempts=1),
    )
    assert door(asked).provider == "second"


@pytest.mark.parametrize("key", ["0123456789abcdef"])
@doors
def test_no_answer_with_200_shows_the_key(server: FaultServer, door: Door, key: str) -> None:
    """An error, a page or an event that quotes the key."""
    quoting = f"bad key {key}"
    for act in (
        raw(json.dumps({"error": {"message": quoting}}).encode()),
        raw(quoting.encode(), "text/html"),
        events({"error": {"message": quoting}}),
        events(quoting),
    ):
        asked = router(provider(server.case("q", [act]), api_key=key), retry=Retry(attempts=1))
        with pytest.raises(SemcacheError) as caught:
            door(asked)
        assert key not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "http://[::1/v1"},
        {"base_url": "localhost:8080"},
        {"base_url": "ftp://x/v1"},
        {"headers": {"X-Title": "Café"}},
        {"headers": {"X-Title": "a\nb"}},
        {"name": "a/b"},
    ],
)
def test_wrong_providers_are_refused(options: dict[str, Any]) -> None:
    """When they are made, and not with the first call."""
    with pytest.raises(ConfigError):
        OpenAICompatible(**{"name": "p", "api_key": KEY, **options})


def test_a_password_in_an_address_is_not_shown() -> None:
    """Neither in the repr nor in what is listed."""
    made = provider("http://user:hunter2@localhost/v1")
    assert "hunter2" not in repr(made) + made.address


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
def test_what_is_no_json_is_the_caller_s(server: FaultServer, value: Any) -> None:
    """A RequestError, and nothing is sent."""
    from semcache.errors import RequestError

    asked = router(provider(server.case("up", [ok])))
    with pytest.raises(RequestError):
        asked.complete("hello", params={"x": value})
    assert server.seen["up"] == []


def test_an_async_function_is_cut_off_in_a_blocking_call() -> None:
    """Its loop is not ours to wait for."""

    async def slow(request: Request) -> str:
        await asyncio.sleep(5)
        return "late"

    asked = router(CallableProvider(slow, name="f", model="m"), retry=Retry(attempts=1))
    start = time.monotonic()
    with pytest.raises(RouteExhaustedError):
        asked.complete("hello", deadline=0.3)
    assert time.monotonic() - start < 2
