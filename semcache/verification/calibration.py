"""How often what would be served is right, and from which chance on serving keeps the bound.

The promise: of the semantic hits that are served, at most `max_false_hit_rate` are wrong, in
expectation over the traffic as it comes, at the stated confidence; for the traffic as a whole
and for each namespace with enough of it.

The method. Every lookup with a candidate has a log-odds of being right (`verification.features`);
these are put into `EDGES`' bins. Where the model is asked (a miss, an exploration, an audit)
its fresh answer is compared with the candidate's: a label for the bin, paid for by a call.
Refused candidates are labelled by misses, served ones by a random share that is explored, so
that each bin's labels are a random sample of its own traffic (users' reports are not, and do
not come here). What the log-odds of a wrong answer are in each bin is a Gaussian process around
what the verifier's chances say (C. Rasmussen and C. Williams, "Gaussian Processes for Machine
Learning", 2006, ch. 3, Laplace's approximation): bins may be off together, since traffic is
easier or harder than the development data; neighbouring bins alike, so that the many labels
of refused candidates say something, but not too much, of the better ones that are served and
seldom labelled; and each by itself. A namespace's process is centred on what the whole has
learned.

A line is a bin from which on everything is served. Its expected share of wrong answers is
the bins' means weighted by the traffic in them; its standard deviation comes from the
covariance of the bins. The lowest line whose mean plus `caution` deviations is no more than
the bound is drawn, and never below a bin that is by itself much worse than the bound; where
there is none, nothing is served. It is drawn again after every label, so that the order of
time is the order in which it is known.

Assumptions, and where it can fail: labels are right (a judge that errs in 5% of them shows
an error of 5% where there is none, and so serves less; it hides one only where it calls
wrong answers right); traffic changes slowly against the labels, or fast enough for the alarm
(E. S. Page, "Continuous inspection schemes", Biometrika 1954), which forgets what was
learned; errors within a bin are alike. The bound is on the expectation: over few hits
chance alone can show more. An adversary who can tell served answers from fresh ones sees the
line, but not past it: whatever is asked near a popular question is labelled like the rest.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from semcache.verification.features import SAME_WORDS, chance_of, log_odds

if TYPE_CHECKING:
    import numpy as np  # loaded where something is fitted: an exact hit needs none
    from numpy.typing import NDArray

Counts: TypeAlias = tuple[float, ...]

EDGES = (
    -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.33, 2.67, 3.0, 3.33, 3.67, 4.0, 4.5,
    5.0, 5.5, 6.0, 7.0,
)  # fmt: skip
"""Log-odds between bins."""
_MIDDLES = (-4.0, *(0.5 * (a + b) for a, b in zip(EDGES, EDGES[1:], strict=False)), 7.5)
BINS = len(_MIDDLES)
NONE: Counts = (0.0,) * BINS
_LEAST_ERROR = 0.003
_NOTHING_SERVED = BINS
"""The first bin that is served, where none is."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the log-odds of wrong answers may lie from where they are expected.

    Attributes:
        common: deviation that all bins share. near: one that neighbouring bins share, the
            less the farther they are apart; `reach`: log-odds over which it falls to 1/e.
        own: a deviation of each bin's own.
    """

    common: float
    near: float
    reach: float
    own: float


@dataclass(frozen=True, slots=True)
class BoundConfig:
    """What the bound is held with.

    Attributes:
        bound: the largest share of served semantic hits that may be wrong.
        caution: standard deviations that are added to the expectation (1.5: about 93%).
        spread: of the whole around the verifier's chances; namespace_spread: of a namespace
            around the whole.
        memory: labels of a bin after which an old one has faded to 1/e.
        half_life: lookups after which traffic counts half.
        namespace_labels: labels from which on a namespace has a line of its own.
        explored: share of what would be served that is asked all the same.
        worst: no bin is served whose own share of wrong answers is expected to be more than
            so many times the bound, however little traffic it has: much good traffic must
            not pay for bad answers to somebody else.
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


