"""Waiting in line, with many callers and a clock that is driven."""

from __future__ import annotations

import heapq
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import BreakerOpenError, RateLimitedError, RejectedError, UnavailableError
from semcache.router.gate import Admission, AdmissionToken
from semcache.router.queues import ConcurrencyLimiter, RateLimiter
from semcache.router.rate_limits import Limit
from semcache.router.resilience import BreakerRules, Retry
from semcache.router.steps import Sleep, WaitFor
from tests.helpers import Clock
from tests.router.test_rate_limits import most_in_a_window


def gate(
    clock: Clock, *, key: str | None = None, lines: RateLimiter | None = None, **options: Any
) -> Admission:
    named: Any = SimpleNamespace(name="p", key_id=key)
    return Admission(
        named,
        **{
            "limits": (),
            "places": None,
            "breaker": BreakerRules(),
            "retry": Retry(),
            "lines": lines or RateLimiter(clock),
            "on_state_change": lambda name, state: None,
            "clock": clock,
            **options,
        },
    )


class Crowd:
    """Callers that come at their times and wait as they are told, each a little late."""

    def __init__(self, clock: Clock, late: random.Random | None) -> None:
        self.clock = clock
        self.late = late
        self.queue: list[tuple[float, int, Any]] = []
        self.departed: list[tuple[float, int]] = []
        self.refused: list[tuple[int, float]] = []

    def comes(self, at: float, number: int, entering: Any) -> None:
        heapq.heappush(self.queue, (at, number, entering))

    def go_on(self, cancel: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        while self.queue:
            self.clock.now, number, entering = heapq.heappop(self.queue)
            try:
                if number in cancel and entering.gi_frame.f_lasti > 0:
                    entering.close()
                    continue
                step = next(entering)
            except StopIteration:
                self.departed.append((self.clock.now, number))
            except RateLimitedError:
                self.refused.append((number, self.clock.now))
            else:
                assert isinstance(step, Sleep)
                jitter = 0.0 if self.late is None else self.late.random() * 0.01
                # Rounded: two who are to go at one time must not be told apart by an ulp.
                self.comes(round(self.clock.now + step.seconds + jitter, 9), number, entering)


limits = st.builds(
    Limit,
    amount=st.integers(2, 30).map(float),
    seconds=st.sampled_from([1.0, 10.0]),
    shape=st.sampled_from(["token_bucket", "sliding_window"]),
    wait=st.sampled_from([0.0, 2.0, 100.0]),
)


@given(
    limits,
    st.lists(st.floats(0, 20), min_size=1, max_size=80),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.sets(st.integers(0, 80), max_size=20),
)
def test_no_crowd_exceeds_a_limit(
    limit: Limit, arrivals: list[float], late: Any, jitter: bool, cancel: set[int]
) -> None:
    """Many callers at once, late sleepers, some who leave: no window holds too many."""
    clock = Clock(0.0)
    crowd = Crowd(clock, late if jitter else None)
    shared = gate(clock, limits=[limit])
    for number, at in enumerate(sorted(arrivals)):
        crowd.comes(at, number, shared.enter(retry=False, tokens=1, deadline=None))
    crowd.go_on(cancel)
    assert most_in_a_window([(at, 1.0) for at, _ in crowd.departed], limit.seconds) <= limit.amount
    if not cancel:
        assert len(crowd.departed) + len(crowd.refused) == len(arrivals)
        start = dict(enumerate(sorted(arrivals)))
        for at, number in crowd.departed:
            assert at - start[number] <= limit.wait + 0.5, "nobody waits longer than was said"
    if not jitter:
        order = [number for _, number in crowd.departed]
        assert order == sorted(order), "first come, first served"
    [(_, _, waiting)] = shared.state().limits
    assert waiting == 0, "nobody's booking is left behind"


def test_a_limit_may_fail_at_once() -> None:
    """wait=0: the call that has no turn now is refused, and told when to come back."""
    clock = Clock(0.0)
    shared = gate(clock, limits=[Limit(2, 10.0, shape="sliding_window", wait=0.0)])
    for _ in range(2):
        assert isinstance(passed(shared), AdmissionToken)
    with pytest.raises(RateLimitedError, match="2 requests in 10 s") as caught:
        passed(shared)
    assert caught.value.retry_after == pytest.approx(10.0, rel=0.01)


def test_a_call_larger_than_the_limit_is_refused() -> None:
    """It would wait for ever."""
    shared = gate(Clock(), limits=[Limit(1000, unit="tokens")])
    with pytest.raises(RejectedError, match="takes 5,000 tokens, more than the limit"):
        passed(shared, tokens=5000)


def test_tokens_are_corrected_by_the_usage() -> None:
    """A call that took less than was thought leaves the rest to the others."""
    shared = gate(Clock(), limits=[Limit(1000, unit="tokens")])
    passed(shared, tokens=900).leave("good", tokens=100)
    [(_, free, _)] = shared.state().limits
    assert free == pytest.approx(900)


def test_a_key_s_limit_is_shared() -> None:
    """Two providers with one key have one limit; with another key, another."""
    clock = Clock(0.0)
    lines = RateLimiter(clock)
    limit = [Limit(1, 10.0, per="key", wait=0.0)]
    one, two = (gate(clock, key="k", lines=lines, limits=limit) for _ in range(2))
    other = gate(clock, key="other", lines=lines, limits=limit)
    passed(one)
    with pytest.raises(RateLimitedError):
        passed(two)
    passed(other)


def passed(shared: Admission, *, retry: bool = False, tokens: int = 1) -> AdmissionToken:
    """Enter without waiting."""
    entering = shared.enter(retry=retry, tokens=tokens, deadline=None)
    try:
        step = next(entering)
    except StopIteration as stop:
        found: AdmissionToken = stop.value
        return found
    raise AssertionError(f"it had to wait: {step}")


def test_places_are_given_in_order_and_given_back() -> None:
    """Who leaves the line loses nothing for the others."""
    places = ConcurrencyLimiter(1)
    assert places.enter() is None
    first, second, third = places.enter(), places.enter(), places.enter()
    assert first is not None
    assert second is not None
    assert third is not None
    places.give_up(second)
    places.leave()
    assert first.done()
    assert not third.done()
    places.give_up(first)  # it was given a place meanwhile: the next one has it now
    assert third.done()
    places.leave()
    assert places.taken == 0


def test_waiting_for_a_place_ends_at_the_deadline() -> None:
    """With an error that says that all places are taken."""
    clock = Clock(0.0)
    shared = gate(clock, places=1)
    passed(shared)
    entering = shared.enter(retry=False, tokens=1, deadline=5.0)
    step = next(entering)
    assert isinstance(step, WaitFor)
    for _ in range(5):
        assert isinstance(step, WaitFor)
        clock.now += 1.0
        if clock.now < 5.0:
            step = entering.send(False)
    with pytest.raises(RateLimitedError, match="all its 1 places are taken"):
        entering.send(False)
    assert shared.state().under_way == 1


def test_exactly_the_allowed_probes_go_out() -> None:
    """However many callers wait for a half-open breaker."""
    clock = Clock(0.0)
    on_state_change: list[str] = []
    shared = gate(
        clock,
        breaker=BreakerRules(failures=1, cooldown=10.0, probes=2),
        on_state_change=lambda name, state: on_state_change.append(state),
    )
    passed(shared).leave("fault")
    with pytest.raises(BreakerOpenError, match=r"another 10\.0 s"):
        passed(shared)
    clock.now = 10.0
    probes = [passed(shared), passed(shared)]
    for _ in range(50):
        with pytest.raises(BreakerOpenError):
            passed(shared)
    probes[0].leave("neutral")  # told nothing: its place goes to the next
    probes.append(passed(shared))
    probes[1].leave("good")
    assert shared.state().breaker == "closed"
    assert on_state_change == ["open", "half_open", "closed"]
    probes[2].leave("fault")
    assert shared.state().breaker == "closed", "a probe from before does not count"


def test_retries_are_paid_for() -> None:
    """An outage cannot multiply the traffic: retries stop when their budget is used up."""
    shared = gate(
        Clock(), retry=Retry(budget=0.1, reserve=3.0), breaker=BreakerRules(failures=10**6)
    )
    made = 0
    for _ in range(100):
        passed(shared).leave("fault")
        try:
            passed(shared, retry=True).leave("fault")
            made += 1
        except UnavailableError as error:
            assert "retry budget" in str(error)  # noqa: PT017 - both ends are right
    assert 3 <= made <= 3 + 0.1 * 100


def test_a_child_process_does_not_wait_for_the_parent_s_probe() -> None:
    """The probe is under way elsewhere: the child may send its own."""
    clock = Clock(0.0)
    shared = gate(clock, breaker=BreakerRules(failures=1, cooldown=10.0))
    passed(shared).leave("fault")
    clock.now = 10.0
    parents = passed(shared)
    with pytest.raises(BreakerOpenError):
        passed(shared)
    shared.after_fork()
    passed(shared).leave("good")
    assert shared.state().breaker == "closed"
    parents.leave("fault")
    assert shared.state().breaker == "closed", "what the parent's call came to is the parent's"


def test_a_slow_reader_does_not_hold_a_probe() -> None:
    """The provider has begun to answer: it is up, however slowly its stream is read."""
    clock = Clock(0.0)
    shared = gate(clock, breaker=BreakerRules(failures=1, cooldown=10.0))
    passed(shared).leave("fault")
    clock.now = 10.0
    probe = passed(shared)
    probe.answering()
    assert shared.state().breaker == "closed"
    probe.leave("fault")
    assert shared.state().breaker == "closed"


def test_nobody_waits_for_a_provider_that_is_left_alone_by_now() -> None:
    """Whoever waits for a turn hears of the breaker, and what was booked is given back."""
    clock = Clock(0.0)
    shared = gate(
        clock,
        limits=[Limit(1, 30.0, wait=60.0)],
        breaker=BreakerRules(failures=1, cooldown=100.0),
    )
    first = passed(shared)
    waiting = shared.enter(retry=False, tokens=1, deadline=None)
    assert isinstance(next(waiting), Sleep)
    first.leave("fault")
    clock.now += 1.0
    with pytest.raises(BreakerOpenError):
        next(waiting)
    assert shared.state().limits[0][2] == 0
