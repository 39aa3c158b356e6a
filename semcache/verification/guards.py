"""What two questions visibly differ in: numbers, units, dates, names, negation, order, language.

A finding names the words, so that a refusal can be understood ("2 years / 3 years"). It is
`decisive` where each question says something of the kind that the other contradicts ("to Boston" /
"to Denver"), and not where one merely says more. Tens of microseconds for a pair; nothing learned.

What a decisive finding is worth is measured: the shipped prior weighs each kind by how often
answers were right in spite of it (`prior`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from semcache.types import Finding
from semcache.verification import lexicon

KINDS = (
    "number",
    "unit",
    "date",
    "time",
    "language",
    "place",
    "product",
    "name",
    "identifier",
    "negation",
    "opposite",
    "order",
    "script",
    "age",
    "reported",
)
"""What a finding can be about."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the guards see in one question.

    Attributes:
        words: its words, in order and in lower case.
        facts: for each kind, what is said and in which words.
        negations: the words that negate.
        script: "latin", "cyrillic", "han", ...; language: "en", "de", ... or None: not sure.
    """

    words: tuple[str, ...]
    facts: dict[str, dict[str, str]]
    negations: tuple[str, ...]
    script: str
    language: str | None

    @property
    def perishable(self) -> tuple[str, ...]:
        """Words that make its answer grow stale."""
        return tuple(word for word in self.words if word in lexicon.PERISHABLE)


_WORD = re.compile(r"[^\W_]+(?:[.'\u2019+#/:@_-]*[^\W_]+)*[+#]*|[$€£¥₹%]")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""The comma of 1,000."""
_JOINED = re.compile(r"(?<=\d)-(?=[A-Za-z]{3,})")
"""The hyphen of "3-year"."""
_BRACKETED = re.compile(r"(\d)\((\w)\)")
"""The brackets of 401(k)."""
_PLAIN_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)(st|nd|rd|th|k|m|bn|b|%)?")
_SPLIT = re.compile(r"(\d[\d,]*(?:\.\d+)?)([a-z°]+)")
_NAME = re.compile(r"(?<=[\w,)\]] )[A-Z][\w'\u2019]*[\w]|\b[A-Z]{2,}\b")


def compare(stored: str, asked: str) -> tuple[Finding, ...]:
    """What a stored question and a new one differ in; the decisive first."""
    one, other = reading(stored), reading(asked)
    found = [
        *_facts(one, other),
        *_names(one, other),
        *_negation(one, other),
        *_opposites(one, other),
        *_order(one, other),
        *_scripts(one, other),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.decisive))


def same_words(stored: str, asked: str) -> bool:
    """Whether two questions differ in case, spaces and the punctuation of sentences alone.

    Signs that mean something by themselves (operators, emoji, a minus) and marks that belong
    to letters are no punctuation.
    """
    one = _bare(stored)
    return bool(one) and one == _bare(asked)


_ENDS = re.compile(r"[.,!?;:\u2026]+(?=\s|$)")
_QUOTES = re.compile(r"(?<!\S)[\"'\u201c\u2018\u00bf\u00a1]+|[\"'\u201d\u2019]+(?=\s|$)")


def _bare(text: str) -> str:
    smooth = unicodedata.normalize("NFC", text).casefold()
    return " ".join(_QUOTES.sub("", _ENDS.sub("", _QUOTES.sub("", smooth))).split())


_LONGEST = 4000
"""Characters that are read of a question."""


@lru_cache(maxsize=4096)
def reading(text: str) -> Reading:
    """Read one question."""
    text = _BRACKETED.sub(r"\1\2", _JOINED.sub(" ", _GROUPED.sub("", text[:_LONGEST])))
    words = tuple(match.group() for match in _WORD.finditer(text))
    small = tuple(word.lower().replace("\u2019", "'") for word in words)
    return Reading(
        small,
        _said(small, _capitals(text)),
        tuple(word for word in small if _negates(word)),
        _script(text),
        _language(small),
    )


def _negates(word: str) -> bool:
    return word in lexicon.NEGATIONS or word.endswith("n't")


# --------------------------------------------------------------------------- one question


