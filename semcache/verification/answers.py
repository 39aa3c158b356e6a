"""What one answer to a question says: words, names, numbers, polarity, a result.

An answer is read together with its question, whose words most answers repeat: the other words are
what it says itself. The whole text is read, in time linear in its length; the same text and
question give the same result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from semcache.verification import lexicon
from semcache.verification.answer_words import (
    ASKS_NUMBER,
    FINAL,
    FUNCTION_WORDS,
    HEDGES,
    NEGATIONS,
    NO,
    REFUSAL,
    TURNS,
    YES,
)

_TOKEN = re.compile(
    r"(?:(?<![\w)\]\-.])[-\u2212])?\d+(?:\.\d+)?|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[.!?;\n=]"
)
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""The comma of 1,000."""
_LISTED = re.compile(r"^[ \t]*\(?\d{1,3}[.)](?=\s)", re.MULTILINE)
"""The number of an item in a list."""
_RESULT = re.compile(
    r"=[\s$€£¥₹*(]{0,8}(-?\d{1,30}(?:\.\d{1,30})?)(?![\d.])(?!\s{0,4}[*/+x×÷-]\s{0,4}[\d$(])"
)
"""The right-hand side of an equation, if it is only a number."""
_ENDS = frozenset(".!?;\n")
_SCOPE = 2
"""Number of content words that a negation applies to."""
_OPENING = 300
"""Number of characters at the beginning of an answer that are searched for a refusal."""
_BARE = 4
"""Maximum number of words of an answer that is hardly more than a name or a number."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, as far as its answers are compared with it.

    Attributes:
        words: its content words, without the alternatives that it offers ("north or south").
        negated: content words that it negates.
        numbers: values of its numbers.
        asks_number: whether it asks when, how many or the like.
    """

    words: frozenset[str]
    negated: frozenset[str]
    numbers: frozenset[str]
    asks_number: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer says.

    Attributes:
        content: its content words, stemmed, in order and each once.
        words: the content words that are not in the question.
        names: content words that are written as names.
        numbers: values of all numbers, including years.
        loose: {"1"} if it has "one", "first" or "single", which often are not counts.
        contexts: the values of its numbers, by the content words before and after each.
        months: names of months.
        negates: whether it negates anything.
        negated, plain: words that occur only after negations, and words that occur only elsewhere.
        said: True for an answer that begins with yes, False for no, None for neither.
        refuses: whether it declines to answer; turns: whether it goes on with "however" or the
            like; hedges: whether it says "perhaps" or the like near its beginning.
        marked: the number that it marks as its result; computed: the last right-hand side of an
            equation; last: its last number.
        size: number of words and numbers.
        latin: whether it is written in Latin letters.
        text: as it was given.
    """

    content: tuple[str, ...]
    words: tuple[str, ...]
    names: frozenset[str]
    numbers: frozenset[str]
    loose: frozenset[str]
    contexts: dict[tuple[str, str], frozenset[str]]
    months: frozenset[str]
    negates: bool
    negated: frozenset[str]
    plain: frozenset[str]
    said: bool | None
    refuses: bool
    turns: bool
    hedges: bool
    marked: str | None
    computed: str | None
    last: str | None
    size: int
    latin: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Token:
    """A word or a number, as it stands in the text."""

    text: str
    stem: str
    first: bool
    """Whether a sentence begins with it."""

    @property
    def is_number(self) -> bool:
        """Whether it is written in digits."""
        return self.text[-1].isdigit()


def read_question(text: str) -> Question:
    """Read the question that two answers answer."""
    tokens = list(_tokens(text))
    words = [t.stem for t in tokens if _is_content(t)]
    return Question(
        frozenset(words) - _alternatives(tokens),
        _polarity(tokens)[0],
        frozenset(value for value, _ in _numbers(tokens)),
        ASKS_NUMBER.search(text) is not None,
    )


def read_answer(text: str, question: Question) -> Answer:
    """Read one answer to a question."""
    smooth = _GROUPED.sub("", text)
    tokens = list(_tokens(_LISTED.sub("\n", smooth)))
    numbers = _numbers(tokens)
    content = tuple(dict.fromkeys(t.stem for t in tokens if _is_content(t)))
    said = _said(text)
    turned = tokens if said is None else tokens[1:]  # a leading "no" negates nothing
    negated, plain = _polarity(turned, question.negated)
    return Answer(
        content=content,
        words=tuple(word for word in content if word not in question.words),
        names=frozenset(_names(tokens)) & frozenset(content),
        numbers=frozenset(value for value, _ in numbers),
        loose=frozenset("1" for t in tokens if t.stem in ("one", "first", "single")),
        contexts=_contexts(tokens, numbers),
        months=frozenset(lexicon.MONTHS[t.stem] for t in tokens if _is_month(t)),
        negates=any(_negates(t, None) for t in turned),
        negated=negated - plain,
        plain=plain - negated,
        said=said,
        refuses=REFUSAL.search(smooth[:_OPENING].replace("\u2019", "'")) is not None,
        turns=_turns(tokens),
        hedges=any(t.stem in _HEDGES for t in tokens[:_HEDGED]),
        marked=_last(FINAL, smooth),
        computed=_last(_RESULT, smooth),
        last=numbers[-1][0] if numbers else None,
        size=len(tokens),
        latin=_is_latin(text),
        text=text,
    )


_HEDGED = 12
"""Number of words at the beginning of an answer among which a hedge applies to all of it."""


def _tokens(text: str) -> Iterator[_Token]:
    first = True
    for match in _TOKEN.finditer(text):
        word = match.group()
        if word in _ENDS:
            first = True
            continue
        yield _Token(word, word if word[-1].isdigit() else stem(word), first)
        first = False


def stem(word: str) -> str:
    """A word without case, accents and the commonest endings."""
    small = word.casefold().replace("\u2019", "'")
    if not small.isascii():
        marked = unicodedata.normalize("NFKD", small)
        small = "".join(c for c in marked if not unicodedata.combining(c)) or small
    if "'" in small:
        small = small if small.endswith("n't") else small.split("'")[0] or small
    if len(small) > 4 and small.endswith("ies"):
        return small[:-3] + "y"
    if len(small) > 3 and small.endswith("s") and not small.endswith(("ss", "us", "is")):
        return small[:-1]
    return small


_FILLERS = FUNCTION_WORDS | {stem(word) for word in FUNCTION_WORDS}
_HEDGES = frozenset(stem(word) for word in HEDGES)


def _turns(tokens: list[_Token]) -> bool:
    """Whether an answer goes on with "however" or "but", other than in "sorry, but"."""
    return any(
        token.stem in TURNS and not (place and tokens[place - 1].stem in _EXCUSES)
        for place, token in enumerate(tokens)
    )


_EXCUSES = frozenset(("sorry", "apologize", "apologise", "afraid", "apology"))


def _is_content(token: _Token) -> bool:
    return (
        token.text != "="
        and token.stem not in _FILLERS
        and not token.stem.endswith("n't")
        and (len(token.stem) > 1 or token.text not in "aAI")
        and not token.is_number
        and token.stem not in lexicon.NUMBER_WORDS
    )


def _numbers(tokens: list[_Token]) -> list[tuple[str, int]]:
    """(value, index of its first token) of each number, in order.

    Numbers are digits or words, with or without a magnitude: 1.5 million, twenty five.
    """
    found: list[tuple[float, int]] = []
    last = -2
    for place, token in enumerate(tokens):
        number = _value(token)
        joined = bool(found) and last == place - 1
        if number is None:
            if joined and token.stem in _MAGNITUDES:
                found[-1] = (found[-1][0] * _MAGNITUDES[token.stem], found[-1][1])
                last = place
        elif joined and _continues(found[-1][0], number, token):
            found[-1] = (found[-1][0] + number, found[-1][1])
        else:
            found.append((number, place))
            last = place
    return [(_written(value), place) for value, place in found]


def _written(value: float) -> str:
    return f"{value:.12g}"


_MAGNITUDES = {**lexicon.MAGNITUDES, **{f"{m}s": v for m, v in lexicon.MAGNITUDES.items()}}


def _value(token: _Token) -> float | None:
    if token.is_number:
        try:
            return float(token.text.replace("\u2212", "-"))
        except ValueError:  # a word that ends in a superscript digit, such as x²
            return None
    if token.stem in ("one", "first", "second") or token.stem in _MAGNITUDES:
        return None  # "the one", "at first", "a second" are not numbers
    return lexicon.NUMBER_WORDS.get(token.stem, lexicon.ORDINALS.get(token.stem))


def _continues(value: float, number: float, token: _Token) -> bool:
    """Whether a number word belongs to the number before it: twenty five."""
    written = not token.is_number
    return written and number < 10 and value % 10 == 0 and 20 <= value < 100


def _is_month(token: _Token) -> bool:
    """Whether a word names a month: it is capitalised, and not "May" that begins a sentence."""
    known = token.stem in lexicon.MONTHS and token.text[0].isupper()
    return known and not (token.stem == "may" and token.first)


def _contexts(
    tokens: list[_Token], numbers: list[tuple[str, int]]
) -> dict[tuple[str, str], frozenset[str]]:
    """The values of numbers by the content words before and after them."""
    before, after = [""] * len(tokens), [""] * len(tokens)
    word = ""
    for place, token in enumerate(tokens):
        before[place] = word
        word = token.stem if _is_content(token) else word
    word = ""
    for place in range(len(tokens) - 1, -1, -1):
        after[place] = word
        word = tokens[place].stem if _is_content(tokens[place]) else word
    found: dict[tuple[str, str], set[str]] = {}
    for value, place in numbers:
        found.setdefault((before[place], after[place]), set()).add(value)
    return {context: frozenset(values) for context, values in found.items()}


def _alternatives(tokens: list[_Token]) -> frozenset[str]:
    """The content words around each "or": the answer is one of them."""
    content = [t for t in tokens if _is_content(t) or t.stem in _OR]
    found: set[str] = set()
    for place, token in enumerate(content):
        if token.stem in _OR:
            found.update(t.stem for t in content[max(0, place - 2) : place + 3])
    return frozenset(found)


_OR = frozenset(("or", "oder", "ou"))


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    """The value of a pattern's last match."""
    found = pattern.findall(text)
    return _written(float(found[-1])) if found else None


