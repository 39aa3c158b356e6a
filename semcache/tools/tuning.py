"""Fits the prior of the weights to the user's own log.

Each call of the log is paired with its nearest earlier calls of the same scope, and each pair
is labelled by whether the two answers agree. The weights are trained on the earlier calls, as
they would be in a running cache, and compared with the shipped weights on the later calls.
The fitted weights are kept only if they predict the later pairs better and would not clearly have
broken the bound there. The serving threshold, which enforces the bound in production, is still
learned from labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semcache.embedders.base import Embedder
from semcache.errors import ConfigError
from semcache.keys import keys
from semcache.keys.keys import KeyRules
from semcache.telemetry.intervals import wilson
from semcache.tools.logs import Call
from semcache.types import Evidence, NeighbourAgreement
from semcache.verification import calibration
from semcache.verification import features as verifier
from semcache.verification.base import Judge, Verifier
from semcache.verification.calibration import BoundConfig
from semcache.verification.features import Prior, chance_of
from semcache.verification.policies import FLOOR, MAX_EVALUATED, NEIGHBOURS, bin_of_chance
from semcache.verification.prior import WITH_MODEL, WITHOUT_MODEL
from semcache.verification.weights import Weights

if TYPE_CHECKING:
    from semcache.types import Vector

RATES = (0.01, 0.02, 0.05, 0.10, 0.20)
TRAIN_SHARE = 0.7
"""Fraction of the calls, from the start of the log, used for training."""
_MIN_PAIRS = 100
"""Minimum number of labelled pairs in each of the two parts."""

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A labelled pair of a call and one of its neighbours.

    Attributes:
        call: index of the call in the log.
        features: the feature vector of the pair; see `verification.features.FEATURES`.
        right: whether the neighbour's answer was right for the call.
    """

    call: int
    features: tuple[float, ...]
    right: bool


