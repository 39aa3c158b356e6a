"""Compares two answers: what they share, where they conflict, and features for a model.

Symmetric: the order of the two answers makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from semcache.verification.answers import Answer, Question
from semcache.verification.lexicon import OPPOSITES

FEATURES = (
    "cover",
    "cover_squared",
    "cover_least",
    "head",
    "head_least",
    "trigrams",
    "trigrams_squared",
    "trigram_jaccard",
    "names_cover",
    "names_both",
    "name_shared",
    "names_all",
    "names_left",
    "number_conflict",
    "numbers_left",
    "months_conflict",
    "asks_number",
    "asks_number_conflict",
    "asks_number_cover",
    "asks_other_cover",
    "asks_other_conflict",
    "polarity",
    "opposite",
    "refuses",
    "hedges",
    "words_short",
    "words_long",
    "bare",
)
_HEAD = 8
"""Content words at the beginning of an answer, which usually say the main thing."""
_SAME_START = 4
"""Letters at the beginning that two longer words share if they may be forms of one word."""


_PAIRS = 400
"""Maximum number of pairs of numbers that are compared one by one."""
_ROUNDED = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two answers have in common.

    Attributes:
        question: the question that both answer.
        one, other: the answers.
        words: the content words of each answer that are compared: those that are not in the
            question, or all of them if either answer has no others.
        numbers: the numbers of each answer that are compared, chosen likewise.
        cover: the share of each answer's words that the other has, the larger share first.
        names: the larger of the shares of each answer's names that the other has; None if
            either answer has no names.
        names_left: the smaller of the counts of each answer's names that the other lacks.
    """

    question: Question
    one: Answer
    other: Answer
    words: tuple[tuple[str, ...], tuple[str, ...]]
    numbers: tuple[frozenset[str], frozenset[str]]
    cover: tuple[float, float]
    names: float | None
    names_left: int

    @property
    def disjoint(self) -> bool:
        """Whether each answer says something and they share no word and no number."""
        said = all(w or n for w, n in zip(self.words, self.numbers, strict=True))
        return said and self.cover[0] == 0 and not self.numbers[0] & self.numbers[1]

    @property
    def number_conflict(self) -> bool:
        """Whether both give numbers, and none in common."""
        one, other = self.numbers
        return bool(one and other) and not (one | self.one.loose) & (other | self.other.loose)

    @property
    def numbers_near(self) -> bool:
        """Whether both may give the same number, one of them rounded or with a footnote mark."""
        one, other = self.numbers
        if len(one) * len(other) > _PAIRS:
            return False
        return any(_near(mine, theirs) for mine in one for theirs in other)

    @property
    def numbers_left(self) -> int:
        """The smaller of the counts of each answer's numbers that the other lacks."""
        one, other = self.numbers
        return min(len(one - other - self.other.loose), len(other - one - self.one.loose))

    @property
    def month_conflict(self) -> bool:
        """Whether both name months, and none in common."""
        one, other = self.one.months, self.other.months
        return bool(one and other) and not one & other

    @property
    def moved_number(self) -> bool:
        """Whether the same words stand around numbers that differ."""
        there = self.other.contexts
        return any(
            not values & there[context]
            for context, values in self.one.contexts.items()
            if context in there and context != ("", "")
        )

    @property
    def name_conflict(self) -> bool:
        """Whether both give names, and none in common."""
        return self.names == 0

    @property
    def polarity(self) -> bool:
        """Whether one answer says yes and the other no, or one negates what the other says."""
        one, other = self.one, self.other
        if one.said is not None and other.said is not None and one.said != other.said:
            return True
        return bool(one.negated & other.plain or other.negated & one.plain)

    @property
    def opposite(self) -> bool:
        """Whether a word of one has its opposite in the other, and neither has both."""
        one, other = set(self.one.content), set(self.other.content)
        return any(OPPOSITES[word] & (other - one) for word in one - other if word in OPPOSITES)