def _names(tokens: list[_Token]) -> Iterator[str]:
    """Words with a capital that the text does not also write without one.

    The first word of a sentence counts where the next one has a capital, too, or where the
    answer is hardly more than the name.
    """
    small = {t.stem for t in tokens if t.text[0].islower()}
    for place, token in enumerate(tokens):
        if not token.text[0].isupper() or token.stem in small:
            continue
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        joined = following is not None and not following.first and following.text[0].isupper()
        if not token.first or joined or len(tokens) <= _BARE:
            yield token.stem


def _polarity(
    tokens: list[_Token], asked: frozenset[str] = frozenset()
) -> tuple[frozenset[str], frozenset[str]]:
    """(content words that stand after a negation, content words that stand elsewhere).

    A negation that only repeats one in the question (`asked`) is ignored.
    """
    negated: set[str] = set()
    plain: set[str] = set()
    left, repeats = 0, False
    for place, token in enumerate(tokens):
        if token.first:
            left = 0
        if _negates(token, tokens[place + 1] if place + 1 < len(tokens) else None):
            left = _SCOPE
        elif _is_content(token):
            if left == _SCOPE:
                repeats = token.stem in asked
            if not (left and repeats):
                (negated if left else plain).add(token.stem)
            left = max(0, left - 1)
    return frozenset(negated), frozenset(plain)


def _negates(token: _Token, following: _Token | None) -> bool:
    if following is not None and following.stem in ("only", "just", "sure"):
        return False
    return token.stem in NEGATIONS or token.stem.endswith("n't")


def _said(text: str) -> bool | None:
    """Whether an answer begins with yes or no.

    "No refunds" does not: there the word negates the next one.
    """
    match = _FIRST.match(text)
    if match is None:
        return None
    word = stem(match[1])
    if word in YES:
        return True
    return False if word in NO else None


_FIRST = re.compile(r"[^\w]{0,10}([^\W\d_]+)(?:\s*$|\**[,.;:!\n]|\s+[-–—])")
"""The first word of an answer, where a break comes after it."""


def _is_latin(text: str) -> bool:
    """Whether at least three quarters of the letters are Latin."""
    if text.isascii():
        return True
    foreign = sum(c > "\u024f" and c.isalpha() for c in text)
    return 4 * foreign <= sum(c.isalpha() for c in text)
