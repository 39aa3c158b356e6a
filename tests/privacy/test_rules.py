"""What the rules find in a text, and what they leave alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.privacy import found_by_rules
from semcache.privacy.rules import MAX_SEARCHED, RULES, about_asker

FOUND = {
    "write to jane.doe+news@mail.example.co.uk please": ("email",),
    "jane (at) example is my address": ("email",),
    "call me at +49 151 2345678": ("phone",),
    "my number is (555) 123-4567": ("phone",),
    "0151 23456789": ("phone",),
    "555-123-4567": ("phone",),
    "charge 4111 1111 1111 1111 again": ("card",),
    "card 5500005555555559": ("card",),
    "IBAN DE89 3704 0044 0532 0130 00": ("account",),
    "GB82WEST12345698765432": ("account",),
    "my SSN is 123-45-6789": ("social_security",),
    "the key is sk-abcdefgh12345678": ("credential",),
    "Where is my order?": ("about_asker",),
    "call +49 151 2345678 or a@example.org": ("email", "phone"),
}
NOT_FOUND = (
    "How do I cancel my subscription?",
    "on 2024-05-12 at 10, or 12/05/2024",
    "ISBN 978-3-16-148410-0",
    "What is 1234567 * 89?",
    "there are 8000000000 people",
    "1234567890123456",  # the check digit of a card is wrong
    "DE00 3704 0044 0532 0130 00",
    "version 1.2.3.45678",
    "meet at 10 @ the station",
    "900-12-3456",
)
ABOUT = (
    "Where is my order?", "what's my current balance", "Why was my card declined?", "whats my pin",
    "When does my contract end?", "how much do I owe", "How many vacation days do I have left?",
    "Is my refund on its way?", "What is the status of my order?", "Tell me my balance",
    "What did I order yesterday?",
    "which day is my appointment", "How much data is left on my plan?",
)  # fmt: skip
FOR_EVERYBODY = (
    "How do I reset my password?", "How can I cancel my subscription?", "Where can I see my order?",
    "What happens if I miss my payment?", "Why is my code slow?", "What are your opening hours?",
    "How long does a refund take?", "What is the best way to clean my bike?", "my parcel is late",
    "Is my dog allowed to eat grapes?", "How do I change my email address?", "",
    "Why am I getting a KeyError?", "Why is my test failing?", "where is my package.json file?",
    "Why is my order by query slow?", "What is our refund policy?", "What am I doing wrong here?",
)  # fmt: skip


@pytest.mark.parametrize(("text", "kinds"), FOUND.items())
def test_personal_data_is_found(text: str, kinds: tuple[str, ...]) -> None:
    assert found_by_rules(text) == kinds


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert found_by_rules(text) == ()


@pytest.mark.parametrize("question", ABOUT)
def test_a_question_whose_answer_depends_on_who_asks(question: str) -> None:
    assert about_asker(question)


@pytest.mark.parametrize("question", FOR_EVERYBODY)
def test_a_question_with_one_answer_for_everybody(question: str) -> None:
    assert not about_asker(question)


@given(st.text())
def test_any_text_has_kinds_in_their_order(text: str) -> None:
    kinds = found_by_rules(text)
    assert [kind for kind in RULES if kind in kinds] == list(kinds)


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_around_it_does_not_hide_it(before: str, after: str) -> None:
    assert "email" in found_by_rules(f"{before} jane@example.org {after}")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_searching_is_linear(size: int) -> None:
    """No time is measured: a quadratic step would take hours."""
    mixed = "".join(random.Random(1).choices("ab1 .@+-()/DE\n", k=size))
    for unit in (
        "a",
        "1",
        "1 ",
        "a@",
        "a.",
        "@",
        "what my ",
        "how many i ",
        "AB12 ",
        "(at) ",
        "0-",
    ):
        found_by_rules((unit * size)[:size])
    found_by_rules(mixed)


def test_what_lies_beyond_the_limit_is_not_searched() -> None:
    """`Privacy` treats such a text as personal, whatever it holds."""
    assert found_by_rules("x " * MAX_SEARCHED + "jane@example.org") == ()
