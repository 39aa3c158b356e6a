"""How long a lookup takes, against the floor that no cache can go below.

    python -m benchmarks.latency [--sizes 1000 10000 100000] [--json OUT] [--plot OUT]
    python -m benchmarks.latency --large    a million entries too, and what benchmarks.large says

Every figure is a ratio to a floor measured in the same run, in turns with it, because
machines differ and are shared:

- exact hit, through the decorator: canonical JSON + SHA-256 + one prepared SELECT of
  the row;
- semantic hit, miss, and miss + record: tokenising + one onnxruntime run of the same prompt;
- record: one INSERT of a row of the same size, committed, in a database of its own;
- 8 threads of semantic hits: the bare parts on 8 threads (tokenise, onnxruntime, FAISS
  flat search over the same vectors).

Recall is that of the index against exact search, over prompts that are not stored.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

import semcache
from benchmarks import large, plots, prompts
from benchmarks.common import (
    RESULTS,
    environment,
    per_second,
    percentiles,
    resident_mb,
    say,
    timed,
    write_json,
)
from benchmarks.large import entry
from semcache.embedders.default import DefaultEmbedder
from semcache.embedders.minilm import find_export
from semcache.embedders.onnx import OnnxEmbedder
from semcache.embedders.pool import EmbedderPool
from semcache.keys import keys
from semcache.keys.canonical import canonical_json
from semcache.types import Candidate, Decision
from semcache.verification.policies import FixedThreshold

if TYPE_CHECKING:
    from semcache.types import Vector

MODEL, NAMESPACE = "benchmark-model", "benchmark"
ANSWER = "Open Settings, choose Security, and follow the link that we send to your address. " * 4
THREADS = 8
_THREADS_UP_TO = 100_000
"""Beyond these the bare parts, a flat search, take minutes."""


class Dial:
    """A policy whose threshold is turned between measurements; above 1: nothing is near enough."""

    k = 1

    def __init__(self) -> None:
        self.threshold = 0.5

    @property
    def threshold(self) -> float:
        return self.floor

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.floor, self._policy = value, FixedThreshold(min(value, 1.0))

    def decide(self, candidates: Sequence[Candidate], draw: float) -> Decision:
        return self._policy.decide(candidates, draw)


class Bench:
    """One cache, filled step by step, and the bare parts beside it."""

    def __init__(self, directory: Path, embedder: OnnxEmbedder, rounds: int) -> None:
        self.dial = Dial()
        self.cache = semcache.SemanticCache(directory, policy=self.dial, embedder=embedder)
        self.embedder = embedder
        self.floor_embed = large.bare_embedding(embedder)
        self.rounds = rounds
        self.bare = sqlite3.connect(directory / "semcache.db", isolation_level=None)
        self.vectors = np.empty((0, embedder.dimension), np.float32)
        self.stored: list[str] = []
        self.ids: list[int] = []

        @self.cache.cached(model=MODEL, namespace=NAMESPACE, name=None)
        def ask(prompt: str) -> str:  # noqa: ARG001
            return ANSWER

        self.ask = ask

    # -------------------------------------------------------------------- filling

    def fill(self, texts: Sequence[str], vectors: Vector) -> float:
        """Store prompts with their vectors; returns seconds for each."""
        repository = self.cache._cache.repository
        start = time.perf_counter()
        for text, vector in zip(texts, vectors, strict=True):
            query = self.cache.query(text, model=MODEL, namespace=NAMESPACE)
            self.ids.append(repository.record(entry(query, ANSWER), vector))
        self.cache.lookup(texts[0] + "!", model=MODEL, namespace=NAMESPACE)
        self.cache.wait()
        self.stored += texts
        self.vectors = np.concatenate([self.vectors, vectors])
        return (time.perf_counter() - start) / len(texts)

    # --------------------------------------------------------------------- floors

    def floor_exact(self, prompt: str, key: bytes) -> None:
        """The least that an exact hit costs; `key` is the row's, so that it is found."""
        call = {
            "v": keys.KEY_VERSION,
            "model": MODEL,
            "namespace": NAMESPACE,
            "messages": [{"role": "user", "content": prompt}],
        }
        sha256(canonical_json(call).encode()).digest()
        row = self.bare.execute("SELECT * FROM entries WHERE exact_key = ?", (key,)).fetchone()
        assert row is not None

    # ---------------------------------------------------------------- measurements

    def exact(self) -> dict[str, Any]:
        sample = self.stored[:: max(len(self.stored) // self.rounds, 1)][: self.rounds]
        rows = {p: self.ask.lookup(p).query.exact_key for p in sample}
        ours, floor = _in_turns(
            sample, lambda p: self.ask(p), lambda p: self.floor_exact(p, rows[p])
        )
        return _compared(ours, floor)

    def semantic(self) -> dict[str, Any]:
        self.dial.threshold = 0.5
        asked = self._variants(self.rounds)
        hits = [self.cache.lookup(p, model=MODEL, namespace=NAMESPACE).tier for p in asked[:50]]
        assert hits.count("semantic") >= 45, hits
        ours, floor = _in_turns(
            asked,
            lambda p: self.cache.lookup(p, model=MODEL, namespace=NAMESPACE),
            self.floor_embed,
        )
        return _compared(ours, floor)

    def misses(self, unseen: Sequence[str]) -> dict[str, Any]:
        """Lookups that find nothing near enough."""
        self.dial.threshold = 2.0
        return _compared(
            *_in_turns(
                unseen,
                lambda p: self.cache.lookup(p, model=MODEL, namespace=NAMESPACE),
                self.floor_embed,
            )
        )

    def records(self, unseen: Sequence[str], directory: Path) -> dict[str, Any]:
        """Storing an answer to what has been looked up, beside a bare INSERT."""
        self.dial.threshold = 2.0
        lookups = {p: self.cache.lookup(p, model=MODEL, namespace="records") for p in unseen}
        bare = sqlite3.connect(directory / f"bare-{len(self.stored)}.db", isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=NORMAL")
        bare.execute(
            "CREATE TABLE rows (id INTEGER PRIMARY KEY, key BLOB UNIQUE, text, vector BLOB)"
        )
        vector = self.vectors[0].tobytes()

        def floor(prompt: str) -> None:
            key = sha256(prompt.encode()).digest()
            row = (key, prompt + ANSWER, vector)
            bare.execute("INSERT OR REPLACE INTO rows(key, text, vector) VALUES (?, ?, ?)", row)

        found = _compared(
            *_in_turns(unseen, lambda p: self.cache.record(lookups[p], ANSWER), floor)
        )
        bare.close()
        self.cache.invalidate(namespace="records")
        return found

    def parts(self, vectors: Vector) -> dict[str, float]:
        """Milliseconds of single parts: FAISS flat search over all vectors, one SELECT."""
        flat = faiss.IndexFlatIP(self.embedder.dimension)
        flat.add(self.vectors)
        select = "SELECT * FROM entries WHERE id = ?"
        searches = [timed(partial(flat.search, v[None], 1)) for v in vectors[:200]]
        selects = [
            timed(lambda row=row: self.bare.execute(select, row).fetchone())  # type: ignore[misc]
            for row in ((i,) for i in range(1, 201))
        ]
        return {
            "faiss_flat_ms": round(float(np.median(searches)) * 1e3, 4),
            "select_ms": round(float(np.median(selects)) * 1e3, 4),
        }

    def miss_and_record(self, unseen: Sequence[str]) -> dict[str, Any]:
        self.dial.threshold = 2.0  # nothing is near enough

        def ours(prompt: str) -> None:
            lookup = self.cache.lookup(prompt, model=MODEL, namespace=NAMESPACE)
            assert lookup.completion is None
            stored = self.cache.record(lookup, ANSWER)
            assert stored is not None
            self.ids.append(stored.id)

        return _compared(*_in_turns(unseen, ours, self.floor_embed))

    def threads(self) -> dict[str, Any]:
        """Lookups per second on 8 threads, of the cache and of the bare parts, in turns."""
        self.dial.threshold = 0.5
        asked = self._variants(800)
        flat = faiss.IndexFlatIP(self.embedder.dimension)
        flat.add(self.vectors)
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(5):
            bare.append(per_second(lambda p: flat.search(self.floor_embed(p), 1), asked, THREADS))
            ours.append(
                per_second(
                    lambda p: self.cache.lookup(p, model=MODEL, namespace=NAMESPACE),
                    asked,
                    THREADS,
                )
            )
        return {
            "threads": THREADS,
            "lookups_per_s": round(float(np.median(ours)), 1),
            "bare_per_s": round(float(np.median(bare)), 1),
            "ratio": round(float(np.median(ours) / np.median(bare)), 3),
        }

    def recall(self, vectors: Vector) -> dict[str, Any]:
        """Recall@1 against exact search, for questions that are not stored."""
        repository = self.cache._cache.repository
        repository.refresh_index()
        scope = self.cache.query("-", model=MODEL, namespace=NAMESPACE).scope.digest
        found = np.array([repository.nearest(scope, v, 1, -1.0)[0][0].similarity for v in vectors])
        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(self.vectors)
        best = flat.search(vectors, 1)[0][:, 0]
        right = found >= best - 1e-5  # ties
        near = best >= 0.8
        return {
            "recall_at_1": round(float(right.mean()), 4),
            "recall_at_1_near": round(float(right[near].mean()), 4),
            "queries": len(vectors),
            "near_queries": int(near.sum()),
        }

    def keep_only(self, ids: set[int]) -> None:
        """Forget the prompts and vectors of entries that were deleted."""
        chosen = [row for row, known in enumerate(self.ids) if known in ids]
        self.vectors = self.vectors[chosen]
        self.stored = [self.stored[row] for row in chosen]
        self.ids = [self.ids[row] for row in chosen]

    def _variants(self, count: int) -> list[str]:
        """Stored prompts in other words, for semantic hits: none is stored itself."""
        real = [text for text in self.stored if prompts.is_real(text)]
        step = max(len(real) // count, 1)
        return [f"please: {text}" for text in real[1::step][:count]]


def _in_turns(
    items: Sequence[str], ours: Callable[[str], object], floor: Callable[[str], object]
) -> tuple[list[float], list[float]]:
    """Seconds of each for every item; they take turns in going first."""
    for item in items[:20]:
        floor(item)
    spent: tuple[list[float], list[float]] = ([], [])
    for number, item in enumerate(items):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            spent[which].append(timed(lambda w=which, i=item: (ours, floor)[w](i)))  # type: ignore[misc]
    return spent


def _compared(ours: list[float], floor: list[float]) -> dict[str, Any]:
    ratio = float(np.median(ours) / np.median(floor))
    return {**percentiles(ours), "floor": percentiles(floor), "ratio_p50": round(ratio, 3)}


# ------------------------------------------------------------------- beside the cache


def gathering(embedder: OnnxEmbedder, texts: Sequence[str]) -> dict[str, Any]:
    """Embeddings per second: one caller; 8 threads on their own; 8 threads gathered."""
    pool = EmbedderPool(embedder)
    alone, separate, gathered = [], [], []
    for _ in range(5):
        alone.append(per_second(lambda t: embedder.embed([t]), texts, 1))
        separate.append(per_second(lambda t: embedder.embed([t]), texts, THREADS))
        gathered.append(per_second(pool.embed, texts, THREADS))
    return {
        "one_caller_per_s": round(float(np.median(alone)), 1),
        "8_threads_separate_per_s": round(float(np.median(separate)), 1),
        "8_threads_gathered_per_s": round(float(np.median(gathered)), 1),
        "gathered_over_one_caller": round(float(np.median(gathered) / np.median(alone)), 3),
        "gathered_over_separate": round(float(np.median(gathered) / np.median(separate)), 3),
    }


_IMPORT = (
    "import time, sys; t = time.perf_counter(); import semcache; "
    "print(time.perf_counter() - t, sum(m in sys.modules for m in "
    "('torch', 'transformers', 'faiss', 'onnxruntime')))"
)
_OPEN = (
    "import time, sys; import semcache; t = time.perf_counter(); "
    "c = semcache.SemanticCache(sys.argv[1]); c.get('hello'); "
    "print(time.perf_counter() - t, 0)"
)
_FIRST = (
    "import time, sys; t = time.perf_counter(); import semcache; "
    "c = semcache.SemanticCache(sys.argv[1], threshold=0.5); "
    "l = c.lookup('please: how do I reset my password', "
    f"model={MODEL!r}, namespace={NAMESPACE!r}); "
    "print(time.perf_counter() - t, int('torch' in sys.modules))"
)


def in_new_processes(code: str, *args: str, rounds: int = 5) -> dict[str, Any]:
    """Median seconds that a new process says a piece of code took, and what it had loaded."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(rounds)
    ]
    return {
        "seconds": round(float(np.median([float(run[0]) for run in runs])), 4),
        "heavy_modules_loaded": max(int(run[1]) for run in runs),
    }


def exact_search_cost(vectors: Vector, queries: Vector) -> list[dict[str, float]]:
    """Milliseconds of an exact search by size: where inverted lists begin to pay."""
    rows = []
    for size in (256, 512, 1024, 2048, 4096, 8192, 16384, 32768):
        if size <= len(vectors):
            some = vectors[:size].copy()
            spent = [_search_seconds(some, query) for query in queries[:200]]
            rows.append({"entries": size, "ms": round(float(np.median(spent)) * 1e3, 4)})
    return rows


def _search_seconds(vectors: Vector, query: Vector) -> float:
    return timed(lambda: faiss.knn(query[None], vectors, 1, faiss.METRIC_INNER_PRODUCT))


def table(result: dict[str, Any]) -> str:
    """The README's table of figures, in Markdown."""
    rows = [
        ("exact hit, through the decorator", "exact_hit", "canonical JSON + SHA-256 + one SELECT"),
        ("semantic hit", "semantic_hit", "tokenise + onnxruntime"),
        ("miss", "miss", "tokenise + onnxruntime"),
        ("record", "record", "one INSERT, committed"),
        ("miss, and recorded", "miss_and_record", "tokenise + onnxruntime"),
    ]
    head = [f"{figures['entries']:,} entries" for figures in result["sizes"]]
    lines = [
        f"| | {' | '.join(head)} | floor |",
        f"| --- |{' ---: |' * len(head)} --- |",
    ]
    for title, name, floor in rows:
        cells = [
            f"{figures[name]['p50_ms']:.3g} ms = {figures[name]['ratio_p50']:.2f} × floor"
            for figures in result["sizes"]
        ]
        lines.append(f"| {title} | {' | '.join(cells)} | {floor} |")
    eight = [
        f"{figures['eight_threads']['lookups_per_s']:.0f}/s = "
        f"{figures['eight_threads']['ratio']:.2f} × bare parts"
        for figures in result["sizes"]
    ]
    lines.append(f"| semantic hits, 8 threads | {' | '.join(eight)} | onnxruntime + FAISS flat |")
    recall = [f"{figures['recall']['recall_at_1']:.1%}" for figures in result["sizes"]]
    lines.append(f"| recall@1 of the index | {' | '.join(recall)} | exact search |")
    opened = [f"{figures['open']['seconds'] * 1e3:.0f} ms" for figures in result["sizes"]]
    lines.append(f"| open, and a first exact lookup | {' | '.join(opened)} | |")
    space = [f"{figures['bytes_per_entry'] / 1e3:.1f} kB" for figures in result["sizes"]]
    lines.append(f"| disk per entry | {' | '.join(space)} | |")
    machine, prompts_from = result["environment"]["machine"], result["prompts"]
    lines.append(f"\nMedians on {machine}; prompts: {prompts_from}.")
    return "\n".join(lines) + "\n"


def ready_embedder() -> OnnxEmbedder:
    """The exported default model."""
    DefaultEmbedder().load()
    directory = find_export()
    if directory is None:
        raise SystemExit("the default model has no ONNX export on this machine")
    return OnnxEmbedder(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--large", action="store_true", help="1,000,000 entries too")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--prompts", type=Path, default=prompts.DEFAULT)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    name = "latency_large" if args.large else "latency"
    args.json = args.json or RESULTS / f"{name}.json"
    args.plot = args.plot or RESULTS / f"{name}.png"
    if args.large and max(args.sizes) < 1_000_000 and args.sizes == parser.get_default("sizes"):
        args.sizes = [*args.sizes, 1_000_000]
    extra = 3 * args.rounds * len(args.sizes) + 2000
    texts, source = prompts.load(args.prompts, max(args.sizes) + extra, make_up=args.large)
    embedder = ready_embedder()
    vectors = embedded(embedder, texts, asked=extra)
    result: dict[str, Any] = {
        "environment": environment(),
        "prompts": source,
        "embedder": embedder.fingerprint,
        "import": in_new_processes(_IMPORT),
        "gathering": gathering(embedder, texts[:800]),
        "exact_search": exact_search_cost(vectors, vectors[-200:]),
        "sizes": [],
    }
    unseen = list(range(max(args.sizes), len(texts)))
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "cache"
        bench = Bench(directory, embedder, args.rounds)
        for size in args.sizes:
            say(f"filling to {size:,} entries")
            rows = slice(len(bench.stored), size)
            fill = bench.fill(texts[rows], vectors[rows])
            say(f"measuring at {size:,} entries")
            taken = unseen[2 * args.rounds : 3 * args.rounds]
            semantic = [bench.semantic()]
            figures: dict[str, Any] = {
                "entries": size,
                "fill_ms_per_entry": round(fill * 1e3, 4),
                "recall": bench.recall(vectors[-2000:]),
                "exact_hit": bench.exact(),
                "miss": bench.misses([texts[i] for i in unseen[: args.rounds]]),
                "record": bench.records(
                    [texts[i] for i in unseen[args.rounds : 2 * args.rounds]], Path(temporary)
                ),
                "parts": bench.parts(vectors[-200:]),
                **({"eight_threads": bench.threads()} if size <= _THREADS_UP_TO else {}),
                "miss_and_record": bench.miss_and_record([texts[i] for i in taken]),
                # Of this whole process, its own prompts and vectors included.
                "resident_mb": round(resident_mb(), 1),
                "bytes_per_entry": round(bench.cache.stats().file_bytes / len(bench.cache)),
                "open": in_new_processes(_OPEN, str(directory), rounds=3),
            }
            semantic += [bench.semantic(), bench.semantic()]
            figures["semantic_hit"] = sorted(semantic, key=lambda found: found["ratio_p50"])[1]
            unseen = unseen[3 * args.rounds :]
            bench.vectors = np.concatenate([bench.vectors, vectors[taken]])
            bench.stored += [texts[i] for i in taken]
            result["sizes"].append(figures)
            say(f"{figures}")
        bench.bare.close()
        if args.large:
            scope = (MODEL, NAMESPACE)
            result["large"] = large.measured(bench, directory, vectors[-2000:], scope)
            result["forms"] = large.forms(
                Path(temporary), texts[:20_000], vectors[:20_000], vectors[-2000:], MODEL, ANSWER
            )
            shutil.rmtree(directory)
            most = max(args.sizes)
            result["small_scopes"] = large.small_scopes(
                directory, texts[:most], vectors[:most], MODEL, ANSWER
            )
        else:
            bench.cache.close()
            result["first_lookup_in_a_new_process"] = in_new_processes(_FIRST, str(directory))
    write_json(args.json, result)
    (plots.large if args.large else plots.latency)(result, args.plot)
    say(f"wrote {args.plot}")


def embedded(embedder: OnnxEmbedder, texts: list[str], *, asked: int) -> Vector:
    """float32[n, d] of all texts; puts made-up ones before the last `asked`, which stay real.

    A made-up prompt has the vector of a real one, moved a little.
    """
    real = sum(map(prompts.is_real, texts))
    say(f"embedding {real:,} prompts")
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        starts = range(0, real, 5000)
        vectors = np.concatenate(
            list(workers.map(partial(_say_embedded, embedder, texts[:real]), starts))
        )
    if real == len(texts):
        return vectors
    stored = real - asked
    source = np.arange(len(texts) - real) % stored
    noise = np.random.default_rng(7).normal(scale=0.02, size=(len(source), vectors.shape[1]))
    made = vectors[source] + noise.astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    texts[:] = [*texts[:stored], *texts[real:], *texts[stored:real]]
    return np.concatenate([vectors[:stored], made, vectors[stored:]])


def _say_embedded(embedder: OnnxEmbedder, texts: Sequence[str], start: int) -> Vector:
    say(f"  {start:,} of {len(texts):,}")
    return embedder.embed(texts[start : start + 5000])


if __name__ == "__main__":
    main()
