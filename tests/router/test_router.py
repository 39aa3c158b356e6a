"""The router through its public interface."""

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
from tests.router.methods import KEY, METHODS, provider, router

Method = Callable[..., Completion]
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@methods
def test_fallback(server: FaultServer, method: Method) -> None:
    """The next provider answers; the answer lists the failed attempts and its cost."""
    asked = router(
        provider(server.case("down", [status(500)]), "first"),
        provider(server.case("up", [ok]), "second", price_list="openai"),
        retry=Retry(attempts=2, base=0.0),
    )
    answer = method(asked)
    assert [(a.provider, a.result, a.status) for a in answer.attempts] == [
        ("first", "unavailable", 500),
        ("first", "unavailable", 500),
        ("second", "answered", None),
    ]
    assert (answer.provider, answer.model) == ("second", "gpt-4o-mini")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert answer.usage.cost_usd == pytest.approx(10 * 0.15e-6 + 5 * 0.6e-6)


@methods
def test_an_unknown_model_has_no_cost(server: FaultServer, method: Method) -> None:
    """The cost is None, never 0."""
    asked = router(provider(server.case("up", [ok]), price_list="no-such-list"))
    assert method(asked).usage.cost_usd is None


@methods
def test_a_request_s_own_fault_is_not_tried_elsewhere(server: FaultServer, method: Method) -> None:
    """A 400 is the caller's to fix: no other provider is tried, and no breaker counts it."""
    asked = router(
        provider(server.case("picky", [status(400, "temperature is too high")]), "first"),
        provider(server.case("up", [ok]), "second"),
        breaker=BreakerRules(failures=1),
    )
    for _ in range(3):
        with pytest.raises(RejectedError, match="temperature is too high") as caught:
            method(asked)
        assert (caught.value.provider, caught.value.status) == ("first", 400)
    assert server.seen["up"] == []
    assert asked.state()["first"].breaker == "closed"


@methods
def test_an_open_breaker_falls_back_at_once(server: FaultServer, method: Method) -> None:
    """Nothing is sent to a provider whose breaker is open."""
    heard = Heard()
    asked = router(
        provider(server.case("down", [status(503)]), "first"),
        provider(server.case("up", [ok]), "second"),
        retry=Retry(attempts=1),
        breaker=BreakerRules(failures=2, cooldown=60.0),
        hooks=[heard],
    )
    for _ in range(5):
        answer = method(asked)
    assert len(server.seen["down"]) == 2
    assert [attempt.result for attempt in answer.attempts] == ["breaker_open", "answered"]
    assert [e.state for e in heard.of(BreakerEvent)] == ["open"]
    assert len(heard.of(RouteEvent)) == 10


def test_half_open_lets_one_probe_through(server: FaultServer) -> None:
    """Of many concurrent calls, one goes to the half-open provider."""
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


@methods
def test_the_deadline_covers_waits(server: FaultServer, method: Method) -> None:
    """A call does not wait for a turn that would come too late."""
    asked = router(
        provider(server.case("up", [ok])), limits={"openai": [Limit(1, 30.0, wait=60.0)]}
    )
    method(asked)
    start = time.monotonic()
    with pytest.raises(RouteExhaustedError, match="too late") as caught:
        method(asked, deadline=0.3)
    assert time.monotonic() - start < 1.0
    assert caught.value.retry_after == pytest.approx(30.0, abs=1.0)


def test_the_deadline_is_for_everything(server: FaultServer) -> None:
    """Retries, pauses and slow providers together end at the deadline."""
    asked = router(
        *(provider(server.case(f"slow{i}", [slow_headers(2.0)]), f"p{i}") for i in range(4))
    )
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        asked.complete("hello", deadline=1.0)
    assert time.monotonic() - start < 1.5


def test_concurrent_calls_are_limited(server: FaultServer) -> None:
    """Never more calls in flight than allowed, and every call is answered."""
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
    assert asked.state()["f"].in_flight == 0


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
    assert times[-1] - times[0] > 1.4, "sixteen calls at five per half second"


async def cancelled(asked: Any, method: str) -> None:
    async def read() -> None:
        if method == "acomplete":
            await asked.acomplete("hello")
        else:
            async for _ in asked.astream("hello"):
                pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("method", ["acomplete", "astream"])
def test_cancellation_releases_everything(server: FaultServer, method: str) -> None:
    """In flight, waiting for a slot or for a turn: nothing is left running or reserved."""
    url = server.case("slow", [slow_body(0.05)])

    async def main() -> None:
        asked = router(
            provider(url),
            concurrency=1,
            limits={"openai": [Limit(1, 30.0, wait=60.0)]},
            deadline=None,
        )
        await cancelled(asked, method)  # in flight
        state = asked.state()["openai"]
        assert state.in_flight == 0
        await cancelled(asked, method)  # waiting for its turn
        state = asked.state()["openai"]
        assert (state.in_flight, state.limits[0][2]) == (0, 0)
        await asked.aclose()
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

        crowded = router(provider(url), concurrency=1, deadline=None)
        first = asyncio.create_task(crowded.acomplete("hello"))
        await asyncio.sleep(0.1)
        await cancelled(crowded, method)  # waiting for a slot
        assert crowded.state()["openai"].in_flight == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert crowded.state()["openai"].in_flight == 0
        await crowded.aclose()

    asyncio.run(main())


