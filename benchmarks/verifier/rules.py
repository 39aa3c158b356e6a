"""Pairs made by rule: a change of wording that keeps the answer, or of the word that decides it.

The rules say what the verifier must know and what labelled sets hold little of: that "3"
and "three" ask the same and "3" and "4" do not, that a greeting changes nothing and "not"
changes all. Each rule takes a text and chance, and gives another text or None.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Rule = Callable[[str, random.Random], str | None]

_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_MONTHS = (
    "january february march april may june july august september october november december".split()
)
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()

GROUPS: tuple[tuple[str, ...], ...] = tuple(
    tuple(group.split("|"))
    for group in (
        "|".join(_MONTHS),
        "|".join(_DAYS),
        "day|week|month|year|hour|minute",
        "days|weeks|months|years|hours|minutes",
        "daily|weekly|monthly|yearly",
        "km|miles|meters|feet",
        "kg|pounds|grams|ounces",
        "celsius|fahrenheit|kelvin",
        "mb|gb|tb|kb",
        "dollars|euros|pounds|rupees|yen",
        "usd|eur|gbp|inr|jpy|chf|cad",
        "today|tomorrow|yesterday",
        "morning|afternoon|evening|night",
        "first|second|third|last",
        "who|when|where|why",
        "india|china|japan|germany|france|canada|australia|brazil|mexico|italy|spain|russia|usa|uk",
        "london|paris|boston|denver|chicago|mumbai|delhi|tokyo|berlin|madrid|toronto|sydney",
        "english|french|german|spanish|italian|japanese|chinese|hindi|arabic|russian|korean",
        "python|java|javascript|ruby|rust|go|php|kotlin|swift|c++|c#",
        "windows|linux|macos|android|ios|ubuntu",
        "iphone|android|ipad|laptop",
        "facebook|instagram|twitter|whatsapp|snapchat|youtube|linkedin",
        "google|amazon|microsoft|apple|netflix|tesla",
        "mysql|postgresql|mongodb|sqlite|redis",
        "red|blue|green|yellow|black|white|purple|orange",
        "breakfast|lunch|dinner",
        "mother|father|sister|brother|son|daughter|wife|husband",
        "cat|dog|horse|rabbit|bird",
        "dogs|cats|horses|rabbits|birds",
        "north|south|east|west",
        "doctor|lawyer|engineer|teacher|nurse|pilot",
        "visa|mastercard|paypal|bitcoin",
        "basic|premium|enterprise|free",
        "car|bike|bus|train|plane|truck",
        "gold|silver|copper|iron",
        "summer|winter|spring|autumn",
        "bachelor|master|phd",
        "debit|credit|prepaid",
        "pdf|word|excel|csv|json|xml",
        "chrome|firefox|safari|edge",
    )
)

OPPOSITES: tuple[tuple[str, str], ...] = tuple(
    tuple(pair.split("|"))  # type: ignore[misc]  # each holds one bar
    for pair in (
        "increase|decrease increase|reduce raise|lower open|close enable|disable buy|sell "
        "best|worst cheap|expensive cheapest|fastest before|after more|less most|least "
        "minimum|maximum min|max start|stop add|remove gain|lose import|export deposit|withdraw "
        "upgrade|downgrade with|without can|cannot can|can't is|isn't do|don't does|doesn't "
        "are|aren't should|shouldn't will|won't did|didn't login|logout install|uninstall "
        "subscribe|unsubscribe block|unblock lock|unlock send|receive lend|borrow win|lose "
        "good|bad safe|dangerous legal|illegal possible|impossible possible|necessary "
        "advantages|disadvantages pros|cons strengths|weaknesses men|women boys|girls man|woman "
        "boy|girl male|female old|new younger|older larger|smaller bigger|smaller longer|shorter "
        "highest|lowest largest|smallest longest|shortest fastest|slowest earliest|latest "
        "early|late left|right up|down above|below inside|outside upper|lower "
        "indoor|outdoor domestic|international local|global public|private personal|business "
        "arrive|depart arrival|departure arriving|departing from|to to|from push|pull rise|fall "
        "encrypt|decrypt encode|decode upload|download create|delete show|hide accept|reject "
        "love|hate like|dislike hot|cold fast|slow strong|weak hard|easy rich|poor always|never "
        "ascending|descending even|odd positive|negative true|false single|multiple "
        "vertical|horizontal north|south east|west mother|father employee|employer "
        "teacher|student buyer|seller landlord|tenant husband|wife all|some any|every "
        "previous|next last|next past|future beginning|end top|bottom hire|fire "
        "cause|cure causes|symptoms symptoms|treatment price|size cost|benefit how|why "
        "income|expenses freeze|unfreeze activate|deactivate weight|height young|old"
    ).split()
)

_SAME_WORDS: tuple[tuple[str, str], ...] = (
    ("how do i", "how can i"),
    ("how do i", "how to"),
    ("how can i", "how to"),
    ("how do i", "what is the way to"),
    ("how do you", "how can you"),
    ("how should i", "what is the best way to"),
    ("what is", "what's"),
    ("what are", "which are"),
    ("who is", "who's"),
    ("where is", "where's"),
    ("cannot", "can't"),
    ("can not", "can't"),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("i am", "i'm"),
    ("is not", "isn't"),
    ("buy", "purchase"),
    ("fix", "repair"),
    ("start", "begin"),
    ("big", "large"),
    ("quick", "fast"),
    ("get", "obtain"),
    ("need", "require"),
    ("help", "assist"),
    ("show me", "give me"),
    ("show", "display"),
    ("tell me", "let me know"),
    ("list", "enumerate"),
    ("pictures", "photos"),
    ("phone", "telephone"),
    ("movie", "film"),
    ("car", "automobile"),
    ("job", "occupation"),
    ("kids", "children"),
    ("difference between", "distinction between"),
    ("why does", "for what reason does"),
    ("is it possible to", "can i"),
    ("how much does", "what does"),
    ("delete", "remove"),
    ("create", "make"),
    ("improve", "get better at"),
    ("pros and cons", "advantages and disadvantages"),
    ("about", "regarding"),
    ("united states", "usa"),
    ("u.s.", "us"),
    ("percent", "%"),
    ("kilometers", "km"),
    ("kilograms", "kg"),
    ("versus", "vs"),
    ("for example", "e.g."),
    ("information", "info"),
    ("application", "app"),
    ("maximum", "max"),
    ("minimum", "min"),
    ("account", "acct"),
)

_BEFORE = (
    "please, ",
    "hi, ",
    "hello! ",
    "hey ",
    "quick question: ",
    "question: ",
    "can you tell me ",
    "could you please tell me: ",
    "i want to know ",
    "i was wondering, ",
    "i'd like to know: ",
    "so ",
    "ok, ",
    "excuse me, ",
    "sorry to bother you, ",
    "just curious, ",
    "tell me, ",
    "good morning. ",
    "help! ",
    "one more thing: ",
    "do you know ",
)
_AFTER = (
    " please",
    ", please",
    " thanks",
    ", thank you",
    " thank you!",
    " asap",
    " pls",
    " any ideas?",
    " can you help?",
    " i need help",
    " please explain",
    " thx",
)


def opposite(text: str, rng: random.Random, rules: tuple[Rule, ...] | None = None) -> str | None:
    """A text that asks something else, one change away; None where no rule applies."""
    for rule in rng.sample(rules or CHANGES, len(rules or CHANGES)):
        changed = rule(text, rng)
        if changed is not None and changed.strip().casefold() != text.strip().casefold():
            return changed
    return None


def same(text: str, rng: random.Random) -> str:
    """A text that asks the same in one to three small changes."""
    changed = text
    for rule in rng.sample(KEEPS, rng.choice((1, 1, 2, 2, 3))):
        changed = rule(changed, rng) or changed
    return changed


# ------------------------------------------------------------------------ what changes it


def _word(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w'+#]){re.escape(word)}(?![\w'+#])", re.IGNORECASE)


def _like(old: str, new: str) -> str:
    """`new` with the capitals of `old`."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _replace(text: str, word: str, by: str) -> str | None:
    found = _word(word).search(text)
    if found is None:
        return None
    return text[: found.start()] + _like(found.group(), by) + text[found.end() :]


