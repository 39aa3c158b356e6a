"""The command line, run as a person or a script would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from semcache import Completion, SemanticCache, Usage
from semcache.backends.local.opening import SNAPSHOT
from semcache.cli.maintain import warmup
from semcache.embedders import reference
from semcache.embedders.default import DefaultEmbedder
from semcache.embedders.reference import load_reference
from semcache.telemetry.intervals import wilson
from tests.helpers import hashing_embedder

HOW = "How do I reset my password?"


@pytest.fixture
def filled(tmp_path: Path, embedder: DefaultEmbedder) -> Path:
    """A small cache with the real embedder."""
    path = tmp_path / "cache"
    with SemanticCache(path, embedder=embedder, threshold=0.9) as cache:
        cache.put(HOW, "Open Settings.", namespace="bank", model="gpt", tags=["help"])
        cache.put(HOW, "Click the link.", namespace="shop", model="gpt")
        cache.put("Where is my order?", Completion("On its way.", usage=Usage(10, 5, 0.01)))
        cache.put("old one", "x", ttl=0)
        for _ in range(3):
            cache.get(HOW, namespace="bank", model="gpt")
    return path


def run(*args: str, path: Path | None = None, stdin: str | None = None) -> Any:
    """(exit code, standard output, standard error) of `semcache ARGS`."""
    env = {**os.environ, "COLUMNS": "200"}
    env.pop("SEMCACHE_PATH", None)
    env["XDG_CACHE_HOME"] = "/nonexistent"
    if path is not None:
        env["SEMCACHE_PATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-m", "semcache", *args],
        capture_output=True,
        text=True,
        env=env,
        input=stdin,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def as_json(*args: str, path: Path | None = None) -> Any:
    code, out, err = run(*args, "--json", path=path)
    assert code == 0, err
    return json.loads(out)


def test_stats(filled: Path) -> None:
    """stats reports what the cache holds and has done, for people and for scripts."""
    found = as_json("stats", path=filled)
    assert (found["entries"], found["exact_hits"]) == (4, 3)
    assert found["groups"][0] == {"namespace": "default", "model": "", "entries": 2, "hits": 0}
    code, out, _ = run("stats", "--cache", str(filled))
    assert code == 0
    assert "all-MiniLM-L6-v2" in out


def test_list_and_show(filled: Path) -> None:
    """list selects by namespace, model, tag and order; show prints one entry in full."""
    assert len(as_json("list", path=filled)) == 4
    (found,) = as_json("list", "--tag", "help", path=filled)
    assert (found["namespace"], found["hits"]) == ("bank", 3)
    assert [e["id"] for e in as_json("list", "--order", "oldest", "-l", "2", path=filled)] == [1, 2]
    shown = as_json("show", str(found["id"]), path=filled)
    assert shown["tags"] == ["help"]
    assert shown["completion"]["text"] == "Open Settings."
    code, out, _ = run("show", "1", path=filled)
    assert code == 0
    assert "Open Settings." in out
    assert run("show", "99", path=filled)[0] == 3
    assert run("list", "--namespace", "none", path=filled)[0] == 3
    assert run("list", "--order", "sideways", path=filled)[0] == 2


def test_search_finds_neighbours_in_every_scope(filled: Path) -> None:
    """search ranks by similarity, whatever the namespace."""
    found = as_json("search", "I forgot my password", "-l", "2", path=filled)
    assert {row["namespace"] for row in found} == {"bank", "shop"}
    assert 0.5 < found[0]["similarity"] < 1
    only = as_json("search", "password", "--namespace", "bank", path=filled)
    assert {row["namespace"] for row in only} == {"bank"}


def test_explain_shows_the_whole_trace_and_changes_nothing(filled: Path) -> None:
    """explain shows the scope, the tier, the candidates, and the decision with its reason."""
    before = as_json("stats", path=filled)
    args = ("explain", "how can i reset my password", "-n", "bank", "-m", "gpt")
    found = as_json(*args, "--threshold", "0.8", path=filled)
    assert (found["decision"], found["tier"]) == ("hit", "semantic")
    assert found["candidates"][0]["answer"] == "Open Settings."
    assert len(found["candidates"]) == 1, "the shop's entry is not a candidate"
    refused = as_json(*args, "--threshold", "0.999", path=filled)
    assert (refused["decision"], refused["reason"]) == ("miss", "below_threshold")
    like = as_json("explain", "reset password", "--like", "2", path=filled)
    assert like["candidates"][0]["namespace"] == "shop"
    code, out, _ = run(*args, path=filled)
    assert code == 0
    assert "candidate 1" in out
    assert "scope" in out
    assert as_json("stats", path=filled) == before


def test_explain_takes_messages_and_parameters(filled: Path, tmp_path: Path) -> None:
    """explain can build the same request as a program would."""
    file = tmp_path / "m.json"
    file.write_text(json.dumps([{"role": "user", "content": HOW}]))
    found = as_json("explain", "--messages", str(file), "-n", "bank", "-m", "gpt", path=filled)
    assert found["tier"] == "exact"
    other = as_json("explain", HOW, "--param", "temperature=0.5", path=filled)
    assert other["scope"]["parts"]["params"] == {"temperature": 0.5}


def test_delete_and_clear(filled: Path) -> None:
    """delete takes ids; clear takes a namespace, model, tag or age, and asks first."""
    assert run("delete", "1", "99", path=filled)[0] == 3
    assert len(as_json("list", path=filled)) == 3
    code, _, _ = run("clear", path=filled, stdin="n\n")
    assert code == 1
    assert len(as_json("list", path=filled)) == 3
    assert run("clear", "--older-than", "1h", "--yes", path=filled)[1] == "deleted 0\n"
    assert run("clear", "--expired", "--yes", path=filled)[1] == "deleted 1\n"
    assert run("clear", "--namespace", "shop", "--yes", path=filled)[1] == "deleted 1\n"
    assert run("clear", path=filled, stdin="y\n")[0] == 0
    assert run("list", path=filled)[0] == 3
    assert run("clear", "--older-than", "soon", path=filled)[0] == 1


def test_warm_fills_a_cache_from_a_log(tmp_path: Path) -> None:
    """Answers of a log are served from the first lookup on; what cannot be read is said."""
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"prompt": "How do I reset my password?", "response": "Open Settings."}\n'
        '{"prompt": "Are you open?", "response": "Yes.", "namespace": "b", "model": "m2"}\n'
        "no JSON\n"
    )
    where = str(tmp_path / "cache")
    code, _, err = run("warm", str(log), "--cache", where, "-n", "support", "-m", "m")
    assert code == 0
    for words in ("stored 2 answers", "record 3 is left out", "1 records could not be read"):
        assert words in err
    found = as_json(
        "explain", "how can I reset my password", "-n", "support", "-m", "m", "--cache", where
    )
    assert (found["decision"], found["tier"]) == ("hit", "semantic")
    assert as_json("explain", "Are you open?", "-n", "b", "-m", "m2", "--cache", where)["tier"]
    log.write_text("no JSON\n")
    assert run("warm", str(log), "--cache", where)[0] == 3


def test_explain_says_where_else_entries_are(tmp_path: Path, filled: Path) -> None:
    """A request in another scope finds nothing, and is told which scopes there are."""
    found = as_json("explain", "anything", "-m", "no such model", "--cache", str(filled))
    assert found["decision"] == "miss"
    assert found["other_scopes"]
    assert {"entry_id", "entries", "model", "params"} <= found["other_scopes"][0].keys()
    _, out, _ = run("explain", "anything", "-m", "no such model", "--cache", str(filled))
    assert "--like" in out


def unsigned(path: Path) -> list[Any]:
    """The lines of an export without the signatures of the cache that wrote them."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "signature"} for line in lines]


