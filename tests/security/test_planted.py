"""Answers that somebody plants: by an export, by a backup, or in the database."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from semcache import Completion, FaultEvent, SemanticCache
from semcache.backends.local.backups import restore
from semcache.cli.app import application
from semcache.errors import SemcacheError, StoreError
from semcache.keys.keys import exact_key
from semcache.types import ToolCallPart
from tests.helpers import Heard, open_cache

JSON = dict[str, Any]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(application(arguments[:1]), list(arguments))
    if isinstance(result.exception, SemcacheError):
        return 1, result.output + str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, list[JSON]]:
    """A cache, and the lines of its export: a plain question, and one with parameters."""
    place = tmp_path / "cache"
    with SemanticCache(place) as cache:
        cache.put("How do I pay?", "By card.", namespace="shop", model="m")
        cache.put("How do I pay?", "By card!", namespace="shop", params={"style": "loud"})
    assert run("export", str(tmp_path / "export"), "--cache", str(place))[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "export").read_text().splitlines()]
    return place, lines


def written(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return str(path)


def served(place: Path, question: str, **options: Any) -> str | None:
    with SemanticCache(place) as cache:
        found = cache.get(question, **options)
    return None if found is None else str(found)


def foreign(line: JSON) -> JSON:
    """An answer for one namespace, under the scope of another."""
    with open_cache(":memory:") as cache:
        scope = cache.query("How do I pay?", namespace="bank", model="m").scope.digest
    key = exact_key(scope, line["question"])
    return {**line, "scope": scope.hex(), "exact_key": key.hex()}


def changed(**fields: Any) -> Callable[[JSON], JSON]:
    return lambda line: {**line, **fields}


def without_signature(line: JSON) -> JSON:
    return {name: value for name, value in line.items() if name != "signature"}


PLANTED: dict[str, Callable[[JSON], Any]] = {
    "the scope of another namespace": foreign,
    "the key of another question": changed(question="Where are you?"),
    "another key": changed(exact_key="00" * 32),
    "a namespace that cannot be cleared": changed(namespace="shop\xa0"),
    "a namespace with a line break": changed(namespace="shop\n"),
    "an empty namespace": changed(namespace=""),
    "a date that never comes": lambda line: json.dumps(line).replace(
        '"expires_at": null', '"expires_at": Infinity'
    ),
    "a huge date": changed(expires_at=1e300),
    "a date before 1970": changed(created_at=-5.0),
    "a date in the future": changed(created_at=9e9),
    "no number": lambda line: json.dumps(line).replace('"hits": 0', '"hits": NaN'),
    "hits below zero": changed(hits=-1),
    "a version that is not known": changed(key_version=99),
    "another type": changed(question=["x"]),
    "an answer that is no text": changed(completion={"text": 3, "usage": {}}),
    "an unknown field": changed(evil=1),
    "a missing field": lambda line: {k: v for k, v in line.items() if k != "scope"},
    "a key that is too short": changed(scope="00"),
    "deep JSON": lambda line: "[" * 100_000 + "]" * 100_000,
    "not JSON": lambda line: "{",
    "not an object": lambda line: "[1]",
    "not UTF-8": lambda line: "\udcff",
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_planted_line_is_refused_with_its_number(
    exported: tuple[Path, list[JSON]], tmp_path: Path, plant: Callable[[JSON], Any]
) -> None:
    """Nothing is imported then, into the cache that has exported the lines or any other."""
    place, (header, line, _) = exported
    bad = plant(line)
    path = tmp_path / "planted"
    lines = [header, line, bad]
    path.write_bytes(
        b"".join(
            (x if isinstance(x, str) else json.dumps(x)).encode("utf-8", "surrogateescape") + b"\n"
            for x in lines
        )
    )
    for target in (tmp_path / "new", place):
        code, output = run("import", str(path), "--cache", str(target))
        assert code == 1, output
        assert "Line 3" in output
        assert "Traceback" not in output
    with open_cache(tmp_path / "new", embedder=None) as cache:
        assert len(cache) == 0
    code, output = run("import", str(path), "--skip-bad-lines", "--cache", str(tmp_path / "new"))
    assert (code, "imported 1 entries" in output, "Line 3" in output) == (0, True, True)
    assert served(tmp_path / "new", "How do I pay?", namespace="bank", model="m") is None
    assert served(tmp_path / "new", "How do I pay?", namespace="shop", model="m") == "By card."


def test_a_vector_of_another_text_is_not_used(
    exported: tuple[Path, list[JSON]], tmp_path: Path
) -> None:
    """The questions of other caches' exports are embedded again; with --trust they are not."""
    _, (header, line, _) = exported
    with SemanticCache(":memory:") as cache:
        vector = cache.embedder.embed(["What is the weather like?"])[0]
    planted = {**line, "vector": base64.b64encode(np.asarray(vector, np.float32)).decode()}
    path = written(tmp_path / "planted", [header, planted])
    for number, options in enumerate(([], ["--reembed", "--trust"])):
        target = tmp_path / f"new{number}"
        assert run("import", path, "--cache", str(target), *options)[0] == 0
        asked = {"namespace": "shop", "model": "m"}
        assert served(target, "What is the weather like ?", **asked) is None
        # A few times, because the cache refuses a small share of its hits to learn from them.
        assert "By card." in [served(target, "how do I pay?", **asked) for _ in range(5)]


