"""Words that matter when two answers are compared: fillers, polarity, refusals.

Tables only, used by `answers`. English is covered best. For some other European languages there
are stop words, question words and the words for yes, no and not: often enough to give no verdict
rather than a wrong one.
"""

from __future__ import annotations

import re

from semcache.verification.lexicon import NEGATIONS as _ENGLISH_NEGATIONS
from semcache.verification.lexicon import STOPWORDS

FUNCTION_WORDS = frozenset(
    (
        "a an the this that these those there here it its he him his she her hers they them their "
        "theirs we us our you your i me my myself itself himself is are was were be been being am "
        "do does did doing done have has had having will would shall should can could may might "
        "must of to in on at by for from with as into onto upon about over under between among "
        "through during per via and or but nor so if then than because while since until although "
        "though however also too very just only both each such same own other another some any "
        "all more most what which who whom whose when where why how there's it's s t d ll re ve m "
        "up out off again once one ones get got call called name named know known refer referred "
        "include including included answer question according actually currently approximately "
        "about around well not no never without cannot yes"
    ).split()
).union(*STOPWORDS.values())
"""Words that carry no content of an answer."""

YES = frozenset("yes yeah yep correct true ja oui sí si sim da tak evet".split())
NO = frozenset("no nope false incorrect nein non não nee nie nej hayır".split())
NEGATIONS = _ENGLISH_NEGATIONS | frozenset(
    "nicht kein keine keinen niemals pas jamais aucun nunca ningún jamás mai nessuno não nem niet "
    "geen nooit ikke inte hardly rarely neither unable".split()
)
"""Words that negate the words after them."""

HEDGES = frozenset(
    "maybe perhaps possibly probably might could unclear uncertain depends varies disputed".split()
)

TURNS = frozenset("however but nevertheless nonetheless".split())
"""Words after which an answer that began with a refusal may still answer the question."""

REFUSAL = re.compile(
    r"\bno comment\b"
    r"|\b(?:i|we)(?: am|'m| was| were|'re)? ?(?:really |sincerely )?(?:sorry|apologi[sz]e|afraid)\b"
    r"|\b(?:i|we)(?: really| also| currently)? (?:don't|do not|didn't|did not) (?:have|know|"
    r"understand|see|possess|provide)\b"
    r"|\b(?:i|we)(?:'m| am|'re| are)(?: currently| really)? (?:not (?:able|sure|aware|certain|"
    r"allowed|familiar|capable)|unable|unsure)\b"
    r"|\b(?:i|we) (?:can't|cannot|can not|could not|couldn't|won't|will not|would need|need) "
    r"(?:\w+ )?(?:help|assist|answer|provide|find|create|write|give|generate|comply|fulfil|offer|"
    r"access|tell|summari[sz]e|more|discuss|engage|produce|complete|determine|say|do|make)"
    r"|\b(?:not|in)?(?:sufficient|enough) (?:context|information|details|data)\b"
    r"|\b(?:could|can) you (?:please )?(?:provide|clarify|specify|give|rephrase)\b"
    r"|\bthere (?:is|was) no (?:information|record|data)\b",
    re.IGNORECASE,
)
"""Phrases with which an answer declines to answer."""

FINAL = re.compile(
    r"(?:####|^[ \t]*a(?:nswer)?[ \t]*:|\\boxed\s*\{|"
    r"\banswer (?:is|was|would be|equals|=)|\banswer[ \t]*:)"
    r"[\s*$€£¥₹:{]{0,12}(-?\d{1,30}(?:\.\d{1,30})?)",
    re.IGNORECASE | re.MULTILINE,
)
"""A number that the text marks as the result."""

ASKS_NUMBER = re.compile(
    r"\b(?:when|how (?:many|much|long|old|far|tall|big|high|deep|often|fast|heavy|large)|"
    r"(?:what|which) (?:year|date|day|time|number|percent\w*|age|month|century|price|amount)|"
    r"calculate|compute|(?:sum|total|average|product|price|cost|amount|number|percentage) of|"
    r"wann|wie ?viele?|combien|quand|cu[aá]nt[oa]s?|cu[aá]ndo|quant[oie]|quando|hoeveel|wanneer)\b"
    r"|\d\s?[-+*/x×÷^]\s?\d",
    re.IGNORECASE,
)
"""A question whose answer is a number or a date."""