def _said(words: tuple[str, ...], names: frozenset[str]) -> dict[str, dict[str, str]]:
    facts: dict[str, dict[str, str]] = {}

    def say(kind: str, value: str, as_written: str) -> None:
        facts.setdefault(kind, {})[value] = as_written

    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        number, unit = _number(word, words[place - 1] if place else "")
        if (minutes := _time(word, after)) is not None:
            say("time", f"{minutes}", f"{word} {after}" if after in ("am", "pm") else word)
        elif place and _belongs(words[place - 1], word):
            continue  # part of the number before it
        elif number is not None:
            more = _belongs(word, after)
            if more:
                number, unit = _joined(number, after), None
            following = lexicon.UNITS.get(after)
            unit = unit or following
            written = f"{word} {after}" if following or more else word
            say("number", f"{number:.12g}", written)
            if unit:
                say("unit", unit, written)
        elif word in lexicon.MONTHS and not (word == "may" and "may" not in names):
            say("date", lexicon.MONTHS[word], word)
        elif word in lexicon.WEEKDAYS:
            say("date", lexicon.WEEKDAYS[word], word)
        elif _identifies(word):
            say("identifier", _identity(word), word)
        else:
            for kind, known in lexicon.KINDS:
                if word in known:
                    say(kind, lexicon.ALIASES.get(word, word), word)
                    break
            else:
                if word in names:
                    say("name", word, word)
    return facts


def _belongs(word: str, after: str) -> bool:
    """Whether two words are one number: 1.5 million, twenty five."""
    if after in lexicon.MAGNITUDES:
        return word[0].isdigit() or word in lexicon.NUMBER_WORDS
    return word in lexicon.TENS and 1 <= lexicon.NUMBER_WORDS.get(after, 0) <= 9


def _joined(number: float, after: str) -> float:
    if after in lexicon.MAGNITUDES:
        return number * lexicon.MAGNITUDES[after]
    return number + lexicon.NUMBER_WORDS[after]


def _identity(word: str) -> str:
    """covid-19 and covid19, v1.2 and 1.2, 01/05 and 1/5 are the same."""
    bare = re.sub(r"\b0+(?=\d)", "", re.sub(r"^v(?=\d)", "", word))
    return bare.replace("-", "") if bare[0].isalpha() else bare


_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(am|pm)?")


def _time(word: str, after: str) -> int | None:
    """Minutes since midnight of 9am, 9:00, "9 pm"; None: it is no time of day."""
    match = _TIME.fullmatch(word)
    if match is None:
        return None
    half = match[3] or (after if after in ("am", "pm") else None)
    if match[2] is None and half is None:
        return None
    hour = int(match[1]) % 12 + 12 * (half == "pm") if half else int(match[1])
    return 60 * hour + int(match[2] or 0)


def _number(word: str, before: str) -> tuple[float | None, str | None]:
    """(number, unit) that a word means; (None, None): it is no number."""
    value = lexicon.NUMBER_WORDS.get(word, lexicon.ORDINALS.get(word))
    if value is not None:
        # "the one", "no one", "first of all" count nothing.
        return (None, None) if word in ("one", "first", "second") else (value, None)
    if not word[0].isdigit():
        return None, None
    match = _PLAIN_NUMBER.fullmatch(word)
    if match:
        number = float(match[1]) * lexicon.MULTIPLES.get(match[2] or "", 1)
        return number, lexicon.UNITS.get(before) if before in "$€£¥₹" and before else None
    match = _SPLIT.fullmatch(word)
    if match and match[2] in lexicon.UNITS:
        return float(match[1]), lexicon.UNITS[match[2]]
    return None, None


def _identifies(word: str) -> bool:
    """Mixes letters and digits, or is an address: a part number, a version, a path."""
    digits = any(c.isdigit() for c in word)
    return (digits and not word.isdigit()) or "@" in word or word.count("/") + word.count("_") > 1


def _capitals(text: str) -> frozenset[str]:
    """Words that stand as names: with a capital, not only because a sentence begins.

    Nothing in a text that is all capitals or that gives every word one.
    """
    letters = [word for word in text.split() if word[:1].isalpha()]
    large = sum(word[:1].isupper() for word in letters)
    if not letters or (large > 0.6 * len(letters) and len(letters) > 3):
        return frozenset()
    return frozenset(match.group().lower() for match in _NAME.finditer(text)) - {"i"}


_SCRIPTS = (
    ("cyrillic", 0x0400, 0x052F),
    ("greek", 0x0370, 0x03FF),
    ("hebrew", 0x0590, 0x05FF),
    ("arabic", 0x0600, 0x06FF),
    ("devanagari", 0x0900, 0x097F),
    ("thai", 0x0E00, 0x0E7F),
    ("hangul", 0xAC00, 0xD7AF),
    ("kana", 0x3040, 0x30FF),
    ("han", 0x4E00, 0x9FFF),
)


def _script(text: str) -> str:
    if text.isascii():
        return "latin"
    counts = Counter(
        next((name for name, low, high in _SCRIPTS if low <= ord(c) <= high), "latin")
        for c in text
        if c.isalpha()
    )
    if counts["kana"]:
        return "kana"
    return counts.most_common(1)[0][0] if counts else "latin"


