"""Rules by which a candidate is served. Each is a value and a pure function of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semcache.errors import ConfigError
from semcache.types import Candidate, Decision, Hit, Miss


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


def below(similarity: float, floor: float) -> Miss:
    """The miss for a nearest neighbour that is not near enough."""
    return Miss("below_threshold", f"similarity {similarity:.4f} < threshold {floor}")