def test_export_and_import_are_a_round_trip(
    filled: Path, tmp_path: Path, embedder: DefaultEmbedder
) -> None:
    """Every field is preserved; the copy serves the same requests in both tiers."""
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert run("export", str(first), path=filled)[0] == 0
    copy = tmp_path / "copy"
    assert run("import", str(first), path=copy) == (0, "imported 4 entries\n", "")
    assert run("export", str(second), path=copy)[0] == 0
    assert unsigned(first) == unsigned(second)
    with SemanticCache(copy, embedder=embedder, threshold=0.8) as cache:
        assert str(cache.get("how can i reset my password", namespace="shop", model="gpt")) == (
            "Click the link."
        )
    piped = run("import", "-", path=tmp_path / "piped", stdin=run("export", path=filled)[1])
    assert piped[0] == 0


def test_import_embeds_again_for_another_embedder(tmp_path: Path, filled: Path) -> None:
    """Embeddings of another model are computed again, not mixed in."""
    other = tmp_path / "other"
    with SemanticCache(other, embedder=hashing_embedder(), threshold=0.9) as cache:
        cache.put("where is my shoe", "there")
        export = tmp_path / "e.jsonl"
    assert run("export", str(export), path=other)[0] == 0
    assert run("import", str(export), path=filled)[0] == 0
    assert as_json("check", path=filled)["problems"] == []
    assert as_json("search", "where is my shoe", path=filled)[0]["similarity"] > 0.99


