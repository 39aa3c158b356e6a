"""`semcache replay`: logs in four forms, what would have been saved, and what labels can tell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcache.batch.lines import answer_line, read_line
from semcache.embedders.default import DefaultEmbedder
from semcache.keys import keys
from semcache.telemetry.intervals import wilson
from semcache.tools.logs import Call, Unread, read_log
from semcache.tools.replay import Label, Labels, Pair, Saved, known, most_doubtful, try_thresholds
from semcache.types import Completion, TextPart
from tests.helpers import hashing_embedder
from tests.providers import recorded

OPENAI = {
    "request": {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.2,
    },
    "response": recorded.OPENAI,
}
LITELLM = {
    "id": "1",
    "call_type": "acompletion",
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "hello"}],
    "response": recorded.OPENAI,
    "response_cost": 0.00123,
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "startTime": 1_700_000_000.5,
    "model_parameters": {"temperature": 0.2},
}
LANGFUSE = {
    "id": "obs",
    "type": "GENERATION",
    "startTime": "2026-01-02T03:04:05.000Z",
    "model": "gpt-4o-mini",
    "modelParameters": {"temperature": 0.2},
    "input": {"messages": [{"role": "user", "content": "hello"}]},
    "output": {"role": "assistant", "content": "Hello! How can I assist you today?"},
    "usage": {"input": 19, "output": 10, "total": 29, "unit": "TOKENS"},
    "calculatedTotalCost": 0.00123,
}
PLAIN = {
    "prompt": "hello",
    "response": "Hello! How can I assist you today?",
    "model": "gpt-4o-mini",
}
BATCH = {
    "custom_id": "a",
    "body": OPENAI["request"],
    "response": {"status_code": 200, "body": recorded.OPENAI},
}


def log(path: Path, records: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


@pytest.mark.parametrize(
    ("record", "tokens", "cost", "timed"),
    [
        (OPENAI, 19, None, False),
        (BATCH, 19, None, False),
        (LITELLM, 19, 0.00123, True),
        (LANGFUSE, 19, 0.00123, True),
        (PLAIN, None, None, False),
    ],
    ids=["OpenAI", "a batch", "LiteLLM", "Langfuse", "plain"],
)
def test_each_form_is_read(
    tmp_path: Path, record: Any, tokens: int | None, cost: float | None, timed: bool
) -> None:
    """Request, answer, usage, cost and time; as lines and as one list."""
    lines = log(tmp_path / "log.jsonl", [record])
    whole = tmp_path / "log.json"
    whole.write_text(json.dumps([record]))
    for path in (lines, whole):
        [call] = read_log(path)
        assert isinstance(call, Call)
        part = call.request.messages[0].parts[0]
        assert isinstance(part, TextPart)
        assert part.text == "hello"
        assert call.request.model == "gpt-4o-mini"
        assert call.completion.text == "Hello! How can I assist you today?"
        assert call.completion.usage.prompt_tokens == tokens
        assert call.completion.usage.cost_usd == cost
        assert (call.at is not None) == timed
        if record is not PLAIN:
            assert call.request.params == {"temperature": 0.2}


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """With its line and the reason; the rest is read."""
    path = log(tmp_path / "l.jsonl", ["{nonsense", [1], {"prompt": "p"}, {"response": "r"}, PLAIN])
    found = list(read_log(path))
    assert [type(one) for one in found] == [Unread, Unread, Unread, Unread, Call]
    assert [one.number for one in found] == [1, 2, 3, 4, 5]
    assert "not valid JSON" in found[0].reason  # type: ignore[union-attr]
    assert "no answer" in found[2].reason  # type: ignore[union-attr]
    calls = [one for one in read_log(path, need_answers=False) if isinstance(one, Call)]
    assert [call.answered for call in calls] == [False, True]


@pytest.mark.parametrize("form", ["{prompt}", "json"])
def test_prompts_alone_can_be_replayed(tmp_path: Path, form: str) -> None:
    """One a line, as text or as JSON; the shares of wrong answers are then not known."""
    prompts = ["What are your hours?", "what are your hours", "What are your hours?"]
    lines = [json.dumps({"prompt": p}) if form == "json" else p for p in prompts]
    path = tmp_path / "prompts"
    path.write_text("\n".join(lines))
    done = command(path, "--threshold", "0.85")
    assert done.returncode == 0, done.stderr
    assert "3 calls, 3 without an answer" in done.stdout
    assert re.search(r"semcache, 5% +66\.7% +1 +1 .* 0-100%", done.stdout)


@pytest.mark.parametrize("openai", [True, False])
def test_the_output_of_a_batch_can_be_replayed(tmp_path: Path, openai: bool) -> None:
    """It has the request beside the answer; the model that answered is not the one asked for."""
    fields = {"model": "asked", "messages": [{"role": "user", "content": "hello"}]}
    line: dict[str, Any] = {"prompt": "hello", "model": "asked"}
    if openai:
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": fields}
    item = read_line(json.dumps(line).encode(), 1, {})
    path = tmp_path / "out.jsonl"
    path.write_bytes(answer_line(item, Completion("Hi.", "stop", model="answered")))
    [call] = read_log(path)
    assert isinstance(call, Call)
    assert (call.request.model, call.completion.text) == ("asked", "Hi.")
    assert keys.query(call.request) == keys.query(item.request)


def test_what_would_have_been_saved(tmp_path: Path) -> None:
    """Exact and semantic hits, tokens and dollars of the calls that were made and need not be."""
    rows = [
        {"prompt": p, "response": a, "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": c}
        for p, a, c in (
            ("how do I reset my password", "Settings.", 0.01),
            ("how do I reset my password", "Settings!", 0.02),
            ("how do I reset the password", "In Settings.", 0.04),
            ("something else entirely", "No.", None),
        )
    ]
    calls = [c for c in read_log(log(tmp_path / "l.jsonl", rows)) if isinstance(c, Call)]
    (loose, strict), pairs = try_thresholds(calls, hashing_embedder(), (0.99, 0.7))
    assert (strict.exact, strict.semantic, strict.tokens, strict.usd) == (1, 0, 15, 0.02)
    assert (loose.exact, loose.semantic, loose.tokens) == (1, 1, 30)
    assert loose.usd == pytest.approx(0.06)
    [pair] = pairs.values()
    assert (pair.question, pair.stored_question) == (rows[2]["prompt"], rows[0]["prompt"])
    assert not pair.same


def pair(key: str, same: bool = False) -> Pair:
    return Pair(key, "q", "s", 0.9, "a", "a" if same else "b", "default", 0.5)


def saved(keys: list[str]) -> Saved:
    return Saved(0.9, 100, 0, len(keys), 0, None, 0, tuple(keys))


def test_nothing_is_estimated_that_is_not_known() -> None:
    """Without labels only bounds; with all, the rate; from random ones, an estimate."""
    pairs = {f"k{i}": pair(f"k{i}", same=i < 2) for i in range(10)}
    keys = list(pairs)
    nothing = known(saved(keys), pairs, {})
    assert (nothing.how, nothing.rate, nothing.low, nothing.high) == ("bounded", None, 0.0, 0.8)
    doubtful = {f"k{i}": Label("wrong", random=False) for i in (2, 3)}
    some = known(saved(keys), pairs, doubtful)
    assert (some.how, some.rate, some.low, some.high) == ("bounded", None, 0.2, 0.8)
    every = {f"k{i}": Label("wrong" if i < 4 else "right", random=False) for i in range(2, 10)}
    whole = known(saved(keys), pairs, every)
    assert (whole.how, whole.rate, whole.judged) == ("all judged", 0.2, 10)
    drawn = {f"k{i}": Label("wrong" if i == 2 else "right", random=True) for i in (2, 5, 6, 7)}
    estimate = known(saved(keys), pairs, {**doubtful, **drawn})
    assert estimate.how == "estimated from a random sample"
    assert estimate.rate == pytest.approx(1 / 4 * 0.8), "answers of the same words are right"
    assert known(saved([]), pairs, {}).how == "nothing served"


def test_labels_are_kept(tmp_path: Path) -> None:
    """As they are given; the last one holds."""
    labels = Labels(tmp_path / "labels.jsonl")
    labels.add(pair("one"), Label("right", random=False))
    labels.add(pair("two"), Label("wrong", random=True))
    labels.add(pair("one"), Label("wrong", random=False))
    assert Labels(tmp_path / "labels.jsonl").given == labels.given
    assert labels.given["one"].verdict == "wrong"
    assert most_doubtful([pair("a"), pair("b", same=True)]) == [pair("a")]


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_holds_the_rate(count: int, of: int) -> None:
    """Within [0, 1], around what was counted; narrower with more."""
    count = min(count, of)
    found = wilson(count, of)
    if not of:
        assert found is None
        return
    assert found is not None
    low, high = found
    assert 0 <= low <= count / of <= high <= 1
    more = wilson(count * 10, of * 10)
    assert more is not None
    assert more[1] - more[0] <= high - low


def command(path: Path, *args: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "semcache", "replay", str(path), *args],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_the_command(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """Figures, doubtful pairs, judging them, and the figures again."""
    rows = [
        {"prompt": "What are your opening hours?", "response": "Nine to five."},
        {"prompt": "what are your opening hours please", "response": "From nine until five."},
        {"prompt": "What is the price of 2 tickets?", "response": "Twenty euros."},
        {"prompt": "What is the price of 3 tickets?", "response": "Thirty euros."},
        {"prompt": "What is the price of 3 tickets?", "response": "Thirty euros."},
    ]
    path = log(tmp_path / "log.jsonl", rows)
    first = command(path, "--threshold", "0.85")
    assert first.returncode == 0, first.stderr
    assert "5 calls" in first.stdout
    assert max(map(len, first.stdout.splitlines())) <= 80
    assert re.search(r"\n0\.85 .* 0-\d+%", first.stdout)
    assert re.search(r"of up to\s\d\s", first.stdout)
    assert "price of 3 tickets" in first.stdout
    told = json.loads(command(path, "--threshold", "0.85", "--json").stdout)
    assert told["semcache"]["max_false_hit_rate"] == 0.05
    [one] = told["thresholds"]
    assert (one["exact"], one["semantic"], one["usd"]) == (1, 2, None) or one["semantic"] == 3
    answers = command(path, "--threshold", "0.85", "--review", given="x\nn\ny\nq\n")
    assert re.search(r"\n0\.85 .* (33\.3|50\.0)%", answers.stdout)
    lines = (tmp_path / "log.jsonl.labels.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    assert sorted(label["verdict"] for label in kept) == ["right", "wrong"]
    again = command(path, "--threshold", "0.85")
    assert re.search(r"\n0\.85 .* (33\.3|50\.0)%", again.stdout)
    assert "have not been judged" not in again.stdout


def test_a_log_without_calls(tmp_path: Path) -> None:
    """An error that says what was wrong with the first record."""
    done = command(log(tmp_path / "log.jsonl", ["{nonsense"]))
    assert done.returncode == 1
    assert "holds no call that can be read (line 1: not valid JSON" in done.stderr
