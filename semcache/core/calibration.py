"""How often what would be served is right, and from which chance on serving keeps the bound.

The promise: of the semantic hits that are served, at most `max_false_hit_rate` are wrong, in
expectation over the traffic as it comes, at the stated confidence; for the traffic as a whole
and for each namespace with enough of it.

The method. Every lookup with a candidate has a log-odds of being right (`core.verifier`);
these are put into `EDGES`' bins. Where the model is asked (a miss, an exploration, an audit)
its fresh answer is compared with the candidate's: a label for the bin, paid for by a call.
Refused candidates are labelled by misses, served ones by a random share that is explored, so
that each bin's labels are a random sample of its own traffic (users' reports are not, and do
not come here). Of each bin's share of wrong answers we hold a Beta belief around a prior that
all bins together have moved: first a shift of the log-odds common to all bins (normal, so
that a few labels say much about traffic that is easier or harder than the development data),
then `strength` labels' worth of that (the empirical Bayes hierarchy of A. Gelman et al.,
"Bayesian Data Analysis", 3rd ed., ch. 5). A namespace's prior is what the whole has learned.

A line is a bin from which on everything is served. Its expected share of wrong answers is
the bins' means weighted by the traffic in them; its standard deviation comes from the Beta
beliefs and the shift. The lowest line whose mean plus `caution` deviations is no more than
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
from dataclasses import dataclass, replace
from typing import TypeAlias

from semcache.core.verifier import SAME_WORDS, chance_of

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
_LINE_BEFORE_ANY = BINS
"""No line: nothing is served."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the bound is held with.

    Attributes:
        bound: the largest share of served semantic hits that may be wrong.
        caution: standard deviations that are added to the expectation (1.5: about 93%).
        strength: labels that a bin's prior is worth; group_strength: a namespace's.
        shift: deviation of the shift of all log-odds; group_shift: a namespace's against
            the whole.
        memory: labels of a bin after which an old one has faded to 1/e.
        half_life: lookups after which traffic counts half.
        group_labels: labels from which on a namespace has a line of its own.
        explored: share of what would be served that is asked all the same.
        worst: no bin is served whose own share of wrong answers is expected to be more than
            so many times the bound, however little traffic it has: much good traffic must
            not pay for bad answers to somebody else.
    """

    bound: float
    caution: float = 1.5
    strength: float = 15.0
    group_strength: float = 60.0
    shift: float = 0.8
    group_shift: float = 0.5
    memory: float = 300.0
    half_life: float = 2000.0
    group_labels: float = 40.0
    explored: float = 0.04
    worst: float = 3.0


@dataclass(frozen=True, slots=True)
class Bins:
    """What is known of one stream of traffic. Each has one number for each bin.

    Attributes:
        right, wrong: labels, faded. seen: lookups, faded.
        alarm: see `alarmed`.
    """

    right: Counts = NONE
    wrong: Counts = NONE
    seen: Counts = NONE
    alarm: float = 0.0

    @property
    def labels(self) -> float:
        return sum(self.right) + sum(self.wrong)

    def saw(self, place: int, rules: Rules) -> Bins:
        """One more lookup with a candidate in this bin."""
        kept = 0.5 ** (1 / rules.half_life)
        seen = [count * kept for count in self.seen]
        seen[place] += 1
        return replace(self, seen=tuple(seen))

    def labelled(self, place: int, right: bool, rules: Rules) -> Bins:
        """One more label in this bin."""
        kept = 1 - 1 / rules.memory
        rights, wrongs = list(self.right), list(self.wrong)
        rights[place] = rights[place] * kept + right
        wrongs[place] = wrongs[place] * kept + (not right)
        return replace(self, right=tuple(rights), wrong=tuple(wrongs))

    def forgotten(self, kept: float) -> Bins:
        """With labels that count for so much less."""
        return replace(
            self,
            right=tuple(count * kept for count in self.right),
            wrong=tuple(count * kept for count in self.wrong),
            alarm=0.0,
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """What is believed of each bin.

    Attributes:
        errors: expected share of wrong answers. trust: labels that this rests on.
        shift_variance: of the shift.
    """

    errors: Counts
    trust: Counts
    shift_variance: float


@dataclass(frozen=True, slots=True)
class Line:
    """From which bin on candidates are served.

    Attributes:
        place: the first bin served; `BINS`: none.
        expected: share of wrong answers among what is served.
        upper: the same with caution.
        same_words: share of wrong answers that is expected where the words are the same.
    """

    place: int = _LINE_BEFORE_ANY
    expected: float = 0.0
    upper: float = 0.0
    same_words: float = 0.0

    @property
    def logit(self) -> float:
        """Log-odds from which on candidates are served."""
        if self.place >= BINS:
            return math.inf
        return EDGES[self.place - 1] if self.place else -math.inf


def place_of(logit: float) -> int:
    """The bin of a log-odds."""
    return bisect_right(EDGES, logit)


_SAME_WORDS = place_of(math.log(SAME_WORDS / (1 - SAME_WORDS)))
PRIOR = Fit(tuple(max(_LEAST_ERROR, chance_of(-middle)) for middle in _MIDDLES), (0.0,) * BINS, 0.0)
"""What the verifier's chances mean if they mean what they say."""


