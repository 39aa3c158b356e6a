"""The table of faults of docs/durability.md, row by row.

Each row: what was done to the cache, what the caller saw, what was told in an event or the
log, and that nothing acknowledged was lost. `tests/test_docs.py` holds the page to the names.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from semcache import Matching, SemanticCache, StoreError
from semcache.backends.local.faiss.lifecycle import IndexLifecycle
from semcache.backends.local.opening import DATABASE, SNAPSHOT
from semcache.embedders.function import FunctionEmbedder
from semcache.telemetry.events import FaultEvent
from tests.helpers import DIMENSION, Clock, Heard, hashed, open_cache

ROOT = Path(__file__).parents[1]
WORDS = "one two three four five six seven eight nine ten"
NEAR = f"{WORDS} please"
OTHER = "alpha beta gamma delta epsilon zeta eta theta iota kappa"


def wheres(heard: Heard) -> set[str]:
    return {event.where for event in heard.of(FaultEvent)}


def served(path: Path, **options: Any) -> None:
    """Opened again, the cache has everything and takes more."""
    with open_cache(path, **options) as cache:
        assert str(cache.get(WORDS)) == "kept"
        assert cache.lookup(NEAR).tier == "semantic"
        assert cache.put("something new", "x") is not None
        assert cache._engine.backend.store.problems() == []


def kept(path: Path) -> None:
    """An entry, its vector, and a snapshot."""
    with open_cache(path) as cache:
        cache.record(cache.lookup(WORDS), "kept")


def test_disk_full(tmp_path: Path) -> None:
    """A disk with no room: answers pass, nothing is stored, and with room again all goes on."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        from semcache.telemetry.events import FaultEvent
        from tests.helpers import Heard, open_cache

        path, heard = Path(sys.argv[1]), Heard()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        cache = open_cache(path, hooks=[heard])
        cache.record(cache.lookup("one two three four five six seven eight nine ten"), "kept")
        cache.flush()

        @cache.cached(name=None)
        def ask(prompt):
            return "asked " + prompt

        room = max(p.stat().st_size for p in path.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        said = [ask(f"question number {n} of those that find no room") for n in range(200)]
        assert said == [f"asked question number {n} of those that find no room" for n in range(200)]
        assert ask("one two three four five six seven eight nine ten") == "kept"
        faults = {e.where for e in heard.of(FaultEvent)}
        assert "record" in faults, faults
        assert "disk" in str(heard.of(FaultEvent)[0].error), heard.of(FaultEvent)[0].error
        cache.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    served(tmp_path)


def test_permissions_taken_away() -> None:
    """Stored answers are served, also to who opens it anew; nothing is stored, and told."""
    code = """
        import os, sys
        from pathlib import Path
        from semcache import Completion
        from semcache.telemetry.events import FaultEvent
        from semcache.backends.local.faiss import lifecycle as files
        from semcache.backends.local.faiss import merging, snapshot
        from tests.helpers import Heard, open_cache

        words, path = "one two three four five six seven eight nine ten", Path(sys.argv[1])
        cache = open_cache(path, hooks=[])
        cache.record(cache.lookup(words), "kept")
        cache.flush()
        for name in path.iterdir():
            name.chmod(0o444)
        path.chmod(0o555)
        if os.geteuid() == 0:  # who may everything may this too: become nobody
            os.setgid(65534)
            os.setuid(65534)
        heard = Heard()
        for opened in (cache, open_cache(path, hooks=[heard])):
            assert str(opened.get(words)) == "kept"
            assert opened.lookup(words + " please").tier == "semantic"
            text = f"another of {id(opened)}"
            assert opened.answer(text, lambda _: Completion("a")).text == "a"
        assert opened.put("new", "answer") is None
        assert not heard.of(FaultEvent), heard.events
        os._exit(0)
    """
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(path / "cache")],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "is read-only: hits are served, nothing is stored" in done.stderr
        (path / "cache").chmod(0o755)
        for name in (path / "cache").iterdir():
            name.chmod(0o644)
        served(path / "cache")
    finally:
        shutil.rmtree(path)


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    """Opening fails with an error that names the file; for root, who may, a file in its place."""
    blocked = tmp_path / "blocked"
    blocked.write_text("not a directory")
    with pytest.raises(StoreError, match=str(blocked)):
        open_cache(blocked / "cache")


def test_database_locked_for_long(tmp_path: Path) -> None:
    """By another program: hits are served at once, records wait their time and are told."""
    kept(tmp_path)
    heard = Heard()
    with open_cache(tmp_path, hooks=[heard], busy_timeout=0.2) as cache:
        cache.lookup(NEAR)
        blocker = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        assert cache.lookup(WORDS).tier == "exact"
        assert cache.lookup(NEAR).tier == "semantic"
        assert time.monotonic() - start < 0.2
        assert cache.put(OTHER, "not stored") is None
        assert "locked" in str(heard.of(FaultEvent)[0].error)
        blocker.execute("ROLLBACK")
        blocker.close()
        assert cache.put(OTHER, "stored") is not None
    assert wheres(heard) <= {"record", "counters"}
    served(tmp_path)


