"""Properties of backoff, the retry budget and the breaker, with time driven by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from semcache.errors import ConfigError
from semcache.router.resilience import Breaker, BreakerRules, Permit, Retry, RetryBudget

draws = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 200), draws, st.floats(0.001, 5), st.floats(0.001, 60))
def test_a_pause_is_full_jitter_under_a_cap(
    number: int, draw: float, base: float, cap: float
) -> None:
    """Anywhere from 0 to the base doubled with each attempt, and never above the cap."""
    pause = Retry(base=base, cap=cap).pause(number, draw)
    assert 0 <= pause <= min(cap, base * 2.0 ** (number - 1))


@given(st.integers(1, 10), draws, st.floats(0, 100))
def test_a_pause_is_no_shorter_than_retry_after(number: int, draw: float, after: float) -> None:
    """A provider is not called earlier than it asked for."""
    assert Retry().pause(number, draw, after) >= after


@given(st.lists(st.booleans(), max_size=300), st.floats(0, 1), st.floats(0, 20))
def test_the_budget_bounds_retries(calls: list[bool], ratio: float, reserve: float) -> None:
    """However many calls fail, retries stay within the reserve plus a fraction of the calls."""
    budget = RetryBudget.of(Retry(budget=ratio, reserve=reserve))
    first, retries = 0, 0
    for retry in calls:
        if retry:
            after = budget.withdraw()
            retries += after is not None
            budget = after or budget
        else:
            first += 1
            budget = budget.deposit()
    assert retries <= reserve + ratio * first + 1e-6


@pytest.mark.parametrize("options", [{"attempts": 0}, {"base": -1.0}, {"budget": float("nan")}])
def test_wrong_retries_are_refused(options: dict[str, float]) -> None:
    """A value that is out of range raises a ConfigError."""
    with pytest.raises(ConfigError):
        Retry(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"failures": 0}, {"cooldown": -1.0}, {"probes": 0}])
def test_wrong_breakers_are_refused(options: dict[str, float]) -> None:
    """A value that is out of range raises a ConfigError."""
    with pytest.raises(ConfigError):
        BreakerRules(**options)  # type: ignore[arg-type]


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, verdicts and waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.rules_ = BreakerRules(failures=3, cooldown=10.0, probes=2, successes=2)
        self.breaker = Breaker(self.rules_)
        self.now = 0.0
        self.permits: list[Permit] = []
        self.in_a_row = 0

    @rule()
    def ask(self) -> None:
        state = self.breaker.state
        self.breaker, permit = self.breaker.admit(self.now)
        if state == "closed":
            assert permit is not None
        if permit is not None:
            assert self.breaker.state != "open"
            self.permits.append(permit)

    @rule(verdict=st.sampled_from(["good", "fault", "neutral"]), pick=st.integers(0, 50))
    def answer(self, verdict: str, pick: int) -> None:
        if not self.permits:
            return
        permit = self.permits.pop(pick % len(self.permits))
        before = self.breaker
        self.breaker = before.report(permit, verdict, self.now)  # type: ignore[arg-type]
        if permit.generation != before.generation:
            assert self.breaker == before, "a call from an earlier state changes nothing"
        elif permit.probe and verdict == "fault":
            assert self.breaker.state == "open"
        elif verdict == "neutral":
            assert self.breaker.state == before.state, (
                "a caller's mistake does not change the state"
            )

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def no_more_probes_than_allowed(self) -> None:
        probes = [p for p in self.permits if p.probe and p.generation == self.breaker.generation]
        assert len(probes) == self.breaker.probes_in_flight <= self.rules_.probes

    @invariant()
    def an_open_breaker_waits_out_its_cooldown(self) -> None:
        if self.breaker.state == "open" and self.now < self.breaker.opened_at + 10.0:
            same, permit = self.breaker.admit(self.now)
            assert permit is None
            assert same == self.breaker
            assert 0 < self.breaker.retry_after(self.now) <= 10.0

    @invariant()
    def closed_means_few_faults(self) -> None:
        if self.breaker.state == "closed":
            assert self.breaker.faults < self.rules_.failures


TestBreaker = BreakerMachine.TestCase


def test_faults_in_a_row_open_and_a_good_probe_closes() -> None:
    """The whole cycle, once."""
    breaker = Breaker(BreakerRules(failures=2, cooldown=5.0))
    for _ in range(2):
        breaker, permit = breaker.admit(0.0)
        assert permit is not None
        breaker = breaker.report(permit, "fault", 0.0)
    assert breaker.state == "open"
    assert breaker.admit(4.9)[1] is None
    breaker, probe = breaker.admit(5.0)
    assert probe is not None
    assert probe.probe
    assert breaker.state == "half_open"
    assert breaker.admit(5.0)[1] is None, "one probe at a time"
    assert breaker.report(probe, "good", 6.0).state == "closed"
