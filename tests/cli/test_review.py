"""review and tune, and what stats and explain show of what a cache has learned."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semcache import Calls, SemanticCache
from semcache.cli.app import application
from semcache.embedders.default import DefaultEmbedder

RUN = CliRunner()


def run(*arguments: str, given: str = "") -> Any:
    return RUN.invoke(application(arguments), list(arguments), input=given)


@pytest.fixture
def served(tmp_path: Path, embedder: DefaultEmbedder) -> Path:
    """A cache that has served two semantic hits."""
    path = tmp_path / "cache"
    with SemanticCache(path, embedder=embedder, calls=Calls(draw=lambda: 0.5)) as cache:
        cache.put("How do I reset my password?", "Choose Forgot password.", namespace="a[/b]")
        for prompt in ("how do i reset my password", "How do I reset my password"):
            assert cache.lookup(prompt, namespace="a[/b]").tier == "semantic"
    return path


def test_review_shows_what_was_served_and_stores_the_verdicts(
    served: Path, embedder: DefaultEmbedder
) -> None:
    """y, n, s and q work; an answer judged wrong is not served to that question again."""
    shown = run("review", "--cache", str(served), given="x\nn\ns\n")
    assert shown.exit_code == 0, shown.output
    assert "Choose Forgot password." in shown.output
    assert "How do I reset my password?" in shown.output
    assert run("review", "--cache", str(served), given="q\n").exit_code == 0
    with SemanticCache(
        served, embedder=embedder, calls=Calls(draw=lambda: 0.5), max_false_hit_rate=0.3
    ) as cache:
        answers = [
            cache.get(prompt, namespace="a[/b]")
            for prompt in ("how do i reset my password", "How do I reset my password")
        ]
        assert [answer is None for answer in answers].count(True) == 1
        assert cache.stats().labels == {"review": 1}
        assert cache.stats().served_wrong == 1


def test_review_lists_for_scripts(served: Path) -> None:
    """It prints one JSON object per line."""
    out = run("review", "--cache", str(served), "--list")
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    assert len(rows) == 2
    assert {row["stored"] for row in rows} == {"How do I reset my password?"}


def test_review_of_nothing_says_so(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """The exit code is the one for nothing found."""
    with SemanticCache(tmp_path, embedder=embedder) as cache:
        cache.put("hello", "Hi")
    assert run("review", "--cache", str(tmp_path)).exit_code == 3


def test_stats_and_explain_say_what_was_learned(served: Path) -> None:
    """stats shows the bound and the labels; explain puts the evidence into words."""
    stats = json.loads(run("stats", "--cache", str(served), "--json").stdout)
    assert stats["bound"] == 0.05
    assert stats["semantic_hits"] == 2
    assert "at most 5.0% allowed" in run("stats", "--cache", str(served)).stdout
    asked = ("explain", "--cache", str(served), "-n", "a[/b]")
    text = run(*asked, "how can I get a new password").stdout
    assert "pair model" in text
    assert "likely to be right" in text
    refused = run(*asked, "How do I reset my 2 passwords in 3 days", "--json").stdout
    assert json.loads(refused)["candidates"][0]["evidence"]["findings"]


def labelled(path: Path, count: int = 500) -> Path:
    """A log whose answers differ in ways to which the shipped prior gives little weight."""
    rng = random.Random(5)
    topics = [
        ("reset my password", "change my secret word"),
        ("close my account", "end my membership"),
        ("get a refund", "have my money returned"),
        ("track my parcel", "find out where my package is"),
        ("change my address", "update where I live"),
        ("add a second card", "order another card"),
    ]
    ways = ("How do I {}?", "how can i {}", "I would like to {}", "help me {} please", "{} - how?")
    rows = []
    for _ in range(count):
        answer = rng.randrange(len(topics))
        prompt = rng.choice(ways).format(rng.choice(topics[answer])) + " " * rng.randrange(3)
        rows.append({"prompt": f"{prompt} ({rng.randrange(900)})", "answer_id": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_tune_fits_the_prior_and_shows_the_frontier(
    tmp_path: Path, embedder: DefaultEmbedder
) -> None:
    """The fit is kept only if it is better on the later part; both results are shown."""
    cache_path, log = tmp_path / "cache", labelled(tmp_path / "log.jsonl")
    log.write_text(log.read_text().replace("(", "").replace(")", ""))
    with SemanticCache(cache_path, embedder=embedder) as cache:
        cache.put("hello", "Hi")
    few = run("tune", str(log), "--cache", str(cache_path))
    assert few.exit_code in (0, 1)
    words = tmp_path / "words.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["prompt"] = f"{row['prompt'].rstrip('0123456789 ')} {'please ' * (number % 4)}thanks"
    words.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuned = run("tune", str(words), "--cache", str(cache_path), "--json")
    assert tuned.exit_code == 0, tuned.output
    report = json.loads(tuned.stdout)
    assert report["learned_from"] > 100
    assert len(report["before"]["hits"]) == len(report["after"]["hits"])
    better = report["after"]["loss"] < report["before"]["loss"]
    assert report["kept"] == (better and not report["why"].startswith("it would"))
    again = run("tune", str(words), "--cache", str(cache_path), "--dry-run")
    assert "hits before" in again.stdout
    with SemanticCache(cache_path, embedder=embedder) as cache:
        assert cache.lookup("how might I reset it").decision.reason != "fault"


def test_tune_says_what_it_needs(tmp_path: Path) -> None:
    """A log that is too short is an error that says how much is needed."""
    log = tmp_path / "log.jsonl"
    log.write_text('{"prompt": "a", "answer_id": 1}\n{"prompt": "b", "answer_id": 2}\n')
    done = run("tune", str(log))
    assert done.exit_code == 1
    assert "answer_id" in str(done.output) + str(done.exception)