def compare_answers(question: Question, one: Answer, other: Answer) -> Comparison:
    """Compare two answers to a question."""
    words = (one.words, other.words)
    if not one.words or not other.words:
        words = (one.content, other.content)
    if not one.content or not other.content:  # "in 1889" says nothing but a number
        words = (one.content + _sorted(one.numbers), other.content + _sorted(other.numbers))
    numbers = (one.numbers - question.numbers, other.numbers - question.numbers)
    if not numbers[0] or not numbers[1]:
        numbers = (one.numbers, other.numbers)
    names = [a.names & set(w) for a, w in zip((one, other), words, strict=True)]
    shared = [len(_found(names[0], words[1])), len(_found(names[1], words[0]))]
    left = min(len(names[0]) - shared[0], len(names[1]) - shared[1])
    part = max(shared[0] / len(names[0]), shared[1] / len(names[1])) if all(names) else None
    return Comparison(question, one, other, words, numbers, _cover(*words), part, left)


def features(c: Comparison) -> tuple[float, ...]:
    """The feature vector of a comparison, float[28], in the order of `FEATURES`."""
    cover, least = c.cover
    head, head_least = _heads(*c.words)
    trigrams, jaccard = _trigrams(*c.words)
    names = 0.5 if c.names is None else c.names
    asks = float(c.question.asks_number)
    conflict = float(c.number_conflict)
    short, long = sorted(map(len, c.words))
    return (
        cover,
        cover * cover,
        least,
        head,
        head_least,
        trigrams,
        trigrams * trigrams,
        jaccard,
        names,
        float(c.names is not None),
        float(c.names is not None and names > 0),
        float(c.names == 1),
        float(min(3, c.names_left)),
        conflict,
        float(min(3, c.numbers_left)),
        float(c.month_conflict),
        asks,
        asks * conflict,
        asks * _number_cover(*c.numbers),
        (1 - asks) * cover,
        (1 - asks) * float(c.name_conflict),
        float(c.polarity),
        float(c.opposite),
        float(c.one.refuses != c.other.refuses),
        float(c.one.hedges != c.other.hedges),
        math.log1p(short),
        math.log1p(long),
        float(short <= 2),
    )


def _near(one: str, other: str) -> bool:
    """Whether two numbers may mean the same: 21,000 and 21,196; 1989 and 19891 (footnote 1)."""
    short, long = sorted((one, other), key=len)
    if _is_year(short):
        return len(long) == 5 and long.startswith(short)
    larger = max(abs(float(one)), abs(float(other)))
    return larger >= 100 and abs(float(one) - float(other)) <= _ROUNDED * larger


def _is_year(value: str) -> bool:
    return len(value) == 4 and value.isdigit() and "1000" <= value <= "2199"


def _sorted(numbers: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(numbers))


def _found(words: Collection[str], text: Collection[str]) -> list[str]:
    """The words that also occur in the text, perhaps in another form."""
    known = set(text)
    starts = {word[:_SAME_START] for word in known if len(word) >= _SAME_START}
    return [
        word
        for word in words
        if word in known or (len(word) > _SAME_START and word[:_SAME_START] in starts)
    ]


def _share(words: Collection[str], text: Collection[str]) -> float:
    return len(_found(words, text)) / len(words)


def _cover(one: Collection[str], other: Collection[str]) -> tuple[float, float]:
    """(larger, smaller) of the shares of each text's words that the other has."""
    if not one or not other:
        return (0.5, 0.5) if not one and not other else (0.0, 0.0)
    shares = _share(one, other), _share(other, one)
    return max(shares), min(shares)


def _heads(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[float, float]:
    """Like `_cover`, for the beginning of each answer and the whole of the other."""
    if not one or not other:
        return 0.5, 0.5
    shares = _share(one[:_HEAD], other), _share(other[:_HEAD], one)
    return max(shares), min(shares)


def _trigrams(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[float, float]:
    """The number of shared character trigrams, divided by the smaller set and by the union."""
    mine, theirs = _runs(one), _runs(other)
    shared = len(mine & theirs)
    smaller = max(1, min(len(mine), len(theirs)))
    return shared / smaller, shared / max(1, len(mine | theirs))


def _runs(words: tuple[str, ...]) -> set[str]:
    text = f" {' '.join(words)} "
    return {text[place : place + 3] for place in range(len(text) - 2)}


def _number_cover(one: frozenset[str], other: frozenset[str]) -> float:
    """The larger of the shares of each answer's numbers that the other has; 0 without numbers."""
    if not one or not other:
        return 0.0
    return len(one & other) / min(len(one), len(other))
