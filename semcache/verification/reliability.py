"""How far a judge can be trusted, and how often answers are wrong once its errors are allowed for.

Two answers are equal, word for word, or a judge calls them "same" or "different", or is not sure.
Each of these verdicts is given to a certain share of the answers that mean the same, and to a
certain share of those that do not. Once these shares are known, the share of wrong answers follows
from how often each verdict is given (W. Rogan and B. Gladen, "Estimating prevalence from the
results of a screening test", Am. J. Epidemiology 1978). "Not sure" is a verdict like the others: if
a judge is mostly unsure about answers that differ, that is information, and leaving it out would
make all answers look better than they are.

The shares are learned from the traffic itself, without human labels. Pairs with a very low or very
high chance show how the judge errs: where candidates are almost never right, nearly all answers
that it compares differ; where they are almost always right, nearly all mean the same. One step of
expectation maximisation (A. Dempster, N. Laird and D. Rubin, J. Royal Statistical Society 1977; for
judges, A. Dawid and A. Skene, Applied Statistics 1979) splits each verdict between answers that
mean the same and answers that do not, by the error rate of the bin in which it was given.

How much an equal answer proves is learned in the same way. Where a question always gets the same
answer, word for word, any other verdict suggests a different answer. Where unrelated questions get
equal answers ("Sorry, I cannot help with that"), an equal answer proves little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERDICTS = ("equal", "same", "different", "unsure")
Shares = tuple[float, float, float, float]
"""How often each of `VERDICTS` is given; they add up to 1."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a judge gives each verdict: as expected beforehand, or as learned from traffic.

    Attributes:
        on_same: shares of the verdicts on two answers that mean the same.
        on_different: shares of the verdicts on two answers that do not.
        strength: the number of observed verdicts on answers that differ that `on_different` weighs
            as much as.

    Raises:
        ValueError: shares are not positive, or do not add up to 1.
    """

    on_same: Shares
    on_different: Shares
    strength: float = 40.0

    def __post_init__(self) -> None:
        for shares in (self.on_same, self.on_different):
            if min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
                raise ValueError(
                    f"the shares of verdicts must be positive and add up to 1: {shares}"
                )

    def chance_of_same(self, verdict: str, before: float) -> float:
        """The chance that the answers mean the same, given a verdict and the chance before it."""
        place = VERDICTS.index(verdict)
        same = before * self.on_same[place]
        return same / (same + (1 - before) * self.on_different[place])

    def learned(
        self,
        verdicts: Sequence[Sequence[float]],
        errors: Sequence[float],
        before: Reliability,
    ) -> Reliability:
        """These shares, corrected by verdicts: one step of expectation maximisation.

        Args:
            verdicts: for each verdict, how often it was given in each bin, float[4][bins].
            errors: the share of wrong answers in each bin.
            before: the result of the previous step.
        """
        same, different = [0.0] * len(VERDICTS), [0.0] * len(VERDICTS)
        for verdict, counts in enumerate(verdicts):
            for count, error in zip(counts, errors, strict=True):
                if count:
                    wrong = min(error, _SUREST)
                    likely = (1 - wrong) * before.on_same[verdict]
                    unlikely = wrong * before.on_different[verdict]
                    same[verdict] += count * likely / (likely + unlikely)
                    different[verdict] += count * unlikely / (likely + unlikely)
        on_same, on_different = self._equal_share(same), self._on_different(different)
        return Reliability(on_same, _no_less_unsure(on_different, on_same[-1]), self.strength)

    def _equal_share(self, counts: Sequence[float]) -> Shares:
        """Shares of the verdicts on answers that mean the same; only that of "equal" is learned.

        Whether a model repeats itself word for word depends on the application, and is learned
        quickly. The proportions of the other verdicts stay as expected: if they could change, real
        errors could be explained away as the judge calling the same answers different.
        """
        equal = (_REPEATS * self.on_same[0] + counts[0]) / (_REPEATS + sum(counts))
        equal = min(equal, 1 - 3 * _LEAST_SHARE)
        scale = (1 - equal) / (1 - self.on_same[0])
        _, same, different, unsure = self.on_same
        return equal, same * scale, different * scale, unsure * scale

    def _on_different(self, counts: Sequence[float]) -> Shares:
        """Shares of the verdicts on answers that differ, corrected by these counts.

        "Equal" and "same" never become less frequent than expected beforehand: the judge may turn
        out to miss more wrong answers than expected, but not fewer.
        """
        total = self.strength + sum(counts)
        equal, same, *_ = (
            max(share, (self.strength * share + count) / total)
            for share, count in zip(self.on_different, counts, strict=True)
        )
        different, unsure = (
            self.strength * share + count
            for share, count in zip(self.on_different[2:], counts[2:], strict=True)
        )
        rest = (1 - equal - same) / (different + unsure)
        return equal, same, different * rest, unsure * rest


_SUREST = 0.9
"""The highest error rate assumed here: even unlikely pairs sometimes share an answer."""
_REPEATS = 4.0
"""Number of observed verdicts that the expected share of equal answers weighs as much as."""
_LEAST_SHARE = 1e-4


def _no_less_unsure(on_different: Shares, unsure: float) -> Shares:
    """Raise the share of "not sure" to `unsure`, so that it never counts in favour of an answer."""
    equal, same, different, before = on_different
    if before >= unsure:
        return on_different
    scale = (1 - unsure) / (1 - before)
    return equal * scale, same * scale, different * scale, unsure


CERTAIN = Reliability((0.499, 0.499, 0.001, 0.001), (0.0005, 0.0005, 0.998, 0.001), 1e6)
"""A person, or a judge that is always right."""
JUDGED_BY_FUNCTION = Reliability((0.2, 0.78, 0.01, 0.01), (0.002, 0.008, 0.98, 0.01), 100.0)
"""For a judge without a `reliability` attribute."""
JUDGED_BY_MODEL = Reliability((0.15, 0.8, 0.04, 0.01), (0.002, 0.038, 0.95, 0.01), 40.0)
"""What is expected of a language model."""


def likelihood(
    errors: NDArray[np.float64], verdicts: NDArray[np.float64], reliability: Reliability
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient and expected information of the verdicts, in the log-odds of a wrong answer.

    Args:
        errors: share of wrong answers in each bin, float64[bins].
        verdicts: how often each verdict was given in each bin, float64[4, bins].
    """
    import numpy as np

    same = np.array(reliability.on_same)[:, None]
    different = np.array(reliability.on_different)[:, None]
    shares = (1 - errors) * same + errors * different
    slopes = (different - same) * errors * (1 - errors)
    gradient: NDArray[np.float64] = (verdicts * slopes / shares).sum(axis=0)
    information: NDArray[np.float64] = verdicts.sum(axis=0) * (slopes**2 / shares).sum(axis=0)
    return gradient, information
