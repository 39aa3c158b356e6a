"""Compares a stored question with a new one: the evidence, and a feature vector made from it.

The features are the cosine of the embeddings, the log-odds from the pair model if it ran, the
findings of the guards, and two signals from traffic: whether the neighbouring entries hold the
same answer (agreement and margin), and whether the candidate was right more or less often than
expected so far (residual). `verification.weights` turns the features into a chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semcache.types import Evidence, Finding, NeighbourAgreement
from semcache.verification import guards, spelling

FEATURES = (
    "bias",
    "model",
    "log_distance",
    "similarity",
    "model_by_distance",
    "model_against",
    "number",
    "number_more",
    "date_or_unit",
    "name",
    "name_more",
    "identifier",
    "identifier_more",
    "negation",
    "opposite",
    "words_shared",
    "words_more",
    "words",
    "neighbours_agree",
    "margin",
    "standing",
)
REFUSING = frozenset(
    (
        "number time place language identifier order script case sign accent layout age reported"
    ).split()
)
"""A decisive finding of one of these kinds refuses the candidate without the pair model."""
_NAMES = frozenset(("name", "place", "product", "language"))
PERISHABLE_AFTER = 3600.0
"""Seconds after which an answer to a question with "today", "now" or "latest" is outdated."""
SAME_WORDS = 0.998
"""Chance for questions that differ in nothing that could change the answer (`spelling`). None of
the 2,901 such pairs in the development streams was wrong."""


def refusal(evidence: Evidence) -> Finding | None:
    """The finding that alone refuses the candidate, if there is one."""
    return next((f for f in evidence.findings if f.decisive and f.kind in REFUSING), None)


def extract_evidence(
    stored: str,
    asked: str,
    similarity: float,
    agreement: NeighbourAgreement = NeighbourAgreement(),
    age: float = 0.0,
) -> Evidence:
    """The evidence for a pair of questions, without the pair model.

    Args:
        age: seconds since the stored answer was given.
    """
    stale = _stale(asked, age)
    if stale is None and spelling.same_words(stored, asked):
        return Evidence(similarity, (), None, "same words", agreement, (), SAME_WORDS)
    findings = guards.compare(stored, asked) if stale is None else (stale,)
    evidence = Evidence(similarity, findings, None, "cosine", agreement)
    if refusal(evidence) is not None:
        return replace(evidence, by="guards")
    return replace(evidence, features=features(stored, asked, evidence))


def _stale(asked: str, age: float) -> Finding | None:
    """A finding if the question is about the present and the stored answer is too old for it."""
    words = guards.reading(asked).perishable
    if not words or age <= PERISHABLE_AFTER:
        return None
    hours = age / 3600
    when = f"{hours:.0f} hours ago" if hours < 48 else f"{hours / 24:.0f} days ago"
    return Finding("age", f"answered {when}", ", ".join(dict.fromkeys(words)))


def model_supports(question: str) -> bool:
    """Whether the pair model can read a question: it was trained on Latin script."""
    return guards.reading(question).script == "latin"


def with_model_score(stored: str, asked: str, evidence: Evidence, logit: float) -> Evidence:
    """The evidence with the log-odds from the pair model added."""
    scored = replace(evidence, logit=logit, by="model")
    return replace(scored, features=features(stored, asked, scored))


def features(stored: str, asked: str, evidence: Evidence) -> tuple[float, ...]:
    """The feature vector, float[21], in the order of `FEATURES`."""
    one, other = set(guards.reading(stored).words), set(guards.reading(asked).words)
    logit = evidence.logit or 0.0
    distance = math.log(max(1.0001 - evidence.similarity, 1e-4))
    decisive = {f.kind for f in evidence.findings if f.decisive}
    more = {f.kind for f in evidence.findings if not f.decisive}
    agreement = evidence.neighbours
    return (
        1.0,
        logit,
        distance,
        evidence.similarity,
        logit * distance,
        min(logit, 0.0),
        float("number" in decisive),
        float("number" in more),
        float(bool(decisive & {"unit", "date"})),
        float(bool(decisive & _NAMES)),
        float(bool(more & _NAMES)),
        float("identifier" in decisive),
        float("identifier" in more),
        float("negation" in decisive),
        float(bool(decisive & {"opposite", "order"})),
        len(one & other) / max(1, len(one | other)),
        min(abs(len(one) - len(other)), 10.0),
        math.log1p(min(len(one), len(other))),
        agreement.agreement,
        agreement.margin,
        agreement.residual,
    )


def neighbour_agreements(
    answers: Sequence[int], similarities: Sequence[float], residuals: Sequence[float]
) -> list[NeighbourAgreement]:
    """How each neighbour of a lookup compares with the others.

    Args:
        answers: the id of the answer of each neighbour; equal ids mean the same answer.
        similarities: cosine similarity of each neighbour.
        residuals: see `NeighbourAgreement`.
    """
    agreements = []
    for i, answer in enumerate(answers):
        same = [s for a, s in zip(answers, similarities, strict=True) if a == answer]
        others = [s for a, s in zip(answers, similarities, strict=True) if a != answer]
        agreement = (len(same) - 1) / max(1, len(answers) - 1)
        margin = min(0.3, max(same) - (max(others) if others else 0.5))
        agreements.append(NeighbourAgreement(agreement, margin, residuals[i]))
    return agreements


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior of the weights: independent normal distributions, for scaled features.

    Attributes:
        centres, scales: a feature is scaled as (value - centre) / scale.
        weights: the means.
        deviations: the standard deviations; they allow for traffic unlike the development data.
        fading: share of the prior variance that is added back with each label.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    deviations: tuple[float, ...]
    fading: float


def log_odds(chance: float) -> float:
    """log(chance / (1 - chance)), kept finite for 0 and 1."""
    bounded = min(1 - 1e-12, max(1e-12, chance))
    return math.log(bounded / (1 - bounded))


def chance_of(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow; 0 if `logit` is NaN."""
    if math.isnan(logit):
        return 0.0
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
