"""Estimates how often candidates are right, and from that the serving threshold.

The guarantee: at most `max_false_hit_rate` of the semantic hits served are wrong, in expectation
over the traffic as it comes, at the stated confidence. It holds for the traffic as a whole and
for each namespace with enough traffic.

Labels. For every lookup with a candidate that no guard refused, `verification.weights` gives the
log-odds that the candidate is right, which fall into one of the bins between `EDGES`. Whenever the
model is called (for a miss, an exploration or an audit), a judge compares its fresh answer with the
candidate's, and its verdict is a label for the bin. Misses label the bins below the threshold;
explorations, a random share of the lookups that would be hits, label those above. The labels of
each bin are therefore a random sample of the traffic in it. (Reports from users are not a random
sample, and are not used here.)

Judge. Verdicts may be wrong or "not sure". How often they are, for answers that mean the same and
for answers that do not, is estimated from the verdicts in all bins (`verification.reliability`);
the error rates are those that explain the verdicts best. Labels from people count as certain.

Error rates. The log-odds of a wrong answer in each bin are modelled as a Gaussian process around
the error rates that the estimated chances imply, fitted with Laplace's approximation
(C. Rasmussen and C. Williams, "Gaussian Processes for Machine Learning", 2006, ch. 3). It has
three parts: a deviation that all bins share, since traffic may be easier or harder than the
development data; one that neighbouring bins share, so that the many labels below the threshold
inform, with limited weight, the rarely labelled bins above it; and one for each bin alone. The
process of a namespace is centred on the estimates for the whole traffic.

Serving threshold. Every bin at or above the threshold is served. The expected share of wrong
answers is the mean of the bins' error rates, weighted by their traffic; its standard deviation
follows from the covariance of the bins. The threshold is the lowest for which the mean plus
`caution` standard deviations stays within the bound, and no bin that is served is by itself much
worse than the bound. If there is no such threshold, nothing is served. It is recomputed after every
label, using only the labels known at that time.

Assumptions and limits:

- The judge errs equally often in all bins. If it accepts near-misses as the same answer more often
  than other wrong answers, errors stay hidden.
- Traffic either changes slowly compared with the rate of labels, or abruptly enough to raise the
  alarm (E. S. Page, "Continuous inspection schemes", Biometrika 1954), which discounts old labels.
- All candidates in a bin have about the same error rate.
- The bound is on the expectation: over a few hits, more can be wrong by chance.
- An adversary who can tell served answers from fresh ones can find the threshold, but cannot get
  around it: questions near a popular one are labelled like all others.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from semcache.verification.features import SAME_WORDS, chance_of, log_odds
from semcache.verification.reliability import CERTAIN, VERDICTS, Reliability, likelihood

if TYPE_CHECKING:
    import numpy as np  # imported when something is fitted: exact hits do not need it
    from numpy.typing import NDArray

Counts: TypeAlias = tuple[float, ...]

EDGES = (
    -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.33, 2.67, 3.0, 3.33, 3.67, 4.0, 4.5,
    5.0, 5.5, 6.0, 7.0,
)  # fmt: skip
"""The log-odds that separate the bins."""
_MIDDLES = (-4.0, *(0.5 * (a + b) for a, b in zip(EDGES, EDGES[1:], strict=False)), 7.5)
BINS = len(_MIDDLES)
NONE: Counts = (0.0,) * BINS
_LEAST_ERROR = 0.003
_NOTHING_SERVED = BINS
"""`first_bin` of a threshold that serves nothing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of the log-odds of wrong answers around their expected values.

    Attributes:
        common: the part that all bins share.
        near: the part that neighbouring bins share; its covariance decays with their distance.
        reach: the distance, in log-odds, over which that covariance decays to 1/e.
        own: the part of each bin alone.
    """

    common: float
    near: float
    reach: float
    own: float


@dataclass(frozen=True, slots=True)
class BoundConfig:
    """The bound, and the parameters used to enforce it.

    Attributes:
        bound: the largest share of served semantic hits that may be wrong.
        caution: standard deviations added to the expected share (1.5: confidence of about 93%).
        spread: how far the whole traffic may deviate from `PRIOR_ERRORS`.
        namespace_spread: how far a namespace may deviate from the whole traffic.
        memory: number of labels in a bin after which an old label's weight has decayed to 1/e.
        half_life: number of lookups after which a lookup counts half.
        namespace_labels: number of labels that a namespace needs to get its own threshold.
        exploration_rate: share of the servable candidates for which the model is called anyway.
        worst: a bin is not served if its own expected share of wrong answers exceeds this many
            times the bound, however little traffic it has. Otherwise many good answers to some
            users would make up for bad answers to others.
        judge: the reliability that the judge is expected to have before it has given verdicts.
    """

    bound: float
    caution: float = 1.5
    spread: Spread = Spread(common=0.8, near=0.5, reach=2.0, own=0.3)
    namespace_spread: Spread = Spread(common=0.4, near=0.3, reach=2.0, own=0.2)
    memory: float = 300.0
    half_life: float = 2000.0
    namespace_labels: float = 40.0
    exploration_rate: float = 0.04
    worst: float = 3.0
    judge: Reliability = CERTAIN


@dataclass(frozen=True, slots=True)
class Bins:
    """Labels and lookups of one stream of traffic, counted by bin.

    Old labels and lookups count less.

    Attributes:
        equal: answers in each bin that were equal, word for word.
        same, different, unsure: the judge's verdicts in each bin, on answers that were not equal.
        right, wrong: labels from people in each bin.
        seen: lookups in each bin.
        alarm: level of the test in `alarm_after`.
    """

    equal: Counts = NONE
    same: Counts = NONE
    different: Counts = NONE
    unsure: Counts = NONE
    right: Counts = NONE
    wrong: Counts = NONE
    seen: Counts = NONE
    alarm: float = 0.0

    @property
    def labels(self) -> float:
        """The number of labels that say something: "not sure" does not count."""
        return sum(map(sum, (self.equal, self.same, self.different, self.right, self.wrong)))

    @property
    def verdicts(self) -> tuple[Counts, Counts, Counts, Counts]:
        """The counts of each verdict, in the order of `reliability.VERDICTS`."""
        return self.equal, self.same, self.different, self.unsure

    def with_lookup(self, index: int, config: BoundConfig) -> Bins:
        """These counts with one more lookup, whose candidate is in this bin."""
        decay = 0.5 ** (1 / config.half_life)
        seen = [count * decay for count in self.seen]
        seen[index] += 1
        return replace(self, seen=tuple(seen))

    def with_label(self, index: int, label: str, config: BoundConfig) -> Bins:
        """These counts with one more label in this bin.

        Args:
            label: one of `reliability.VERDICTS`, or "right" or "wrong" if a person says so.
        """
        decay = 1 - 1 / config.memory
        counts = {name: list(getattr(self, name)) for name in _LABELS}
        for bins in counts.values():
            bins[index] *= decay
        counts[label][index] += 1
        changed: dict[str, Any] = {name: tuple(bins) for name, bins in counts.items()}
        return replace(self, **changed)

    def discounted(self, factor: float) -> Bins:
        """These counts with every label multiplied by `factor`, and the alarm reset."""
        fewer = {name: tuple(count * factor for count in getattr(self, name)) for name in _LABELS}
        return replace(self, **fewer, alarm=0.0)


_LABELS = (*VERDICTS, "right", "wrong")


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The estimated error rate of each bin (a posterior).

    Attributes:
        errors: expected share of wrong answers in each bin.
        spread: covariance of the log-odds of wrong answers, float64[bins, bins].
        judge: how far the judge's verdicts can be trusted.
    """

    errors: Counts
    spread: NDArray[np.float64] = field(repr=False)
    judge: Reliability = CERTAIN

    @property
    def cautious(self) -> Counts:
        """The error rates used for decisions, kept away from 0 and 1 (see `_NEARLY`)."""
        return tuple(min(max(error, _NEARLY), 1 - _NEARLY) for error in self.errors)


