"""What verdicts of a judge that errs say of the share of wrong answers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.types import Observation
from semcache.verification import calibration
from semcache.verification.calibration import BINS, PRIOR_ERRORS, Bins, BoundConfig
from semcache.verification.judges import LocalJudge
from semcache.verification.prior import WITH_MODEL
from semcache.verification.reliability import (
    CERTAIN,
    JUDGED_BY_FUNCTION,
    VERDICTS,
    Reliability,
    Shares,
)
from semcache.verification.state import CalibrationState

LOCAL = LocalJudge.reliability
counts = st.lists(st.floats(0, 200), min_size=BINS, max_size=BINS)


def traffic(on_same: Shares, on_different: Shares, errors: list[float], each: int) -> Bins:
    """Bins with as many verdicts each as a judge with these shares gives, at these error rates."""
    rng, bins, config = random.Random(5), Bins(), BoundConfig(0.05)
    for index, error in enumerate(errors):
        for _ in range(each):
            shares = on_different if rng.random() < error else on_same
            (label,) = rng.choices(VERDICTS, shares)
            bins = bins.with_lookup(index, config).with_label(index, label, config)
    return bins


@given(st.tuples(counts, counts, counts, counts), counts)
@settings(max_examples=60)
def test_learned_shares_are_shares(verdicts: tuple[list[float], ...], errors: list[float]) -> None:
    """Positive, adding up to 1, and never more often unsure about the same than about others."""
    learned = LOCAL.learned(verdicts, [min(1.0, error / 200) for error in errors], LOCAL)
    for shares in (learned.on_same, learned.on_different):
        assert min(shares) > 0
        assert sum(shares) == pytest.approx(1)
    assert learned.on_same[-1] <= learned.on_different[-1] + 1e-9


@given(st.sampled_from(VERDICTS), st.floats(0.01, 0.99))
def test_a_verdict_moves_the_chance_its_own_way(verdict: str, before: float) -> None:
    """ "Same" raises the chance, "different" lowers it, and "not sure" never raises it."""
    after = LOCAL.chance_of_same(verdict, before)
    assert 0 < after < 1
    assert (after > before) == (verdict in ("equal", "same"))
    assert CERTAIN.chance_of_same("different", before) < 0.2


def test_what_the_judge_is_unsure_of_counts() -> None:
    """A judge that is unsure of different answers only does not make all answers look right.

    Of the answers a fifth is wrong, but of the verdicts that are sure only a twelfth says so.
    """
    errors = [min(0.98, max(0.2, error)) for error in PRIOR_ERRORS]
    bins = traffic((0.96, 0.03, 0.005, 0.005), (0.001, 0.029, 0.30, 0.67), errors, 40)
    config = BoundConfig(0.05, judge=LOCAL)
    fit, threshold = calibration.overall(bins, config)
    best = range(12, BINS)
    assert sum(fit.errors[at] for at in best) / len(best) == pytest.approx(0.2, abs=0.06)
    assert threshold.first_bin == BINS


@pytest.mark.parametrize("judge", [LOCAL, JUDGED_BY_FUNCTION], ids=["local", "function"])
def test_a_judge_that_errs_hides_no_errors_and_invents_none(judge: Reliability) -> None:
    """The errors found are near the true ones, for a judge that errs as it was expected to."""
    errors = [min(0.97, max(0.03, error)) for error in PRIOR_ERRORS]
    bins = traffic(judge.on_same, judge.on_different, errors, 120)
    fit, _ = calibration.overall(bins, BoundConfig(0.05, judge=judge))
    for at in range(8, BINS):
        assert fit.errors[at] == pytest.approx(errors[at], abs=0.1)


def test_equal_answers_prove_less_where_unlike_questions_get_them() -> None:
    """If a part of what is never right gets equal answers, an equal answer is less of a proof."""
    canned = (0.30, 0.01, 0.30, 0.39)
    errors = [min(0.98, max(0.02, error)) for error in PRIOR_ERRORS]
    bins = traffic((0.9, 0.06, 0.001, 0.039), canned, errors, 100)
    learned, _ = calibration.overall(bins, BoundConfig(0.05, judge=LOCAL))
    usual = LOCAL.chance_of_same("equal", 0.5)
    assert learned.judge.chance_of_same("equal", 0.5) < 0.95 < usual


def test_one_namespace_never_opens_the_threshold_of_another() -> None:
    """What 813 answers of "Sorry, I cannot help" teach stays in their namespace."""
    state = CalibrationState(WITH_MODEL, BoundConfig(0.05, judge=LOCAL))
    new = state.threshold("other")
    for number in range(813):
        state.observe_lookup("flooded", 0.6)
        state.apply_label(label("flooded", number, chance=0.6, right=True))
    assert state.threshold("flooded").first_bin < new.first_bin
    assert state.threshold("other").first_bin >= new.first_bin


def test_one_namespace_may_make_others_more_careful() -> None:
    """Where the surest candidates turn out wrong, all namespaces hear of it."""
    state = CalibrationState(WITH_MODEL, BoundConfig(0.05, judge=LOCAL))
    new = state.threshold("other")
    for number in range(200):
        state.observe_lookup("bad", 0.99)
        state.apply_label(label("bad", number, chance=0.99, right=number % 2 == 0))
    assert state.threshold("other").first_bin > new.first_bin


def label(namespace: str, number: int, *, chance: float, right: bool) -> Observation:
    return Observation(1.0, "w", "miss", namespace, number, None, right, chance, (), equal=right)
