"""What every benchmark needs: where it ran, how long things took, where results go."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from semcache import SemanticCache
from semcache.backends.local import LocalBackend
from semcache.backends.local.faiss.index import FaissIndex
from semcache.backends.local.repository import Repository

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("faiss-cpu", "numpy", "onnxruntime", "sentence-transformers", "tokenizers", "torch")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def environment() -> dict[str, Any]:
    """Commit, machine, versions and command."""
    return {
        "commit": _commit(),
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return "benchmarks" if spec is None else spec.name


def _commit() -> str:
    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "semcache", "benchmarks/*.py")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" + changes" if changed else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError):
        return 0.0


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def resident_mb() -> float:
    """Resident memory of this process in MB (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 in milliseconds, and how many were measured."""
    p50, p95, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 95, 99])
    return {
        "p50_ms": round(float(p50), 4),
        "p95_ms": round(float(p95), 4),
        "p99_ms": round(float(p99), 4),
        "n": len(seconds),
    }


def per_second(work: Callable[[str], object], items: Sequence[str], threads: int) -> float:
    """Calls per second with the items shared out among so many threads."""
    gate = threading.Barrier(threads + 1)

    failed: list[BaseException] = []

    def run(share: Sequence[str]) -> None:
        gate.wait()
        try:
            for item in share:
                work(item)
        except BaseException as error:
            failed.append(error)

    workers = [
        threading.Thread(target=run, args=(items[number::threads],)) for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    gate.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return len(items) / (time.perf_counter() - start)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
    say(f"wrote {path}")


def backend_of(cache: SemanticCache) -> LocalBackend:
    """The backend of a cache in a directory, for looking beneath it."""
    backend = cache._engine.backend
    assert isinstance(backend, LocalBackend)
    return backend


def repository_of(cache: SemanticCache) -> Repository[FaissIndex]:
    """The store with its index of a cache in a directory."""
    entries = cache._engine.entries
    assert isinstance(entries, Repository)
    return entries
