"""A cache whose files can only be read serves its hits, stores nothing, and complains once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, open_cache

READER = """
import logging, os, sys
from pathlib import Path
from tests.helpers import open_cache

logging.basicConfig(level=logging.WARNING, format="%(message)s")
path, other = Path(sys.argv[1]), sys.argv[2]
with open_cache(other) as warm:  # everything is imported before the rights are given up
    warm.put("a b c", "x")
    warm.get("a b d")
if os.geteuid() == 0:
    os.setuid(65534)
with open_cache(path) as cache:
    @cache.cached(name=None)
    def ask(prompt):
        return "fresh"

    print(ask("where is my parcel now"), ask.lookup("where is my parcel now").tier)
    print(ask("is my parcel now where").strip(), cache.lookup("where is my parcel").tier)
    print(ask("something else"), ask("something else"))
    print(ask.cache_info())
    print(cache.put("new", "answer"), len(cache), cache.stats().entries)
"""


@pytest.fixture(params=["closed", "left over log"])
def filled(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that any user can read and none can write to; this test's own is private."""
    directory = Path(tempfile.mkdtemp())
    path = directory / "cache"
    if request.param == "closed":
        with open_cache(path) as cache:
            cache.put("where is my parcel now", "on its way")
    else:
        code = (
            "import os, sys; from tests.helpers import open_cache; c = open_cache(sys.argv[1]); "
            "c.put('where is my parcel now', 'on its way'); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)
    for file in path.iterdir():
        file.chmod(0o444)
    path.chmod(0o555)
    directory.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(directory)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users as POSIX has them")
def test_a_read_only_cache_serves(filled: Path, tmp_path: Path) -> None:
    """Exact and semantic hits; a miss calls the function; one warning in all."""
    run = subprocess.run(
        [sys.executable, "-c", READER, str(filled), str(tmp_path / "other")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines() == [
        "on its way exact",
        "on its way None",
        "fresh fresh",
        "CacheInfo(exact_hits=1, semantic_hits=1, misses=2, faults=0, not_stored={'read_only': 2})",
        "None 1 1",
    ], run.stderr
    warnings = [line for line in run.stderr.splitlines() if line]
    assert len(warnings) == 1, run.stderr
    assert "is read-only: hits are served, nothing is stored" in warnings[0]
