"""What each fault of a provider leads to: a table, every row a test, by all four doors."""

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
from tests.router.doors import DOORS, KEY, STREAMED, WHOLE, provider, router

R, U, X = "rate_limited", "unavailable", "rejected"


class Row(NamedTuple):
    """What the server does, and what becomes of the call.

    Attributes:
        results: of the attempts, in order; one that ends with "answered" is answered.
        raises: the error that the caller gets, if it is not answered.
        cause: the error of the provider behind a RouteExhaustedError.
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
    "429, come back soon": Row([status(429, headers={"retry-after": "0.1"}), ok], [R, ANSWERED]),
    "429, in OpenAI's words": Row(
        [status(429, headers={"x-ratelimit-reset-requests": "100ms"}), ok], [R, ANSWERED]
    ),
    "429, come back tomorrow": Row(
        [status(429, headers={"retry-after": "86400"})],
        [R],
        EXHAUSTED,
        RateLimitedError,
        "answered 429",
    ),
    "429 for ever": Row([status(429)], [R] * 3, EXHAUSTED, RateLimitedError, "answered 429"),
    "429, quota used up": Row([_quota], [X], EXHAUSTED, RejectedError, "quota"),
    "500 twice": Row([status(500), status(500), ok], [U, U, ANSWERED]),
    "500 for ever": Row([status(500, "boom")], [U] * 3, EXHAUSTED, UnavailableError, "boom"),
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
    "reset before a word": Row([reset, ok], [U, ANSWERED]),
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
    "an event that is no JSON, at once": Row([events("{nonsense"), ok], [U, ANSWERED]),
    "an error event, at once": Row(
        [events({"error": {"message": "overloaded", "type": "overloaded_error"}}), ok],
        [U, ANSWERED],
    ),
    "an empty stream": Row([events(), ok], [U, ANSWERED]),
    "a stream without its end, at once": Row([events(chunk("")), ok], [U, ANSWERED]),
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
    "no [DONE], but a reason": Row([events(chunk("Fine."), chunk(None, "stop"))], [ANSWERED]),
    "reset after the reason": Row(
        [events(chunk("Fine."), chunk(None, "stop"), reset=True)], [ANSWERED]
    ),
    "a whole answer instead": Row([raw(json.dumps(completion()).encode())], [ANSWERED]),
}

Door = Callable[..., Completion]
CASES = [
    pytest.param(door, row, id=f"{name}: {fault}")
    for table, doors in ((EVERYWHERE, DOORS), (WHOLE_ONLY, WHOLE), (STREAMED_ONLY, STREAMED))
    for name, door in doors.items()
    for fault, row in table.items()
]


@pytest.mark.parametrize(("door", "row"), CASES)
def test_what_a_fault_leads_to(server: FaultServer, door: Door, row: Row) -> None:
    """The answer with its attempts, or the documented error with the provider's own words."""
    asked = router(provider(server.case("case", row.acts)))
    if row.raises is None:
        answer = door(asked)
        assert answer.text == "Fine."
        assert [attempt.result for attempt in answer.attempts] == list(row.results)
        assert answer.provider == "openai"
    else:
        with pytest.raises(row.raises) as caught:
            door(asked)
        error = caught.value
        if isinstance(error, RouteExhaustedError):
            assert [attempt.result for attempt in error.attempts] == list(row.results)
            assert row.cause is not None
            assert isinstance(error.__cause__, row.cause)
        assert row.says in str(error)
        assert KEY not in str(error)
    assert len(server.seen["case"]) == len(row.results)
    assert asked.state()["openai"].under_way == 0
    asked.close()


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_connection_refused(door: Door) -> None:
    """Nobody listens: three tries, and an error that names the provider."""
    asked = router(provider("http://127.0.0.1:1/v1"))
    with pytest.raises(RouteExhaustedError, match=r"openai/gpt-4o-mini.*ConnectError") as caught:
        door(asked)
    assert len(caught.value.attempts) == 3


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_dribbling_body_ends_at_the_deadline(server: FaultServer, door: Door) -> None:
    """Each piece is in time, and all of them never end: the deadline holds all the same."""
    asked = router(provider(server.case("slow", [slow_body(0.05)])))
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        door(asked, deadline=0.5)
    assert time.monotonic() - start < 2.0
    assert isinstance(caught.value, TimeoutError)
    asked.close()


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_retry_after_is_waited_for(server: FaultServer, door: Door) -> None:
    """The second request goes out no earlier than the provider said."""
    url = server.case("later", [status(429, headers={"retry-after-ms": "300"}), ok])
    asked = router(provider(url))
    door(asked)
    first, second = server.seen["later"]
    assert second.at - first.at >= 0.3
    asked.close()
