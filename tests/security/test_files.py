"""Files that hold prompts and answers are their owner's only, whatever the umask."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semcache import SemanticCache
from semcache.backends.local.backups import backup
from semcache.batch import BatchProcessor
from semcache.cli.app import application
from semcache.errors import StoreError
from semcache.private_files import open_to_write, warnings_about
from tests.helpers import ROOT, open_cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    """The permissions of a directory and of everything in it."""
    return {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*"))
    }


def filled(directory: Path, **options: object) -> SemanticCache:
    cache = open_cache(directory, **options)
    for number in range(3):
        cache.put(f"question {number}", "answer")
    return cache


def check(directory: Path, files: int, folders: int) -> None:
    for name, mode in modes(directory).items():
        expected = folders if name == directory.name else files
        assert mode == expected, (name, oct(mode))


def test_a_cache_is_its_owners_only(tmp_path: Path) -> None:
    """The database, its log, the leases and the snapshot of the index."""
    place = tmp_path / "outer" / "cache"
    with filled(place) as cache:
        cache.cached(lambda prompt: "x")("y")
        check(place, 0o600, 0o700)
    check(place, 0o600, 0o700)
    assert modes(tmp_path / "outer")["outer"] == 0o700
    assert len(modes(place)) > 2


def test_a_cache_is_shared_with_the_group_on_request(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    with filled(place, share_with_group=True):
        check(place, 0o660, 0o770)
    with filled(place):  # and stays so, whoever opens it
        check(place, 0o660, 0o770)


def test_a_backup_is_no_looser_than_its_cache(tmp_path: Path) -> None:
    filled(tmp_path / "cache").close()
    backup(tmp_path / "cache", tmp_path / "copy", lambda done, total: None)
    check(tmp_path / "copy", 0o600, 0o700)


def test_exports_and_batches_are_private(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    with filled(place) as cache:
        source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text(json.dumps({"prompt": "question 1"}) + "\n")
        asyncio.run(BatchProcessor(cache).run(source, target))
    written = tmp_path / "export.jsonl"
    result = CliRunner().invoke(
        application(["export"]), ["export", str(written), "--cache", str(place)]
    )
    assert result.exit_code == 0, result.output
    for path in tmp_path.iterdir():
        if path.is_file() and path != source:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_another_user_reads_nothing(tmp_path: Path) -> None:
    """Tried by another user; a cache in a directory that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    place = tmp_path / "cache"
    place.mkdir()
    for path in (place, *place.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o755)
    with filled(place):
        program = (
            "import os, sys\nos.setgid(65534)\nos.setuid(65534)\n"
            "for name in sys.argv[1:]:\n"
            "    try:\n        open(name, 'rb').read()\n        print('read', name)\n"
            "    except PermissionError:\n        print('refused')\n"
        )
        files = [str(path) for path in place.rglob("*") if path.is_file()]
        done = subprocess.run(
            [sys.executable, "-c", program, *files], capture_output=True, text=True, cwd=ROOT
        )
    assert done.stdout.split("\n")[:-1] == ["refused"] * len(files), done.stdout + done.stderr


LINKS: dict[str, Callable[[Path], object]] = {
    "database": lambda place: SemanticCache(place / "cache"),
    "export": lambda place: os.close(open_to_write(place / "cache" / "semcache.db")),
}


@pytest.mark.parametrize("attempt", LINKS.values(), ids=LINKS)
def test_a_planted_link_is_not_followed(tmp_path: Path, attempt: Callable[[Path], object]) -> None:
    """A link to a file that does not exist: it would be created where somebody else wants it."""
    place = tmp_path / "cache"
    place.mkdir()
    (place / "semcache.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((OSError, StoreError)):
        attempt(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_who_else_can_reach_a_cache_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, when it is opened."""
    place = tmp_path / "cache"
    filled(place).close()
    assert warnings_about(place, place / "semcache.db") == []
    place.chmod(0o755)
    (place / "semcache.db").chmod(0o644)
    assert "read" in warnings_about(place, place / "semcache.db")[0]
    place.chmod(0o777)
    assert "replace" in warnings_about(place, place / "semcache.db")[0]
    with filled(place), filled(place):
        pass
    assert sum("open to others" in record.message for record in caplog.records) == 1
