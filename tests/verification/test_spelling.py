"""Which differences in spelling mean nothing, and which may change the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.verification.features import extract_evidence
from semcache.verification.guards import compare
from semcache.verification.spelling import difference, same_words

PAIRS = Path(__file__).parents[2] / "benchmarks" / "data" / "spelling.jsonl"
ROWS = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]

words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)
questions = st.lists(words, min_size=1, max_size=12).map(" ".join)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(questions, st.sampled_from("?.!"), st.integers(1, 4))
def test_what_a_careless_writer_changes_means_nothing(question: str, mark: str, gap: int) -> None:
    """Neither the first capital, nor the final mark, nor wide spaces, nor blanks at the ends."""
    written = question[0].upper() + question[1:].replace(" ", " " * gap) + mark
    assert same_words(question, written)
    assert same_words(f"  {written}\n", question)
    assert difference(question, written) is None


@given(anything, anything)
def test_the_order_of_two_questions_does_not_matter(one: str, other: str) -> None:
    """Both comparisons are symmetric, and a question has its own words."""
    assert same_words(one, other) == same_words(other, one)
    assert (difference(one, other) is None) == (difference(other, one) is None)
    assert same_words(one, one) == bool(one.strip())
    assert difference(one, one) is None


@given(anything, anything)
def test_the_same_words_have_no_difference_that_matters(one: str, other: str) -> None:
    """What is served unseen holds nothing that a guard would refuse."""
    if same_words(one, other):
        assert difference(one, other) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("what does git branch -d do", "what does git branch -D do"),
        ("What does `tar -X` do?", "Explain the option -x of tar"),
        ("Convert 5 mW to W.", "Convert 5 MW to W."),
        ("What did the treaty bring us?", "What did the treaty bring US?"),
        ("what is 5!", "what is 5"),
        (r"What does \d match?", r"What does \D match?"),
        ("What is 'a' in C?", 'What is "a" in C?'),
        ("Run this:\nif x:\n    a()\n    b()", "Run this:\nif x:\n    a()\nb()"),
        ("Was ist die Masse?", "Was ist die Maße?"),
        ("is a == b", "is a === b"),
        ("12 + 4", "12 - 4"),
        ("convert -40 C", "convert 40 C"),
        ("x > 5", "x < 5"),
        ("what is 😀", "what is 😢"),
        ("what is .NET", "what is net"),
        ("What is x\u00b2?", "What is x2?"),
        ("Is True a keyword?", "Is true a keyword?"),
        ("add 1 2 3", "add 1 23"),
    ],
)  # fmt: skip
def test_what_may_change_the_answer_refuses(one: str, other: str) -> None:
    """Case, signs, accents and layout where they mean something."""
    assert not same_words(one, other)
    found = difference(one, other)
    assert found is not None
    assert found.decisive
    assert extract_evidence(one, other, 0.99).chance is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset it?", "how do i reset it"),
        ("¿Dónde está?", "dónde está"),
        ("What\u2019s new?", "What's new"),
        ("Where should I go? I'm lost.", "where should i go? i'm lost"),
        ("caf\u00e9 near me", "Cafe\u0301 near me"),
    ],
)
def test_what_is_served_unseen(one: str, other: str) -> None:
    """Spellings of one question."""
    assert same_words(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("who is the CEO of Apple?", "who is the ceo of apple"),
        ("WHERE IS MY ORDER", "where is my order"),
        ("Hi, where is my order?", "Hi where is my order"),
        ('What is "love"?', "What is love?"),
        ("What's an e-mail?", "Whats an email?"),
        ("How do I sort a list in python?", "How do I sort a list in Python?"),
        ("Where is the nearest café?", "Where is the nearest cafe?"),
        ("How much is 5 GB?", "how much is 5 gb?"),
        ("cómo puedo pagar", "como puedo pagar"),
    ],
)
def test_careless_spelling_is_left_to_the_models(one: str, other: str) -> None:
    """It is not the same words, and no guard refuses it."""
    assert not same_words(one, other)
    assert difference(one, other) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is the kettle safe for children?", "Is the kettle unsafe for children?"),
        ("Why is my account inactive?", "Why is my account active?"),
        ("Is the glass unbreakable?", "Is the glass breakable?"),
    ],
)
def test_a_negating_prefix_is_an_opposite(one: str, other: str) -> None:
    """Safe and unsafe, in either order."""
    assert [f.kind for f in compare(one, other)] == ["opposite"]
    assert [f.kind for f in compare(other, one)] == ["opposite"]


def test_no_pair_whose_spelling_decides_is_served_unseen() -> None:
    """Of 220 pairs, none has "the same words", and at least five in six are refused."""
    pairs = [(row["a"], row["b"]) for row in ROWS if not row["same"]]
    assert len(pairs) >= 200
    assert [pair for pair in pairs if same_words(*pair)] == []
    assert sum(difference(*pair) is not None for pair in pairs) >= len(pairs) * 5 / 6


def test_pairs_whose_spelling_means_nothing_are_served_unseen() -> None:
    """Capitals of sentences, final marks and spaces."""
    assert [row for row in ROWS if row["same"] and not same_words(row["a"], row["b"])] == []


@pytest.mark.parametrize("sign", ["!", "\u0301", "'", " ", "\n", "-", "a ", "1,"])
def test_long_questions_are_compared_at_once(sign: str) -> None:
    """In time linear in their length."""
    one, other = sign * 50_000 + "a", sign * 50_001 + "a"
    same_words(one, other)
    difference(one, other)
    extract_evidence(one, other, 0.99)