def change_number(text: str, rng: random.Random) -> str | None:
    """Another number, near or far."""
    found = list(re.finditer(r"\d+", text))
    words = [word for word in _NUMBERS if _word(word).search(text)]
    if not found:
        return _replace(text, rng.choice(words), rng.choice(_NUMBERS)) if words else None
    match = rng.choice(found)
    number = match.group()
    value = int(number[:9])
    other = rng.choice((value + 1, value + rng.randint(1, 9), max(0, value - 1), value * 10))
    if rng.random() < 0.4 and len(number) > 1:  # two digits change places, one changes
        place = rng.randrange(len(number))
        return (
            text[: match.start()]
            + number[:place]
            + str((int(number[place]) + rng.randint(1, 8)) % 10)
            + number[place + 1 :]
            + text[match.end() :]
        )
    return text[: match.start()] + str(other) + text[match.end() :]


def change_group(text: str, rng: random.Random) -> str | None:
    """Another of the same kind: a month for a month, a country for a country."""
    found = [(group, word) for group in GROUPS for word in group if _word(word).search(text)]
    if not found:
        return None
    group, word = rng.choice(found)
    return _replace(text, word, rng.choice([other for other in group if other != word]))


def change_opposite(text: str, rng: random.Random) -> str | None:
    """The opposite of one word."""
    found = [pair for pair in OPPOSITES for word in pair if _word(word).search(text)]
    if not found:
        return None
    one, other = rng.choice(found)
    if _word(one).search(text) and _word(other).search(text):
        return None  # "from A to B": that is for `swap_around`
    return _replace(text, one, other) or _replace(text, other, one)


