"""The benchmarks' commands, from end to end on what comes with a clone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import Bench, Peer, child_environment, killed, run, served
from benchmarks.replay import Remembering
from benchmarks.streams import SUPPORT, Row
from semcache.embedders.default import DefaultEmbedder
from tests.helpers import hashing_embedder

ROOT = Path(__file__).parents[2]


def test_hit_rate(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """Our own set at two thresholds: figures by name, and plots that are there."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.hit_rate", "--stream", str(SUPPORT)),
            *("--threshold", "0.8", "0.95", "--json", str(tmp_path / "out.json")),
            *("--plot", str(tmp_path / "plot.png")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "fixed 0.95" in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["environment"]["command"].startswith("python -m benchmarks.hit_rate")
    low, high = found["streams"]["support"]
    wanted = {
        "prompts", "hit_rate", "exact_hits", "semantic_hits", "false_hits", "false_hit_rate",
        "false_hit_interval", "error_rate", "oracle_hit_rate", "calls_made", "calls_saved",
        "labels_bought", "by_kind", "halves",
    }  # fmt: skip
    assert wanted <= set(low)
    assert low["semantic_hits"] > high["semantic_hits"] > 100
    assert low["across_tenants"] == high["across_tenants"] == 0
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert (tmp_path / "plot.svg").exists()


@pytest.mark.parametrize("line", ["nonsense", '{"prompt": "p"}'])
def test_a_stream_that_is_none(tmp_path: Path, line: str) -> None:
    """A message with the line, and no traceback."""
    (tmp_path / "s.jsonl").write_text(line + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hit_rate", "--stream", str(tmp_path / "s.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "s.jsonl, line 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    class Small:
        """Hashed words in as many dimensions as the model has."""

        fingerprint, dimension, window, local = "small", 384, None, True

        def load(self) -> None:
            return

        def count_tokens(self, text: str) -> int:
            return 1

        def embed(self, texts: Any) -> Any:
            found = hashing_embedder().embed(texts)[:, :384] + 1e-6
            return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    return Bench(tmp_path / "work", tmp_path, Remembering(Small()))


@pytest.mark.parametrize("name", ["semcache", "tutorial"])
def test_rivals_are_driven_alike(bench: Bench, name: str) -> None:
    """The same stream, the same answers: hits, misses, another tenant's words."""
    rows = [
        Row("how do i reset my password", "a"),
        Row("how do i reset my password", "a"),
        Row("how do i reset my password", "b", tenant="other"),
        Row("where is my parcel today", "c"),
        Row("how do i reset my own password", "d"),
    ]
    given = bench.give([row.prompt for row in rows])
    stream = bench.folder / "stream.json"
    stream.write_text(
        json.dumps(
            [{"prompt": r.prompt, "tenant": r.tenant, "answer": "\x1f".join(r.right)} for r in rows]
        )
    )
    options = bench.options(
        given=given, directory=bench.fresh(), stream=stream, threshold=0.8, entries=2
    )
    outcomes = run(Path(sys.executable), name, "replay", options)["outcomes"]
    assert outcomes == [None, True, None, None, False]
    said = served(rows, outcomes)
    assert (said["semantic_hits"], said["false_hits"]) == (2, 1)


def test_what_is_lost_is_counted(bench: Bench) -> None:
    """semcache loses nothing to kill -9."""
    given = bench.give([f"question number {i} of fifty" for i in range(50)])
    lost = killed(bench, Path(sys.executable), Peer("semcache", (), 0.9), given, None)
    assert lost == {"client": 0}
    assert "PYTHONPATH" in child_environment()
