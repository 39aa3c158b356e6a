from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semcache.errors import ConfigError
from semcache.types import Candidate, Completion, Entry, Evidence, Explore, Finding, Hit, Miss
from semcache.verification import calibration
from semcache.verification.calibration import (
    BINS,
    NONE,
    PRIOR_ERRORS,
    Bins,
    BoundConfig,
    ServingThreshold,
    bin_index,
    overall,
)
from semcache.verification.features import FEATURES, SAME_WORDS, chance_of
from semcache.verification.policies import CalibratedPolicy, bin_of_chance
from semcache.verification.prior import WITH_MODEL, WITHOUT_MODEL
from semcache.verification.weights import Weights

CONFIG = BoundConfig(0.05)
labels = st.lists(st.tuples(st.integers(0, BINS - 1), st.booleans()), max_size=300)


def taught(given_labels: list[tuple[int, bool]], config: BoundConfig = CONFIG) -> Bins:
    bins = Bins()
    for at, right in given_labels:
        label = "right" if right else "wrong"
        bins = bins.with_lookup(at, config).with_label(at, label, config)
    return bins


@given(labels, st.sampled_from([0.02, 0.05, 0.1]))
@settings(max_examples=60)
def test_a_line_is_drawn_only_where_the_bound_is_kept(
    given_labels: list[tuple[int, bool]], bound: float
) -> None:
    """What is expected above a line is, with caution, no more than the bound."""
    config = BoundConfig(bound)
    fit, threshold = overall(taught(given_labels, config), config)
    assert all(0 < error < 1 for error in fit.errors)
    if threshold.first_bin < BINS:
        assert threshold.expected <= threshold.upper <= bound


