"""Ten minutes of everything at random: is memory flat, is the file bounded, do the sums agree?

    python -m benchmarks.soak [--minutes 10] [--processes 3] [--json OUT] [--plot OUT]

Several processes look up, record with TTLs of seconds, invalidate by tag, namespace and id, run
into quotas, close and open again, and end to be started anew, all over one directory. Every
second their resident memory and the size of the database are noted. At the end:

- memory: what the processes held in the last fifth, against the second fifth (medians);
- file: the largest size in the last half, against the first half;
- the store against its own rules, and the index against the store;
- the counters against the events that the processes' listeners have counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import plots
from benchmarks.common import RESULTS, environment, resident_mb, say, write_json
from benchmarks.durability import DIMENSION, answer, vectors
from semcache import Event, LocalOptions, Retention, SemanticCache
from semcache.backends.local import LocalBackend
from semcache.embedders.function import FunctionEmbedder
from semcache.telemetry.events import FaultEvent, LookupEvent, RecordEvent

QUESTIONS = 4000
QUOTA = 1500
TAGS = 100
RESTART_SECONDS = (5.0, 25.0)
"""A process lives for so long."""


class Listener:
    """Counts what the counters should say."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, LookupEvent):
            tier = event.tier or ("explorations" if event.reason == "explore" else "miss")
            self.heard[tier] += 1
        elif isinstance(event, RecordEvent):
            self.heard["record" if event.reason == "stored" else "not_stored"] += 1
        elif isinstance(event, FaultEvent):
            self.heard[f"fault {event.where}: {event.error}"[:200]] += 1


def near(texts: Sequence[str]) -> Any:
    """One direction for a question with and without its mark."""
    return vectors([text.rstrip("?") for text in texts])


