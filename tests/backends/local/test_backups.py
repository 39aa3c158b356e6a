"""Backup, restore, and recovery of damaged files."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semcache.backends.local.backups import backup, restore
from semcache.backends.local.opening import DATABASE, SNAPSHOT
from semcache.backends.local.sqlite.pages import leaf_rows
from semcache.backends.local.sqlite.recovery import damaged, recover
from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.cli.app import application
from semcache.errors import ConfigError, StoreError
from tests.helpers import open_cache

WORDS = "one two three four five six seven"


def quiet(done: int, total: int) -> None:
    """A progress callback that does nothing."""


def run(*args: str) -> tuple[int, str]:
    found = CliRunner().invoke(application(args), list(args))
    assert not isinstance(found.exception, AssertionError)
    return found.exit_code, found.output


def filled(path: Path, count: int = 300) -> None:
    with open_cache(path) as cache:
        for number in range(count):
            lookup = cache.lookup(f"tell me all about question number {number}")
            cache.record(lookup, f"answer {number} " * 30, tags=("t",))


def test_a_backup_is_of_one_moment(tmp_path: Path) -> None:
    """A backup made during writes is sound and has all entries acknowledged before it began."""
    filled(tmp_path / "cache")
    stop = threading.Event()
    with open_cache(tmp_path / "cache") as cache:

        def write() -> None:
            number = 0
            while not stop.is_set():
                cache.put(f"meanwhile {number}", "x")
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        count = backup(tmp_path / "cache", tmp_path / "copy", quiet)
        stop.set()
        writer.join()
    assert count >= 300
    with open_cache(tmp_path / "copy") as copy:
        assert len(copy) == count
        assert copy._engine.backend.store.problems() == []
        assert copy.lookup("tell me all about number question 7").tier == "semantic"


def test_a_backup_never_overwrites_a_cache(tmp_path: Path) -> None:
    """Nor is a backup made where there is no cache."""
    filled(tmp_path / "cache", 2)
    backup(tmp_path / "cache", tmp_path / "copy", quiet)
    with pytest.raises(ConfigError, match="holds a cache already"):
        backup(tmp_path / "cache", tmp_path / "copy", quiet)
    with pytest.raises(ConfigError, match="no cache"):
        backup(tmp_path / "nothing", tmp_path / "other", quiet)
    assert not (tmp_path / "nothing").exists()


def test_a_restore_is_seen_by_those_who_have_the_cache_open(tmp_path: Path) -> None:
    """Entries recorded after the backup are gone; those in it are found again, semantically too."""
    with open_cache(tmp_path / "cache") as cache:
        cache.put(WORDS, "kept")
        backup(tmp_path / "cache", tmp_path / "copy", quiet)
        cache.put("entirely different words here", "later")
        cache.invalidate(ids=[1])
        assert cache.lookup(f"{WORDS} please").tier is None
        assert restore(tmp_path / "copy", tmp_path / "cache", quiet) == 1
        assert cache.lookup(f"{WORDS} please").tier == "semantic"
        assert cache.get("entirely different words here") is None
        cache.put("new after it", "x")
        assert str(cache.get("new after it")) == "x"


def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    """The cache is unchanged, and the error names the file."""
    filled(tmp_path / "cache")
    backup(tmp_path / "cache", tmp_path / "copy", quiet)
    overwrite_page(tmp_path / "copy" / DATABASE, 9)
    with pytest.raises(StoreError, match=str(tmp_path / "copy")):
        restore(tmp_path / "copy", tmp_path / "cache", quiet)
    with open_cache(tmp_path / "cache") as cache:
        assert len(cache) == 300


def test_an_older_schema_is_restored(tmp_path: Path) -> None:
    """The restored database is migrated to the current schema."""
    (tmp_path / "copy").mkdir()
    with closing(sqlite3.connect(tmp_path / "copy" / DATABASE)) as db, db:
        db.executescript((Path(__file__).parents[2] / "data" / "schema-1.sql").read_text())
    assert restore(tmp_path / "copy", tmp_path / "cache", quiet) == 4
    opened = SQLiteStore(tmp_path / "cache" / DATABASE)
    assert opened.problems() == []
    opened.close()


@pytest.mark.parametrize("what", ["empty", "another's", "a newer one's"])
def test_what_is_no_backup_is_refused_before_anything_is_touched(tmp_path: Path, what: str) -> None:
    """An empty file, another program's database and one of a newer semcache are refused."""
    filled(tmp_path / "cache", 3)
    (tmp_path / "other").mkdir()
    with closing(sqlite3.connect(tmp_path / "other" / DATABASE)) as db, db:
        if what != "empty":
            db.execute("CREATE TABLE t (x)")
        if what == "a newer one's":
            db.execute("PRAGMA user_version=99")
    code, output = run(
        "restore", str(tmp_path / "other"), "--yes", "--cache", str(tmp_path / "cache")
    )
    assert code == 1, output
    with open_cache(tmp_path / "cache") as cache:
        assert len(cache) == 3
        assert cache._engine.backend.store.problems() == []


