"""What each fault of a provider leads to: a table whose rows are tested with all four methods."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from semcache.errors import (
    DeadlineExceededError,
    RateLimitedError,
    RejectedError,
    RouteExhaustedError,
    UnavailableError,
)
from semcache.types import Completion
from tests.faults import (
    Act,
    FaultServer,
    chunk,
    completion,
    events,
    ok,
    raw,
    reset,
    slow_body,
    slow_headers,
    status,
)
from tests.router.methods import KEY, METHODS, STREAMED, WHOLE, provider, router

R, U, X = "rate_limited", "unavailable", "rejected"


class Row(NamedTuple):
    """What the server does, and how the call ends.

    Attributes:
        acts: the replies of the server, in order; the last one repeats.
        results: the results of the attempts, in order.
        raises: the error that the caller gets; None if the call is answered.
        cause: the class of the provider's error behind a RouteExhaustedError.
        says: text that the error message contains.
    """

    acts: Sequence[Act]
    results: Sequence[str]
    raises: type[Exception] | None = None
    cause: type[Exception] | None = None
    says: str = ""


ANSWERED = "answered"
EXHAUSTED = RouteExhaustedError
QUOTA = json.dumps({"error": {"message": "quota", "code": "insufficient_quota"}}).encode()


async def _quota(exchange: Any) -> None:
    await exchange.send(429, QUOTA)


EVERYWHERE: dict[str, Row] = {
    "nothing": Row([ok], [ANSWERED]),
    "429, retry soon": Row([status(429, headers={"retry-after": "0.1"}), ok], [R, ANSWERED]),
    "429, with OpenAI's headers": Row(
        [status(429, headers={"x-ratelimit-reset-requests": "100ms"}), ok], [R, ANSWERED]
    ),
    "429, retry tomorrow": Row(
        [status(429, headers={"retry-after": "86400"})],
        [R],
        EXHAUSTED,
        RateLimitedError,
        "answered 429",
    ),
    "429 forever": Row([status(429)], [R] * 3, EXHAUSTED, RateLimitedError, "answered 429"),
    "429, quota exhausted": Row([_quota], [X], EXHAUSTED, RejectedError, "quota"),
    "500 twice": Row([status(500), status(500), ok], [U, U, ANSWERED]),
    "500 forever": Row([status(500, "boom")], [U] * 3, EXHAUSTED, UnavailableError, "boom"),
    "503": Row([status(503), ok], [U, ANSWERED]),
    "529 overloaded": Row([status(529, "Overloaded"), ok], [U, ANSWERED]),
    "408": Row([status(408), ok], [U, ANSWERED]),
    "409": Row([status(409), ok], [U, ANSWERED]),
    "425": Row([status(425), ok], [U, ANSWERED]),
    "400": Row([status(400, "bad value")], [X], RejectedError, None, "bad value"),
    "422": Row([status(422, "bad form")], [X], RejectedError, None, "bad form"),
    "401": Row([status(401, f"bad key {KEY}")], [X], EXHAUSTED, RejectedError, "bad key ***"),
    "403": Row([status(403)], [X], EXHAUSTED, RejectedError),
    "404": Row([status(404, "no such model")], [X], EXHAUSTED, RejectedError, "no such model"),
    "302": Row([status(302, headers={"location": "/elsewhere"})], [X], EXHAUSTED, RejectedError),
    "slow headers": Row([slow_headers(1.5), ok], [U, ANSWERED]),
    "reset before any text": Row([reset, ok], [U, ANSWERED]),
    "an HTML page with 200": Row(
        [raw(b"<html><b>It works!</b></html>", "text/html")] * 3,
        [U] * 3,
        EXHAUSTED,
        UnavailableError,
        "It works!",
    ),
    "an error with 200": Row(
        [raw(json.dumps({"error": {"message": "busy", "code": 502}}).encode()), ok], [U, ANSWERED]
    ),
}
WHOLE_ONLY: dict[str, Row] = {
    "malformed JSON": Row([raw(b'{"choices": [{"mess'), ok], [U, ANSWERED]),
    "a body cut short": Row([raw(b'{"choices"', length=500), ok], [U, ANSWERED]),
    "JSON without an answer": Row([raw(b'{"hello": 1}'), ok], [U, ANSWERED]),
    "a list": Row([raw(b"[1]"), ok], [U, ANSWERED]),
}
STREAMED_ONLY: dict[str, Row] = {
    "a first event that is not JSON": Row([events("{nonsense"), ok], [U, ANSWERED]),
    "an error as the first event": Row(
        [events({"error": {"message": "overloaded", "type": "overloaded_error"}}), ok],
        [U, ANSWERED],
    ),
    "an empty stream": Row([events(), ok], [U, ANSWERED]),
    "a stream that ends before any text": Row([events(chunk("")), ok], [U, ANSWERED]),
    "reset in mid-stream": Row(
        [events(chunk("Fi"), reset=True), ok], [U], UnavailableError, None, ""
    ),
    "broken off in mid-stream": Row(
        [events(chunk("Fi")), ok], [U], UnavailableError, None, "broke off after 1 event"
    ),
    "an error event in mid-stream": Row(
        [events(chunk("Fi"), {"error": {"message": "overloaded"}}), ok],
        [U],
        UnavailableError,
        None,
        "overloaded",
    ),
    "no [DONE], but a finish reason": Row(
        [events(chunk("Fine."), chunk(None, "stop"))], [ANSWERED]
    ),
    "reset after the finish reason": Row(
        [events(chunk("Fine."), chunk(None, "stop"), reset=True)], [ANSWERED]
    ),
    "a whole answer instead of a stream": Row([raw(json.dumps(completion()).encode())], [ANSWERED]),
}

Method = Callable[..., Completion]
CASES = [
    pytest.param(method, row, id=f"{name}: {fault}")
    for table, methods in ((EVERYWHERE, METHODS), (WHOLE_ONLY, WHOLE), (STREAMED_ONLY, STREAMED))
    for name, method in methods.items()
    for fault, row in table.items()
]


@pytest.mark.parametrize(("method", "row"), CASES)
def test_what_a_fault_leads_to(server: FaultServer, method: Method, row: Row) -> None:
    """The answer with its attempts, or the documented error with the provider's message."""
    asked = router(provider(server.case("case", row.acts)))
    if row.raises is None:
        answer = method(asked)
        assert answer.text == "Fine."
        assert [attempt.result for attempt in answer.attempts] == list(row.results)
        assert answer.provider == "openai"
    else:
        with pytest.raises(row.raises) as caught:
            method(asked)
        error = caught.value
        if isinstance(error, RouteExhaustedError):
            assert [attempt.result for attempt in error.attempts] == list(row.results)
            assert row.cause is not None
            assert isinstance(error.__cause__, row.cause)
        assert row.says in str(error)
        assert KEY not in str(error)
    assert len(server.seen["case"]) == len(row.results)
    assert asked.state()["openai"].in_flight == 0
    asked.close()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_connection_refused(method: Method) -> None:
    """No server listens: three attempts, and an error that names the provider."""
    asked = router(provider("http://127.0.0.1:1/v1"))
    with pytest.raises(RouteExhaustedError, match=r"openai/gpt-4o-mini.*ConnectError") as caught:
        method(asked)
    assert len(caught.value.attempts) == 3


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_trickling_body_ends_at_the_deadline(server: FaultServer, method: Method) -> None:
    """Each piece arrives in time, but they never end: the deadline still holds."""
    asked = router(provider(server.case("slow", [slow_body(0.05)])))
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        method(asked, deadline=0.5)
    assert time.monotonic() - start < 2.0
    assert isinstance(caught.value, TimeoutError)
    asked.close()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_retry_after_is_waited_for(server: FaultServer, method: Method) -> None:
    """The second request is sent no earlier than the provider asked for."""
    url = server.case("later", [status(429, headers={"retry-after-ms": "300"}), ok])
    asked = router(provider(url))
    method(asked)
    first, second = server.seen["later"]
    assert second.at - first.at >= 0.3
    asked.close()
