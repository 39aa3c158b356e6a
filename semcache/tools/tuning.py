"""The verifier's prior, fitted to a log of one's own.

The log's calls are taken in their order: each with the nearest earlier ones of its scope, and
whether their answers agree. The weights learn from the first part, as a cache in use would,
and are held against the shipped ones on the part that came later. They are kept only if they
foretell that part better and would not have served more wrong answers there than the bound
allows. What keeps the promise in use, the line, is drawn from labels as before.
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
from semcache.verification.policies import FLOOR, LOOKED_AT, NEIGHBOURS, bin_of_chance
from semcache.verification.prior import WITH_MODEL, WITHOUT_MODEL
from semcache.verification.weights import Weights

if TYPE_CHECKING:
    from semcache.types import Vector

RATES = (0.01, 0.02, 0.05, 0.10, 0.20)
LEARNED_FROM = 0.7
"""Share of the calls, the earlier ones, that are learned from."""
_LEAST = 100
"""Labelled pairs of each part without which nothing can be said."""

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Looked:
    """A call and one of its neighbours: what is known of the pair, and whether it was right."""

    call: int
    features: tuple[float, ...]
    right: bool


@dataclass(frozen=True, slots=True)
class Frontier:
    """How many of the later calls could be served at each false hit rate, with hindsight."""

    rates: tuple[float, ...]
    hits: tuple[int, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to.

    Attributes:
        learned_from, held_against: labelled pairs of the earlier and of the later part.
        calls: of the later part.
        with_model: whether the pair model was there.
        before, after: frontiers with the shipped and with the fitted weights.
        cold_served, cold_wrong: of the later calls, served before any label with the fitted
            weights, and wrong.
        weights: the fitted ones; None: they are no better and are not to be kept. why: in words.
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


def look_through(
    calls: Sequence[Call],
    embedder: Embedder,
    model: Verifier | None,
    judge: Judge,
    progress: Progress | None = None,
) -> list[Looked]:
    """Every call with its nearest earlier ones, as far as the judge can tell."""
    found: list[Looked] = []
    scopes: dict[bytes, list[int]] = {}
    vectors: dict[int, Vector] = {}
    rules = KeyRules()
    for number, call in enumerate(calls):
        query = keys.query(call.request, rules)
        if query.question is None:
            continue
        vectors[number] = embedder.embed([query.question])[0]
        earlier = scopes.setdefault(query.scope.digest, [])
        found += _looked_at(number, calls, earlier, vectors, model, judge)
        earlier.append(number)
        if progress is not None:
            progress(number + 1, len(calls))
    return found


def _looked_at(
    number: int,
    calls: Sequence[Call],
    earlier: Sequence[int],
    vectors: dict[int, Vector],
    model: Verifier | None,
    judge: Judge,
) -> list[Looked]:
    if not earlier:
        return []
    similarity = np.stack([vectors[other] for other in earlier]) @ vectors[number]
    nearest = [int(place) for place in np.argsort(-similarity)[:NEIGHBOURS]]
    found, asked = [], _question(calls[number])
    for at in nearest[:LOOKED_AT]:
        stored = _question(calls[earlier[at]])
        if similarity[at] < FLOOR or stored == asked:
            continue
        right = _agree(calls[earlier[at]], calls[number], judge)
        evidence = _evidence(stored, asked, float(similarity[at]), model)
        if right is not None and evidence.features:
            found.append(Looked(number, evidence.features, right))
    return found


def _agree(one: Call, other: Call, judge: Judge) -> bool | None:
    """Whether two calls have the same answer: by its id where the log has one."""
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


def tune(looked: Sequence[Looked], calls: int, rules: BoundConfig, *, with_model: bool) -> Tuned:
    """Learn from the earlier part, compare on the later.

    Raises:
        ConfigError: there are too few labelled pairs to say anything.
    """
    border = int(LEARNED_FROM * calls)
    early = [one for one in looked if one.call < border]
    late = [one for one in looked if one.call >= border]
    if min(len(early), len(late)) < _LEAST:
        raise ConfigError(
            f"The log gives {len(early)} labelled pairs in its earlier part and {len(late)} in "
            f"its later one; tuning needs {_LEAST} in each. Give a longer log, or one with "
            'answer_id, so that no judge has to say "not sure".'
        )
    prior: Prior = WITH_MODEL if with_model else WITHOUT_MODEL
    shipped = fitted = Weights.of(prior)
    for one in early:
        fitted = fitted.updated(one.features, one.right)
    before, after = frontier(late, shipped), frontier(late, fitted)
    served, wrong = cold(late, fitted, rules)
    why = _why_not(before, after, served, wrong, rules)
    weights = None if why else tuple(float(weight) for weight in fitted.mean)
    told = why or "it foretells the later part better and keeps the bound there"
    counts = (len(early), len(late), calls - border)
    return Tuned(*counts, before, after, served, wrong, weights, told, with_model)


def _why_not(before: Frontier, after: Frontier, served: int, wrong: int, rules: BoundConfig) -> str:
    if after.loss >= before.loss:
        return "it does not foretell the later part better than the shipped prior"
    interval = wilson(wrong, served)
    if interval is not None and interval[0] > rules.bound:
        return "it would have served more wrong answers in the later part than the bound allows"
    return ""


def frontier(looked: Sequence[Looked], weights: Weights) -> Frontier:
    """What could be served at best, choosing the likeliest candidate of each call."""
    logits = [(weights.logit(one.features), one) for one in looked]
    best: dict[int, tuple[float, bool]] = {}
    loss = 0.0
    for logit, one in logits:
        chance = chance_of(logit)
        loss -= math.log(max(1e-9, chance if one.right else 1 - chance))
        if one.call not in best or logit > best[one.call][0]:
            best[one.call] = (logit, one.right)
    ordered = sorted(best.values(), reverse=True)
    wrong, hits = 0, dict.fromkeys(RATES, 0)
    for count, (_, right) in enumerate(ordered, 1):
        wrong += not right
        for rate in RATES:
            if wrong <= rate * count:
                hits[rate] = count
    return Frontier(RATES, tuple(hits.values()), loss / max(1, len(looked)))


def cold(looked: Sequence[Looked], weights: Weights, rules: BoundConfig) -> tuple[int, int]:
    """(served, wrong) with a line that no label has moved."""
    _, threshold = calibration.overall(calibration.Bins(), rules)
    best: dict[int, tuple[float, bool]] = {}
    for one in looked:
        logit = weights.logit(one.features)
        if one.call not in best or logit > best[one.call][0]:
            best[one.call] = (logit, one.right)
    served = [
        right
        for logit, right in best.values()
        if bin_of_chance(chance_of(logit)) >= threshold.first_bin
    ]
    return len(served), served.count(False)