def test_a_reader_who_stops_early_releases_everything(server: FaultServer) -> None:
    """A stream that is not read to its end is closed, with its connection."""
    asked = router(provider(server.case("up", [ok])), concurrency=1)
    stream = asked.stream("hello")
    assert str(next(stream)) == "Fi"
    assert asked.state()["openai"].in_flight == 1
    stream.close()  # type: ignore[attr-defined]
    assert asked.state()["openai"].in_flight == 0
    assert asked.complete("hello").text == "Fine."
    asked.close()


def test_one_router_in_many_event_loops(server: FaultServer) -> None:
    """Each event loop has its own connections."""
    asked = router(provider(server.case("up", [ok])))

    async def main() -> str:
        try:
            return (await asked.acomplete("hello")).text
        finally:
            await asked.aclose()

    assert [asyncio.run(main()) for _ in range(3)] == ["Fine."] * 3
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: asyncio.run(main()), range(8))) == {"Fine."}


def test_connections_are_reused(server: FaultServer) -> None:
    """Consecutive calls share a connection."""
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
    """By task type, model, length and predicate; a named model finds its own provider."""
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
        ({"model": "llama"}, "No provider offers the model 'llama'"),
    ],
)
def test_requests_that_no_provider_can_answer(fields: dict[str, Any], says: str) -> None:
    """The error suggests or lists what is known."""
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
    """The error says what is wrong."""
    with pytest.raises(ConfigError, match=says):
        build()


def test_flags_at_call_time() -> None:
    """Bulk requests go to DeepSeek for as long as the flag is on."""
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
    """The provider is asked for a whole answer, and the caller gets it in one piece."""
    asked = router(provider(server.case("up", [ok])))
    with asked.flags.override(streaming_enabled=False):
        chunks = list(asked.stream("hello"))
    assert [chunk.text for chunk in chunks] == ["Fine.", ""]
    assert not server.seen["up"][0].streamed