@dataclass(frozen=True, slots=True)
class Bins:
    """What is known of one stream of traffic. Each has one number for each bin.

    Attributes:
        right, wrong: labels, faded. seen: lookups, faded.
        alarm: see `alarm_after`.
    """

    right: Counts = NONE
    wrong: Counts = NONE
    seen: Counts = NONE
    alarm: float = 0.0

    @property
    def labels(self) -> float:
        return sum(self.right) + sum(self.wrong)

    def with_lookup(self, index: int, config: BoundConfig) -> Bins:
        """One more lookup with a candidate in this bin."""
        kept = 0.5 ** (1 / config.half_life)
        seen = [count * kept for count in self.seen]
        seen[index] += 1
        return replace(self, seen=tuple(seen))

    def with_label(self, index: int, right: bool, config: BoundConfig) -> Bins:
        """One more label in this bin."""
        kept = 1 - 1 / config.memory
        rights, wrongs = list(self.right), list(self.wrong)
        rights[index] = rights[index] * kept + right
        wrongs[index] = wrongs[index] * kept + (not right)
        return replace(self, right=tuple(rights), wrong=tuple(wrongs))

    def discounted(self, kept: float) -> Bins:
        """With labels that count for so much less."""
        return replace(
            self,
            right=tuple(count * kept for count in self.right),
            wrong=tuple(count * kept for count in self.wrong),
            alarm=0.0,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What is believed of each bin.

    Attributes:
        errors: expected share of wrong answers.
        spread: covariance of its log-odds, float64[bins, bins].
    """

    errors: Counts
    spread: NDArray[np.float64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServingThreshold:
    """From which bin on candidates are served.

    Attributes:
        first_bin: the first bin that is served; `BINS` if none is.
        expected: share of wrong answers among what is served.
        upper: the same with caution.
        same_words: share of wrong answers that is expected where the words are the same.
    """

    first_bin: int = _NOTHING_SERVED
    expected: float = 0.0
    upper: float = 0.0
    same_words: float = 0.0

    @property
    def logit(self) -> float:
        """Log-odds from which on candidates are served."""
        if self.first_bin >= BINS:
            return math.inf
        return EDGES[self.first_bin - 1] if self.first_bin else -math.inf


def bin_index(logit: float) -> int:
    """The bin of a log-odds."""
    return bisect_right(EDGES, logit)


_SAME_WORDS = bin_index(log_odds(SAME_WORDS))
_PRIOR_INTERCEPT, _PRIOR_SLOPE = 0.75, 1.35
"""Log-odds of a wrong answer on the development streams: intercept - slope * log-odds of the
verifier (`benchmarks.verifier.prior_errors`)."""
PRIOR_ERRORS: Counts = tuple(
    max(_LEAST_ERROR, chance_of(_PRIOR_INTERCEPT - _PRIOR_SLOPE * middle)) for middle in _MIDDLES
)
"""Expected share of wrong answers in each bin before any label."""


def fit(bins: Bins, expected: Counts, spread: Spread) -> Fit:
    """Beliefs after the labels of `bins`, from what was expected."""
    import numpy as np

    centre = np.array([log_odds(error) for error in expected])
    before = _covariance(spread)
    wrong = np.array(bins.wrong)
    labels = wrong + np.array(bins.right)
    moved = np.zeros(BINS)
    for _ in range(_STEPS):
        chances = _sigmoid(centre + moved)
        weight = labels * chances * (1 - chances)
        target = weight * moved + wrong - labels * chances
        newer = before @ np.linalg.solve(np.eye(BINS) + weight[:, None] * before, target)
        moved = moved + np.clip(newer - moved, -_LONGEST_STEP, _LONGEST_STEP)
    chances = _sigmoid(centre + moved)
    weight = labels * chances * (1 - chances)
    after = np.linalg.solve(np.eye(BINS) + before * weight, before)
    # The mean of a share whose log-odds are unsure, to second order.
    bent = 0.5 * chances * (1 - chances) * (1 - 2 * chances) * np.diag(after)
    errors = np.clip(chances + bent, 1e-4, 1 - 1e-4)
    return Fit(tuple(errors.tolist()), after)


def serving_threshold(fitted: Fit, seen: Sequence[float], config: BoundConfig) -> ServingThreshold:
    """The lowest line that keeps the bound."""
    import numpy as np

    surest = fitted.errors[_SAME_WORDS]
    best = ServingThreshold(same_words=surest)
    traffic = wrong = 0.0
    slopes = np.zeros(BINS)
    for index in range(BINS - 1, -1, -1):
        weight, error = seen[index] + 0.02, fitted.errors[index]
        if error > config.worst * config.bound:
            break
        traffic += weight
        wrong += weight * error
        slopes[index] = weight * error * (1 - error)
        deviation = math.sqrt(max(0.0, float(slopes @ fitted.spread @ slopes))) / traffic
        expected = wrong / traffic
        upper = expected + config.caution * deviation
        if upper <= config.bound:
            best = ServingThreshold(index, expected, upper, surest)
    return best


def overall(bins: Bins, config: BoundConfig) -> tuple[Fit, ServingThreshold]:
    """Beliefs and line of the traffic as a whole."""
    found = fit(bins, PRIOR_ERRORS, config.spread)
    return found, serving_threshold(found, bins.seen, config)


def for_namespace(bins: Bins, of_all: Fit, config: BoundConfig) -> tuple[Fit, ServingThreshold]:
    """Beliefs and line of one namespace, on top of those of the whole."""
    found = fit(bins, of_all.errors, config.namespace_spread)
    return found, serving_threshold(found, bins.seen, config)


_STEPS = 5
"""Newton's steps to the most probable log-odds."""
_LONGEST_STEP = 1.5


@cache
def _covariance(spread: Spread) -> NDArray[np.float64]:
    """float64[bins, bins]"""
    import numpy as np

    middles = np.array(_MIDDLES)
    apart = np.abs(middles[:, None] - middles[None, :])
    found: NDArray[np.float64] = (
        spread.common**2
        + spread.near**2 * np.exp(-apart / spread.reach)
        + spread.own**2 * np.eye(BINS)
    )
    return found


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    found: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return found


# ------------------------------------------------------------------------------- the alarm

_ALARM = math.log(200.0)


def alarm_after(bins: Bins, right: bool, config: BoundConfig) -> tuple[Bins, bool]:
    """After a label of what is served at present: is the bound clearly broken?

    Page's test of `bound` against several times as much, begun anew whenever it is down to
    nothing; it takes about 200 times the labels of a real break to ring by chance.
    """
    many = min(0.5, 3 * config.bound + 0.05)
    step = math.log((1 - many) / (1 - config.bound)) if right else math.log(many / config.bound)
    level = max(0.0, bins.alarm + step)
    if level >= _ALARM:
        return replace(bins, alarm=0.0), True
    return replace(bins, alarm=level), False
