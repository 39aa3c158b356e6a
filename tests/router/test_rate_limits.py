"""Rate limits: in no window is more sent than the limit allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import ConfigError
from semcache.router.rate_limits import Limit, rate_state

limits = st.builds(
    Limit,
    amount=st.integers(1, 60).map(float),
    seconds=st.sampled_from([1.0, 10.0, 60.0]),
    unit=st.sampled_from(["requests", "tokens"]),
    shape=st.sampled_from([None, "token_bucket", "sliding_window"]),
)
steps = st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 20)), max_size=120)


def most_in_a_window(sent: list[tuple[float, float]], seconds: float) -> float:
    """The largest sum within any half-open window that ends when something is sent."""
    return max(
        (sum(amount for at, amount in sent if end - seconds + 1e-6 < at <= end) for end, _ in sent),
        default=0.0,
    )


@given(limits, steps)
def test_no_window_holds_more_than_the_limit(
    limit: Limit, wanted: list[tuple[float, float]]
) -> None:
    """However fast the calls come, what is sent within any window stays within the limit."""
    state, now = rate_state(limit, 0.0), 0.0
    sent = []
    for pause, amount in wanted:
        now += pause
        amount = min(amount, limit.capacity)
        after = state.take(now, amount)
        if after is not None:
            state = after
            sent.append((now, amount))
    assert most_in_a_window(sent, limit.seconds) <= limit.amount + 1e-6


@given(limits, st.lists(st.floats(0.1, 20), min_size=1, max_size=40))
def test_ready_at_is_exact_for_the_first_in_the_queue(limit: Limit, wanted: list[float]) -> None:
    """Not before that time, and always after it, may the first call be sent."""
    state, now = rate_state(limit, 0.0), 0.0
    for amount in wanted:
        amount = min(amount, limit.capacity)
        ready = state.ready_at(now, amount)
        assert ready >= now
        if ready > now:
            assert state.take(now, amount) is None
        now = ready + 1e-6
        after = state.take(now, amount)
        assert after is not None
        state = after


@given(limits, st.floats(0.1, 20), st.floats(-20, 20))
def test_corrections_are_counted(limit: Limit, amount: float, delta: float) -> None:
    """A call that took more than estimated leaves less for the others, and vice versa."""
    amount = min(amount, limit.capacity)
    state = rate_state(limit, 0.0).take(0.0, amount)
    assert state is not None
    corrected = state.correct(0.0, 0.0, delta)
    if delta >= 0:
        assert corrected.available(0.0) <= state.available(0.0)
    else:
        assert corrected.available(0.0) >= state.available(0.0)


@given(limits)
def test_the_limit_is_reached(limit: Limit) -> None:
    """The full amount is sent within two windows: a limit is not kept by sending nothing."""
    state, now, count = rate_state(limit, 0.0), 0.0, 0
    while now <= 2 * limit.seconds:
        after = state.take(now, 1.0)
        if after is not None:
            state, count = after, count + 1
        else:
            now = state.ready_at(now, 1.0) + 1e-9
    assert count >= int(limit.amount)


@pytest.mark.parametrize(
    "options",
    [
        {"amount": 0},
        {"amount": 5, "seconds": 0},
        {"amount": 5, "wait": -1},
        {"amount": 5, "unit": "bytes"},
        {"amount": 5, "shape": "leaky"},
        {"amount": 5, "burst": 0.5},
        {"amount": 5, "burst": 6},
        {"amount": 5, "per": "day"},
    ],
)
def test_wrong_limits_are_refused(options: dict[str, float]) -> None:
    """A value that is out of range raises a ConfigError."""
    with pytest.raises(ConfigError):
        Limit(**options)  # type: ignore[arg-type]
