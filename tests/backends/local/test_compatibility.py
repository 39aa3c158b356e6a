"""What semcache 0.1.0 wrote: its database, its index, its learned state and its export.

The files were written by the program at commit 33ba37a, from the first questions of the support
stream, with what that program then decided for each question.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semcache import Calls, Hit, SemanticCache, Trust
from semcache.backends.local import LocalBackend
from semcache.backends.local.opening import DATABASE, SNAPSHOT
from semcache.cli.app import application
from semcache.embedders.default import DefaultEmbedder

WRITTEN = Path(__file__).parents[2] / "data" / "written-by-0.1.0"


def unpack(name: str, target: Path) -> None:
    with gzip.open(WRITTEN / f"{name}.gz") as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The cache directory as it was left."""
    made = tmp_path / "cache"
    made.mkdir()
    unpack(DATABASE, made / DATABASE)
    unpack(SNAPSHOT, made / SNAPSHOT)
    return made


@pytest.fixture
def wanted() -> dict[str, Any]:
    """What 0.1.0 decided."""
    with gzip.open(WRITTEN / "expected.json.gz", "rt") as file:
        decided: dict[str, Any] = json.load(file)
    return decided


@pytest.fixture
def cache(directory: Path, embedder: DefaultEmbedder) -> Iterator[SemanticCache]:
    """The cache, a minute after its last entry: what is asked of "today" ages."""
    with closing(sqlite3.connect(directory / DATABASE)) as db, db:
        (last,) = db.execute("SELECT max(created_at) FROM entries").fetchone()
    with SemanticCache(
        directory,
        max_false_hit_rate=0.10,
        embedder=embedder,
        trust=Trust(judge=None),
        calls=Calls(clock=lambda: last + 60),
    ) as opened:
        yield opened


def test_a_cache_of_0_1_0_serves_what_it_served(
    cache: SemanticCache, wanted: dict[str, Any]
) -> None:
    """Exact hits, similarities and refusals are the same, and nearly all semantic hits.

    What was only doubtful may be served now, and a few hits may be doubtful now: the models have
    changed. No question is answered by another entry than before.
    """
    assert len(cache) == wanted["entries"]
    served, lost = 0, 0
    for row in wanted["lookups"]:
        seen = cache.explain(row["prompt"], model="m", namespace=row["namespace"])
        if row["tier"] is not None:
            served += 1
            if isinstance(seen.decision, Hit):
                assert (seen.tier, seen.decision.entry.id) == (row["tier"], row["entry"])
            else:
                assert row["tier"] == "semantic", row["prompt"]
                assert seen.decision.reason == "doubtful"
                lost += 1
        elif row["reason"] != "doubtful":
            assert not isinstance(seen.decision, Hit), row["prompt"]
            assert seen.decision.reason == row["reason"]
        similarities = [n.similarity for n in seen.neighbours]
        assert similarities == pytest.approx(row["similarities"], abs=2e-4)
    assert lost <= served / 10


def test_counters_and_labels_of_0_1_0_are_read(
    cache: SemanticCache, wanted: dict[str, Any]
) -> None:
    """Statistics go on where they were."""
    stats = cache.stats()
    assert stats.labels == wanted["labels"]
    assert stats.misses == wanted["misses"]
    assert (stats.exact_hits, stats.semantic_hits) == (
        wanted["exact_hits"],
        wanted["semantic_hits"],
    )
    assert stats.embedder == wanted["embedder"]
    assert stats.bound == 0.10


def test_the_index_of_0_1_0_is_sound(directory: Path) -> None:
    """The snapshot is used as it is: `check` finds nothing wrong with it."""
    backend = LocalBackend(directory)
    report = backend.maintenance.check()
    backend.close()
    assert report.problems == []
    assert report.vectors == report.entries


def test_an_export_of_0_1_0_is_imported(
    tmp_path: Path, wanted: dict[str, Any], embedder: DefaultEmbedder
) -> None:
    """With its vectors, so that nothing is embedded again."""
    unpack("export.jsonl", tmp_path / "export.jsonl")
    where = str(tmp_path / "new")
    arguments = ["import", str(tmp_path / "export.jsonl"), "--cache", where, "--trust"]
    done = CliRunner().invoke(application(arguments), arguments)
    assert done.exit_code == 0, done.output
    with SemanticCache(where, threshold=0.9, embedder=embedder) as imported:
        assert len(imported) == wanted["entries"]
        exact = next(row for row in wanted["lookups"] if row["tier"] == "exact")
        found = imported.lookup(exact["prompt"], model="m", namespace=exact["namespace"])
        assert found.tier == "exact"
        assert imported.lookup("With params", params={"temperature": 0}, system="You are X.").hit