def fit(bins: Bins, prior: Fit, *, strength: float, shift: float) -> Fit:
    """Beliefs after the labels of `bins`, from `prior`'s expectations."""
    counts = [r + w for r, w in zip(bins.right, bins.wrong, strict=True)]
    odds = [_logit(error) for error in prior.errors]
    moved, information = 0.0, 1 / shift**2
    for _ in range(6):  # Newton's steps to the most probable shift
        expected = [chance_of(o + moved) for o in odds]
        slope = sum(
            w - n * e for w, n, e in zip(bins.wrong, counts, expected, strict=True)
        ) - moved / (shift**2)
        information = (
            sum(n * e * (1 - e) for n, e in zip(counts, expected, strict=True)) + 1 / shift**2
        )
        moved += max(-1.0, min(1.0, slope / information))
    expected = [chance_of(o + moved) for o in odds]
    errors = tuple(
        (w + strength * e) / (n + strength)
        for w, n, e in zip(bins.wrong, counts, expected, strict=True)
    )
    return Fit(errors, tuple(counts), 1 / information)


def draw(found: Fit, seen: Sequence[float], rules: Rules, strength: float) -> Line:
    """The lowest line that keeps the bound."""
    surest = found.errors[_SAME_WORDS]
    best = Line(same_words=surest)
    traffic = wrong = variance = common = 0.0
    for place in range(BINS - 1, -1, -1):
        weight, error = seen[place] + 0.02, found.errors[place]
        if error > rules.worst * rules.bound:
            break
        trust = found.trust[place]
        traffic += weight
        wrong += weight * error
        variance += weight**2 * error * (1 - error) / (trust + strength + 1)
        common += weight * error * (1 - error) * strength / (trust + strength)
        deviation = math.sqrt(
            variance / traffic**2 + (common / traffic) ** 2 * found.shift_variance
        )
        expected = wrong / traffic
        upper = expected + rules.caution * deviation
        if upper <= rules.bound:
            best = Line(place, expected, upper, surest)
    return best


def whole(bins: Bins, rules: Rules) -> tuple[Fit, Line]:
    """Beliefs and line of the traffic as a whole."""
    found = fit(bins, PRIOR, strength=rules.strength, shift=rules.shift)
    return found, draw(found, bins.seen, rules, rules.strength)


def group(bins: Bins, of_all: Fit, rules: Rules) -> tuple[Fit, Line]:
    """Beliefs and line of one namespace, on top of those of the whole."""
    found = fit(bins, of_all, strength=rules.group_strength, shift=rules.group_shift)
    trust = tuple(n + 0.3 * m for n, m in zip(found.trust, of_all.trust, strict=True))
    found = replace(found, trust=trust)
    return found, draw(found, bins.seen, rules, rules.group_strength)


# ------------------------------------------------------------------------------- the alarm

_ALARM = math.log(200.0)


def alarmed(bins: Bins, right: bool, rules: Rules) -> tuple[Bins, bool]:
    """After a label of what is served at present: is the bound clearly broken?

    Page's test of `bound` against several times as much, begun anew whenever it is down to
    nothing; it takes about 200 times the labels of a real break to ring by chance.
    """
    many = min(0.5, 3 * rules.bound + 0.05)
    step = math.log((1 - many) / (1 - rules.bound)) if right else math.log(many / rules.bound)
    level = max(0.0, bins.alarm + step)
    if level >= _ALARM:
        return replace(bins, alarm=0.0), True
    return replace(bins, alarm=level), False


def _logit(share: float) -> float:
    bounded = min(1 - 1e-6, max(1e-6, share))
    return math.log(bounded / (1 - bounded))