@pytest.mark.parametrize(
    "damage", ["not json\n", '{"format": "x"}\n', '{"format": "semcache-export-1"}\n{"a": 1}\n']
)
def test_a_damaged_import_is_reported_and_loses_nothing(
    filled: Path, tmp_path: Path, damage: str
) -> None:
    """Exit code 1 and the number of the line; the existing entries stay."""
    file = tmp_path / "bad.jsonl"
    file.write_text(damage)
    code, _, err = run("import", str(file), path=filled)
    assert code == 1
    assert "ine" in err
    assert len(as_json("list", path=filled)) == 4


def test_check_finds_and_repairs(filled: Path) -> None:
    """An undamaged cache has no problems; a stray tag and a wrong total are found and repaired."""
    assert as_json("check", path=filled)["problems"] == []
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(filled / "semcache.db")) as db, db:
        db.execute("INSERT INTO tags VALUES ('stray', 999)")
        db.execute("UPDATE totals SET entries = 77")
    code, out, _ = run("check", path=filled)
    assert code == 3
    assert out.count("PROBLEM") == 2
    code, out, _ = run("check", "--fix", path=filled)
    assert code == 0
    assert out.count("repaired") == 2
    assert as_json("check", path=filled)["problems"] == []


def test_check_fix_rebuilds_a_wrong_index(filled: Path) -> None:
    """An index that differs from the database is discarded and rebuilt."""
    import sqlite3
    from contextlib import closing

    assert run("check", "--fix", path=filled)[0] == 0, "keeps a snapshot"
    with closing(sqlite3.connect(filled / "semcache.db")) as db, db:
        db.execute("DELETE FROM embeddings WHERE entry_id = 2")  # behind the log's back
    assert (filled / SNAPSHOT).exists()
    assert run("check", path=filled)[0] == 3
    assert run("check", "--fix", path=filled)[0] == 0
    assert as_json("check", path=filled)["problems"] == []