_AROUND = re.compile(
    r"(?P<a>[\w'.-]+(?: [A-Z][\w'.-]+)?)(?P<join> (?:to|than|before|after|into|from|over|vs\.?|"
    r"of|by|against|with|for|without) (?:a |an |the )?)(?P<b>[\w'.-]+(?: [A-Z][\w'.-]+)?)"
)
_PLAIN = frozenset(
    "i you he she it we they a an the is are was were be do does did have has want need like how "
    "what which who when where why can could should would will to go get used able going due "
    "rid according one some any all kind type out because instead lot best way is my your".split()
)


def swap_around(text: str, rng: random.Random) -> str | None:
    """A to B becomes B to A; bigger than, before, from the same."""
    found = [
        match
        for match in _AROUND.finditer(text)
        if match["a"].casefold() not in _PLAIN and match["b"].casefold() not in _PLAIN
    ]
    if not found:
        return None
    match = rng.choice(found)
    return f"{text[: match.start()]}{match['b']}{match['join']}{match['a']}{text[match.end() :]}"


def swap_names(text: str, rng: random.Random) -> str | None:
    """Two names change places."""
    found = list(re.finditer(r"(?<=[a-z,] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*", text))
    if len(found) < 2:
        return None
    first, second = sorted(rng.sample(found, 2), key=lambda match: match.start())
    if first.group() == second.group():
        return None
    return (
        text[: first.start()]
        + second.group()
        + text[first.end() : second.start()]
        + first.group()
        + text[second.end() :]
    )


def change_name(text: str, rng: random.Random, names: list[str] | None = None) -> str | None:
    """Another name in a name's place."""
    found = list(re.finditer(r"(?<=[a-z,] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*", text))
    pool = names or _NAMES
    if not found:
        return None
    match = rng.choice(found)
    return text[: match.start()] + rng.choice(pool) + text[match.end() :]


_NAMES = (
    "Alice Bob Maria Chen Ahmed Olga Toyota Samsung Harvard Stanford Einstein Newton Kenya Peru "
    "Norway Texas Ohio Florida Nike Boeing Shakespeare Mozart Gandhi Lincoln Obama Cairo Lisbon "
    "Oslo Vienna Dublin Nairobi Lima Egypt Poland Turkey Vietnam Intel Sony Oracle Adobe"
).split()


def negate(text: str, rng: random.Random) -> str | None:
    """Not, put in."""
    for before, after in rng.sample(_NEGATIONS, len(_NEGATIONS)):
        found = re.search(before, text, re.IGNORECASE)
        if found:
            return text[: found.start()] + found.expand(after) + text[found.end() :]
    return None


_NEGATIONS = (
    (r"\bhow to (\w+)", r"how not to \1"),
    (r"\b(can|could|should|would|will|must) (i|you|we|he|she|they|it|people) ", r"\1 \2 not "),
    (r"\b(is|are|was|were) (\w+) (\w+)", r"\1 \2 not \3"),
    (r"\bwith ", "without "),
    (r"\bi (can|could|should|will|would) ", r"i \1 not "),
    (r"\bthat (is|are) ", r"that \1 not "),
    (r"\bi (want|need|like|have) ", r"i don't \1 "),
)