@dataclass(frozen=True, slots=True)
class ServingThreshold:
    """The lowest bin whose candidates are served.

    Attributes:
        first_bin: the first bin that is served; `BINS` if nothing is served.
        expected: expected share of wrong answers among the served ones.
        upper: `expected` plus `caution` standard deviations.
        same_words: expected share of wrong answers to questions with the same words.
    """

    first_bin: int = _NOTHING_SERVED
    expected: float = 0.0
    upper: float = 0.0
    same_words: float = 0.0

    @property
    def logit(self) -> float:
        """Minimum log-odds of a candidate that is served; infinite if none are."""
        if self.first_bin >= BINS:
            return math.inf
        return EDGES[self.first_bin - 1] if self.first_bin else -math.inf


def bin_index(logit: float) -> int:
    """The bin that a log-odds value falls into."""
    return bisect_right(EDGES, logit)


_SAME_WORDS = bin_index(log_odds(SAME_WORDS))
_PRIOR_INTERCEPT, _PRIOR_SLOPE = 0.75, 1.35
"""The log-odds of a wrong answer are intercept - slope * log-odds by the weights, fitted to the
development streams (`benchmarks.verifier.prior_errors`)."""
PRIOR_ERRORS: Counts = tuple(
    max(_LEAST_ERROR, chance_of(_PRIOR_INTERCEPT - _PRIOR_SLOPE * middle)) for middle in _MIDDLES
)
"""Expected share of wrong answers in each bin before there are labels."""


