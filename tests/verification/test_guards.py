from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.verification import features as verifier
from semcache.verification.guards import KINDS, compare, reading

DIFFERENT = [
    # what is asked, what is stored, the kind that tells them apart
    ("warranty on a 3-year plan", "warranty on a 2-year plan", "number"),
    ("a loan over 2 years", "a loan over 3 years", "number"),
    ("how much is twelve dollars in euros", "how much is eleven dollars in euros", "number"),
    ("is a 5k run healthy", "is a 10k run healthy", "number"),
    ("flights from Boston to Denver", "flights from Denver to Boston", "order"),
    ("flights to Boston", "flights to Denver", "place"),
    ("translate this into French", "translate this into German", "language"),
    ("wake me at 7 am", "wake me at 7 pm", "time"),
    ("convert km to miles", "convert miles to km", "order"),
    ("is Mars larger than Venus", "is Venus larger than Mars", "order"),
    ("order 10023456", "order 10023457", "number"),
    ("read John 3:16", "read John 3:17", "time"),
    ("meetings on Monday", "meetings on Friday", "date"),
    ("holidays in July", "holidays in August", "date"),
    ("install python 3.11.2", "install python 3.12.1", "identifier"),
    ("what does error E404 mean", "what does error E500 mean", "identifier"),
    ("can I log in", "can't I log in", "negation"),
    ("how do I enable roaming", "how do I disable roaming", "opposite"),
    ("wie setze ich mein passwort zurück und wo", "how do i reset my password and where", "script"),
    ("Как отменить заказ?", "how do I cancel an order?", "script"),
    ("what did Alice say of it", "what did Bob say of it", "name"),
]


@pytest.mark.parametrize(("asked", "stored", "kind"), DIFFERENT)
def test_what_decides_an_answer_is_found(asked: str, stored: str, kind: str) -> None:
    """A pair that differs in one deciding word has a decisive finding that names it."""
    found = {finding.kind for finding in compare(stored, asked) if finding.decisive}
    assert kind in found


SAME = [
    ("How many is 3 dozen?", "how many is three dozen"),
    ("Is 1,000 enough?", "is 1000 enough"),
    ("a trip of 5 km", "a trip of 5 kilometers"),
    ("meeting in Jan", "meeting in January"),
    ("a bridge of 1.5 million dollars", "a bridge of 1,500,000 dollars"),
    ("twenty five people", "25 people"),
    ("my 401(k)", "my 401k"),
    ("covid-19 rules", "covid19 rules"),
    ("install v1.2.3", "install 1.2.3"),
    ("due 01/05/2023", "due 1/5/2023"),
    ("visit the USA", "visit America"),
    ("call me at 9am", "call me at 9:00 am"),
    ("open at 5 pm", "open at 17:00"),
    ("I can't log in", "I cannot log in"),
    ("why is the sky blue?", "why is the sky blue"),
    ("How do I reset my password?", "how to reset a password, please"),
    ("price of the MacBook", "macbook price?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_words_for_the_same_are_no_difference(one: str, other: str) -> None:
    """No decisive finding where the same is said in another form."""
    assert not [str(f) for f in compare(one, other) if f.decisive]


@given(st.text(max_size=200))
def test_a_question_does_not_differ_from_itself(text: str) -> None:
    """Whatever the text, and it is read without an error."""
    assert compare(text, text) == ()


@given(st.text(max_size=120), st.text(max_size=120))
def test_findings_are_the_same_from_both_sides(one: str, other: str) -> None:
    """Comparing the other way round turns each finding round, and finds no other kinds."""
    there, back = compare(one, other), compare(other, one)
    assert {f.kind for f in there} == {f.kind for f in back}
    assert all(f.kind in KINDS for f in there)


def test_a_long_text_is_read_in_a_moment() -> None:
    """No expression runs away on long, odd input."""
    for text in ("a" * 50_000, "1," * 20_000, "x_" * 20_000, "A " * 20_000, "'" * 50_000):
        reading.cache_clear()
        reading(text)


def test_a_refusal_says_the_two_words() -> None:
    """ "2 years / 3 years", so that a person understands it."""
    evidence = verifier.extract_evidence("a loan over 2 years", "a loan over 3 years", 0.99)
    refused = verifier.refusal(evidence)
    assert refused is not None
    assert (refused.stored, refused.asked) == ("2 years", "3 years")
    assert evidence.by == "guards"
    assert evidence.chance is None


def test_yesterday_s_answer_is_none_to_what_is_asked_of_today() -> None:
    """A perishable question is not answered with an old answer, and with a new one it may be."""
    asked = "what is the weather in Rome today"
    old = verifier.extract_evidence("weather in Rome today", asked, 0.97, age=3 * 86400)
    refused = verifier.refusal(old)
    assert refused is not None
    assert refused.kind == "age"
    assert "3 days ago" in refused.stored
    assert (
        verifier.refusal(verifier.extract_evidence("weather in Rome today", asked, 0.97, age=60))
        is None
    )


def test_the_same_words_need_no_model() -> None:
    """The capital of a sentence and its final mark are no difference."""
    evidence = verifier.extract_evidence("How do I reset it?", "how do i reset it", 0.98)
    assert evidence.by == "same words"
    assert evidence.chance == verifier.SAME_WORDS
    assert len(verifier.features("a b", "a c", evidence)) == len(verifier.FEATURES)
