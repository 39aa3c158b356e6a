"""Finds visible differences between two questions: numbers, dates, names, negation, order, ...

A finding quotes the words, so that a refusal can be understood ("2 years / 3 years"). It is
`decisive` if both questions say something of the kind and differ ("to Boston" / "to Denver"), but
not if one merely says more; a differing negation is always decisive. These are rules, not learned;
a pair takes tens of microseconds. A decisive finding of a kind in `features.REFUSING` refuses the
candidate. All others become features, weighted by how often answers were right in spite of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from semcache.types import Finding
from semcache.verification import lexicon, roles, spelling

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
    "case",
    "sign",
    "accent",
    "layout",
    "age",
    "reported",
)
"""The kinds of findings."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One question as the guards read it.

    Attributes:
        words: its words, in order and in lower case.
        facts: for each kind, the normalized values, each with the words as written.
        negations: its negating words, such as "not".
        script: "latin", "cyrillic", "han", ...
        language: "en", "de", ...; None if it is not clear.
    """

    words: tuple[str, ...]
    facts: dict[str, dict[str, str]]
    negations: tuple[str, ...]
    script: str
    language: str | None

    @property
    def perishable(self) -> tuple[str, ...]:
        """Its words that make an answer go out of date, such as "today"."""
        return tuple(word for word in self.words if word in lexicon.PERISHABLE)


_WORD = re.compile(r"[^\W_]+(?:[.'\u2019+#/:@_-]*[^\W_]+)*[+#]*|[$€£¥₹%]")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""The comma in 1,000."""
_JOINED = re.compile(r"(?<=\d)-(?=[A-Za-z]{3,})")
"""The hyphen in "3-year"."""
_BRACKETED = re.compile(r"(\d)\((\w)\)")
"""The brackets in 401(k)."""
_PLAIN_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)(st|nd|rd|th|k|m|bn|b|%)?")
_SPLIT = re.compile(r"(\d[\d,]*(?:\.\d+)?)([a-z°]+)")
_NAME = re.compile(r"(?<=[\w,)\]] )[A-Z][\w'\u2019]*[\w]|\b[A-Z]{2,}\b")


def compare(stored: str, asked: str) -> tuple[Finding, ...]:
    """The differences between a stored question and a new one, the decisive ones first."""
    one, other = reading(stored), reading(asked)
    findings = [
        *_facts(one, other),
        *_names(one, other),
        *_negation(one, other),
        *_opposites(one, other),
        *_order(one, other),
        *_scripts(one, other),
        *_spelling(stored, asked),
    ]
    return tuple(sorted(findings, key=lambda finding: not finding.decisive))


_LONGEST = 4000
"""Characters of a question that are read; the rest is ignored."""


@lru_cache(maxsize=4096)
def reading(text: str) -> Reading:
    """Read a question for comparison with others."""
    text = _BRACKETED.sub(r"\1\2", _JOINED.sub(" ", _GROUPED.sub("", text[:_LONGEST])))
    words = tuple(match.group() for match in _WORD.finditer(text))
    lower = tuple(word.lower().replace("\u2019", "'") for word in words)
    return Reading(
        lower,
        _stated_facts(lower, _capitals(text)),
        tuple(word for word in lower if _negates(word)),
        _script(text),
        _language(lower),
    )


def _negates(word: str) -> bool:
    return word in lexicon.NEGATIONS or word.endswith("n't")


# --------------------------------------------------------------------------- one question


def _stated_facts(words: tuple[str, ...], names: frozenset[str]) -> dict[str, dict[str, str]]:
    facts: dict[str, dict[str, str]] = {}

    def add(kind: str, value: str, as_written: str) -> None:
        facts.setdefault(kind, {})[value] = as_written

    for i, word in enumerate(words):
        after = words[i + 1] if i + 1 < len(words) else ""
        number, unit = _number(word, words[i - 1] if i else "")
        if (minutes := _time(word, after)) is not None:
            add("time", f"{minutes}", f"{word} {after}" if after in ("am", "pm") else word)
        elif i and _one_number(words[i - 1], word):
            continue  # read with the word before it
        elif number is not None:
            two_words = _one_number(word, after)
            if two_words:
                number, unit = _joined(number, after), None
            following = lexicon.UNITS.get(after)
            unit = unit or following
            written = f"{word} {after}" if following or two_words else word
            add("number", f"{number:.12g}", written)
            if unit:
                add("unit", unit, written)
        elif word in lexicon.MONTHS and not (word == "may" and "may" not in names):
            add("date", lexicon.MONTHS[word], word)
        elif word in lexicon.WEEKDAYS:
            add("date", lexicon.WEEKDAYS[word], word)
        elif _is_identifier(word):
            add("identifier", _normal_identifier(word), word)
        else:
            for kind, terms in lexicon.KINDS:
                if word in terms:
                    add(kind, lexicon.ALIASES.get(word, word), word)
                    break
            else:
                if word in names:
                    add("name", word, word)
    return facts


