"""Admission: limits, queues and breakers, with many callers and a clock driven by hand."""

from __future__ import annotations

import heapq
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import BreakerOpenError, RateLimitedError, RejectedError, UnavailableError
from semcache.router.admission import Admission, AdmissionToken
from semcache.router.queues import ConcurrencyLimiter, RateLimiter
from semcache.router.rate_limits import Limit
from semcache.router.resilience import BreakerRules, Retry
from semcache.router.steps import Sleep, WaitFor
from tests.helpers import Clock
from tests.router.test_rate_limits import most_in_a_window


def admission(
    clock: Clock, *, key: str | None = None, limiter: RateLimiter | None = None, **options: Any
) -> Admission:
    provider: Any = SimpleNamespace(name="p", key_id=key)
    return Admission(
        provider,
        **{
            "limits": (),
            "max_concurrent": None,
            "breaker": BreakerRules(),
            "retry": Retry(),
            "rate_limiter": limiter or RateLimiter(clock),
            "on_state_change": lambda name, state: None,
            "clock": clock,
            **options,
        },
    )


class Crowd:
    """Callers that arrive at given times and wait as long as asked, each a little longer."""

    def __init__(self, clock: Clock, jitter: random.Random | None) -> None:
        self.clock = clock
        self.jitter = jitter
        self.queue: list[tuple[float, int, Any]] = []
        self.sent: list[tuple[float, int]] = []
        self.refused: list[tuple[int, float]] = []

    def add(self, at: float, number: int, entering: Any) -> None:
        heapq.heappush(self.queue, (at, number, entering))

    def run(self, cancel: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        while self.queue:
            self.clock.now, number, entering = heapq.heappop(self.queue)
            try:
                if number in cancel and entering.gi_frame.f_lasti > 0:
                    entering.close()
                    continue
                step = next(entering)
            except StopIteration:
                self.sent.append((self.clock.now, number))
            except RateLimitedError:
                self.refused.append((number, self.clock.now))
            else:
                assert isinstance(step, Sleep)
                late = 0.0 if self.jitter is None else self.jitter.random() * 0.01
                # Rounded, so that callers due at the same time are not reordered by an ulp.
                self.add(round(self.clock.now + step.seconds + late, 9), number, entering)


def _to_the_nanosecond(at: float) -> float:
    """Arrivals as precise as the crowd's own clock, so that equal times stay equal."""
    return round(at, 9)


limits = st.builds(
    Limit,
    amount=st.integers(2, 30).map(float),
    seconds=st.sampled_from([1.0, 10.0]),
    shape=st.sampled_from(["token_bucket", "sliding_window"]),
    wait=st.sampled_from([0.0, 2.0, 100.0]),
)


@given(
    limits,
    st.lists(st.floats(0, 20).map(_to_the_nanosecond), min_size=1, max_size=80),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.sets(st.integers(0, 80), max_size=20),
)
def test_no_crowd_exceeds_a_limit(
    limit: Limit, arrivals: list[float], draws: Any, jitter: bool, cancel: set[int]
) -> None:
    """Many callers at once, late wake-ups, callers who give up: no window holds too many."""
    clock = Clock(0.0)
    crowd = Crowd(clock, draws if jitter else None)
    shared = admission(clock, limits=[limit])
    for number, at in enumerate(sorted(arrivals)):
        crowd.add(at, number, shared.enter(retry=False, tokens=1, deadline=None))
    crowd.run(cancel)
    assert most_in_a_window([(at, 1.0) for at, _ in crowd.sent], limit.seconds) <= limit.amount
    if not cancel:
        assert len(crowd.sent) + len(crowd.refused) == len(arrivals)
        start = dict(enumerate(sorted(arrivals)))
        for at, number in crowd.sent:
            assert at - start[number] <= limit.wait + 0.5, "nobody waits longer than allowed"
    if not jitter:
        order = [number for _, number in crowd.sent]
        assert order == sorted(order), "first come, first served"
    [(_, _, waiting)] = shared.state().limits
    assert waiting == 0, "no reservation is left behind"


def test_a_limit_may_fail_at_once() -> None:
    """wait=0: a call that cannot be sent now is refused, with the time to retry after."""
    clock = Clock(0.0)
    shared = admission(clock, limits=[Limit(2, 10.0, shape="sliding_window", wait=0.0)])
    for _ in range(2):
        assert isinstance(enter(shared), AdmissionToken)
    with pytest.raises(RateLimitedError, match="2 requests in 10 s") as caught:
        enter(shared)
    assert caught.value.retry_after == pytest.approx(10.0, rel=0.01)


def test_a_call_larger_than_the_limit_is_refused() -> None:
    """It would wait forever."""
    shared = admission(Clock(), limits=[Limit(1000, unit="tokens")])
    with pytest.raises(RejectedError, match="takes 5,000 tokens, more than the limit"):
        enter(shared, tokens=5000)


def test_tokens_are_corrected_by_the_usage() -> None:
    """A call that took less than estimated leaves the rest to other calls."""
    shared = admission(Clock(), limits=[Limit(1000, unit="tokens")])
    enter(shared, tokens=900).release("good", tokens=100)
    [(_, free, _)] = shared.state().limits
    assert free == pytest.approx(900)


def test_a_key_s_limit_is_shared() -> None:
    """Providers with the same key share a limit; a provider with another key has its own."""
    clock = Clock(0.0)
    limiter = RateLimiter(clock)
    limit = [Limit(1, 10.0, per="key", wait=0.0)]
    one, two = (admission(clock, key="k", limiter=limiter, limits=limit) for _ in range(2))
    other = admission(clock, key="other", limiter=limiter, limits=limit)
    enter(one)
    with pytest.raises(RateLimitedError):
        enter(two)
    enter(other)


def enter(shared: Admission, *, retry: bool = False, tokens: int = 1) -> AdmissionToken:
    """Enter without waiting."""
    entering = shared.enter(retry=retry, tokens=tokens, deadline=None)
    try:
        step = next(entering)
    except StopIteration as stop:
        token: AdmissionToken = stop.value
        return token
    raise AssertionError(f"it had to wait: {step}")


def test_slots_are_assigned_in_order_and_returned() -> None:
    """A caller who gives up does not cost the others their slots."""
    limiter = ConcurrencyLimiter(1)
    assert limiter.enter() is None
    first, second, third = limiter.enter(), limiter.enter(), limiter.enter()
    assert first is not None
    assert second is not None
    assert third is not None
    limiter.give_up(second)
    limiter.leave()
    assert first.done()
    assert not third.done()
    limiter.give_up(first)  # its slot, assigned in the meantime, goes to the next waiter
    assert third.done()
    limiter.leave()
    assert limiter.in_use == 0


def test_waiting_for_a_slot_ends_at_the_deadline() -> None:
    """With an error that names the concurrency limit."""
    clock = Clock(0.0)
    shared = admission(clock, max_concurrent=1)
    enter(shared)
    entering = shared.enter(retry=False, tokens=1, deadline=5.0)
    step = next(entering)
    assert isinstance(step, WaitFor)
    for _ in range(5):
        assert isinstance(step, WaitFor)
        clock.now += 1.0
        if clock.now < 5.0:
            step = entering.send(False)
    with pytest.raises(RateLimitedError, match="limit of 1 concurrent calls was reached"):
        entering.send(False)
    assert shared.state().in_flight == 1


def test_exactly_the_allowed_probes_go_out() -> None:
    """No more than the allowed probes, however many callers wait for a half-open breaker."""
    clock = Clock(0.0)
    states: list[str] = []
    shared = admission(
        clock,
        breaker=BreakerRules(failures=1, cooldown=10.0, probes=2),
        on_state_change=lambda name, state: states.append(state),
    )
    enter(shared).release("fault")
    with pytest.raises(BreakerOpenError, match=r"another 10\.0 s"):
        enter(shared)
    clock.now = 10.0
    probes = [enter(shared), enter(shared)]
    for _ in range(50):
        with pytest.raises(BreakerOpenError):
            enter(shared)
    probes[0].release("neutral")  # without a result: another probe may go out
    probes.append(enter(shared))
    probes[1].release("good")
    assert shared.state().breaker == "closed"
    assert states == ["open", "half_open", "closed"]
    probes[2].release("fault")
    assert shared.state().breaker == "closed", "a probe from an earlier state does not count"


def test_retries_are_paid_for() -> None:
    """An outage cannot multiply the traffic: retries stop when their budget is used up."""
    shared = admission(
        Clock(), retry=Retry(budget=0.1, reserve=3.0), breaker=BreakerRules(failures=10**6)
    )
    retries = 0
    for _ in range(100):
        enter(shared).release("fault")
        try:
            enter(shared, retry=True).release("fault")
            retries += 1
        except UnavailableError as error:
            assert "retry budget" in str(error)  # noqa: PT017 - both outcomes are correct
    assert 3 <= retries <= 3 + 0.1 * 100


def test_a_child_process_does_not_wait_for_the_parent_s_probe() -> None:
    """The probe is in flight in another process: the child may send its own."""
    clock = Clock(0.0)
    shared = admission(clock, breaker=BreakerRules(failures=1, cooldown=10.0))
    enter(shared).release("fault")
    clock.now = 10.0
    parents_probe = enter(shared)
    with pytest.raises(BreakerOpenError):
        enter(shared)
    shared.after_fork()
    enter(shared).release("good")
    assert shared.state().breaker == "closed"
    parents_probe.release("fault")
    assert shared.state().breaker == "closed", "the result of the parent's call does not count"


def test_a_slow_reader_does_not_hold_a_probe() -> None:
    """A provider that has begun to answer is up, however slowly its stream is read."""
    clock = Clock(0.0)
    shared = admission(clock, breaker=BreakerRules(failures=1, cooldown=10.0))
    enter(shared).release("fault")
    clock.now = 10.0
    probe = enter(shared)
    probe.on_first_text()
    assert shared.state().breaker == "closed"
    probe.release("fault")
    assert shared.state().breaker == "closed"


def test_waiting_ends_when_the_breaker_opens() -> None:
    """A caller waiting for its turn gets the error, and its reservation is released."""
    clock = Clock(0.0)
    shared = admission(
        clock,
        limits=[Limit(1, 30.0, wait=60.0)],
        breaker=BreakerRules(failures=1, cooldown=100.0),
    )
    first = enter(shared)
    waiting = shared.enter(retry=False, tokens=1, deadline=None)
    assert isinstance(next(waiting), Sleep)
    first.release("fault")
    clock.now += 1.0
    with pytest.raises(BreakerOpenError):
        next(waiting)
    assert shared.state().limits[0][2] == 0
