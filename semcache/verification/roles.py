"""Finds questions in which the same words have exchanged their roles.

"Who taught Plato?" is not "Who did Plato teach?", and "Can my employer sue me?" is not "Can I sue
my employer?". Since the words are the same, neither an embedding nor the pair model can tell such
questions apart.

Pure functions of the words of two questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from semcache.verification import lexicon

_MOST_WORDS = 12
"""Maximum number of content words for roles to be compared: long texts are rephrased freely."""


def exchanged(one: Sequence[str], other: Sequence[str]) -> tuple[str, str] | None:
    """The words that have exchanged their roles, as each question orders them; None if none have.

    Args:
        one, other: the words of each question, in lower case.
    """
    places_one, places_other = _content(one), _content(other)
    if not 2 <= len(places_one) <= _MOST_WORDS or len(places_one) != len(places_other):
        return None
    stems_one = [_stem(one[place]) for place in places_one]
    stems_other = [_stem(other[place]) for place in places_other]
    if stems_one == stems_other or Counter(stems_one) != Counter(stems_other):
        return None
    if ("by" in one) != ("by" in other):  # the passive voice reverses the order
        return None
    voices = _asks_for_subject(one) != _asks_for_subject(other) and (
        _asks_for_object(one) or _asks_for_object(other)
    )
    if not voices:
        if _frame(one) != _frame(other):
            return None
        if lexicon.SYMMETRIC & set(one) or not _swapped(stems_one, stems_other):
            return None
    return " ".join(one[p] for p in places_one), " ".join(other[p] for p in places_other)


def _content(words: Sequence[str]) -> list[int]:
    """The indexes of the content words."""
    return [
        place
        for place, word in enumerate(words)
        if word not in lexicon.FUNCTION_WORDS and not _in_frame(words, place)
    ]


def _in_frame(words: Sequence[str], place: int) -> bool:
    """Whether a word belongs to "can you tell me", "do you know" and the like."""
    word, before = words[place], words[place - 1] if place else ""
    if word in ("me", "us"):
        return before in lexicon.TELLING
    if word in lexicon.TELLING or word == "know":
        return place + 1 < len(words) and (words[place + 1] in ("me", "us") or before == "you")
    return (
        word == "you" and place + 1 < len(words) and words[place + 1] in (*lexicon.TELLING, "know")
    )


def _stem(word: str) -> str:
    """A word without its inflection: taught and teaches become "teach"; me becomes "i"."""
    if word == "me":
        return "i"
    word = word.removesuffix("'s").removesuffix("'")
    if word in lexicon.IRREGULAR:
        return lexicon.IRREGULAR[word]
    for ending, instead in (
        ("ies", "y"),
        ("ied", "y"),
        ("ing", ""),
        ("ed", ""),
        ("es", ""),
        ("s", ""),
    ):
        if word.endswith(ending) and len(word) - len(ending) + len(instead) >= 3:
            word = word[: -len(ending)] + instead
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "sle":
        word = word[:-1]  # stopped, planning
    return word.removesuffix("e") if len(word) > 3 else word


def _asks_for_subject(words: Sequence[str]) -> bool:
    """Whether it is asked who acts, without an auxiliary verb, as in "Who hired Sandra?"."""
    head = _after_question_word(words)
    return len(head) > 1 and head[0] != "to" and not any(w in lexicon.AUXILIARIES for w in head)


def _asks_for_object(words: Sequence[str]) -> bool:
    """Whether it is asked who or what is acted on, as in "Who did Sandra hire?"."""
    return any(word in ("do", "does", "did") for word in _after_question_word(words)[:3])


def _after_question_word(words: Sequence[str]) -> list[str]:
    """Up to four words after the question word with which the question begins."""
    for place, word in enumerate(words):
        if word in ("who", "whom", "what", "which"):
            return list(words[place + 1 : place + 5])
        if word not in lexicon.BEFORE_A_QUESTION:
            break
    return []


def _swapped(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two parts have changed places around a third: A calls B, B calls A.

    Adjacent parts may be swapped without a change of meaning: "this week in Rome", "in Rome this
    week".
    """
    start, end = 0, len(one)
    while one[start] == other[start]:
        start += 1
    while one[end - 1] == other[end - 1]:
        end -= 1
    middle, turned = list(one[start:end]), list(other[start:end])
    return any(
        middle[last:] + middle[first:last] + middle[:first] == turned
        for first in range(1, len(middle))
        for last in range(first + 1, len(middle))
    )


def _frame(words: Sequence[str]) -> list[str]:
    """The words that relate other words to each other, in order.

    Frames are equal only if the order of the other words matters. A clause that moves takes its
    relating words along, which changes the frame. For mere keywords, and around "and" and "or",
    order means nothing: there the frame is the whole question, which equals no other.
    """
    related = [word for word in words if word in lexicon.RELATING]
    return [str(words)] if not related or {"and", "or"} & set(words) else related