def _language(words: Iterable[str]) -> str | None:
    """The language by its commonest words, where one has clearly the most."""
    found = set(words)
    counts = sorted(
        ((len(found & known), name) for name, known in lexicon.STOPWORDS.items()), reverse=True
    )
    (most, name), (next_most, _) = counts[0], counts[1]
    return name if most >= 2 and most >= next_most + 2 else None


# --------------------------------------------------------------------------- two questions


def _facts(one: Reading, other: Reading) -> Iterable[Finding]:
    """Of each kind, what is said on one side only."""
    for kind in ("number", "unit", "date", "time", "language", "place", "product", "identifier"):
        mine, theirs = one.facts.get(kind), other.facts.get(kind)
        if not mine and not theirs:
            continue
        left = {v: w for v, w in (mine or {}).items() if v not in (theirs or {})}
        right = {v: w for v, w in (theirs or {}).items() if v not in (mine or {})}
        if kind in ("identifier", "language", "place", "product"):
            left = {v: w for v, w in left.items() if v not in other.words}
            right = {v: w for v, w in right.items() if v not in one.words}
        if left or right:
            yield Finding(kind, ", ".join(left.values()), ", ".join(right.values()))


def _names(one: Reading, other: Reading) -> Iterable[Finding]:
    """Names on one side only; one that is part or a misspelling of another is no difference."""
    left = _unmatched(one.facts.get("name", {}), other.words)
    right = _unmatched(other.facts.get("name", {}), one.words)
    if left or right:
        yield Finding("name", ", ".join(left), ", ".join(right))


_NAMES_READ = 40


def _unmatched(names: Iterable[str], words: tuple[str, ...]) -> list[str]:
    joined = " ".join(words)
    return [
        name for name in names if name not in joined and not any(_alike(name, w) for w in words)
    ]


def _alike(one: str, other: str) -> bool:
    """The same word, misspelt or inflected: most of its letters, in order."""
    if one[:4] == other[:4] and len(one) > 4 and len(other) > 4:
        return True
    if abs(len(one) - len(other)) > 1 or len(one) < 5:
        return one == other
    return len(set(zip(one, one[1:], strict=False)) & set(zip(other, other[1:], strict=False))) >= (
        len(one) - 3
    )


def _negation(one: Reading, other: Reading) -> Iterable[Finding]:
    """An odd "not" more on one side."""
    if (len(one.negations) - len(other.negations)) % 2:
        yield Finding("negation", ", ".join(one.negations), ", ".join(other.negations))


def _opposites(one: Reading, other: Reading) -> Iterable[Finding]:
    """A word on one side whose opposite stands on the other."""
    mine, theirs = set(one.words), set(other.words)
    for word in one.words:
        if word not in lexicon.OPPOSITES or word in theirs:
            continue
        turned = (lexicon.OPPOSITES[word] & theirs) - mine
        if turned:
            yield Finding("opposite", word, min(turned))
            return


def _order(one: Reading, other: Reading) -> Iterable[Finding]:
    """Two words that changed places around "to", "from", "than", "before" and the like."""
    mine, theirs = _places(one.words), _places(other.words)
    for word, place in mine.items():
        turned = theirs.get(word)
        if turned is None or turned == place:
            continue
        if any(mine.get(w) == turned and theirs.get(w) == place for w in theirs if w != word):
            yield Finding("order", f"{place} {word}", f"{turned} {word}")
            return
    for direction in _ONE_WAY:
        after, before = _around(one.words, direction), _around(other.words, direction)
        if after is None or before is None or after[1] == before[1]:
            continue
        if after[1] in before[0] and before[1] in after[0]:
            yield Finding("order", f"{direction} {after[1]}", f"{direction} {before[1]}")
            return


_ONE_WAY = ("to", "into", "than", "before", "after", "from", "over", "join")
"""A to B is not B to A."""


def _around(words: tuple[str, ...], direction: str) -> tuple[tuple[str, ...], str] | None:
    """The words before a direction word that stands there once, and the word after it."""
    if words.count(direction) != 1:
        return None
    at = words.index(direction)
    after = [word for word in words[at + 1 : at + 3] if word not in _ARTICLES]
    return (words[:at], after[0]) if after else None


_ARTICLES = frozenset("the a an my your".split())


def _places(words: tuple[str, ...]) -> dict[str, str]:
    """Of each word that a direction word stands before, which one."""
    found: dict[str, str] = {}
    for place, word in enumerate(words[:-1]):
        if word in lexicon.DIRECTIONS:
            following = words[place + 1]
            if following in _ARTICLES and place + 2 < len(words):
                following = words[place + 2]
            found[following] = word
    return found


def _scripts(one: Reading, other: Reading) -> Iterable[Finding]:
    """Asked in another language: its answer would be in another, too."""
    if one.script != other.script:
        yield Finding("script", one.script, other.script)
    elif one.language and other.language and one.language != other.language:
        yield Finding("script", one.language, other.language)