def test_reembed_and_vacuum(tmp_path: Path) -> None:
    """Embeddings of another model are replaced in one step; the cache opens with the new model."""
    path = tmp_path / "cache"
    with SemanticCache(path, embedder=hashing_embedder(), threshold=0.9) as cache:
        for number in range(30):
            cache.put(f"question number {number}", "a")
        cache.put("long " * 600, "only exact")
    assert run("search", "x", path=path)[0] == 1
    found = as_json("reembed", path=path)
    assert (found["vectors"], found["from"]) == (30, "function/hashed/512")
    with SemanticCache(path, threshold=0.9) as cache:
        assert cache.lookup("question number 7 please").similarity is not None
        assert str(cache.get("long " * 600)) == "only exact"
    assert run("vacuum", path=path)[0] == 0
    assert as_json("check", path=path)["problems"] == []


def test_warmup_compares_the_model_with_the_original(embedder: DefaultEmbedder) -> None:
    """It says how closely they agree, and the times."""
    found = as_json("warmup")
    assert found["fingerprint"] == embedder.fingerprint
    assert found["least_cosine"] >= 0.98
    assert min(found["seconds"].values()) > 0
    code, said, _ = run("warmup")
    assert code == 0
    assert "lowest cosine" in said


def test_warmup_says_where_a_machine_computes_something_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and what to do."""
    monkeypatch.setattr(reference, "load_reference", lambda: -load_reference())
    with pytest.raises(typer.Exit) as left:
        warmup()
    assert left.value.exit_code == 3
    assert 'DefaultEmbedder("float32")' in " ".join(capsys.readouterr().err.split())


def test_demo_shows_the_main_job(tmp_path: Path) -> None:
    """Repeats are served, within the bound, never across tenants; decisions are explained."""
    found = as_json("demo")
    assert found["questions"] >= 300
    assert found["across_tenants"] == 0
    assert found["exact_hits"] + found["semantic_hits"] > 100
    (nine,) = (o for o in found["fixed_thresholds"] if o["threshold"] == 0.9)
    assert found["semantic_hits"] > nine["semantic_hits"]
    wrong = sum(half["wrong"] for half in found["halves"])
    low, _ = wilson(wrong, found["semantic_hits"]) or (0.0, 1.0)
    assert low <= 0.05
    ends = ("exact_hits", "semantic_hits", "misses", "explored")
    assert sum(found[end] for end in ends) == found["questions"]
    assert found["calls_saved"] == found["exact_hits"] + found["semantic_hits"]
    kept = tmp_path / "kept"
    code, out, _ = run("demo", "--cache", str(kept), "--threshold", "0.85")
    assert code == 0
    for words in ("offline answerer", "second half", "a paraphrase", "a near-miss", "HIT"):
        assert words in out
    assert run("demo", "--cache", str(kept))[0] == 1, "never into an existing cache"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("stats",), "--cache PATH, set SEMCACHE_PATH, or write path"),
        (("stats", "--cache", "/nonexistent/x"), "no cache in /nonexistent/x"),
        (("import", "/nonexistent", "--cache", "/tmp/never"), "no file /nonexistent"),
    ],
)
def test_errors_are_one_line_on_stderr(args: tuple[str, ...], words: str) -> None:
    """Exit code 1, no traceback, and a message that says what to do."""
    code, out, err = run(*args)
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err


def test_wrong_usage_is_exit_code_2(filled: Path) -> None:
    """This covers an unknown option and an unknown command."""
    assert run("stats", "--nonsense", path=filled)[0] == 2
    assert run("nonsense")[0] == 2


@pytest.mark.parametrize(
    "args", [("backup", ""), ("restore", "", "-c", "x"), ("stats", "--cache", "")]
)
def test_an_empty_directory_is_not_the_current_one(args: tuple[str, ...]) -> None:
    """A script whose variable is unset passes an empty string, which is refused."""
    code, _, err = run(*args)
    assert code == 2
    assert "the path is empty" in err


def test_commands_do_not_load_what_they_do_not_need(filled: Path) -> None:
    """`stats` loads neither a model nor an index."""
    code = (
        "import sys; sys.argv = ['semcache', 'stats']\n"
        "from semcache.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'faiss', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    env = {**os.environ, "SEMCACHE_PATH": str(filled)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