def test_backups_do_not_go_into_their_cache_nor_caches_into_themselves(tmp_path: Path) -> None:
    """Each is refused with an error that says what to do."""
    filled(tmp_path / "cache", 3)
    with pytest.raises(ConfigError, match="outside"):
        backup(tmp_path / "cache", tmp_path / "cache" / "sub", quiet)
    with pytest.raises(ConfigError, match="itself"):
        restore(tmp_path / "cache", tmp_path / "cache", quiet)
    with pytest.raises(ConfigError, match="give the directory"):
        restore(tmp_path / "cache" / DATABASE, tmp_path / "other", quiet)
    assert not (tmp_path / "other").exists()


def test_from_the_command_line(tmp_path: Path) -> None:
    """The commands backup and restore work and report what they did."""
    filled(tmp_path / "cache", 5)
    assert run("backup", str(tmp_path / "copy"), "--cache", str(tmp_path / "cache"))[0] == 0
    run("clear", "--yes", "--cache", str(tmp_path / "cache"))
    code, output = run(
        "restore", str(tmp_path / "copy"), "--yes", "--cache", str(tmp_path / "cache")
    )
    assert (code, "5 entries" in output) == (0, True)
    with open_cache(tmp_path / "cache") as cache:
        assert len(cache) == 5


# -------------------------------------------------------------------------------- damage