def opened(path: Path, listener: Listener) -> SemanticCache:
    return SemanticCache(
        path,
        embedder=FunctionEmbedder(near, name="a", dimension=DIMENSION),
        threshold=0.9,
        max_entries=QUOTA,
        retention=Retention(namespace_max_entries=QUOTA // 2, stale_while_revalidate=5),
        backend=LocalOptions(busy_timeout=30),
        ttl=20,
        hooks=[listener],
    )


def living(path: Path, seed: int, seconds: float, pipe: Connection) -> None:
    """One process, from its start to its end."""
    from semcache.backends.local.faiss import index as faiss

    faiss._MEM_TABLE_ROWS = 400  # merges every few seconds
    listener, rng = Listener(), random.Random(seed)
    cache = opened(path, listener)
    end, wrong = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        what = rng.random()
        namespace = f"tenant {rng.randrange(4)}"
        question = f"question {int(QUESTIONS * rng.random() ** 3)}"
        if what < 0.98:
            asked = question + rng.choice(("", "?"))
            lookup = cache.lookup(asked, namespace=namespace)
            if lookup.completion is not None:
                wrong += lookup.completion.text != answer(question)
            else:
                ttl = rng.choice((0.5, 3, 20, 60, None))
                tags = (f"tag {rng.randrange(TAGS)}",)
                cache.record(lookup, answer(question), ttl=ttl, tags=tags)
        elif what < 0.99:
            cache.invalidate(tag=f"tag {rng.randrange(TAGS)}")
        elif what < 0.991:
            cache.invalidate(namespace=namespace)
        elif what < 0.999:
            ids = [entry.id for entry in cache.entries(limit=5)]
            cache.invalidate(ids=ids)
        else:
            cache.close()
            cache = opened(path, listener)
        if rng.random() < 0.01:
            pipe.send({"memory": resident_mb()})
    cache.close()
    pipe.send({"heard": listener.heard, "wrong": wrong})


class Place:
    """Where one process after another lives."""

    def __init__(self, path: Path, number: int) -> None:
        self._path, self._rng, self.heard = path, random.Random(number), Counter[str]()
        self.wrong = self.lives = 0
        self.memory: list[tuple[float, float]] = []
        self._process: Any = None
        self._pipe: Any = None

    def tend(self, start: float, left: float) -> None:
        """Hear what it says; start another where it has ended."""
        if self._process is not None:
            try:
                while self._pipe.poll():
                    self._hear(self._pipe.recv(), time.monotonic() - start)
                return
            except EOFError:  # it has ended, and all that it said has been heard
                self._process.join()
            assert self._process.exitcode == 0, "a process has failed"
            self._process = None
        if left > 1:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(
                ["semcache.semantic_cache", "semcache.backends.local.faiss.index"]
            )
            self._pipe, theirs = context.Pipe(duplex=False)
            seconds = min(self._rng.uniform(*RESTART_SECONDS), left)
            args = (self._path, self._rng.randrange(2**32), seconds, theirs)
            self._process = context.Process(target=living, args=args)
            self._process.start()
            theirs.close()
            self.lives += 1

    def _hear(self, said: dict[str, Any], at: float) -> None:
        if "memory" in said:
            self.memory.append((at, said["memory"]))
        else:
            self.heard += said["heard"]
            self.wrong += said["wrong"]

    @property
    def over(self) -> bool:
        return self._process is None


def soaked(path: Path, seconds: float, processes: int) -> dict[str, Any]:
    places = [Place(path, number) for number in range(processes)]
    start, sizes = time.monotonic(), []
    said = 0.0
    while (passed := time.monotonic() - start) < seconds or not all(p.over for p in places):
        for place in places:
            place.tend(start, seconds - passed)
        database = [p.stat().st_size for p in path.glob("semcache*") if p.is_file()]
        sizes.append((passed, sum(database) / 1e6))
        if passed - said > 30:
            said = passed
            say(f"  {passed:.0f} s: {sum(p.lives for p in places)} processes so far")
        time.sleep(0.25)
    backend = LocalBackend(path, create=False)
    try:
        report = backend.maintenance.check()
        counters, entries = backend.counters.counters(), backend.catalogue.totals().entries
    finally:
        backend.close()
    heard = sum((place.heard for place in places), Counter[str]())
    memory = sorted(point for place in places for point in place.memory)
    return {
        "processes_started": sum(place.lives for place in places),
        "heard": dict(heard),
        "counted": _counted(counters),
        "counters_equal_events": _counted(counters) == _expected(heard),
        "wrong_answers": sum(place.wrong for place in places),
        "problems": report.problems,
        "entries_at_the_end": entries,
        "memory_ratio": _ratio(memory, seconds, (0.8, 1.0), (0.2, 0.4), np.median),
        "file_ratio": _ratio(sizes, seconds, (0.5, 1.0), (0.0, 0.5), np.max),
        "memory_mb": _thinned(memory),
        "file_mb": _thinned(sizes),
    }


def _counted(counters: dict[str, float]) -> dict[str, int]:
    misses = sum(v for name, v in counters.items() if name.startswith("misses:"))
    not_stored = sum(v for name, v in counters.items() if name.startswith("not_stored:"))
    return {
        "exact": int(counters.get("hits:exact", 0)),
        "semantic": int(counters.get("hits:semantic", 0)),
        "miss": int(misses),
        "record": int(counters.get("records", 0)),
        "not_stored": int(not_stored),
    }


def _expected(heard: Counter[str]) -> dict[str, int]:
    return {name: heard[name] for name in ("exact", "semantic", "miss", "record", "not_stored")}


def _ratio(
    points: list[tuple[float, float]],
    seconds: float,
    late: tuple[float, float],
    early: tuple[float, float],
    of: Any,
) -> float:
    def part(shares: tuple[float, float]) -> Any:
        return of([v for at, v in points if shares[0] <= at / seconds <= shares[1]])

    return round(float(part(late) / part(early)), 3)


def _thinned(points: list[tuple[float, float]], most: int = 300) -> list[list[float]]:
    step = max(len(points) // most, 1)
    return [[round(at, 1), round(value, 2)] for at, value in points[::step]]


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    heard = result["heard"]
    rows = (
        ("minutes, processes that came and went", f"{result['minutes']:g}, "
         f"{result['processes_started']}"),
        ("lookups, records", f"{heard['exact'] + heard['semantic'] + heard['miss']:,}, "
         f"{heard['record']:,}"),
        ("memory of a process, last fifth against second fifth", f"{result['memory_ratio']:.2f} ×"),
        ("largest size of the files, second half against first", f"{result['file_ratio']:.2f} ×"),
        ("wrong answers", f"{result['wrong_answers']}"),
        ("problems that `semcache check` found", f"{len(result['problems'])}"),
        ("counters equal the events", "yes" if result["counters_equal_events"] else "no"),
    )  # fmt: skip
    return "| | |\n| --- | ---: |\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--plot", type=Path, default=RESULTS / "soak.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soaked(Path(folder) / "cache", args.minutes * 60, args.processes)
    result = {"environment": environment(), "minutes": args.minutes, **found}
    write_json(args.json, result)
    plots.soak(result, args.plot)
    say(f"wrote {args.plot}")
    say(table(result))
    say(str(found["problems"]))


if __name__ == "__main__":
    main()
