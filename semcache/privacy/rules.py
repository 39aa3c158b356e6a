"""Finds personal data in a text by rule.

The rules find the plain cases: e-mail addresses, phone, card and account numbers, credentials, and
questions whose answer depends on who asks ("Where is my order?", in English only). They do not find
names and postal addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from semcache.credentials import masked_text

RULES = ("email", "phone", "card", "account", "social_security", "credential", "about_asker")
"""The kinds that the rules find."""
MAX_SEARCHED = 100_000
"""Characters of a text that are searched. A longer text counts as personal, since its end is not
searched."""

_EMAIL = re.compile(
    r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}|[\w.+-]{1,64} ?(?:\(at\)|\[at\]) ?[\w-]{1,63}"
)
_NUMBER = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ()./-]{0,2}\d){6,18}(?![\w])")
_PHONE = re.compile(r"\+\d|\(\d{2,4}\)|0\d|\d{3}[-. ]\d{3,4}[-. ]\d{4}$")  # with `match`
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
_SOCIAL_SECURITY = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")

_OWN_THING = (
    r"(?:account|allowance|application|appointment|balance|bill|booking|claim|contract|coverage|"
    r"deductible|delivery|deposit|diagnosis|flight|invoice|loan|luggage|membership|mortgage|"
    r"order(?! by)|package(?!\.)|parcel|password|payment|payslip|pension|pin|plan|prescription|"
    r"refund|rent|reservation|salary|seat|shift|shipment|subscription|tariff|ticket|transaction|transfer|"
    r"usage|vacation|visa|warranty|username|birthday|(?:credit |debit |bank )?card)"
)
_ABOUT_ASKER = re.compile(
    # "Where is my order?", "Why was my card declined?", "What's the status of my claim?"
    r"\b(?:what|where|when|which|who|why|how (?:much|many|long|old|far|high|big))"
    r"(?:'s|\u2019s|s| \S+ is| is| are| was| were| will| did| does| do| has| have)"
    r"(?: the (?:status|state|balance|date|time|number|amount|progress) of| in| on| \S+)?"
    r" my(?: \S+){0,2}? " + _OWN_THING + r"(?:e?s)?\b"
    r"|\b(?:left|remaining|open|due) (?:on|in|of) my \w+"
    # "Is my refund on its way?", "Has my invoice been paid?"
    r"|^(?:is|are|was|were|has|have|did|does|will) my(?: \S+){0,2}? " + _OWN_THING + r"(?:e?s)?\b"
    # "Show me my last order", "Tell me my balance"
    r"|\b(?:show|tell|send|give) me my(?: \S+){0,2}? " + _OWN_THING + r"(?:e?s)?\b"
    # "How much do I owe?", "How many days do I have left?", "What did I order?"
    r"|\bhow (?:much|many)(?: \S+){0,3}? (?:do|did|have|will) i"
    r" (?:have|owe|owed|get|left|spend|spent|pay|paid|earn|used|still)\b"
    r"|\b(?:what|when|where) (?:did i (?:order|buy|pay|book|return|send|spend)|do i owe)\b",
    re.IGNORECASE,
)


def found_by_rules(text: str) -> tuple[str, ...]:
    """The kinds of personal data that the rules find in a text, in the order of `RULES`."""
    found = set(_kinds(text[:MAX_SEARCHED]))
    return tuple(kind for kind in RULES if kind in found)


def _kinds(text: str) -> Iterator[str]:
    if ("@" in text or "at" in text) and _EMAIL.search(text):
        yield "email"
    for number in _NUMBER.finditer(text):
        yield from _kind_of_number(number[0])
    if any(_is_iban(found[0]) for found in _IBAN.finditer(text)):
        yield "account"
    if _SOCIAL_SECURITY.search(text):
        yield "social_security"
    pieces = (text[start : start + 9_000] for start in range(0, len(text), 8_000))
    if any(masked_text(piece) != piece for piece in pieces):
        yield "credential"
    if about_asker(text):
        yield "about_asker"


def about_asker(question: str) -> bool:
    """Whether the answer depends on who asks, as in "Where is my order?" (English only).

    "How do I cancel my subscription?" is not such a question: it has one answer for everybody.
    """
    return _ABOUT_ASKER.search(" ".join(question[:2000].split())) is not None


def _kind_of_number(text: str) -> Iterator[str]:
    digits = "".join(filter(str.isdigit, text))
    if 13 <= len(digits) <= 19 and _luhn(digits):
        yield "card"
    elif 7 <= len(digits) <= 15 and _PHONE.match(text) and not _DATE.fullmatch(text.strip("() ")):
        yield "phone"


def _luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0 and len(set(digits)) > 1


def _is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN are right (ISO 13616)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1