def test_an_own_export_is_imported_as_it_is(exported: tuple[Path, list[JSON]]) -> None:
    """With every scope; but not a line that somebody has changed."""
    place, (header, *lines) = exported
    assert run("clear", "--yes", "--cache", str(place))[0] == 0
    path = written(place.parent / "again", [header, *lines])
    assert run("import", path, "--cache", str(place)) == (0, "imported 2 entries\n")
    loud = {"namespace": "shop", "params": {"style": "loud"}}
    assert served(place, "How do I pay?", **loud) == "By card!"
    lines[1]["completion"]["text"] = "To my account."
    path = written(place.parent / "again", [header, *lines])
    code, output = run("import", path, "--cache", str(place))
    assert code == 1
    assert "--trust" in output
    assert served(place, "How do I pay?", **loud) == "By card!"


def test_entries_are_moved_to_another_namespace(
    exported: tuple[Path, list[JSON]], tmp_path: Path
) -> None:
    """Those whose scope is a namespace and a model; others are said to be left."""
    _, lines = exported
    path, target = written(tmp_path / "all", lines), str(tmp_path / "new")
    code, output = run("import", path, "-n", "other", "--skip-bad-lines", "--cache", target)
    assert (code, "imported 1 entries" in output, "Line 3" in output) == (0, True, True)
    assert served(tmp_path / "new", "How do I pay?", namespace="other", model="m") == "By card."
    assert served(tmp_path / "new", "How do I pay?", namespace="shop", model="m") is None


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=20) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "completion",
                            "scope",
                            "exact_key",
                            "usage",
                            "text",
                            "tags",
                            "namespace",
                            "question",
                            "hits",
                            "created_at",
                            "signature",
                            "vector",
                            "key_version",
                        ]
                    ),
                    inner,
                    max_size=8,
                )
            ),
            max_leaves=12,
        ),
        max_size=4,
    )
)
def test_any_lines_are_imported_or_refused(tmp_path_factory: Any, values: list[Any]) -> None:
    """Never with a traceback."""
    place = tmp_path_factory.mktemp("fuzz")
    header = {"format": "semcache-export-1", "embedder": "function/hashed/512"}
    path = written(place / "lines", [header, *(json.dumps(value) for value in values)])
    code, output = run("import", path, "--cache", str(place / "cache"))
    assert code in (0, 1)
    assert "Traceback" not in output


# -------------------------------------------------------------------------------- backups

EVIL: dict[str, str] = {
    "trigger": "CREATE TRIGGER evil AFTER INSERT ON entries BEGIN"
    " UPDATE entries SET text = 'evil' WHERE id = new.id; END",
    "trigger by a known name": "DROP TRIGGER entry_added; CREATE TRIGGER entry_added AFTER INSERT"
    " ON entries BEGIN UPDATE entries SET text = 'evil'; END",
    "view": "CREATE VIEW evil AS SELECT 1",
    "table": "CREATE TABLE evil (x)",
    "generated column": "ALTER TABLE entries ADD COLUMN evil TEXT GENERATED ALWAYS AS (text)",
    "index": "CREATE INDEX evil ON entries(upper(text))",
}