def fit(bins: Bins, expected: Counts, spread: Spread, judge: Reliability = CERTAIN) -> Fit:
    """The posterior error rates, given the expected ones, the labels in `bins` and the judge."""
    import numpy as np

    centre = np.array([log_odds(error) for error in expected])
    prior = _covariance(spread)
    verdicts = np.array(bins.verdicts)
    reports = np.array((NONE, bins.right, bins.wrong, NONE))
    shift = np.zeros(BINS)
    for _ in range(_STEPS):
        chances = _sigmoid(centre + shift)
        gradient, weight = likelihood(chances, verdicts, judge)
        if reports.any():
            more, more_weight = likelihood(chances, reports, CERTAIN)
            gradient, weight = gradient + more, weight + more_weight
        newer = prior @ np.linalg.solve(
            np.eye(BINS) + weight[:, None] * prior, weight * shift + gradient
        )
        step = np.clip(newer - shift, -_LONGEST_STEP, _LONGEST_STEP)
        shift = shift + step
        if np.abs(step).max() < _CONVERGED:
            break
    chances = _sigmoid(centre + shift)
    posterior = np.linalg.solve(np.eye(BINS) + prior * weight, prior).astype(np.float64)
    # The mean of the sigmoid of a normal variable, to second order.
    correction = 0.5 * chances * (1 - chances) * (1 - 2 * chances) * np.diag(posterior)
    errors = np.clip(chances + correction, _TINY, 1 - _TINY)
    return Fit(tuple(errors.tolist()), posterior, judge)


def serving_threshold(fitted: Fit, seen: Sequence[float], config: BoundConfig) -> ServingThreshold:
    """The lowest threshold that satisfies the bound."""
    import numpy as np

    errors = fitted.cautious
    same_words = errors[_SAME_WORDS]
    best = ServingThreshold(same_words=same_words)
    before = _FIRST_LOOKUPS / (1 + sum(seen) / _FORGOTTEN_AFTER)
    traffic = wrong = 0.0
    slopes = np.zeros(BINS)
    for index in range(BINS - 1, -1, -1):
        weight, error = seen[index] + before, errors[index]
        if error > config.worst * config.bound:
            break
        traffic += weight
        wrong += weight * error
        slopes[index] = weight * error * (1 - error)
        deviation = math.sqrt(max(0.0, float(slopes @ fitted.spread @ slopes))) / traffic
        expected = wrong / traffic
        upper = expected + config.caution * deviation
        if upper <= config.bound:
            best = ServingThreshold(index, expected, upper, same_words)
    return best