@dataclass(frozen=True, slots=True)
class Frontier:
    """How many of the later calls could be served at each false hit rate, in hindsight.

    Attributes:
        rates: the false hit rates.
        hits: the largest number of hits at each of these rates.
        loss: mean log loss per pair.
    """

    rates: tuple[float, ...]
    hits: tuple[int, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of tuning.

    Attributes:
        learned_from: number of labelled pairs used for training, from the earlier calls.
        held_against: number of labelled pairs used for testing, from the later calls.
        calls: number of later calls.
        before: frontier with the shipped weights.
        after: frontier with the fitted weights.
        cold_served: later calls that the fitted weights would serve before any label is known.
        cold_wrong: number of these served wrongly.
        weights: the fitted weights; None if they should not be kept.
        why: the reason for keeping them or not, in words.
        with_model: whether the features include the pair model's score.
    """

    learned_from: int
    held_against: int
    calls: int
    before: Frontier
    after: Frontier
    cold_served: int
    cold_wrong: int
    weights: tuple[float, ...] | None
    why: str
    with_model: bool


def label_pairs(
    calls: Sequence[Call],
    embedder: Embedder,
    model: Verifier | None,
    judge: Judge,
    progress: Progress | None = None,
) -> list[LabelledPair]:
    """Pair every call with its nearest earlier calls, and label the pairs.

    Pairs that the judge is not sure about are left out.

    Args:
        model: the pair model; None means features without its score.
        progress: called with the number of calls done and the total.
    """
    labelled: list[LabelledPair] = []
    scopes: dict[bytes, list[int]] = {}
    vectors: dict[int, Vector] = {}
    rules = KeyRules()
    for number, call in enumerate(calls):
        query = keys.query(call.request, rules)
        if query.question is None:
            continue
        vectors[number] = embedder.embed([query.question])[0]
        earlier = scopes.setdefault(query.scope.digest, [])
        labelled += _label_neighbours(number, calls, earlier, vectors, model, judge)
        earlier.append(number)
        if progress is not None:
            progress(number + 1, len(calls))
    return labelled


def _label_neighbours(
    number: int,
    calls: Sequence[Call],
    earlier: Sequence[int],
    vectors: dict[int, Vector],
    model: Verifier | None,
    judge: Judge,
) -> list[LabelledPair]:
    if not earlier:
        return []
    similarity = np.stack([vectors[other] for other in earlier]) @ vectors[number]
    nearest = [int(index) for index in np.argsort(-similarity)[:NEIGHBOURS]]
    labelled, asked = [], _question(calls[number])
    for at in nearest[:MAX_EVALUATED]:
        stored = _question(calls[earlier[at]])
        if similarity[at] < FLOOR or stored == asked:
            continue
        right = _agree(calls[earlier[at]], calls[number], judge)
        evidence = _evidence(stored, asked, float(similarity[at]), model)
        if right is not None and evidence.features:
            labelled.append(LabelledPair(number, evidence.features, right))
    return labelled


def _agree(one: Call, other: Call, judge: Judge) -> bool | None:
    """Whether two calls have the same answer, by `answer_id` if both have one; None if unsure."""
    if one.answer_id is not None and other.answer_id is not None:
        return one.answer_id == other.answer_id
    return judge.judge(_question(other), one.completion, other.completion)


def _evidence(stored: str, asked: str, similarity: float, model: Verifier | None) -> Evidence:
    evidence = verifier.extract_evidence(stored, asked, similarity, NeighbourAgreement())
    if evidence.by != "cosine" or model is None:
        return evidence
    return verifier.with_model_score(stored, asked, evidence, model.logits([(stored, asked)])[0])


def _question(call: Call) -> str:
    return keys.query(call.request, KeyRules()).question or ""


def tune(
    looked: Sequence[LabelledPair], calls: int, rules: BoundConfig, *, with_model: bool
) -> Tuned:
    """Train on the earlier calls, and compare with the shipped weights on the later ones.

    Args:
        looked: labelled pairs from `label_pairs`.
        calls: number of calls in the log.
        with_model: whether the features include the pair model's score.

    Raises:
        ConfigError: there are too few labelled pairs to compare.
    """
    split = int(TRAIN_SHARE * calls)
    early = [pair for pair in looked if pair.call < split]
    late = [pair for pair in looked if pair.call >= split]
    if min(len(early), len(late)) < _MIN_PAIRS:
        raise ConfigError(
            f"The log yields {len(early)} labelled pairs from its earlier calls and {len(late)} "
            f"from its later ones; tuning needs {_MIN_PAIRS} from each. Use a longer log, or one "
            "with an answer_id in each record, so that no judge is needed."
        )
    prior: Prior = WITH_MODEL if with_model else WITHOUT_MODEL
    shipped = fitted = Weights.of(prior)
    for pair in early:
        fitted = fitted.updated(pair.features, pair.right)
    before, after = frontier(late, shipped), frontier(late, fitted)
    served, wrong = cold(late, fitted, rules)
    why = _why_not(before, after, served, wrong, rules)
    weights = None if why else tuple(float(weight) for weight in fitted.mean)
    reason = (
        why
        or "the fitted prior predicts the later calls better and does not clearly break the bound"
    )
    counts = (len(early), len(late), calls - split)
    return Tuned(*counts, before, after, served, wrong, weights, reason, with_model)


def _why_not(before: Frontier, after: Frontier, served: int, wrong: int, rules: BoundConfig) -> str:
    if after.loss >= before.loss:
        return "the fitted prior does not predict the later calls better than the shipped one"
    interval = wilson(wrong, served)
    if interval is not None and interval[0] > rules.bound:
        return "with the fitted prior, more later answers would be wrong than the bound allows"
    return ""


def frontier(looked: Sequence[LabelledPair], weights: Weights) -> Frontier:
    """How many calls could be served at each rate, with the likeliest candidate of each call."""
    logits = [(weights.logit(pair.features), pair) for pair in looked]
    best: dict[int, tuple[float, bool]] = {}
    loss = 0.0
    for logit, pair in logits:
        chance = chance_of(logit)
        loss -= math.log(max(1e-9, chance if pair.right else 1 - chance))
        if pair.call not in best or logit > best[pair.call][0]:
            best[pair.call] = (logit, pair.right)
    ordered = sorted(best.values(), reverse=True)
    wrong, hits = 0, dict.fromkeys(RATES, 0)
    for count, (_, right) in enumerate(ordered, 1):
        wrong += not right
        for rate in RATES:
            if wrong <= rate * count:
                hits[rate] = count
    return Frontier(RATES, tuple(hits.values()), loss / max(1, len(looked)))


def cold(looked: Sequence[LabelledPair], weights: Weights, rules: BoundConfig) -> tuple[int, int]:
    """(served, wrong) at the initial serving threshold, before any label."""
    _, threshold = calibration.overall(calibration.Bins(), rules)
    best: dict[int, tuple[float, bool]] = {}
    for pair in looked:
        logit = weights.logit(pair.features)
        if pair.call not in best or logit > best[pair.call][0]:
            best[pair.call] = (logit, pair.right)
    served = [
        right
        for logit, right in best.values()
        if bin_of_chance(chance_of(logit)) >= threshold.first_bin
    ]
    return len(served), served.count(False)
