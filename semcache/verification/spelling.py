"""Compares how two questions with the same words are written.

Capitals, punctuation and spaces mostly mean nothing: people type "how do i cancel" for "How do I
cancel?". But `git branch -d` is not `git branch -D`, 5! is not 5, and "us" is not "US". The
embedding model and the pair model see neither capitals nor accents, so such differences must be
found here.

Pure functions, in time linear in the length of the questions.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

from semcache.types import Finding
from semcache.verification import lexicon

_LONGEST = 4000
"""Maximum number of characters of a question that are compared."""
_TOKEN = re.compile(r"(\s*)(\S+)")
_SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]?$")
_FINAL_MARK = re.compile(r"(?:(?<=[^\W\d_]{2})[.?!]|(?<=[^\W_])[.?])$")
_CODE_SIGN = re.compile(
    r"[`\\{}<>=;|$~^\[\]#@*_&%]|[^\W\d]\(|\(\d|\w[.:/]\w|[^\W\d],[\"'\w]|(?<!\w)-\w|(?<!\S)[?.!:]"
)
"""Punctuation that is typical of code, paths and commands."""
_CODE_NAME = re.compile(
    r"\b(?:SELECT|FROM|WHERE|regexp?|glob|wildcard|operator|punctuat\w+|indent\w*|[Pp]ython|Java|"
    r"[Jj]ava[Ss]cript|SQL|sql|[Bb]ash|HTML|html|CSS|JSON|json|YAML|yaml|LaTeX|Markdown|PHP|php|"
    r"Ruby|Scheme|Lisp|Haskell|Go|Rust|CSV|csv)\b"
)
"""Words that show that a question is about code, where every character counts."""
_OPTIONAL = re.compile(
    r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d)\((?=\w\))|(?<=\d\(\w)\)|(?<=[a-z]{3})-(?=\d)"
)
"""Punctuation that may be left out next to digits: 1,000, 401(k), covid-19."""
_NUMBER = re.compile(r"[\d.,]*\d")
_PROSE_SIGNS = re.compile(r"[.,;:!?\u2026\"'\u201c\u201d\u2018\u2019\u00bf\u00a1()\u2013\u2014-]+")
_FLAG = re.compile(r"(?<![\w-])-[A-Za-z]+(?!\w)|\\[A-Za-z]")
"""Command-line options, and escapes in regular expressions."""
_PRONOUN = re.compile(r"[iI](?:['\u2019](?:m|ve|d|ll|M|VE|D|LL))?")


@dataclass(frozen=True, slots=True)
class _Token:
    """A word with its punctuation, and the white space before it."""

    space: str
    text: str


def same_words(stored: str, asked: str) -> bool:
    """Whether two questions differ in nothing that could change the answer.

    It does not matter whether a sentence begins with a capital, whether "I" is a capital, whether
    the last word is followed by a mark, how many spaces separate words of prose or surround the
    text, or how apostrophes and accented letters are encoded.
    """
    if stored == asked:
        return bool(stored.strip())
    one, other = _tokens(stored), _tokens(asked)
    if len(one) != len(other) or not one:
        return False
    signs = _CODE_SIGN.search(stored) is not None or _CODE_SIGN.search(asked) is not None
    if not _same_spaces(one, other, signs):
        return False
    last = len(one) - 1
    begins = True
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        if a.text != b.text:
            left, right = a.text, b.text
            if number == last:
                left, right = _without_final_mark(left, right)
            if not _same_word(left, right, begins=begins) and not _same_pronoun(one, other, number):
                return False
        begins = _SENTENCE_END.search(a.text) is not None
    return True


def difference(stored: str, asked: str) -> Finding | None:
    """The first difference in case, signs or layout that may change the answer, or None.

    Where the words differ as well, only command-line options are compared: other differences are
    left to the models.
    """
    stored, asked = stored[:_LONGEST], asked[:_LONGEST]
    flags = _flags(stored, asked)
    if flags is not None or _letters(stored) != _letters(asked):
        return flags
    code = _is_code(stored) or _is_code(asked)
    if _layout(stored, code) != _layout(asked, code):
        return Finding("layout", "these line breaks or indentation", "different ones")
    one, other = _tokens(stored), _tokens(asked)
    if len(one) != len(other):
        return _split_otherwise(one, other, code)
    careful = _case_means_something(stored) and _case_means_something(asked)
    begins, counted = True, False
    for a, b in zip(one, other, strict=True):
        if a.text != b.text:
            if _signs_differ(a.text, b.text, code):
                return Finding("sign", a.text, b.text)
            if _accents_differ(a.text, b.text):
                return Finding("accent", a.text, b.text)
            if _case_differs(a.text, b.text, begins, careful, code) or (
                counted and careful and len(a.text) <= 5 and a.text[1:2] != b.text[1:2].lower()
            ):
                return Finding("case", a.text, b.text)
        elif code and a.space != b.space and "".join((a.space, b.space)).strip(" "):
            return Finding("layout", repr(a.space), repr(b.space))
        begins = _SENTENCE_END.search(a.text) is not None
        counted = _NUMBER.fullmatch(a.text) is not None
    return None


# ------------------------------------------------------------------------------- the same words


def _tokens(text: str) -> list[_Token]:
    # Without white space at the end, where the pattern would be tried from each character.
    found = [_Token(match[1], match[2]) for match in _TOKEN.finditer(text.rstrip())]
    if found and "\n" not in text.strip():
        # Leading white space of a single line means nothing, nor does the opening mark of ¿Qué?
        found[0] = _Token("", found[0].text.lstrip("¿¡") or found[0].text)
    return found


def _same_spaces(one: list[_Token], other: list[_Token], code: bool) -> bool:
    for a, b in zip(one, other, strict=True):
        if a.space != b.space and (code or a.space.strip(" ") or b.space.strip(" ")):
            return False
    return True


def _without_final_mark(one: str, other: str) -> tuple[str, str]:
    """The last words, without a mark that only one of them has."""
    bare_one, bare_other = _FINAL_MARK.sub("", one), _FINAL_MARK.sub("", other)
    both = bare_one != one and bare_other != other
    return (one, other) if both else (bare_one, bare_other)


def _same_word(one: str, other: str, *, begins: bool) -> bool:
    if one == other:
        return True
    if not one.isascii() or not other.isascii():
        one, other = _composed(one), _composed(other)
    if one == other:
        return True
    return (
        begins
        and len(one) > 1
        and one[1:] == other[1:]
        and one[0].lower() == other[0].lower()
        and one[1].isalpha()
    )


def _composed(word: str) -> str:
    """One encoding for letters with accents and for apostrophes; long words stay as they are."""
    word = word.replace("\u2019", "'")
    return unicodedata.normalize("NFC", word) if len(word) <= 64 else word


def _same_pronoun(one: list[_Token], other: list[_Token], number: int) -> bool:
    """Whether both words are the pronoun "I": contracted, or beside a verb that goes with it."""
    a, b = one[number].text.rstrip("?.!,"), other[number].text.rstrip("?.!,")
    if not _PRONOUN.fullmatch(a) or a.lower() != b.lower():
        return False
    if one[number].text[1:] != other[number].text[1:]:
        return False
    before = one[number - 1].text.lower() if number else ""
    after = one[number + 1].text.lower() if number + 1 < len(one) else ""
    return len(a) > 1 or before in lexicon.BEFORE_I or after in lexicon.AFTER_I


# ------------------------------------------------------------------------ what may matter


def _is_code(text: str) -> bool:
    return _CODE_SIGN.search(text) is not None or _CODE_NAME.search(text) is not None


def _letters(text: str) -> str:
    """Letters and digits alone, without case, accents and compatibility forms."""
    if text.isascii():
        return "".join(filter(str.isalnum, text.lower()))
    folded = "".join(_plain_letter(letter) for letter in text)
    return "".join(filter(str.isalnum, folded.casefold()))


def _plain_letter(letter: str) -> str:
    return letter if letter.isascii() else unicodedata.normalize("NFKD", letter)


def _flags(stored: str, asked: str) -> Finding | None:
    one, other = set(_FLAG.findall(stored)), set(_FLAG.findall(asked))
    for flag in sorted(one - other):
        twin = next((f for f in sorted(other - one) if f.lower() == flag.lower()), None)
        if twin is not None:
            return Finding("case", flag, twin)
    return None


def _layout(text: str, code: bool) -> list[tuple[str, str]]:
    """The white space around each line; [] for a single line, or for two lines of prose."""
    lines = text.strip("\n").rstrip().split("\n")
    if len(lines) == 1 or (len(lines) == 2 and not code):
        return []
    return [
        (line[: len(line) - len(line.lstrip())], line[len(line.rstrip()) :])
        if line.strip()
        else ("", "")
        for line in lines
    ]


def _split_otherwise(one: list[_Token], other: list[_Token], code: bool) -> Finding | None:
    """The first place where the words are divided differently, if that matters there."""
    for a, b in zip(one, other, strict=False):
        if a.text.rstrip(".?!,") != b.text.rstrip(".?!,"):
            matters = code or any(map(str.isdigit, a.text + b.text))
            return Finding("sign", a.text, b.text) if matters else None
    return None


def _case_means_something(text: str) -> bool:
    """Whether a text has both upper and lower case, so that case may mean something."""
    return not text.islower() and not text.isupper()


def _signs_differ(one: str, other: str, code: bool) -> bool:
    if _composed(one) == _composed(other):
        return False
    if not code:
        return _signs(_bare(one)) != _signs(_bare(other))
    if any(map(str.isalnum, one)) and any(map(str.isalnum, other)):
        one, other = one.rstrip(".?!,"), other.rstrip(".?!,")
    return _signs(one) != _signs(other)


def _signs(word: str) -> str:
    return "".join(sign for sign in word if not sign.isalnum() and not unicodedata.combining(sign))


def _bare(word: str) -> str:
    """A word of prose without punctuation; with digits or a lone letter, most of it is kept."""
    if any(map(str.isdigit, word)) or sum(map(str.isalpha, word)) < 2:
        word = _OPTIONAL.sub("", word)
        return word.rstrip(".,?") if word[:1].isalnum() else word
    return _PROSE_SIGNS.sub("", word)


def _accents_differ(one: str, other: str) -> bool:
    """Whether two words differ in accents or special characters that change the word.

    Two different accents do, and so do letters in their own right (ñ, ö, ß) and digits (²). Any
    other accent that only one word has means nothing: not everybody can type it.
    """
    if one.isascii() and other.isascii():
        return False
    one, other = (_PROSE_SIGNS.sub("", _composed(word).lower()) for word in (one, other))
    if not one.isascii() and not other.isascii():
        return one != other
    return any(c in lexicon.OWN_LETTERS or not c.isalpha() for c in one + other if not c.isascii())


def _case_differs(one: str, other: str, begins: bool, careful: bool, code: bool) -> bool:
    a, b = _PROSE_SIGNS.sub("", one), _PROSE_SIGNS.sub("", other)
    if a == b or a.lower() != b.lower():
        return False
    if _PRONOUN.fullmatch(a) and not code:
        return False
    first_only = a[1:] == b[1:]
    if begins and first_only and len(a) > 1:
        return False
    small = a.lower()
    if small in lexicon.SHORT_ACRONYMS and not first_only:
        return True
    if not careful:
        return len(a) == 1 or not a.isalpha()
    if len(a) == 1 or not a.isalpha() or (len(a) <= 3 and not (first_only and small.islower())):
        return True
    if code:
        return small not in lexicon.PRODUCTS
    if first_only:
        return small in lexicon.CASE_WORDS or (len(a) == 2 and small not in lexicon.SMALL_WORDS)
    return _has_inner_capital(a) != _has_inner_capital(b)


def _has_inner_capital(word: str) -> bool:
    """Whether a capital follows a lower-case letter, as in getElement."""
    return any(a.islower() and b.isupper() for a, b in pairwise(word))
