"""Whether two answers say the same thing: rules for clear cases, and a model for the rest.

In this order:

1. An answer is not in Latin script: different if neither is and their numbers conflict, else no
   verdict.
2. An answer only declines: two refusals are the same; a refusal differs from an answer.
3. Both work out or state a result: the same if the results are equal, else usually different.
4. "Yes" against "no", or the same words with another number or negation: different.
5. Both begin with yes, or both with no, and one says nothing more: the same.
6. A logistic model over `answer_comparison.features` gives the chance that they are the same.
   "Same" requires a chance of at least `SAME` and no contradiction; for two long answers,
   `_LONG_SAME` and a cosine of at least `_NEAR`. "Different" requires a chance of at most
   `DIFFERENT` and a reason: a conflict of numbers, dates or names, or no word in common and a
   cosine of at most `_FAR`. Otherwise there is no verdict.

The words are compared over the whole length of both answers. Once the words are known, embeddings
are no better than a coin toss at telling answers that agree from answers that differ, so a cosine
alone never decides.
"""

from __future__ import annotations

from collections.abc import Callable

from semcache.verification import guards
from semcache.verification.answer_comparison import Comparison, compare_answers, features
from semcache.verification.answer_weights import BIAS, WEIGHTS
from semcache.verification.answers import Answer, read_answer, read_question
from semcache.verification.features import chance_of

SAME = 0.86
"""Minimum chance for "same"."""
DIFFERENT = 0.2
"""Maximum chance for "different"."""
_ALIKE = 0.8
"""Minimum share of each answer's words that the other has, for the words to count as the same."""
_LONG = 60
"""Minimum content words of a long answer: two long ones on one subject share words anyway."""
_LONGEST = 4000
"""Length of an answer, in characters, beyond which shared words prove nothing."""
_LONG_SAME = 0.7
"""Minimum chance for "same" of two long answers whose cosine is at least `_NEAR`."""
_GUARDED = frozenset(("unit", "time", "identifier", "order"))
_NEAR, _FAR = 0.85, 0.6
"""Minimum cosine of answers on the same matter, and maximum cosine on different matters."""

Cosine = Callable[[], float]
"""Computes the cosine of the embeddings of two answers; called only where it counts."""


def compare_texts(question: str, one: str, other: str, cosine: Cosine) -> bool | None:
    """Whether two answers to a question say the same thing; None if that is not clear."""
    asked = read_question(question)
    answers = read_answer(one, asked), read_answer(other, asked)
    return decide(compare_answers(asked, *answers), cosine)


def decide(c: Comparison, cosine: Cosine) -> bool | None:
    """The verdict on two answers."""
    if not (c.one.latin and c.other.latin):
        return _foreign(c)
    if _declines(c.one) or _declines(c.other):
        return _refusal(c)
    if (result := _results(c)) is not None:
        return result
    if _reversed(c):
        return False
    if _agree_bare(c):
        return True
    chance = same_chance(c)
    if chance >= (_LONG_SAME if _long(c) else SAME) and not _vetoed(c):
        return None if _long(c) and cosine() < _NEAR else True
    if chance > DIFFERENT:
        return None
    return False if _contradict(c) or (c.disjoint and cosine() <= _FAR) else None


def _long(c: Comparison) -> bool:
    """Whether both answers are long."""
    return min(len(c.words[0]), len(c.words[1])) >= _LONG


def same_chance(c: Comparison) -> float:
    """The chance, by the model, that two answers say the same thing."""
    values = features(c)
    return chance_of(BIAS + sum(w * v for w, v in zip(WEIGHTS, values, strict=True)))


def _foreign(c: Comparison) -> bool | None:
    """Compare answers that are not both in Latin script, by their numbers alone."""
    both = not c.one.latin and not c.other.latin
    return False if both and c.number_conflict else None


def _refusal(c: Comparison) -> bool | None:
    """Compare answers of which one or both only decline; a mere refusal is not an answer."""
    if _declines(c.one) and _declines(c.other):
        return True
    both = c.one.refuses and c.other.refuses
    return None if both or c.cover[0] >= _ALIKE else False


def _declines(answer: Answer) -> bool:
    """Whether an answer declines and says nothing else."""
    return answer.refuses and not answer.turns and len(answer.content) <= _LONG


def _results(c: Comparison) -> bool | None:
    """Compare the results of two calculations, or of a calculation and a bare number."""
    one, other = _result(c, c.one), _result(c, c.other)
    if one is None or other is None:
        return None
    if one == other:
        return None if _other_unit(c) else True
    marked = c.one.marked is not None and c.other.marked is not None
    return False if marked or not (one in c.other.numbers or other in c.one.numbers) else None


def _result(c: Comparison, answer: Answer) -> str | None:
    """The number that an answer gives as its result; None if that is unclear."""
    if answer.marked is not None:
        return answer.marked
    if not c.question.asks_number:
        return None
    if answer.computed is not None:
        return answer.computed
    return answer.last if _works(c) else None


def _works(c: Comparison) -> bool:
    """Whether either answer works out or names a result."""
    return any(a.marked is not None or a.computed is not None for a in (c.one, c.other))


def _other_unit(c: Comparison) -> bool:
    """Whether the answers use different units."""
    found = guards.compare(c.one.text, c.other.text)
    return any(finding.decisive and finding.kind == "unit" for finding in found)


def _reversed(c: Comparison) -> bool:
    """Whether one says yes and the other no, or the same with another number or negation."""
    one, other = c.one.said, c.other.said
    if one is not None and other is not None and one != other:
        return True
    moved = c.moved_number and not c.numbers_near
    return _alike(c) and (moved or (c.polarity and c.one.negates != c.other.negates))


def _alike(c: Comparison) -> bool:
    """Whether two answers of about the same length have the same words."""
    short, long = sorted((c.one.size, c.other.size))
    return c.cover[1] >= _ALIKE and long <= 1.3 * short + 2


def _agree_bare(c: Comparison) -> bool:
    """Whether both say yes or both say no, and one of them says nothing else."""
    shortest = min(c.one.size, c.other.size)
    return c.one.said is not None and c.one.said == c.other.said and shortest == 1


def _vetoed(c: Comparison) -> bool:
    """Whether something rules out "same", however many words the answers share."""
    return (
        max(len(c.one.text), len(c.other.text)) > _LONGEST
        or c.polarity
        or c.opposite
        or c.moved_number
        or c.number_conflict
        or c.month_conflict
        or c.one.hedges != c.other.hedges
        or (_alike(c) and c.one.negates != c.other.negates)
        or (c.question.asks_number and _works(c) and c.one.last != c.other.last)
        or _guarded(c)
    )


def _guarded(c: Comparison) -> bool:
    """Whether the guards for questions find a different unit, time, identifier or order."""
    found = guards.compare(c.one.text, c.other.text)
    return any(finding.decisive and finding.kind in _GUARDED for finding in found)


def _contradict(c: Comparison) -> bool:
    """Whether a number, a date or a name of one answer contradicts the other's."""
    if _long(c) and not c.question.asks_number:
        return False  # two texts on one task may differ in names and numbers
    moved = c.number_conflict and not c.numbers_near
    if moved or c.month_conflict or (c.opposite and c.disjoint):
        return True
    return c.name_conflict and not c.numbers[0] & c.numbers[1]
