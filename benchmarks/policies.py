"""Policies to replay: semcache's own, and vCache's rule written anew from the paper.

A policy may learn: `learned` is told of every label, with the entry that it is about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from semcache.types import Candidate, Decision, Explore, Hit
from semcache.verification.policies import FixedThreshold


class Learner(Protocol):
    """A policy that may learn."""

    @property
    def k(self) -> int: ...

    @property
    def floor(self) -> float: ...

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision: ...

    def learned(self, entry_id: int, similarity: float, right: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Bound:
    """semcache's own policy: at most so many of the semantic hits are wrong.

    Not a policy itself: the cache makes one, learns, and explores as in use.
    """

    max_false_hit_rate: float


@dataclass(frozen=True, slots=True)
class Fixed(FixedThreshold):
    """A fixed threshold, which learns nothing."""

    def learned(self, entry_id: int, similarity: float, right: bool) -> None:
        """Nothing to learn."""


_GIVEN = ((0.0, False), (1.0, True))
"""Labels that every entry begins with, as in the authors' program."""
_LEAST = 6
"""Labels of an entry, those included, before it may serve anything."""
_EPSILONS = np.linspace(1e-6, 1 - 1e-6, 50)


@dataclass(slots=True)
class VCache:
    """vCache's rule (L. G. Schroeder et al., arXiv 2502.03771, ICLR 2026).

    Each entry learns its own threshold t: P(right | s) = 1 / (1 + exp(-g (s - t))), fitted to
    the labels (s, right or wrong) it has collected by asking the model although it was the
    nearest. With t' the upper (1 - e) quantile of t's estimate, a = (1 - e) P(right | s, t')
    bounds the chance of being right from below, and exploring with probability
    1 - delta / (1 - a), at the e for which that is least, keeps P(error) of all requests
    under delta. Where the labels are perfectly separated the fit gives no variance of t; the
    authors' program then takes one by the number of labels, which is about 0.2 / n and no
    less than 0.01, and so do we.

    Attributes:
        delta: the bound on wrong answers among all requests.
    """

    delta: float
    k: int = 1
    floor: float = -1.0
    _labels: dict[int, list[tuple[float, bool]]] = field(default_factory=lambda: defaultdict(list))
    _fits: dict[int, tuple[float, float, float] | None] = field(default_factory=dict)

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        nearest = candidates[0]
        chance = self.exploring(nearest.entry.id, nearest.similarity)
        if draw <= chance:
            return Explore(nearest, f"explored with probability {chance:.3f}")
        return Hit(nearest.entry, nearest.similarity, f"explored with probability {chance:.3f}")

    def learned(self, entry_id: int, similarity: float, right: bool) -> None:
        self._labels[entry_id].append((similarity, right))
        self._fits.pop(entry_id, None)

    def exploring(self, entry_id: int, similarity: float) -> float:
        """The probability with which the model is asked."""
        fit = self._fit(entry_id)
        if fit is None:
            return 1.0
        from scipy.special import expit
        from scipy.stats import norm

        threshold, slope, deviation = fit
        upper = np.clip(threshold + norm.ppf(1 - _EPSILONS) * deviation, 0.0, 1.0)
        least = (1 - _EPSILONS) * expit(slope * (similarity - upper))
        return float(np.clip(np.min(1 - self.delta / (1 - least)), 0.0, 1.0))

    def _fit(self, entry_id: int) -> tuple[float, float, float] | None:
        """(threshold, slope, the threshold's deviation); None: not enough is known."""
        if entry_id not in self._fits:
            self._fits[entry_id] = _fitted(self._labels[entry_id])
        return self._fits[entry_id]


def _fitted(bought: Sequence[tuple[float, bool]]) -> tuple[float, float, float] | None:
    labels = [*_GIVEN, *bought]
    if len(labels) < _LEAST:
        return None
    rights = [s for s, right in labels if right]
    wrongs = [s for s, right in labels if not right]
    from sklearn.linear_model import LogisticRegression

    similarity = np.array([s for s, _ in labels])
    right = np.array([r for _, r in labels])
    model: Any = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(similarity[:, None], right)
    slope = max(float(model.coef_[0, 0]), 1e-6)
    intercept = float(model.intercept_[0])
    threshold = float(np.clip(-intercept / slope, 0.0, 1.0))
    if min(rights) > max(wrongs):
        return threshold, slope, float(np.sqrt(max(0.2 / len(labels), 0.01)))
    design = np.column_stack([np.ones_like(similarity), similarity])
    chance = model.predict_proba(similarity[:, None])[:, 1]
    information = design.T @ ((chance * (1 - chance))[:, None] * design)
    gradient = np.array([-1 / slope, intercept / slope**2])
    variance = float(gradient @ np.linalg.pinv(information) @ gradient)
    return threshold, slope, float(np.sqrt(max(variance, 0.0)))
