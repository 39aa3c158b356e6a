"""Rules by which a candidate is served. Each is a value and a pure function of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from semcache.errors import ConfigError
from semcache.types import Candidate, Decision, Evidence, Explore, Hit, Miss
from semcache.verification.calibration import BINS, BoundConfig, ServingThreshold, bin_index
from semcache.verification.decision import below
from semcache.verification.features import chance_of, log_odds, refusal

if TYPE_CHECKING:
    from semcache.verification.weights import Weights


NEIGHBOURS = 5
"""Candidates that the verified policy wants to see: their company is evidence, too."""
LOOKED_AT = 3
"""Candidates of a lookup that the pair model is asked about, at most."""
FLOOR = 0.55
"""Neighbours less similar than this are none."""


@dataclass(frozen=True, slots=True)
class FixedThreshold:
    """Serve the nearest candidate if its cosine similarity reaches the threshold.

    What every cache of the field does. It cannot tell "flights to Boston" from "flights
    from Boston", which lie nearer to each other than most honest paraphrases do.

    Raises:
        ConfigError: the threshold is not in (0, 1].
    """

    threshold: float

    def __post_init__(self) -> None:
        if isinstance(self.threshold, bool) or not 0.0 < self.threshold <= 1.0:
            raise ConfigError(
                f"threshold is {self.threshold!r}; it is a cosine similarity above 0 and up to 1, "
                "such as 0.92."
            )

    @property
    def k(self) -> int:
        return 1

    @property
    def floor(self) -> float:
        return self.threshold

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:  # noqa: ARG002 - leaves nothing to chance
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
    """Serve the likeliest candidate if serving such as it keeps the bound.

    How likely a candidate is right is for `verification.features` to say, and from which likelihood
    on the bound is kept for `verification.calibration`. A value: one moment of what a cache has
    learned, for one namespace.

    Attributes:
        rules: the bound, and what it is held with.
        weights: from evidence to likelihood.
        line: from where on candidates are served.
    """

    config: BoundConfig
    weights: Weights
    threshold: ServingThreshold

    @property
    def k(self) -> int:
        return NEIGHBOURS

    @property
    def floor(self) -> float:
        return FLOOR

    def with_chance(self, evidence: Evidence) -> Evidence:
        """The evidence with the chance that it stands for."""
        if not evidence.features:  # a guard refused, or the words are the same
            return evidence
        return replace(evidence, chance=chance_of(self.weights.logit(evidence.features)))

    def serves(self, evidence: Evidence) -> bool:
        """Whether evidence of this kind is good enough.

        The same words are, wherever the line is, as long as they prove right.
        """
        if evidence.by == "same words" and self.threshold.same_words <= self.config.bound:
            return True
        return (
            evidence.chance is not None
            and bin_of_chance(evidence.chance) >= self.threshold.first_bin
        )

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        seen = [c for c in candidates if c.evidence is not None]
        likely = [c for c in seen if c.evidence is not None and c.evidence.chance is not None]
        if not likely:
            return _refused(seen)
        best = max(likely, key=_chance)
        chance = _chance(best)
        assert best.evidence is not None
        reason = f"{_likely(chance)}, {self._threshold_in_words()}"
        if not self.serves(best.evidence):
            return Miss("doubtful", reason, best)
        if best.evidence.by == "same words":
            reason = f"the same words but for case and punctuation, {_likely(chance)}"
        if draw < self.config.exploration_rate:
            share = (
                f"{self.config.exploration_rate:.0%} of what is good enough is asked all the same"
            )
            return Explore(best, f"{reason}; {share}")
        return Hit(best.entry, best.similarity, reason, best)

    def _threshold_in_words(self) -> str:
        if self.threshold.first_bin >= BINS:
            return f"and nothing is served yet: no line is known to keep {self.config.bound:.1%}"
        return (
            f"the line is {chance_of(self.threshold.logit):.1%} (expected wrong above it: "
            f"{self.threshold.expected:.2%}, with caution {self.threshold.upper:.2%}, bound "
            f"{self.config.bound:.1%})"
        )


def bin_of_chance(chance: float) -> int:
    """The bin of a chance; see `verification.calibration`."""
    return bin_index(log_odds(chance))


def _chance(candidate: Candidate) -> float:
    found = candidate.evidence
    return found.chance if found is not None and found.chance is not None else -1.0


def _likely(chance: float) -> str:
    return f"right with a chance of {chance:.1%}"


def _refused(seen: Sequence[Candidate]) -> Miss:
    """The nearest candidate's reason stands for all."""
    for candidate in seen:
        finding = None if candidate.evidence is None else refusal(candidate.evidence)
        if finding is not None:
            return Miss("refused", f"{finding.kind}: {finding.stored} / {finding.asked}")
    return Miss("doubtful", "no candidate was looked at")