def _one_number(word: str, after: str) -> bool:
    """Whether two words make one number: 1.5 million, twenty five."""
    if after in lexicon.MAGNITUDES:
        return word[0].isdigit() or word in lexicon.NUMBER_WORDS
    return word in lexicon.TENS and 1 <= lexicon.NUMBER_WORDS.get(after, 0) <= 9


def _joined(number: float, after: str) -> float:
    if after in lexicon.MAGNITUDES:
        return number * lexicon.MAGNITUDES[after]
    return number + lexicon.NUMBER_WORDS[after]


def _normal_identifier(word: str) -> str:
    """One spelling for covid-19 and covid19, v1.2 and 1.2, 01/05 and 1/5."""
    bare = re.sub(r"\b0+(?=\d)", "", re.sub(r"^v(?=\d)", "", word))
    return bare.replace("-", "") if bare[0].isalpha() else bare


_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(am|pm)?")


def _time(word: str, after: str) -> int | None:
    """Minutes since midnight for 9am, 9:00 or "9 pm"; None if the word is not a time of day."""
    match = _TIME.fullmatch(word)
    if match is None:
        return None
    half = match[3] or (after if after in ("am", "pm") else None)
    if match[2] is None and half is None:
        return None
    hour = int(match[1]) % 12 + 12 * (half == "pm") if half else int(match[1])
    return 60 * hour + int(match[2] or 0)


def _number(word: str, before: str) -> tuple[float | None, str | None]:
    """The number and the unit in a word; (None, None) if it is not a number."""
    value = lexicon.NUMBER_WORDS.get(word, lexicon.ORDINALS.get(word))
    if value is not None:
        # Mostly not numbers: "the one", "no one", "first of all".
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


def _is_identifier(word: str) -> bool:
    """Whether a word mixes letters and digits, or is an address: a part number, version or path."""
    digits = any(c.isdigit() for c in word)
    return (digits and not word.isdigit()) or "@" in word or word.count("/") + word.count("_") > 1


def _capitals(text: str) -> frozenset[str]:
    """Names, in lower case: words with a capital that do not merely begin a sentence.

    Empty if most words of the text are capitalized, since capitals then mean nothing.
    """
    letters = [word for word in text.split() if word[:1].isalpha()]
    capitalized = sum(word[:1].isupper() for word in letters)
    if not letters or (capitalized > 0.6 * len(letters) and len(letters) > 3):
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
    """The language whose most common words clearly prevail; None if it is not clear."""
    distinct = set(words)
    counts = sorted(
        ((len(distinct & common), name) for name, common in lexicon.STOPWORDS.items()), reverse=True
    )
    (most, name), (next_most, _) = counts[0], counts[1]
    return name if most >= 2 and most >= next_most + 2 else None


# --------------------------------------------------------------------------- two questions


def _facts(one: Reading, other: Reading) -> Iterable[Finding]:
    """For each kind, the values that only one question states."""
    for kind in ("number", "unit", "date", "time", "language", "place", "product", "identifier"):
        of_one, of_other = one.facts.get(kind, {}), other.facts.get(kind, {})
        only_one = {v: w for v, w in of_one.items() if v not in of_other}
        only_other = {v: w for v, w in of_other.items() if v not in of_one}
        if kind in ("identifier", "language", "place", "product"):
            only_one = {v: w for v, w in only_one.items() if v not in other.words}
            only_other = {v: w for v, w in only_other.items() if v not in one.words}
        if only_one or only_other:
            yield Finding(kind, ", ".join(only_one.values()), ", ".join(only_other.values()))


