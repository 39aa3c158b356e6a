"""Every judge is held to the contract in `protocols.Judge`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.embedders.default import DefaultEmbedder
from semcache.errors import ConfigError
from semcache.types import Completion
from semcache.verification.answer_comparison import FEATURES
from semcache.verification.answer_verdict import compare_texts
from semcache.verification.answer_weights import WEIGHTS
from semcache.verification.base import Judge
from semcache.verification.judges import FunctionJudge, LocalJudge, ModelJudge, as_judge, verdict
from semcache.verification.pair_model import PairModel

QUESTION = "How long does a refund take?"
STORED = Completion("A refund takes five working days.")

CASES = [
    # a fresh answer, and what a judge may say of it beside the stored one
    ("A refund takes five working days.", {True}),
    ("Refunds are paid within five working days.", {True, None}),
    ("A refund takes ten working days.", {False, None}),
    ("Our offices are in Lisbon and Porto, near the river.", {False, None}),
    ("", {None, False}),
]


@pytest.fixture(params=["local", "local, with the pair model", "function", "model"])
def judge(request: pytest.FixtureRequest, embedder: DefaultEmbedder) -> Judge:
    def says(prompt: str) -> str:
        one, other = prompt.split("Answer A: ")[1].split("\n\nAnswer B: ")
        return "Yes." if one.strip() == other.split("\n")[0].strip() else "no"

    made: dict[str, Callable[[], Judge]] = {
        "local": lambda: LocalJudge(embedder.embed),
        "local, with the pair model": lambda: LocalJudge(embedder.embed, verifier=PairModel()),
        "function": lambda: FunctionJudge(lambda q, a, b: a == b),
        "model": lambda: ModelJudge(says),
    }
    return made[request.param]()


@pytest.mark.parametrize(("fresh", "allowed"), CASES)
def test_a_verdict_is_right_or_none(judge: Judge, fresh: str, allowed: set[bool | None]) -> None:
    """Equal answers are the same; where a judge is not sure it says nothing."""
    said = judge.judge(QUESTION, STORED, Completion(fresh))
    strict = isinstance(judge, LocalJudge)
    assert said in (allowed if strict else allowed | {False})
    assert isinstance(judge, Judge)


def test_answers_without_words_are_not_all_the_same(embedder: DefaultEmbedder) -> None:
    """Two values that are no text are the same if they are equal, and else nobody knows."""
    judge = LocalJudge(embedder.embed)

    def value(payload: Any) -> Completion:
        return Completion("", payload=payload, payload_kind="json")

    assert judge.judge("q", value({"a": 1}), value({"a": 1})) is True
    assert judge.judge("q", value({"a": 1}), value({"a": 2})) is None
    assert judge.judge("q", Completion(""), Completion("")) is None


@pytest.mark.parametrize("said", ["no", 0, 1.0, [], object()])
def test_a_function_must_say_true_false_or_none(said: object) -> None:
    """Anything else is an error, which is no label."""
    judge = FunctionJudge(lambda q, a, b: said)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="True, False or None"):
        judge.judge("q", STORED, STORED)


def test_a_function_may_say_it_in_numpy_s_words() -> None:
    """np.True_ is True."""
    assert FunctionJudge(lambda q, a, b: np.bool_(True)).judge("q", STORED, STORED) is True


def test_an_async_function_is_no_judge() -> None:
    """Its coroutine would count as True."""

    async def judge(question: str, stored: str, fresh: str) -> bool:
        return False

    with pytest.raises(ConfigError, match="async"):
        as_judge(judge)
    with pytest.raises(ConfigError, match="judge is of type int"):
        as_judge(3)


@pytest.mark.parametrize(
    ("reply", "said"),
    [("yes", True), ("Yes.", True), ("**No**", False), ("no, since", False), ("", None),
     ("yes and no", None), ("perhaps", None), ("Answer: YES", True)],
)  # fmt: skip
def test_a_model_s_reply_is_read(reply: str, said: bool | None) -> None:
    """One clear word, or nothing."""
    assert verdict(reply) is said


# ------------------------------------------------------------------ the local judge, by kind

PARAGRAPH = (
    "The programme was set up by the city council, and volunteers have run it ever since. "
    "Members meet in the old library on the market square. They plan excursions, lend tools "
    "and books, and repair bicycles for pupils. Everybody who lives in the district may join, "
    "and the first visit is free of charge. "
)
EVENING = "The evening begins with a speech, and supper is served in the garden afterwards. "
WORKED = "He starts with 10 apples and eats 3, so 10 - 3 = 7 are left."
UNKNOWN = "I'm sorry, but I don't have information about that."

SAME = [
    ("How long does a refund take?", "A refund takes five working days.", "Five working days."),
    ("Who wrote Dracula?", "Bram Stoker.", "The Irish author Bram Stoker wrote it in 1897."),
    ("Who wrote Dracula?", "Dracula was written by Bram Stoker.", "Bram Stoker wrote Dracula."),
    ("What is the capital of Australia?", "Canberra", "The capital of Australia is Canberra."),
    ("Which stone is it?", "It is granite.", f"It is granite. {PARAGRAPH}"),
    ("When was it built?", "In 1889", "It was built in 1889 by Gustave Eiffel."),
    ("How many live there?", "1,500,000 people", "About 1.5 million people live there."),
    ("Name the primary colours.", "Red, yellow and blue.", "Blue, red, and yellow."),
    ("Name the primary colours.", "- Red\n- Yellow\n- Blue", "1. Blue\n2. Red\n3. Yellow"),
    ("Can I return it?", "Yes", "Yes, within 30 days."),
    ("Who won?", UNKNOWN, "I cannot answer that, as I do not know."),
    ("How many apples are left?", f"{WORKED} The answer is 7.", "7"),
    ("How many apples are left?", f"{WORKED}\n#### 7", "10 - 3 = 7\nA: 7"),
    ("What is 6 x 7?", "The answer is 42.", "42"),
    ("Wer schrieb Faust?", "Goethe", "Faust wurde von Johann Wolfgang von Goethe geschrieben."),
]
DIFFERENT = [
    ("How long does a refund take?", "It takes five working days.", "It takes ten working days."),
    ("Who wrote Dracula?", "Bram Stoker.", "Dracula was written by Mary Shelley."),
    ("What is the capital of Australia?", "Canberra", "The capital of Australia is Sydney."),
    ("When did it start?", f"{PARAGRAPH}It began in 1994.", f"{PARAGRAPH}It began in 1996."),
    ("Tell me about it.", f"{PARAGRAPH}It has 340 members.", f"{PARAGRAPH}It has 430 members."),
    ("Is it safe?", "The mushroom is safe to eat raw.", "The mushroom is not safe to eat raw."),
    ("Is it paid?", f"{PARAGRAPH}Members are paid.", f"{PARAGRAPH}Members are not paid."),
    (
        "Can I return it?",
        "Refunds are given for opened items.",
        "No refunds are given for opened items.",
    ),
    ("Can I return it?", "Yes, within 30 days.", "No, all sales are final."),
    ("Can I return it?", "Yes.", "No."),
    ("Darf ich das?", "Das ist erlaubt.", "Das ist nicht erlaubt."),
    ("Who won?", UNKNOWN, "Spain won the final against England."),
    ("How many apples are left?", f"{WORKED} The answer is 7.", "10 - 4 = 6, so 6 are left."),
    ("What is 6 x 7?", "The answer is 42.", "6 x 7 = 48"),
    ("Which version?", "Use Python 3.11.", "Use Python 3.12."),
    ("How cold is it?", "-5 degrees", "5 degrees"),
    ("東京の人口は?", "約1400万人です。", "約900万人です。"),
]
NOT_SAME = [
    (
        "How do I get there?",
        "Take the train from Rome to Pisa.",
        "Take the train from Pisa to Rome.",
    ),
    ("How far is it?", "It is 5 km away.", "It is 5 miles away."),
    ("How long is it?", "2 x 3 = 6 km", "The answer is 6 miles."),
    ("Which is older?", "Oxford is older than Bath.", "Bath is older than Oxford."),
    ("When is it open?", "It is open at 9 am.", "It is open at 9 pm."),
    ("Where is it, north or south?", "It is in the north.", "It is in the south."),
    ("What do I do?", "Enable the firewall.", "Disable the firewall."),
    ("Which city?", "Perhaps Lisbon.", "Lisbon."),
    ("What happens?", EVENING * 3 + PARAGRAPH * 15, EVENING * 3 + PARAGRAPH * 15 + "It rains."),
    ("Кто написал?", "Лев Толстой написал.", "Это написал Пушкин."),
    ("東京の人口は?", "約1400万人です。", "東京の人口は約1400万人です。"),
]
"""Where the judge may be unsure, but must not say that they are the same."""


@pytest.fixture(scope="module")
def local(embedder: DefaultEmbedder) -> LocalJudge:
    return LocalJudge(embedder.embed)


def said(judge: Judge, question: str, one: str, other: str) -> bool | None:
    """The verdict, which must not depend on which of the two was stored."""
    verdict = judge.judge(question, Completion(one), Completion(other))
    assert judge.judge(question, Completion(other), Completion(one)) is verdict
    return verdict


@pytest.mark.parametrize(("question", "one", "other"), SAME)
def test_the_same_at_another_length_or_in_another_order(
    local: LocalJudge, question: str, one: str, other: str
) -> None:
    """An answer that contains the other one, a list in another order, an equal result."""
    assert said(local, question, one, other) is True


@pytest.mark.parametrize(("question", "one", "other"), DIFFERENT)
def test_what_contradicts_is_different(
    local: LocalJudge, question: str, one: str, other: str
) -> None:
    """Another number, name, polarity or result, at every length; a refusal beside an answer."""
    assert said(local, question, one, other) is False


@pytest.mark.parametrize(("question", "one", "other"), NOT_SAME)
def test_shared_words_are_not_enough(
    local: LocalJudge, question: str, one: str, other: str
) -> None:
    """Order, unit, time of day, opposites, hedges, very long texts and other scripts."""
    assert said(local, question, one, other) is not True


def test_other_words_alone_are_no_difference(local: LocalJudge) -> None:
    """Two ways to say a thing may share no word."""
    free = "It is free of charge."
    assert said(local, "What does it cost?", free, "You need not pay anything.") is None


def test_a_low_cosine_alone_decides_nothing() -> None:
    """Opposite vectors do not make an answer different from one that contains it."""

    def opposed(texts: Sequence[str]) -> Any:
        return np.array([[1.0 if len(text) > 20 else -1.0, 0.0] for text in texts], np.float32)

    long = "The Irish author Bram Stoker wrote it in 1897."
    assert said(LocalJudge(opposed), "Who wrote Dracula?", "Bram Stoker.", long) is True


def test_long_texts_are_compared_in_time(local: LocalJudge) -> None:
    """100,000 characters a side: not in time that grows with the square; the end is seen, too."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmno", k=7)) for _ in range(4000)]
    text = " ".join(chance.choices(words, k=12_500))
    start = time.process_time()
    verdict = local.judge("q", Completion(f"{text} in 1994"), Completion(f"{text} in 1996"))
    assert time.process_time() - start < 15
    assert verdict is False