def overwrite_page(path: Path, number: int, count: int = 1) -> None:
    """Checkpoint the write-ahead log, then overwrite pages with garbage."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek(size * (number - 1))
        file.write(b"\xa5" * size * count)


@pytest.mark.parametrize("page", [1, 2, 3, 5, 9, 11, 12, 20, 60, 100])
def test_an_overwritten_page_costs_what_was_on_it(tmp_path: Path, page: int) -> None:
    """check reports it; check --fix saves the rest, keeps the damaged file and reports the loss."""
    path = tmp_path / "cache"
    filled(path)
    overwrite_page(path / DATABASE, page)
    assert damaged(path / DATABASE) is not None
    code, output = run("check", "--cache", str(path))
    assert code == 3
    assert str(path / DATABASE) in output.replace("\n", "")
    code, output = run("check", "--fix", "--cache", str(path))
    assert code == 0, output
    assert "saved" in output
    kept = list(path.glob(f"{DATABASE}.damaged-*"))
    assert len([name for name in kept if not name.name.endswith(("-wal", "-shm"))]) == 1
    assert run("check", "--cache", str(path))[0] == 0
    with open_cache(path) as cache:
        assert len(cache) > 250
        for entry in cache.entries():
            number = entry.question and entry.question.split()[-1]
            assert entry.completion.text == f"answer {number} " * 30
        found = [cache.lookup(f"{e.question} please").tier for e in cache.entries()]
        assert found.count("semantic") > 250, "vectors on the page are lost, and no others"
        assert cache.put("goes on", "x") is not None


def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    """A file that cannot be read at all is kept, and replaced by an empty cache."""
    filled(tmp_path, 3)
    for suffix in ("-wal", "-shm"):
        Path(f"{tmp_path / DATABASE}{suffix}").unlink(missing_ok=True)
    (tmp_path / DATABASE).write_bytes(b"garbage" * 1000)
    code, output = run("check", "--json", "--cache", str(tmp_path))
    assert code == 3
    assert "not a database" in json.loads(output)["problems"][0]
    code, output = run("check", "--fix", "--json", "--cache", str(tmp_path))
    assert code == 0
    assert "saved 0 entries" in json.loads(output)["mended"][1]
    with open_cache(tmp_path) as cache:
        assert len(cache) == 0
        assert cache.put("goes on", "x") is not None


def test_recovering_a_sound_file_loses_nothing(tmp_path: Path) -> None:
    """Every row of every table is copied and keeps its id."""
    filled(tmp_path, 50)
    before = SQLiteStore(tmp_path / DATABASE)
    entries = before.select(order="oldest")
    before.close()
    saved = recover(tmp_path / DATABASE)
    after = SQLiteStore(tmp_path / DATABASE)
    assert after.select(order="oldest") == entries
    assert after.problems() == []
    assert after.details([entries[0].id])[entries[0].id].tags == ("t",)
    assert (saved.lost, saved.rows["entries"], saved.rows["embeddings"]) == (0, 50, 50)
    assert saved.incomplete == ()
    after.close()


def test_rows_are_read_straight_off_the_pages(tmp_path: Path) -> None:
    """The same rows as through SQLite: with those on overflow pages, without deleted ones."""
    path = tmp_path / DATABASE
    with open_cache(tmp_path) as cache:
        for number in range(40):
            cache.put(f"question {number}", "word " * 10 ** (number % 5))
        cache.invalidate(ids=list(range(1, 41, 2)))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        expected = {
            (row[0], row[1]) for row in db.execute("SELECT id, text FROM entries").fetchall()
        }
    rows = [row for row in leaf_rows(path) if len(row[1]) == 20]
    assert {(number, values[7]) for number, values in rows} == expected


def test_what_was_deleted_does_not_come_back_from_the_pages(tmp_path: Path) -> None:
    """Pages may still contain deleted rows, but the log of deletions lists them."""
    filled(tmp_path)
    with open_cache(tmp_path) as cache:
        kept = {entry.id for entry in cache.entries()[::3]}
        cache.invalidate(ids=[e.id for e in cache.entries() if e.id not in kept])
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entries'").fetchone()
    overwrite_page(tmp_path / DATABASE, root)
    assert run("check", "--fix", "--cache", str(tmp_path))[0] == 0
    with open_cache(tmp_path) as cache:
        assert {entry.id for entry in cache.entries()} == kept


def test_a_damaged_snapshot_is_named_and_mended(tmp_path: Path) -> None:
    """check names the file; --fix rebuilds it."""
    filled(tmp_path)
    raw = bytearray((tmp_path / SNAPSHOT).read_bytes())
    raw[-100] ^= 1
    (tmp_path / SNAPSHOT).write_bytes(raw)
    code, output = run("check", "--json", "--cache", str(tmp_path))
    assert code == 3
    found: dict[str, Any] = json.loads(output[output.index("{") :])
    assert SNAPSHOT in found["problems"][0]
    assert run("check", "--fix", "--cache", str(tmp_path))[0] == 0
    assert run("check", "--cache", str(tmp_path))[0] == 0


@pytest.mark.parametrize("eviction", ["least-recently-used", "least-frequently-used", "oldest"])
@pytest.mark.parametrize("quota", ["max_entries", "namespace_max_entries"])
def test_a_backup_of_a_cache_with_a_quota_is_restored(
    tmp_path: Path, eviction: str, quota: str
) -> None:
    """A quota creates indexes, which are no foreign parts of the schema."""
    with open_cache(tmp_path / "cache", **{quota: 3, "eviction": eviction}) as cache:
        for number in range(6):
            cache.put(f"question {number}", "answer")
    backup(tmp_path / "cache", tmp_path / "copy", quiet)
    assert restore(tmp_path / "copy", tmp_path / "other", quiet) >= 2