def _names(one: Reading, other: Reading) -> Iterable[Finding]:
    """Names that only one question has, ignoring parts and misspellings of words in the other."""
    only_one = _unmatched(one.facts.get("name", {}), other.words)
    only_other = _unmatched(other.facts.get("name", {}), one.words)
    if only_one or only_other:
        yield Finding("name", ", ".join(only_one), ", ".join(only_other))


def _unmatched(names: Iterable[str], words: tuple[str, ...]) -> list[str]:
    joined = " ".join(words)
    return [
        name for name in names if name not in joined and not any(_alike(name, w) for w in words)
    ]


def _alike(one: str, other: str) -> bool:
    """Whether two words are probably the same, misspelt or inflected."""
    if one[:4] == other[:4] and len(one) > 4 and len(other) > 4:
        return True
    if abs(len(one) - len(other)) > 1 or len(one) < 5:
        return one == other
    return len(set(zip(one, one[1:], strict=False)) & set(zip(other, other[1:], strict=False))) >= (
        len(one) - 3
    )


def _negation(one: Reading, other: Reading) -> Iterable[Finding]:
    """A finding if the counts of negations differ by an odd number: the meaning is reversed."""
    if (len(one.negations) - len(other.negations)) % 2:
        yield Finding("negation", ", ".join(one.negations), ", ".join(other.negations))


def _opposites(one: Reading, other: Reading) -> Iterable[Finding]:
    """A word in one question whose opposite is in the other."""
    in_one, in_other = set(one.words), set(other.words)
    for word in one.words:
        if word in in_other:
            continue
        opposites = (lexicon.opposites_of(word) & in_other) - in_one
        if opposites:
            yield Finding("opposite", word, min(opposites))
            return


def _order(one: Reading, other: Reading) -> Iterable[Finding]:
    """A finding if words have swapped positions in a way that changes the meaning."""
    found = next(iter(_swapped_around(one, other)), None)
    if found is None and (exchanged := roles.exchanged(one.words, other.words)) is not None:
        found = Finding("order", *exchanged)
    if found is not None:
        yield found


def _swapped_around(one: Reading, other: Reading) -> Iterable[Finding]:
    """Two words that have swapped around "to", "from", "than", "before" and the like."""
    in_one, in_other = _directions(one.words), _directions(other.words)
    for word, direction in in_one.items():
        changed = in_other.get(word)
        if changed is None or changed == direction:
            continue
        if any(in_one.get(w) == changed and d == direction for w, d in in_other.items()):
            yield Finding("order", f"{direction} {word}", f"{changed} {word}")
            return
    for direction in _ONE_WAY:
        split_one, split_other = _around(one.words, direction), _around(other.words, direction)
        if split_one is None or split_other is None:
            continue
        (before_one, after_one), (before_other, after_other) = split_one, split_other
        if after_one == after_other:
            continue
        if after_one in before_other and after_other in before_one:
            yield Finding("order", f"{direction} {after_one}", f"{direction} {after_other}")
            return


_ONE_WAY = ("to", "into", "than", "before", "after", "from", "over", "join")
"""Words whose two sides cannot be swapped: A to B is not B to A."""


def _around(words: tuple[str, ...], direction: str) -> tuple[tuple[str, ...], str] | None:
    """The words before `direction` and the word after it; None unless it occurs exactly once."""
    if words.count(direction) != 1:
        return None
    at = words.index(direction)
    after = [word for word in words[at + 1 : at + 3] if word not in _ARTICLES]
    return (words[:at], after[0]) if after else None


_ARTICLES = frozenset("the a an my your".split())


def _directions(words: tuple[str, ...]) -> dict[str, str]:
    """For each word that follows a direction word: that direction word."""
    directions: dict[str, str] = {}
    for i, word in enumerate(words[:-1]):
        if word in lexicon.DIRECTIONS:
            following = words[i + 1]
            if following in _ARTICLES and i + 2 < len(words):
                following = words[i + 2]
            directions[following] = word
    return directions


def _spelling(stored: str, asked: str) -> Iterable[Finding]:
    """A difference in how the same words are written that may change the answer."""
    found = spelling.difference(stored, asked)
    if found is not None:
        yield found


def _scripts(one: Reading, other: Reading) -> Iterable[Finding]:
    """A different script or language: the answer would be in that language, too."""
    if one.script != other.script:
        yield Finding("script", one.script, other.script)
    elif one.language and other.language and one.language != other.language:
        yield Finding("script", one.language, other.language)
