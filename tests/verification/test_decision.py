from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.errors import ConfigError
from semcache.types import Candidate, Completion, Entry, Hit, Miss, Neighbours
from semcache.verification.decision import decide
from semcache.verification.policies import FixedThreshold

similarities = st.floats(-1, 1)


def candidate(similarity: float, expires_at: float | None = None) -> Candidate:
    entry = Entry(1, b"k", b"s", "n", "m", "q", Completion("a"), 0.0, expires_at)
    return Candidate(entry, similarity)


@given(st.lists(similarities, max_size=5), st.floats(0.01, 1))
def test_fixed_threshold_serves_the_nearest_at_or_above_it(found: list[float], at: float) -> None:
    """A hit exactly when the nearest neighbour reaches the threshold."""
    candidates = [candidate(s) for s in sorted(found, reverse=True)]
    nearest = candidates[0].similarity if candidates else None
    decision = decide(Neighbours(nearest, candidates), FixedThreshold(at), now=1.0, draw=0.5)
    assert isinstance(decision, Hit) == (nearest is not None and nearest >= at)
    if isinstance(decision, Hit):
        assert decision.similarity == nearest


@given(similarities, similarities)
def test_a_higher_threshold_never_serves_more(one: float, two: float) -> None:
    """Raising the threshold only turns hits into misses."""
    low, high = sorted((abs(one) or 0.1, abs(two) or 0.1))
    served = [
        isinstance(
            decide(Neighbours(0.7, [candidate(0.7)]), FixedThreshold(at), now=0, draw=0), Hit
        )
        for at in (low, high)
    ]
    assert served[0] >= served[1]


def test_nothing_expired_is_served() -> None:
    """An expired neighbour is passed over for a fresh one, and alone it is a miss."""
    old, fresh = candidate(0.99, expires_at=5.0), candidate(0.95, expires_at=50.0)
    policy = FixedThreshold(0.9)
    decision = decide(Neighbours(0.99, [old, fresh]), policy, now=10.0, draw=0)
    assert isinstance(decision, Hit)
    assert decision.entry is fresh.entry
    assert decide(Neighbours(0.99, [old]), policy, now=10.0, draw=0) == Miss(
        "expired", "the similar entries have expired"
    )


def test_an_empty_scope_is_said() -> None:
    """No neighbour at all has a reason of its own."""
    decision = decide(Neighbours(None, []), FixedThreshold(0.9), now=0, draw=0)
    assert isinstance(decision, Miss)
    assert decision.reason == "empty_scope"


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan"), True])
def test_a_threshold_is_a_cosine(threshold: float) -> None:
    """Anything but a number in (0, 1] is refused."""
    with pytest.raises(ConfigError, match="cosine"):
        FixedThreshold(threshold)
