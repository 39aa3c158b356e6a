"""What can be seen of two questions, as evidence and as numbers.

The numbers are the cosine of the embeddings, the log-odds of the pair model where it was
asked, what the guards found, and how the candidate stands: do its neighbours have the same
answer, has it been right before. `verification.weights` makes a chance of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semcache.types import Evidence, Finding, NeighbourAgreement
from semcache.verification import guards

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
    ("number", "time", "place", "language", "identifier", "order", "script", "age", "reported")
)
"""Decisive findings of these kinds are refused without asking the pair model."""
_NAMES = frozenset(("name", "place", "product", "language"))
PERISHABLE_AFTER = 3600.0
"""Seconds after which an answer to "today", "now" or "latest" is none any more."""
SAME_WORDS = 0.998
"""Chance where both questions have the same words in the same order: they differ in case,
spaces and punctuation. Of 2,901 such pairs of the development streams none was wrong."""


def refusal(evidence: Evidence) -> Finding | None:
    """The finding for which a candidate is refused, whatever the rest says."""
    return next((f for f in evidence.findings if f.decisive and f.kind in REFUSING), None)


def extract_evidence(
    stored: str,
    asked: str,
    similarity: float,
    agreement: NeighbourAgreement = NeighbourAgreement(),
    age: float = 0.0,
) -> Evidence:
    """What can be seen of a pair without the pair model.

    Args:
        age: seconds since the stored answer was given.
    """
    stale = _stale(asked, age)
    if stale is None and guards.same_words(stored, asked):
        return Evidence(similarity, (), None, "same words", agreement, (), SAME_WORDS)
    findings = guards.compare(stored, asked) if stale is None else (stale,)
    evidence = Evidence(similarity, findings, None, "cosine", agreement)
    if refusal(evidence) is not None:
        return replace(evidence, by="guards")
    return replace(evidence, features=features(stored, asked, evidence))


def _stale(asked: str, age: float) -> Finding | None:
    """What is asked of today cannot be answered with last week's answer."""
    words = guards.reading(asked).perishable
    if not words or age <= PERISHABLE_AFTER:
        return None
    hours = age / 3600
    told = f"{hours:.0f} hours ago" if hours < 48 else f"{hours / 24:.0f} days ago"
    return Finding("age", f"answered {told}", ", ".join(dict.fromkeys(words)))


def model_supports(question: str) -> bool:
    """Whether the pair model can read a question: it was trained on Latin script."""
    return guards.reading(question).script == "latin"


def with_model_score(stored: str, asked: str, evidence: Evidence, logit: float) -> Evidence:
    """The evidence with what the pair model says."""
    told = replace(evidence, logit=logit, by="model")
    return replace(told, features=features(stored, asked, told))


def features(stored: str, asked: str, evidence: Evidence) -> tuple[float, ...]:
    """The numbers that the weights go with, float[21], in the order of `FEATURES`."""
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
    """How each of a lookup's neighbours stands.

    Args:
        answers: which answer each has; equal numbers: known to be the same.
        similarities: cosines. surprises: see `NeighbourAgreement`.
    """
    found = []
    for place, answer in enumerate(answers):
        mine = [s for a, s in zip(answers, similarities, strict=True) if a == answer]
        others = [s for a, s in zip(answers, similarities, strict=True) if a != answer]
        agree = (len(mine) - 1) / max(1, len(answers) - 1)
        margin = min(0.3, max(mine) - (max(others) if others else 0.5))
        found.append(NeighbourAgreement(agree, margin, residuals[place]))
    return found


@dataclass(frozen=True, slots=True)
class Prior:
    """A normal distribution of the weights of scaled features.

    Attributes:
        centres, scales: a feature is (value - centre) / scale.
        weights: expected; deviations: how far a cache's own traffic may lie from that.
        fading: share of the prior's variance that each label brings back.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    deviations: tuple[float, ...]
    fading: float


def log_odds(chance: float) -> float:
    """log(chance / (1 - chance)); finite for 0 and 1, too."""
    bounded = min(1 - 1e-12, max(1e-12, chance))
    return math.log(bounded / (1 - bounded))


def chance_of(logit: float) -> float:
    """1 / (1 + exp(-logit)), for any logit; 0 for what is no number."""
    if math.isnan(logit):
        return 0.0
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