@pytest.mark.parametrize(
    "text",
    ["\n" * 100_000, "9" * 100_000 + "*3", "= " * 50_000, "a'" * 50_000, " " * 99_999 + "a:"],
)
def test_odd_texts_take_no_longer(local: LocalJudge, text: str) -> None:
    """No pattern is slow on a text that is made for it."""
    start = time.process_time()
    local.judge("How many?", Completion(text), Completion(f"x {text} 1"))
    assert time.process_time() - start < 2


def test_a_structured_answer_is_equal_or_unknown(local: LocalJudge) -> None:
    """A tool call beside the same words is more than its words."""
    call = Completion("Five days.", payload={"tool": "search"}, payload_kind="tool_calls")
    assert local.judge("q", call, call) is True
    assert local.judge("q", call, Completion("Five days.")) is None


def test_every_feature_has_a_weight() -> None:
    """The file of weights was written for these features."""
    assert len(WEIGHTS) == len(FEATURES)


PIECES = st.sampled_from(
    ["yes", "No,", "not", "7", "= 8", "1,000", "Paris", "the", "maybe", "I'm sorry", "answer: 3",
     "may", "1990s", "is", "than", "from", "to", "9pm", "漢字", "٣", "½", "however", "\n", "."]
)  # fmt: skip
TEXTS = st.text(max_size=60) | st.lists(PIECES, max_size=12).map(" ".join)


@given(TEXTS, TEXTS, TEXTS, st.floats(-1, 1))
def test_any_two_texts_have_a_verdict(question: str, one: str, other: str, cosine: float) -> None:
    """Nothing raises, and the order of the two makes no difference."""
    verdict = compare_texts(question, one, other, lambda: cosine)
    assert verdict is None or isinstance(verdict, bool)
    assert compare_texts(question, other, one, lambda: cosine) is verdict


@given(TEXTS, TEXTS)
def test_equal_texts_are_the_same(question: str, text: str) -> None:
    """Whatever was asked, in whatever script."""

    def unused(texts: Sequence[str]) -> Any:
        raise AssertionError("equal texts need no embedding")

    verdict = LocalJudge(unused).judge(question, Completion(text), Completion(f" {text}  "))
    assert verdict is (True if text.strip().rstrip(".!").strip() else verdict)
    assert verdict is not False
