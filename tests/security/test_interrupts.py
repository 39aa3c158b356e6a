"""Ctrl-C at any moment leaves nothing locked and loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

PROGRAM = "tests.security.interrupted"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_interruptions(tmp_path: Path, seed: int) -> None:
    """While calls, streams, lookups and writes go on; afterwards all of them work at once."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.security.interrupted",
            str(tmp_path / "c"),
            str(seed),
            "1000",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["interrupted"] >= 1000
    assert counts["kept"] > 100
    assert counts["lost"] == 0
    assert counts["seconds"] < 5
