"""What the benchmark of durability counts, it would count."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.durability import COUNTED, Expected, looked, opened, put
from semcache.backends.local.opening import DATABASE


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    """Three entries and one that was deleted, as they are."""
    told = Expected()
    with opened(tmp_path) as cache:
        for number in range(4):
            put(cache, f"question {number}")
            told.hear(("put", f"question {number}"))
        cache.invalidate(ids=[4])
        told.hear(("gone", "question 3"))
    return told


def counts(path: Path, expected: Expected) -> dict[str, int]:
    found = looked(path, expected, "records", cut=False)
    return {name: found[name] for name in COUNTED if found[name]}


def test_a_sound_cache_has_no_faults(tmp_path: Path, expected: Expected) -> None:
    """Nothing is counted where nothing is wrong."""
    assert counts(tmp_path, expected) == {}


def test_what_is_lost_is_counted(tmp_path: Path, expected: Expected) -> None:
    """An entry that was acknowledged and is not there."""
    with opened(tmp_path) as cache:
        cache.invalidate(ids=[1])
    assert counts(tmp_path, expected) == {"lost": 1}


def test_what_comes_back_is_counted(tmp_path: Path, expected: Expected) -> None:
    """An entry whose deletion was acknowledged."""
    with opened(tmp_path) as cache:
        put(cache, "question 3")
    assert counts(tmp_path, expected) == {"resurrected": 1}


def test_wrong_answers_problems_and_failed_openings_are_counted(
    tmp_path: Path, expected: Expected
) -> None:
    """Another question's answer, totals that are wrong, a file that is no database."""
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        db.execute("UPDATE entries SET text = 'of another' WHERE id = 2")
        db.execute("UPDATE totals SET entries = 9")
    assert counts(tmp_path, expected) == {"wrong_answers": 1, "problems": 1}
    for suffix in ("-wal", "-shm"):
        Path(f"{tmp_path / DATABASE}{suffix}").unlink(missing_ok=True)
    (tmp_path / DATABASE).write_bytes(b"no database" * 500)
    assert counts(tmp_path, expected) == {"failed_opens": 1}


def test_what_was_under_way_may_be_there_or_not(tmp_path: Path, expected: Expected) -> None:
    """Neither is a fault."""
    expected.hear(("trying", "question 2", "question 3"))
    assert counts(tmp_path, expected) == {}
    with opened(tmp_path) as cache:
        cache.invalidate(ids=[3])
    expected.hear(("trying", "question 2"))
    assert counts(tmp_path, expected) == {}


def test_a_short_soak(tmp_path: Path) -> None:
    """Two processes for a few seconds: sums agree, store and index agree, no wrong answer."""
    found = soak.soaked(tmp_path / "cache", 6, 2)
    assert found["counters_equal_events"], found
    assert found["problems"] == []
    assert found["wrong_answers"] == 0
    assert found["heard"]["record"] > 0