def overall(
    bins: Bins, config: BoundConfig, judge: Reliability | None = None
) -> tuple[Fit, ServingThreshold]:
    """The fit and the serving threshold of the traffic as a whole.

    Args:
        judge: the judge's reliability from an earlier fit, to continue from; None starts over.
    """
    fitted = fit(bins, PRIOR_ERRORS, config.spread, judge or config.judge)
    if config.judge.strength < CERTAIN.strength and any(map(any, bins.verdicts)):
        for _ in range(_ROUNDS if judge is None else 1):
            learned = config.judge.learned(bins.verdicts, fitted.errors, fitted.judge)
            fitted = fit(bins, PRIOR_ERRORS, config.spread, learned)
    return fitted, serving_threshold(fitted, bins.seen, config)


def for_namespace(bins: Bins, of_all: Fit, config: BoundConfig) -> tuple[Fit, ServingThreshold]:
    """The fit and the serving threshold of one namespace, starting from the overall fit."""
    fitted = fit(bins, of_all.cautious, config.namespace_spread, of_all.judge)
    return fitted, serving_threshold(fitted, bins.seen, config)


_ROUNDS = 20
"""Rounds of the first fit, each estimating the judge's reliability and then the error rates."""
_STEPS = 40
"""Maximum number of Newton steps towards the mode of the posterior; a few usually suffice."""
_LONGEST_STEP = 1.5
"""Limit of one Newton step, in log-odds."""
_CONVERGED = 1e-6
"""Newton's method ends when no step, in log-odds, is longer than this."""
_FIRST_LOOKUPS, _FORGOTTEN_AFTER = 2.0, 50
"""Pseudo-count of lookups that each bin starts with, and the number of real lookups after which it
counts half. A handful of lookups, perhaps of one question, says little about the traffic and must
not move the threshold; later, the traffic speaks for itself."""
_NEARLY = 1e-4
"""Error rates used for decisions are clipped to at least this and at most 1 minus this."""
_TINY = 1e-12
"""Keeps an error rate between 0 and 1 where a float would round it to either."""


@cache
def _covariance(spread: Spread) -> NDArray[np.float64]:
    """The prior covariance of the bins, float64[bins, bins]."""
    import numpy as np

    middles = np.array(_MIDDLES)
    distance = np.abs(middles[:, None] - middles[None, :])
    covariance: NDArray[np.float64] = (
        spread.common**2
        + spread.near**2 * np.exp(-distance / spread.reach)
        + spread.own**2 * np.eye(BINS)
    )
    return covariance


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    chances: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return chances


# ------------------------------------------------------------------------------- the alarm

_ALARM = math.log(200.0)
"""Level of the test, a log-likelihood ratio, at which the bound counts as broken."""


def alarm_after(bins: Bins, right: bool, config: BoundConfig) -> tuple[Bins, bool]:
    """Test for a broken bound after a label in a bin that is served now.

    Page's test (CUSUM) of an error rate of `bound` against one several times as high; its level
    never falls below zero. If the error rate is exactly `bound`, a (false) alarm takes more than
    100 times as many labels as a true one.

    Returns the counts with the new alarm level, and whether the bound is clearly broken.
    """
    high = min(0.5, 3 * config.bound + 0.05)
    step = math.log((1 - high) / (1 - config.bound)) if right else math.log(high / config.bound)
    level = max(0.0, bins.alarm + step)
    if level >= _ALARM:
        return replace(bins, alarm=0.0), True
    return replace(bins, alarm=level), False
