"""Every judge is held to the contract in `protocols.Judge`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semcache.embedders.default import DefaultEmbedder
from semcache.errors import ConfigError
from semcache.types import Completion
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
    with pytest.raises(ConfigError, match="judge is a int"):
        as_judge(3)


@pytest.mark.parametrize(
    ("reply", "said"),
    [("yes", True), ("Yes.", True), ("**No**", False), ("no, since", False), ("", None),
     ("yes and no", None), ("perhaps", None), ("Answer: YES", True)],
)  # fmt: skip
def test_a_model_s_reply_is_read(reply: str, said: bool | None) -> None:
    """One clear word, or nothing."""
    assert verdict(reply) is said