def drop_detail(text: str, rng: random.Random) -> str | None:
    """Without what narrows the question: "... for bulldogs", "... in Java"."""
    found = list(
        re.finditer(
            r" (?:in|for|with|without|from|on|after|before|using) [\w' -]+?(?=[?.,!]|$)", text
        )
    )
    found = [match for match in found if match.start() > 12]
    if not found:
        return None
    match = rng.choice(found)
    return text[: match.start()] + text[match.end() :]


CHANGES: tuple[Rule, ...] = (
    change_number,
    change_number,
    change_group,
    change_group,
    change_opposite,
    change_opposite,
    swap_around,
    swap_names,
    change_name,
    negate,
    drop_detail,
)


# -------------------------------------------------------------------------- what keeps it


def _first(text: str) -> str:
    """As it stands after a greeting: without the capital, unless it is a name's or "I"."""
    return text[0].lower() + text[1:] if text[:1].isupper() and text[1:2].islower() else text


def greet(text: str, rng: random.Random) -> str | None:
    return rng.choice(_BEFORE) + _first(text) if text else None


def thank(text: str, rng: random.Random) -> str | None:
    return text.rstrip("?. ") + rng.choice(("?", "", ".")) + rng.choice(_AFTER)


def lower(text: str, rng: random.Random) -> str | None:  # noqa: ARG001 - one signature for all rules
    return text.lower()


def upper(text: str, rng: random.Random) -> str | None:
    return text.upper() if rng.random() < 0.3 else text.lower()


def unpunctuate(text: str, rng: random.Random) -> str | None:
    stripped = text.rstrip("?.! ")
    return stripped + rng.choice(("", "", "??", "!", " ?", "."))


def typo(text: str, rng: random.Random) -> str | None:
    """Two letters swapped, one lost, one doubled; in a word that is no name and no number."""
    found = list(re.finditer(r"[a-z]{5,}", text))
    if not found:
        return None
    match = rng.choice(found)
    word = match.group()
    place = rng.randrange(1, len(word) - 1)
    changed = rng.choice(
        (
            word[:place] + word[place + 1] + word[place] + word[place + 2 :],
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
        )
    )
    return text[: match.start()] + changed + text[match.end() :]


def other_words(text: str, rng: random.Random) -> str | None:
    """The same in other words of a table."""
    pairs = [*_SAME_WORDS, *((b, a) for a, b in _SAME_WORDS if len(b) > 3)]
    found = [(old, new) for old, new in pairs if _word(old).search(text)]
    return _replace(text, *rng.choice(found)) if found else None


def spell_number(text: str, rng: random.Random) -> str | None:
    """3 and three, 1,000 and 1000, 5% and 5 percent."""
    found = list(re.finditer(r"(?<![\d.,$:/-])(\d{1,2})(?![\d.,:%/-])", text))
    small = [m for m in found if int(m.group()) <= 12]
    if small:
        match = rng.choice(small)
        return text[: match.start()] + _NUMBERS[int(match.group())] + text[match.end() :]
    words = [word for word in _NUMBERS[2:] if _word(word).search(text)]
    if words:
        word = rng.choice(words)
        return _replace(text, word, str(_NUMBERS.index(word)))
    grouped = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    if grouped != text:
        return grouped
    large = re.search(r"(?<![\d.,-])\d{4,7}(?![\d.,-])", text)
    if large and not 1500 < int(large.group()) < 2100:
        return text[: large.start()] + f"{int(large.group()):,}" + text[large.end() :]
    return None


def turn_around(text: str, rng: random.Random) -> str | None:  # noqa: ARG001
    """How do I do it in Java? In Java, how do I do it?"""
    found = re.fullmatch(r"(.{12,}?) ((?:in|on|for|with|at) [A-Z][\w+# ]{1,20})\?", text)
    return f"{found[2].capitalize()}, {_first(found[1])}?" if found else None


KEEPS: tuple[Rule, ...] = (
    greet,
    thank,
    lower,
    upper,
    unpunctuate,
    unpunctuate,
    typo,
    typo,
    other_words,
    other_words,
    spell_number,
    turn_around,
)