@pytest.mark.parametrize("step", [-1e7, 1e7], ids=["backwards", "forwards"])
def test_clock_steps(tmp_path: Path, step: float) -> None:
    """Nothing is served past its time by the clock of the moment; what has none stays."""
    kept(tmp_path)
    clock = Clock()
    with open_cache(tmp_path, clock=clock) as cache:
        cache.put(OTHER, "for a while", ttl=100)
        clock.now += step
        assert (cache.get(OTHER) is None) == (step > 0)
        assert str(cache.get(WORDS)) == "kept"
        cache.put("meanwhile", "x", ttl=100)
        clock.now -= step
        assert str(cache.get(OTHER)) == "for a while" or step > 0
    served(tmp_path, clock=clock)


@pytest.mark.parametrize("damage", ["cut short", "one bit", "empty", "another's", "gone"])
def test_snapshot_damaged(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is thrown away, with a warning that names it, and made from the database."""
    kept(tmp_path)
    path = tmp_path / SNAPSHOT
    raw = bytearray(path.read_bytes())
    if damage == "cut short":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "one bit":
        raw[-70] ^= 4
        path.write_bytes(raw)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "another's":
        kept(tmp_path / "other")
        path.write_bytes((tmp_path / "other" / SNAPSHOT).read_bytes())
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING, "semcache"):
        served(tmp_path)
    assert ("rebuilt from the database" in caplog.text) == (damage != "gone")


def test_database_page_overwritten(tmp_path: Path) -> None:
    """A miss and a fault that says what to do, or the right answer; never a wrong one."""
    with open_cache(tmp_path) as cache:
        for number in range(200):
            cache.put(f"{WORDS} {number}", f"answer {number} " * 40)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = db.execute("PRAGMA page_size").fetchone()
    pages = (tmp_path / DATABASE).stat().st_size // size
    whole = (tmp_path / DATABASE).read_bytes()
    told = 0
    for page in range(2, pages + 1, 3):
        damaged = bytearray(whole)
        damaged[(page - 1) * size : page * size] = b"\xa5" * size
        (tmp_path / DATABASE).write_bytes(damaged)
        heard = Heard()
        refused = ""
        try:
            with open_cache(tmp_path, hooks=[heard], semantic=False, embedder=None) as cache:
                found = [cache.get(f"{WORDS} {number}") for number in range(0, 200, 9)]
        except StoreError as error:
            found, refused = [], str(error)
        for number, answer in zip(range(0, 200, 9), found, strict=False):
            assert answer is None or answer.text == f"answer {number} " * 40
        assert not refused or str(tmp_path) in refused
        told += bool(refused)
        for event in heard.of(FaultEvent):
            told += "semcache check" in str(event.error)
        for name in ("-wal", "-shm"):
            Path(f"{tmp_path / DATABASE}{name}").unlink(missing_ok=True)
    assert told


def test_write_ahead_log_cut(tmp_path: Path) -> None:
    """As after a loss of power: the last writes may be gone, what is there is sound."""
    with open_cache(tmp_path) as cache:
        for number in range(100):
            cache.put(f"{WORDS} {number}", f"answer {number}")
        files = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    log = files[f"{DATABASE}-wal"]
    for share in (0.9, 0.5, 0.1, 0.0):
        other = tmp_path / str(share)
        other.mkdir()
        (other / DATABASE).write_bytes(files[DATABASE])
        (other / f"{DATABASE}-wal").write_bytes(log[: int(len(log) * share)])
        with open_cache(other, semantic=False, embedder=None) as cache:
            there = [str(cache.get(f"{WORDS} {number}")) for number in range(100)]
            count = len(cache)
            assert there == [f"answer {n}" for n in range(count)] + ["None"] * (100 - count)
            assert cache._engine.backend.store.problems() == []
            assert cache.put("goes on", "x") is not None


def test_embedder_hangs(tmp_path: Path) -> None:
    """The call goes on as a miss within the time limit, and those after it at once."""
    go_on, heard = threading.Event(), Heard()

    def hang(texts: Sequence[str]) -> Any:
        go_on.wait(30)
        return hashed(texts)

    embedder = FunctionEmbedder(hang, name="hashed", dimension=DIMENSION)
    with SemanticCache(
        tmp_path,
        embedder=embedder,
        threshold=0.9,
        matching=Matching(embed_timeout=0.2),
        hooks=[heard],
    ) as cache:

        @cache.cached()
        def ask(prompt: str) -> str:
            return "asked"

        start = time.monotonic()
        assert [ask(f"{WORDS} {number}") for number in range(5)] == ["asked"] * 5
        assert time.monotonic() - start < 5
        assert ask(f"{WORDS} 1") == "asked", "stored, for equal requests"
        assert cache.stats().exact_hits == 1
        go_on.set()
    assert wheres(heard) == {"embed"}


def test_index_cannot_be_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It stays in memory, with a warning, and is made from the database at the next opening."""
    kept(tmp_path)
    (tmp_path / SNAPSHOT).unlink()
    (tmp_path / SNAPSHOT).mkdir()
    with caplog.at_level(logging.WARNING, "semcache"):
        served(tmp_path)
        (tmp_path / SNAPSHOT).rmdir()
        served(tmp_path)
    assert "could not be saved" in caplog.text


def test_merge_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault is told; everything is found as before."""
    from semcache.backends.local.faiss import index as module

    monkeypatch.setattr(module, "_MEM_TABLE_ROWS", 5)
    heard = Heard()
    with open_cache(tmp_path, hooks=[heard], index_in_background=False) as cache:
        monkeypatch.setattr(IndexLifecycle, "_merged_segment", lambda *_: 1 / 0)
        cache.lookup(NEAR)
        for number in range(20):
            cache.put(f"{WORDS} {number}", f"answer {number}")
        assert all(cache.lookup(f"{WORDS} {n}!").tier == "semantic" for n in range(20))
        monkeypatch.undo()
    assert "index" in wheres(heard)


def test_large_store_without_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lookups do not wait while it is made: equal requests are found, others are misses."""
    from semcache.backends.local import index_follower as following

    kept(tmp_path)
    (tmp_path / SNAPSHOT).unlink()
    monkeypatch.setattr(following, "LARGE", 1)
    go_on = threading.Event()
    build = IndexLifecycle.build

    def slowly(*args: Any, **options: Any) -> Any:
        go_on.wait(30)
        return build(*args, **options)

    monkeypatch.setattr(IndexLifecycle, "build", slowly)
    with caplog.at_level(logging.WARNING, "semcache"), open_cache(tmp_path) as cache:
        assert cache.lookup(NEAR).decision.reason == "index_building"
        assert str(cache.get(WORDS)) == "kept"
        assert cache.put(OTHER, "meanwhile") is not None
        go_on.set()
        cache.wait()
        assert cache.lookup(NEAR).tier == "semantic"
        assert cache.lookup(f"{OTHER} please").tier == "semantic"
        assert cache.stats().faults == {}
    assert caplog.text.count("it is being built") == 1


def test_vector_unreadable(tmp_path: Path) -> None:
    """One row of rubbish: its entry is found by equal requests, all others by nearness too."""
    kept(tmp_path)
    with open_cache(tmp_path) as cache:
        cache.put(OTHER, "no vector")
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        db.execute("UPDATE embeddings SET vector = x'0102' WHERE entry_id = 2")
    (tmp_path / SNAPSHOT).unlink()
    with open_cache(tmp_path) as cache:
        assert cache.lookup(NEAR).tier == "semantic"
        assert str(cache.get(OTHER)) == "no vector"
        assert cache.stats().faults == {}
        assert "vectors have a length" in cache._engine.backend.store.problems()[0]
        cache._engine.backend.store.mend()
    served(tmp_path)


def test_restored_under_a_large_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another content in its place: the index is made anew, and nothing of the old one stays."""
    from semcache.backends.local import index_follower as following
    from semcache.backends.local.backups import backup, restore

    with open_cache(tmp_path / "old") as old:
        for number in range(40):
            old.put(f"{WORDS} {number}", f"old {number}")
        backup(tmp_path / "old", tmp_path / "copy", lambda *_: None)
    monkeypatch.setattr(following, "LARGE", 10)
    with open_cache(tmp_path / "new") as cache:
        for number in range(30):
            cache.put(f"{OTHER} {number}", f"new {number}")
        cache.lookup(f"{OTHER} please")
        cache.wait()
        cache.lookup(f"{OTHER} please")
        restore(tmp_path / "copy", tmp_path / "new", lambda *_: None)
        cache.lookup(NEAR)
        cache.wait()
        found = [cache.lookup(f"{WORDS} {number} !") for number in range(40)]
        assert [lookup.tier for lookup in found] == ["semantic"] * 40
        assert cache.lookup(f"{OTHER} please").tier is None


def test_opened_while_locked(tmp_path: Path) -> None:
    """Another program holds the database: a cache with quotas opens and serves."""
    kept(tmp_path)
    with open_cache(tmp_path, max_entries=10, namespace_max_entries=5):
        pass
    blocker = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with open_cache(
        tmp_path, max_entries=10, namespace_max_entries=5, busy_timeout=0.2, hooks=[]
    ) as cache:
        assert str(cache.get(WORDS)) == "kept"
        blocker.execute("ROLLBACK")
        blocker.close()
    served(tmp_path)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """See benchmarks/durability.py, which does this hundreds of times; here a few rounds."""
    from benchmarks.durability import KINDS, rounds

    found = rounds(len(KINDS), seed=5, folder=tmp_path)
    assert found["rounds"] == len(KINDS)
    for name in ("lost", "resurrected", "failed_opens", "wrong_answers", "problems"):
        assert found[name] == 0, found