@pytest.mark.parametrize("statement", EVIL.values(), ids=EVIL)
def test_a_backup_with_parts_of_somebody_elses_is_not_restored(
    tmp_path: Path, statement: str
) -> None:
    """They could change what is served."""
    for name in ("backup", "cache"):
        with open_cache(tmp_path / name) as cache:
            cache.put("question", name)
    with closing(sqlite3.connect(tmp_path / "backup" / "semcache.db")) as db, db:
        db.executescript(statement)
    with pytest.raises(StoreError, match="did not create"):
        restore(tmp_path / "backup", tmp_path / "cache", lambda done, total: None)
    with open_cache(tmp_path / "cache") as cache:
        assert str(cache.get("question")) == "cache"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_in_place_of_a_backup_is_refused(tmp_path: Path) -> None:
    """At once: nobody may ever write to it."""
    (tmp_path / "backup").mkdir()
    os.mkfifo(tmp_path / "backup" / "semcache.db")
    code, output = run("restore", str(tmp_path / "backup"), "--yes", "--cache", str(tmp_path / "c"))
    assert code == 1
    assert "not a file" in output


# ----------------------------------------------------------------------------------- rows

DAMAGE: dict[str, str] = {
    "a date that is text": "UPDATE entries SET expires_at = 'zz'",
    "an answer that is bytes": "UPDATE entries SET text = x'ff00'",
    "a question that is bytes": "UPDATE entries SET question = x'ff00'",
    "an answer that is no JSON": "UPDATE entries SET extra = '{'",
    "an answer of another form": "UPDATE entries SET extra = '[1]'",
    "an answer with unknown fields": """UPDATE entries SET extra = '{"evil": 1}'""",
    "deep JSON": f"UPDATE entries SET extra = '{'[' * 50_000}'",
    "hits that are text": "UPDATE entries SET hits = 'many'",
    "a scope that is text": "UPDATE entries SET scope = 'x'",
    "a summary that is bytes": "UPDATE entries SET summary = x'00'",
}


@pytest.fixture(params=DAMAGE.values(), ids=DAMAGE)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = tmp_path / "cache"
    with open_cache(place) as cache:
        cache.put("question", "answer")
    with closing(sqlite3.connect(place / "semcache.db")) as db, db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(request.param)
    return place


def test_a_damaged_row_never_reaches_the_caller(damaged: Path) -> None:
    """A lookup of it is a miss, or a hit with the answer that was stored; never an error."""
    heard = Heard()
    with open_cache(damaged, hooks=[heard]) as cache:

        @cache.cached(name=None)
        def ask(prompt: str) -> str:
            return "fresh"

        assert ask("question") in ("fresh", "answer")
        assert ask("questions") in ("fresh", "answer")
        assert str(cache.get("question")) in ("fresh", "answer", "None")
    assert all(isinstance(event.error, Exception) for event in heard.of(FaultEvent))


def test_a_damaged_row_is_named_and_mended(damaged: Path) -> None:
    """By `check`; the other commands say what is wrong, without a traceback."""
    for command in (["show", "1"], ["list"], ["export", "-"], ["stats"], ["list", "--json"]):
        _, output = run(*command, "--cache", str(damaged))
        assert "Traceback" not in output
    code, output = run("check", "--cache", str(damaged))
    assert code == 3, output
    assert "PROBLEM" in output
    run("check", "--fix", "--cache", str(damaged))
    code, output = run("check", "--cache", str(damaged))
    assert code == 0, output


def test_check_finds_planted_rows(tmp_path: Path) -> None:
    """Another exact key than the question's, and a scope with entries of two namespaces."""
    with open_cache(tmp_path / "cache") as cache:
        cache.put("one", "answer", namespace="a")
        cache.put("two", "answer", namespace="a")
    with closing(sqlite3.connect(tmp_path / "cache" / "semcache.db")) as db, db:
        db.execute("UPDATE entries SET question = 'other' WHERE question = 'one'")
        db.execute("UPDATE entries SET namespace = 'b' WHERE question = 'two'")
    code, output = run("check", "--cache", str(tmp_path / "cache"))
    assert code == 3
    assert "exact key" in output
    assert "several namespaces" in output


def test_an_answer_that_calls_tools_comes_back_from_an_export(tmp_path: Path) -> None:
    """With its calls as they were."""
    call = ToolCallPart("1", "weather", {"city": "Bremen"})
    answer = Completion("Let me see.", "tool_calls", has_tool_calls=True, tool_calls=(call,))
    with open_cache(tmp_path / "cache", store_tool_calls=True, embedder=None) as cache:
        cache.put("Is it raining?", answer)
    assert run("export", str(tmp_path / "export"), "--cache", str(tmp_path / "cache"))[0] == 0
    code, said = run("import", str(tmp_path / "export"), "--cache", str(tmp_path / "other"))
    assert code == 0, said
    with open_cache(tmp_path / "other", embedder=None) as cache:
        assert cache.get("Is it raining?") == replace(answer, served_from="exact")