# ------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("kind", [OpenAICompatible, Anthropic, Gemini])
@methods
def test_keys_are_never_shown(
    server: FaultServer, method: Method, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a message, a repr or a log, nor in a traceback with local variables."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.INFO)  # it logs all headers, on purpose
    heard = Heard()
    for name, acts in (
        ("quoted", [status(401, f"the key {KEY} is wrong, and so is Bearer {KEY}")]),
        ("cut", [slow_body(0.6)]),
    ):
        url = server.case(name, acts)
        secret = kind(name="p", base_url=url, api_key=KEY, model="m")
        asked = router(secret, hooks=[heard], retry=Retry(attempts=1))
        with pytest.raises(SemcacheError) as caught:
            method(asked)
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


def test_an_invalid_key_is_refused() -> None:
    """A key with a line break in it would break the request's headers; it is not shown."""
    with pytest.raises(ConfigError) as caught:
        provider("http://localhost", api_key="sk-secret\nmore")
    assert "sk-secret" not in str(caught.value)


# --------------------------------------------------------------------- direct providers


def test_a_function_is_a_provider() -> None:
    """Plain and async functions and generators, called with all four methods."""

    async def anything(request: Request) -> str:
        return f"async {request.model}"

    def pieces(request: Request) -> Any:
        yield "pie"
        yield "ces"

    async def apieces(request: Request) -> Any:
        yield "apie"
        yield "ces"

    expected = {
        "plain": (lambda prompt: f"plain {prompt}", "plain hello"),
        "async": (anything, "async m"),
        "generator": (pieces, "pieces"),
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
        for method in METHODS.values():
            answer = method(router(own), "hello")
            assert answer.text == text, name
            assert answer.finish_reason == ("length" if name == "openai's form" else None)


@methods
def test_a_function_s_connection_errors_are_failures(method: Method) -> None:
    """They lead to retries and a fallback; a bug is raised to the caller."""
    calls = []

    def flaky(request: Request) -> str:
        calls.append(1)
        raise ConnectionResetError("gone")

    asked = router(CallableProvider(flaky, name="f", model="m"), named("backup"))
    assert method(asked).text == "backup:m"
    assert len(calls) == 3

    def bug(request: Request) -> str:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        method(router(CallableProvider(bug, name="f", model="m"), named("backup")))


def test_conversations_are_not_cut_down_to_a_prompt() -> None:
    """A function that takes a prompt is not called with part of a conversation."""
    asked = router(CallableProvider(str, name="f", model="m", takes="prompt"), named("backup"))
    answer = asked.complete(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    )
    assert answer.provider == "backup"


def test_redirects_are_not_followed(server: FaultServer) -> None:
    """A redirect would send the key to another server."""
    url = server.case("moved", [status(307, headers={"location": "http://127.0.0.1:1/"})])
    asked = router(provider(url))
    with pytest.raises(RouteExhaustedError, match="answered 307"):
        asked.complete("hello")


# ------------------------------------------------------------------ former bugs


@methods
def test_a_configured_limit_falls_back_at_once(server: FaultServer, method: Method) -> None:
    """Without a retry, and without using the retry budget, the next provider answers."""
    asked = router(
        provider(server.case("one", [ok]), "first"),
        provider(server.case("two", [ok]), "second"),
        limits={"first": [Limit(1, 30.0, wait=0.0)]},
        retry=Retry(reserve=0.0, budget=0.0),
    )
    method(asked)
    start = time.monotonic()
    answer = method(asked)
    assert time.monotonic() - start < 0.5
    assert [(a.provider, a.result) for a in answer.attempts] == [
        ("first", "held_back"),
        ("second", "answered"),
    ]


@methods
def test_a_call_that_exceeds_a_limit_falls_back(server: FaultServer, method: Method) -> None:
    """A call larger than a provider's limit is not retried there."""
    asked = router(
        provider(server.case("one", [ok]), "first"),
        provider(server.case("two", [ok]), "second"),
        limits={"first": [Limit(100, unit="tokens")]},
    )
    answer = method(asked)
    assert [(a.provider, a.result) for a in answer.attempts] == [
        ("first", "held_back"),
        ("second", "answered"),
    ]


def test_nobody_waits_behind_a_probe(server: FaultServer) -> None:
    """While one call probes a half-open provider, the others fall back."""
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


@pytest.mark.parametrize("method", ["stream", "astream"])
def test_streams_reuse_connections(server: FaultServer, method: str) -> None:
    """The rest of a stream is read after its last event, so that the connection is reusable."""

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

    if method == "stream":
        for _ in range(5):
            assert "".join(map(str, asked.stream("hello"))) == "Hi"
            time.sleep(0.05)
    else:
        asyncio.run(tasks())
    peers = {x.writer.get_extra_info("peername") for x in server.seen["up"]}
    assert len(peers) == 1


def test_closed_event_loops_leave_nothing(server: FaultServer) -> None:
    """A program that runs many short event loops does not run out of sockets."""
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


@methods
def test_context_and_key_errors_fall_back(server: FaultServer, method: Method) -> None:
    """A 400 about a small context window or a bad key leads to the next provider."""
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
        assert method(asked).provider == "second"


@methods
def test_deep_nesting_is_a_failure(server: FaultServer, method: Method) -> None:
    """The caller does not get a RecursionError."""
    asked = router(
        provider(server.case("one", [raw(b'{"a":' * 200_000)]), "first"),
        provider(server.case("two", [ok]), "second"),
        retry=Retry(attempts=1),
    )
    assert method(asked).provider == "second"


@pytest.mark.parametrize("key", ["0123456789abcdef"])
@methods
def test_errors_with_status_200_do_not_show_the_key(
    server: FaultServer, method: Method, key: str
) -> None:
    """Even if the error, the page or the event quotes it."""
    quoting = f"bad key {key}"
    for act in (
        raw(json.dumps({"error": {"message": quoting}}).encode()),
        raw(quoting.encode(), "text/html"),
        events({"error": {"message": quoting}}),
        events(quoting),
    ):
        asked = router(provider(server.case("q", [act]), api_key=key), retry=Retry(attempts=1))
        with pytest.raises(SemcacheError) as caught:
            method(asked)
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
    """When they are created, not at the first call."""
    with pytest.raises(ConfigError):
        OpenAICompatible(**{"name": "p", "api_key": KEY, **options})


def test_a_password_in_an_address_is_not_shown() -> None:
    """Neither in the repr nor in `address`."""
    made = provider("http://user:hunter2@localhost/v1")
    assert "hunter2" not in repr(made) + made.address


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
def test_values_that_are_not_json_are_refused(server: FaultServer, value: Any) -> None:
    """The caller gets a RequestError, and nothing is sent."""
    from semcache.errors import RequestError

    asked = router(provider(server.case("up", [ok])))
    with pytest.raises(RequestError):
        asked.complete("hello", params={"x": value})
    assert server.seen["up"] == []


def test_an_async_function_is_cut_off_in_a_blocking_call() -> None:
    """At the deadline, the coroutine in the background loop is cancelled."""

    async def slow(request: Request) -> str:
        await asyncio.sleep(5)
        return "late"

    asked = router(CallableProvider(slow, name="f", model="m"), retry=Retry(attempts=1))
    start = time.monotonic()
    with pytest.raises(RouteExhaustedError):
        asked.complete("hello", deadline=0.3)
    assert time.monotonic() - start < 2
