"""What the benchmarks of latency share: a cache that is filled step by step, and its bare parts."""

from __future__ import annotations

import os
import sqlite3
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
from benchmarks import prompts
from benchmarks.common import (
    per_second,
    percentiles,
    repository_of,
    say,
    timed,
)
from semcache import Trust
from semcache.embedders.onnx import OnnxEmbedder, shipped_embedder
from semcache.keys import keys
from semcache.keys.canonical import canonical_json
from semcache.types import Candidate, Decision
from semcache.verification.policies import FixedThreshold

if TYPE_CHECKING:
    from semcache.types import Vector
from typing import TYPE_CHECKING

from semcache.embedders.onnx import packed
from semcache.types import Completion, NewEntry, Query

MODEL, NAMESPACE = "benchmark-model", "benchmark"


ANSWER = "Open Settings, choose Security, and follow the link that we send to your address. " * 4


THREADS = 8


THREADS_UP_TO = 100_000
"""Beyond these the bare parts, a flat search, take minutes."""


def bare_embedding(embedder: OnnxEmbedder) -> Callable[[str], Any]:
    """What tokenises a text and runs the model, and nothing else: float32[1, d]."""
    session, tokenizer, words = embedder._parts()
    return lambda text: session.run(None, packed([tokenizer.encode(text).ids], words))[0]


def entry(query: Query, answer: str) -> NewEntry:
    """An entry for a query, as the cache would make it."""
    request = query.request
    return NewEntry(
        query.exact_key,
        query.scope.digest,
        request.namespace,
        request.model,
        query.question,
        {},
        Completion(answer),
        keys.KEY_VERSION,
        time.time(),
        None,
    )


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
        self.cache = semcache.SemanticCache(
            directory, trust=Trust(policy=self.dial), embedder=embedder
        )
        self.embedder = embedder
        self.floor_embed = bare_embedding(embedder)
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
        repository = repository_of(self.cache)
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
        ours, floor = in_turns(
            sample, lambda p: self.ask(p), lambda p: self.floor_exact(p, rows[p])
        )
        return compared(ours, floor)

    def semantic(self) -> dict[str, Any]:
        self.dial.threshold = 0.5
        asked = self._variants(self.rounds)
        hits = [self.cache.lookup(p, model=MODEL, namespace=NAMESPACE).tier for p in asked[:50]]
        assert hits.count("semantic") >= 45, hits
        ours, floor = in_turns(
            asked,
            lambda p: self.cache.lookup(p, model=MODEL, namespace=NAMESPACE),
            self.floor_embed,
        )
        return compared(ours, floor)

    def misses(self, unseen: Sequence[str]) -> dict[str, Any]:
        """Lookups that find nothing near enough."""
        self.dial.threshold = 2.0
        return compared(
            *in_turns(
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

        found = compared(*in_turns(unseen, lambda p: self.cache.record(lookups[p], ANSWER), floor))
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

        return compared(*in_turns(unseen, ours, self.floor_embed))

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
        repository = repository_of(self.cache)
        repository.refresh_index()
        scope = self.cache.query("-", model=MODEL, namespace=NAMESPACE).scope.digest
        found = np.array([repository.nearest(scope, v, 1, -1.0).nearest for v in vectors])
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


def ready_embedder() -> OnnxEmbedder:
    """The default model, loaded."""
    embedder = shipped_embedder()
    embedder.load()
    return embedder


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


def in_turns(
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


def compared(ours: list[float], floor: list[float]) -> dict[str, Any]:
    ratio = float(np.median(ours) / np.median(floor))
    return {**percentiles(ours), "floor": percentiles(floor), "ratio_p50": round(ratio, 3)}


def _say_embedded(embedder: OnnxEmbedder, texts: Sequence[str], start: int) -> Vector:
    say(f"  {start:,} of {len(texts):,}")
    return embedder.embed(texts[start : start + 5000])
