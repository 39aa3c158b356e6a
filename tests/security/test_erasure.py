"""Deleting all that concerns a user: entries, served hits, labels, comparisons, counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semcache import ConfigError, SemanticCache
from tests.cli.test_cli import run
from tests.helpers import open_cache

SECRET = "xylophone"
"""A word of the user's that nothing else contains."""


def filled(path: Path) -> None:
    """A cache with a user's entries, labels and served hits, and somebody else's."""
    with SemanticCache(path, max_false_hit_rate=0.2, judge=lambda *_: True, hooks=()) as cache:
        for name in ("users/jane", "users/joe"):
            word = SECRET if name.endswith("jane") else "trumpet"
            for number in range(3):
                question = f"How do I tune a {word} of kind {number}?"
                cache.put(question, f"Turn the screw of the {word}.", namespace=name, tags=[name])
                hit = cache.lookup(question.replace("How do I", "How can I"), namespace=name)
                cache.record(cache.lookup(f"{question} Please?", namespace=name), "So.")
                if hit.hit:
                    cache.feedback(hit, correct=True)
            cache.wait()


def held_in(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_nothing_of_the_user_is_left(tmp_path: Path) -> None:
    """Not even in free pages of the database; others keep everything."""
    where = tmp_path / "cache"
    filled(where)
    assert SECRET.encode() in held_in(where)
    assert run("erase", "--namespace", "users/jane", "--yes", path=where)[0] == 0
    assert SECRET.encode() not in held_in(where)
    assert b"users/jane" not in held_in(where)
    with SemanticCache(where, max_false_hit_rate=0.2, hooks=()) as cache:
        assert {entry.namespace for entry in cache.entries()} == {"users/joe"}
        labels = cache._engine.backend.ledger.observations_after(0, 100)
        assert {label.namespace for _, label in labels} <= {"users/joe"}


def test_by_tag_in_a_running_cache(tmp_path: Path) -> None:
    filled(tmp_path)
    with open_cache(tmp_path, threshold=0.9, embedder=None, hooks=()) as cache:
        before = len(cache)
        erased = cache.erase(tag="users/jane")
        assert erased.entries == 3
        assert len(cache) == before - 3
        with pytest.raises(ConfigError, match="needs a namespace or a tag"):
            cache.erase()


def test_what_a_running_cache_has_learned_goes_too(tmp_path: Path) -> None:
    """It is not saved again when the cache is closed."""
    filled(tmp_path)
    with SemanticCache(tmp_path, max_false_hit_rate=0.2, judge=lambda *_: True, hooks=()) as cache:
        cache.lookup("How can I tune a xylophone of kind 1?", namespace="users/jane")
        erased = cache.erase(namespace="users/jane")
        assert erased.entries > 0
    with open_cache(tmp_path, embedder=None, hooks=()) as cache:
        state = json.loads(cache._engine.backend.metadata.meta("learned") or "{}")
        assert "users/jane" not in json.dumps(state)


def test_copies_that_may_hold_it_are_named(tmp_path: Path) -> None:
    where, copy, file = tmp_path / "cache", tmp_path / "copy", tmp_path / "export.jsonl"
    filled(where)
    assert run("backup", str(copy), path=where)[0] == 0
    assert run("export", str(file), path=where)[0] == 0
    shown = run("erase", "--tag", "users/jane", "--yes", path=where)[1]
    assert str(copy) in shown
    assert str(file) in shown
    with open_cache(where, embedder=None, hooks=()) as cache:
        cache.put("new", "answer", namespace="users/jim")
        assert cache.erase(namespace="users/jim").copies == (), "made before it was stored"
