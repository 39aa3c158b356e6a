"""The attacks that are measured: prompts near others' questions, and the time of an answer."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks import poisoning, side_channel
from benchmarks.poisoning import PAYLOADS, attacked, crafted, popular
from semcache.tools.demo import questions
from tests.helpers import hashing_embedder


def shared_words(target: str, prompts: Any) -> list[float]:
    """The share of the question's words that each prompt has."""
    words = set(target.split())
    return [len(words & set(prompt.split())) / len(words) for prompt in prompts]


def test_a_crafted_prompt_keeps_its_instruction() -> None:
    """And comes no further from the question than where the search began."""
    target = "where is my order"
    prompts = crafted(target, shared_words, ["a", "b"], random.Random(1))
    assert all(any(payload in prompt for payload in PAYLOADS) for prompt in prompts)
    assert shared_words(target, prompts) == [1.0] * len(prompts)


@pytest.mark.parametrize(("user_namespaces", "reached"), [(False, True), (True, False)])
def test_planted_answers_reach_those_who_share_the_namespace(
    user_namespaces: bool, reached: bool
) -> None:
    stream = questions()[:120]
    targets = popular(stream, 3)
    written = {target.answer_id: [target.question] for target in targets}
    result = attacked(
        stream,
        targets,
        written,
        user_namespaces=user_namespaces,
        embedder=hashing_embedder(),
        threshold=0.99,
    )
    assert result["victims"] > 3
    assert (result["victims_poisoned"] > 0) is reached


def test_a_hit_is_told_apart_unless_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_channel, "PROBES", 5)
    monkeypatch.setattr(side_channel, "FASTEST", 0.05)
    monkeypatch.setattr(side_channel, "SLOWEST", 0.06)
    assert side_channel.probed(0.0)["told_apart"] > 0.8
    assert side_channel.probed(0.2)["told_apart"] == 0.0, "slower than the model is told, too"


def test_the_tables_show_shares() -> None:
    row = {"victims": 200, "victims_poisoned": 3, "others_poisoned": 0, "own_hits": 80}
    text = poisoning.table({"embedder": {"results": {"default": row}}})
    assert "| embedder | 1.5% |" in text
    assert "| 80 |" in text
