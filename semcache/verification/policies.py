"""Policies: rules for serving a candidate. Each is immutable; `decide` is a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semcache.errors import ConfigError
from semcache.types import Candidate, Decision, Evidence, Explore, Hit, Miss
from semcache.verification.calibration import BINS, BoundConfig, ServingThreshold, bin_index
from semcache.verification.decision import below
from semcache.verification.features import chance_of, log_odds, refusal, with_model_score

if TYPE_CHECKING:
    from semcache.verification.weights import Weights


NEIGHBOURS = 5
"""Number of candidates fetched for the calibrated policy; their agreement is also evidence."""
MAX_EVALUATED = 3
"""Maximum number of candidates of a lookup that the pair model scores."""
FLOOR = 0.55
"""Minimum similarity of a candidate."""


@dataclass(frozen=True, slots=True)
class FixedThreshold:
    """Serve the nearest candidate if its cosine similarity reaches the threshold.

    This is what semantic caches usually do. It cannot tell "flights to Boston" from "flights
    from Boston", which are more similar to each other than most true paraphrases are.

    Raises:
        ConfigError: the threshold is not in (0, 1].
    """

    threshold: float

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not 0.0 < self.threshold <= 1.0:
            raise ConfigError(
                f"threshold is {self.threshold!r}; it must be a cosine similarity above 0 and "
                "at most 1, such as 0.92."
            )

    @property
    def k(self) -> int:
        return 1

    @property
    def floor(self) -> float:
        return self.threshold

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:  # noqa: ARG002 - not random
        nearest = candidates[0]
        if nearest.similarity >= self.threshold:
            return Hit(
                nearest.entry,
                nearest.similarity,
                f"similarity {nearest.similarity:.4f} >= threshold {self.threshold}",
            )
        return below(nearest.similarity, self.threshold)


@dataclass(frozen=True, slots=True)
class CalibratedPolicy:
    """Serve the candidate most likely to be right if it reaches the serving threshold.

    The chance that a candidate is right comes from `verification.features` and
    `verification.weights`, the threshold from `verification.calibration`. A policy is an immutable
    snapshot of what a cache has learned, for one namespace.

    Attributes:
        config: the bound, and the parameters used to enforce it.
        weights: the weights that turn evidence into a chance.
        threshold: the lowest bin that is served.
        prior: the weights of a new cache: no chance may exceed the one that they give. None if
            the namespace has enough labels of its own to correct the learned weights.
    """

    config: BoundConfig
    weights: Weights
    threshold: ServingThreshold
    prior: Weights | None = None

    @property
    def k(self) -> int:
        return NEIGHBOURS

    @property
    def floor(self) -> float:
        return FLOOR

    def with_chance(self, evidence: Evidence) -> Evidence:
        """The evidence with the chance that the candidate is right."""
        if not evidence.features:  # refused by a guard, or the same words
            return evidence
        logit = self.weights.logit(evidence.features)
        if self.prior is not None:
            logit = min(logit, self.prior.logit(evidence.features))
        return replace(evidence, chance=chance_of(logit))

    def serves(self, evidence: Evidence) -> bool:
        """Whether a candidate with this evidence is served.

        A question with the same words is served whatever the threshold, as long as the error
        rate of such questions is within the bound.
        """
        if evidence.by == "same words" and self.threshold.same_words <= self.config.bound:
            return True
        return (
            evidence.chance is not None
            and bin_of_chance(evidence.chance) >= self.threshold.first_bin
        )

    def may_serve(self, stored: str, asked: str, evidence: Evidence, logit: float) -> bool:
        """Whether a candidate would be served if the pair model gave it this log-odds."""
        return self.serves(self.with_chance(with_model_score(stored, asked, evidence, logit)))

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        evaluated = [c for c in candidates if c.evidence is not None]
        likely = [c for c in evaluated if c.evidence is not None and c.evidence.chance is not None]
        if not likely:
            return _refused(evaluated)
        best = max(likely, key=_chance)
        chance = _chance(best)
        assert best.evidence is not None
        reason = f"{_likely(chance)}; {self._threshold_in_words()}"
        if not self.serves(best.evidence):
            return Miss("doubtful", reason, best)
        if best.evidence.by == "same words":
            reason = f"the same words apart from case, spaces or a final mark; {_likely(chance)}"
        if draw < self.config.exploration_rate:
            share = f"{self.config.exploration_rate:.0%} of such calls go to the model anyway"
            return Explore(best, f"{reason}; {share}")
        return Hit(best.entry, best.similarity, reason, best)

    def _threshold_in_words(self) -> str:
        if self.threshold.first_bin >= BINS:
            return (
                f"nothing is served yet: no threshold satisfies the {self.config.bound:.1%} bound"
            )
        return (
            f"the serving threshold is {chance_of(self.threshold.logit):.1%} "
            f"(expected false hit rate {self.threshold.expected:.2%}, "
            f"upper estimate {self.threshold.upper:.2%}, bound {self.config.bound:.1%})"
        )


def bin_of_chance(chance: float) -> int:
    """The bin that a chance falls into; see `verification.calibration`."""
    return bin_index(log_odds(chance))


def _chance(candidate: Candidate) -> float:
    evidence = candidate.evidence
    return -1.0 if evidence is None or evidence.chance is None else evidence.chance


def _likely(chance: float) -> str:
    return f"{chance:.1%} likely to be right"


def _refused(candidates: Sequence[Candidate]) -> Miss:
    """The miss if no candidate could be scored, with the nearest refused candidate's finding."""
    for candidate in candidates:
        finding = None if candidate.evidence is None else refusal(candidate.evidence)
        if finding is not None:
            return Miss("refused", f"{finding.kind}: {finding.stored} / {finding.asked}")
    return Miss("doubtful", "no candidate was evaluated")
