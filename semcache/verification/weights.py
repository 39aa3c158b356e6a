"""The chance that an answer is right: logistic regression whose weights are learned in use.

The weights start from the shipped prior (`verification.prior`), which is fitted to labelled
development data sets and as wide as the differences between them. Every label updates the weights
by one step of an assumed-density filter for logistic regression (M. Opper, "A Bayesian approach
to on-line learning", 1998). Old labels fade, since traffic changes.

The bound does not depend on these chances being right: `verification.calibration` measures how
often candidates with a chance of, say, 0.97 are right in the traffic of this cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from semcache.verification.features import Prior, chance_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A normal distribution over the weights, which each label narrows.

    Attributes:
        prior: the initial distribution, whose variance is partly added back with each label.
        mean: the expected weights, float64[d].
        spread: their covariance, float64[d, d].
    """

    prior: Prior
    mean: NDArray[np.float64] = field(repr=False)
    spread: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, prior: Prior) -> Weights:
        return cls(prior, np.array(prior.weights), np.diag(np.square(prior.deviations)))

    def logit(self, values: Iterable[float]) -> float:
        """Log-odds that the answer is right, with the expected weights.

        Their uncertainty is left out here, since `calibration` accounts for it.
        """
        return float(self._scaled(values) @ self.mean)

    def updated(self, values: Iterable[float], right: float, weight: float = 1.0) -> Weights:
        """The distribution after one label: `right` is 1 or 0, or in between if uncertain."""
        x = self._scaled(values)
        spread_x = self.spread @ x
        variance = float(x @ spread_x)
        expected = chance_of(float(x @ self.mean))
        information = weight * expected * (1 - expected)
        spread = self.spread - np.outer(spread_x, spread_x) * (
            information / (1 + information * variance)
        )
        mean = self.mean + spread @ x * (weight * (right - expected))
        fading = np.diag(np.square(self.prior.deviations)) * self.prior.fading
        return replace(self, mean=mean, spread=spread + fading)

    def _scaled(self, values: Iterable[float]) -> NDArray[np.float64]:
        return (np.fromiter(values, np.float64) - self.prior.centres) / self.prior.scales
