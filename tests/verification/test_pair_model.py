"""The pair model is held to the contract in `protocols.Verifier`, and to what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcache.errors import EmbedderError
from semcache.verification.pair_model import LONGEST_SIDE, MODEL_FILE, PairModel


@pytest.fixture(scope="module")
def model() -> PairModel:
    opened = PairModel()
    opened.load()
    return opened


SAME = [
    ("How do I reset my password?", "I forgot my password, how can I get a new one?"),
    ("What is the capital of France?", "Which city is the capital of France?"),
    ("how long does delivery take", "When will my order arrive after I have ordered it?"),
    ("cancel my subscription", "How do I stop my subscription?"),
]
DIFFERENT = [
    ("How do I reset my password?", "How do I reset my PIN?"),
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("How do I enable roaming?", "How do I disable roaming?"),
    ("Can I cancel my order?", "Can I change the address of my order?"),
    ("Who wrote Hamlet?", "When was Hamlet written?"),
]


def test_paraphrases_and_near_misses_are_told_apart(model: PairModel) -> None:
    """Every paraphrase is likelier the same than every near-miss."""
    assert min(model.logits(SAME)) > max(model.logits(DIFFERENT))


def test_a_pair_s_number_does_not_depend_on_its_company(model: PairModel) -> None:
    """Alone or in a batch: the same, up to rounding."""
    together = model.logits([*SAME, *DIFFERENT])
    alone = [model.logits([pair])[0] for pair in (*SAME, *DIFFERENT)]
    assert together == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize("text", ["", "?", "word " * 5000, "\u0000\ufffd", "\U0001f600" * 300])
def test_any_text_can_be_looked_at(model: PairModel, text: str) -> None:
    """Empty, long beyond the window, odd: a number, not an error."""
    (logit,) = model.logits([(text, "How do I reset my password?")])
    assert logit == logit
    assert LONGEST_SIDE > 10


def test_the_weights_are_small() -> None:
    """At most 15 MB are shipped."""
    assert MODEL_FILE.stat().st_size <= 15e6


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """And no crash."""
    broken = tmp_path / "pair.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(EmbedderError, match=r"pair\.onnx"):
        PairModel(broken).load()
