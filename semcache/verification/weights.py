"""How likely an answer is right, by evidence whose weight is learned in use.

The weights start as the shipped prior (`verification.prior`: fitted to labelled development data,
spread as wide as its sets differ) and are updated with every label by one step of an
assumed-density filter for logistic regression (M. Opper, "A Bayesian approach to on-line
learning", 1998). The chance takes in how unsure the weights are (D. MacKay, "The evidence
framework applied to classification networks", Neural Computation 4, 1992). Old labels fade,
since traffic changes.

What this can get wrong the bound does not inherit: `verification.calibration` measures how often a
chance of, say, 0.97 is right in this cache's own traffic, and believes that.
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
    """A belief about the weights: a normal distribution that labels narrow.

    Attributes:
        mean: float64[d]; spread: its covariance, float64[d, d].
        prior: where it began, and what it drifts back to being unsure about.
    """

    prior: Prior
    mean: NDArray[np.float64] = field(repr=False)
    spread: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, prior: Prior) -> Weights:
        return cls(prior, np.array(prior.weights), np.diag(np.square(prior.deviations)))

    def logit(self, values: Iterable[float]) -> float:
        """Log-odds that the answer is right, by the expected weights.

        How uncertain they are is left to `calibration`, which would otherwise count it twice.
        """
        return float(self._scaled(values) @ self.mean)

    def updated(self, values: Iterable[float], right: bool, weight: float = 1.0) -> Weights:
        """The belief after one label."""
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