@given(labels)
@example([(at, False) for at in range(13, BINS)])
@example([(at, True) for at in [*range(10)] * 8])
@settings(max_examples=60)
def test_a_wrong_answer_never_makes_a_bin_look_better(
    given_labels: list[tuple[int, bool]],
) -> None:
    """One more wrong label raises that bin's expected error, one more right label lowers it."""
    bins = taught(given_labels)
    before = overall(bins, CONFIG)[0].errors
    for at in (0, BINS // 2, BINS - 1):
        assert overall(bins.with_label(at, "wrong", CONFIG), CONFIG)[0].errors[at] > before[at]
        assert overall(bins.with_label(at, "right", CONFIG), CONFIG)[0].errors[at] < before[at]


def test_nothing_but_the_surest_is_served_before_any_label() -> None:
    """From the first lookup on the bound is kept by a cautious prior."""
    threshold = overall(Bins(), BoundConfig(0.02))[1]
    assert chance_of(threshold.logit) >= 0.96
    assert bin_of_chance(SAME_WORDS) >= threshold.first_bin


def test_traffic_that_cannot_be_told_apart_is_not_served() -> None:
    """Where half of the surest are wrong, nothing is served."""
    rng = random.Random(3)
    bins = taught([(rng.randrange(BINS - 6, BINS), rng.random() < 0.5) for _ in range(200)])
    assert overall(bins, CONFIG)[1].first_bin == BINS


def test_traffic_that_is_right_opens_the_line() -> None:
    """Where nearly all are right, much more is served than at first."""
    rng = random.Random(4)
    bins = taught([(rng.randrange(8, BINS), rng.random() < 0.99) for _ in range(800)])
    assert overall(bins, CONFIG)[1].first_bin <= 9


def test_a_namespace_may_be_worse_than_the_whole() -> None:
    """Its own labels close its own line, while the whole's stays open."""
    good = taught([(BINS - 3, True)] * 400)
    of_all, threshold = overall(good, CONFIG)
    bad = taught([(BINS - 3, number % 3 > 0) for number in range(120)])
    assert threshold.first_bin <= BINS - 3
    assert calibration.for_namespace(bad, of_all, CONFIG)[1].first_bin > BINS - 3


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_alarm_rings_for_a_broken_bound_and_rarely_else(seed: int) -> None:
    """A fifth wrong under a bound of 5% is noticed within 150 labels; 3% is not in 300."""
    rng = random.Random(seed)

    def rings(wrong: float, many: int) -> bool:
        bins, rung = Bins(), False
        for _ in range(many):
            bins, rung = calibration.alarm_after(bins, rng.random() >= wrong, CONFIG)
            if rung:
                return True
        return False

    assert rings(0.3, 150)
    assert sum(rings(0.03, 300) for _ in range(10)) <= 2


def test_forgetting_closes_what_rested_on_labels() -> None:
    """After an alarm the old labels count for a tenth."""
    bins = taught([(BINS - 4, True)] * 300)
    assert bins.discounted(0.1).labels == pytest.approx(bins.labels / 10)


def test_bins_cover_all_log_odds() -> None:
    """Every log-odds has a bin, and the edges are in order."""
    assert bin_index(-1e9) == 0
    assert bin_index(1e9) == BINS - 1
    assert list(calibration.EDGES) == sorted(calibration.EDGES)
    assert len(PRIOR_ERRORS) == len(NONE) == BINS
    assert ServingThreshold().first_bin == BINS


# -------------------------------------------------------------------------------- weights

features = st.lists(st.floats(-5, 5), min_size=len(FEATURES), max_size=len(FEATURES))


@given(features, st.booleans())
@settings(max_examples=60)
def test_a_label_moves_the_chance_towards_itself(values: list[float], right: bool) -> None:
    """Right makes the like likelier, wrong less likely; the spread stays a covariance."""
    before = Weights.of(WITH_MODEL)
    after = before.updated(values, right)
    x = after._scaled(values)
    moved = float(x @ after.mean) - float(x @ before.mean)
    assert moved >= -1e-9 if right else moved <= 1e-9
    assert np.allclose(after.spread, after.spread.T)
    assert np.linalg.eigvalsh(after.spread).min() > 0


@pytest.mark.parametrize("prior", [WITH_MODEL, WITHOUT_MODEL])
def test_the_priors_fit_the_features(prior: object) -> None:
    """One number of each kind for each feature, and no scale is 0."""
    for part in ("centres", "scales", "weights", "deviations"):
        assert len(getattr(prior, part)) == len(FEATURES)
    assert min(prior.scales) > 0  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------- policy


def candidate(entry_id: int, evidence: Evidence | None) -> Candidate:
    entry = Entry(entry_id, b"k", b"s", "n", "m", "q", Completion("a"), 0.0, None)
    return Candidate(entry, 0.9, evidence)


def policy(at: int = BINS - 8) -> CalibratedPolicy:
    return CalibratedPolicy(CONFIG, Weights.of(WITH_MODEL), ServingThreshold(at, 0.01, 0.02))


def known(chance: float) -> Evidence:
    return Evidence(0.9, chance=chance)


REFUSED = Evidence(0.99, (Finding("number", "2 years", "3 years"),), by="guards")


def test_the_likeliest_is_served_whichever_is_nearest() -> None:
    """The second candidate may be right where the first is wrong."""
    found = policy().decide([candidate(1, known(0.3)), candidate(2, known(0.99))], draw=0.9)
    assert isinstance(found, Hit)
    assert found.entry.id == 2
    assert "99.0%" in found.reason


def test_a_share_of_what_is_good_enough_is_explored() -> None:
    """By the draw, and never what would not be served."""
    served = [candidate(1, known(0.99))]
    assert isinstance(policy().decide(served, draw=CONFIG.exploration_rate - 0.01), Explore)
    assert isinstance(policy().decide(served, draw=CONFIG.exploration_rate), Hit)
    assert isinstance(policy().decide([candidate(1, known(0.4))], draw=0.0), Miss)


def test_a_miss_says_why() -> None:
    """Refused by a guard, doubtful, or nothing served yet."""
    assert policy().decide([candidate(1, REFUSED)], draw=0.5) == Miss(
        "refused", "number: 2 years / 3 years"
    )
    doubtful = policy().decide([candidate(1, known(0.5))], draw=0.5)
    assert isinstance(doubtful, Miss)
    assert doubtful.reason == "doubtful"
    assert doubtful.candidate is not None
    closed = policy(BINS).decide([candidate(1, known(0.99))], draw=0.5)
    assert isinstance(closed, Miss)
    assert "nothing is served yet" in closed.detail


@pytest.mark.parametrize(
    "arguments",
    [{"max_false_hit_rate": 0}, {"max_false_hit_rate": 0.5}, {"max_false_hit_rate": True},
     {"confidence": 1.0}, {"confidence": 0.2}],
)  # fmt: skip
def test_a_bound_that_is_none_is_refused(arguments: dict[str, float]) -> None:
    """With a word on what it is."""
    from semcache.assembly.verification import bound_config

    with pytest.raises(ConfigError, match=next(iter(arguments))):
        bound_config(**{"max_false_hit_rate": 0.02, "confidence": 0.84, **arguments})
