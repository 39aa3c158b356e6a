"""A million entries: what `python -m benchmarks.latency --large` measures beside the latencies.

- opened: a new process opens the cache and its index, and looks things up: seconds, memory;
- rebuild: lookups at rest, and while the whole index is made from the database beside them;
- deleted: 30% of the entries are deleted: memory, disk and recall before and after;
- small_scopes: the same vectors as 100,000 tenants with 10 entries each;
- forms: bytes of an entry on disk and recall with vectors as float32, float16 and int8.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import prompts
from benchmarks.bench import bare_embedding, entry
from benchmarks.common import backend_of, percentiles, repository_of, say, timed
from semcache import LocalOptions, SemanticCache
from semcache.backends.local.faiss.lifecycle import IndexLifecycle
from semcache.backends.local.opening import DATABASE, SNAPSHOT
from semcache.backends.vectors import FORMS
from semcache.types import Selection

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from semcache.types import Vector

TENANTS, EACH = 100_000, 10
ROUNDS = 1000
_OPENED = """
import json, sys, time
import numpy as np
from benchmarks.common import repository_of, resident_mb
from benchmarks.large import looked_up
from semcache import SemanticCache
cache = SemanticCache(sys.argv[1], threshold=0.5)
repository = repository_of(cache)
cache.embedder.fingerprint
import faiss
imported = resident_mb()
start = time.perf_counter()
SemanticCache(sys.argv[1], threshold=0.5)._engine.backend.store.totals()
index = repository.refresh_index()
opened = time.perf_counter() - start
print(json.dumps({
    "open_s": opened, "entries": len(index), "without_index_mb": imported,
    **looked_up(cache, json.load(open(sys.argv[2]))), "resident_mb": resident_mb(),
}))
"""


def looked_up(cache: SemanticCache, questions: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Semantic hits on (question, model, namespace), beside the embedding alone, in turns."""
    embedder: Any = cache.embedder
    embed = bare_embedding(embedder._ready())
    ours, floor, hits = [], [], 0
    for number, (question, model, namespace) in enumerate(questions):
        for which in (0, 1) if number % 2 else (1, 0):
            if which:
                floor.append(timed(lambda q=question: embed(q)))  # type: ignore[misc]
            else:
                start = time.perf_counter()
                hits += cache.lookup(question, model=model, namespace=namespace).hit
                ours.append(time.perf_counter() - start)
    ratio = float(np.median(ours) / np.median(floor))
    return {"hits": hits, "lookup": percentiles(ours), "ratio_p50": round(ratio, 3)}


def opened(directory: Path, questions: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """In new processes: seconds to open, memory, and semantic hits (medians of three)."""
    listed = directory.parent / "questions.json"
    listed.write_text(json.dumps(list(questions)))
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _OPENED, str(directory), str(listed)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for _ in range(3)
    ]  # fmt: skip
    middle: dict[str, Any] = sorted(runs, key=lambda run: run["ratio_p50"])[1]
    for name in ("open_s", "resident_mb", "without_index_mb"):
        middle[name] = round(float(np.median([run[name] for run in runs])), 3)
    return middle


def measured(
    bench: Bench, directory: Path, queries: Vector, scope: tuple[str, str]
) -> dict[str, Any]:
    """Everything; the cache of `bench` is smaller afterwards, and closed."""
    sample = random.Random(3).sample(list(filter(prompts.is_real, bench.stored)), ROUNDS)
    asked = [(f"please: {text}", *scope) for text in sample]
    say("rebuilding beside the traffic")
    found: dict[str, Any] = {"rebuild": rebuilt(bench, directory, asked)}
    repository_of(bench.cache).save_snapshot()
    found["opened"] = opened(directory, asked)
    say(f"opened: {found['opened']}")
    found["deleted"] = deleted(bench, directory, queries, asked)
    return found


def rebuilt(bench: Bench, directory: Path, asked: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Lookups at rest and while an index is made from all of the database."""
    bench.dial.threshold = 0.5
    repository = repository_of(bench.cache)
    other = IndexLifecycle(directory.parent / "rebuilt.index")
    position = repository.store.position()

    def once(number: int) -> float:
        question, model, namespace = asked[number % len(asked)]
        return timed(lambda: bench.cache.lookup(question, model=model, namespace=namespace))

    rest = [once(number) for number in range(len(asked))]
    started = time.perf_counter()
    builder = threading.Thread(
        target=lambda: other.build(
            repository.store, position.fingerprint or "", position.dimension, force=True
        )
    )
    builder.start()
    during: list[float] = []
    while builder.is_alive():
        during.append(once(len(during)))
    seconds = time.perf_counter() - started
    rest += [once(number) for number in range(len(asked))]
    ratio = np.percentile(during, 99) / np.percentile(rest, 99)
    return {
        "seconds": round(seconds, 1),
        "at_rest": percentiles(rest),
        "during": percentiles(during),
        "ratio_p99": round(float(ratio), 3),
    }


def deleted(
    bench: Bench, directory: Path, queries: Vector, asked: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """30% of the entries, at random."""
    say("deleting 30%")
    store = backend_of(bench.cache).store
    ids = store.ids(Selection())
    gone = random.Random(5).sample(ids, int(0.3 * len(ids)))
    recall = bench.recall(queries)
    start, slowest = time.perf_counter(), 0.0
    for at in range(0, len(gone), 1000):
        bench.cache.invalidate(ids=gone[at : at + 1000])
        if at % 10_000 == 0:
            question, model, namespace = asked[at % len(asked)]
            slowest = max(
                slowest,
                timed(lambda q=question, m=model, n=namespace: bench.cache.lookup(  # type: ignore[misc]
                    q, model=m, namespace=n)),
            )  # fmt: skip
    seconds = time.perf_counter() - start
    bench.cache.lookup(asked[0][0], model=asked[0][1], namespace=asked[0][2])
    bench.cache.wait()
    left = set(ids) - set(gone)
    bench.keep_only(left)
    after = bench.recall(queries)
    size = store.stored_bytes()
    store.vacuum()
    smaller = store.stored_bytes()
    repository_of(bench.cache).save_snapshot()
    bench.cache.close()
    return {
        "entries": len(gone),
        "ms_per_entry": round(seconds / len(gone) * 1e3, 4),
        "slowest_lookup_meanwhile_ms": round(slowest * 1e3, 2),
        "recall_before": recall,
        "recall_after": after,
        "file_mb": [round(size / 1e6, 1), round(smaller / 1e6, 1)],
        "opened": opened(directory, asked),
    }


# ------------------------------------------------------------------------- other shapes


def small_scopes(
    directory: Path, texts: Sequence[str], vectors: Vector, model: str, answer: str
) -> dict[str, Any]:
    """Many tenants with a few entries each."""
    say(f"filling {TENANTS:,} tenants with {EACH} entries each")
    cache = SemanticCache(directory, threshold=0.5)
    repository = repository_of(cache)
    start = time.perf_counter()
    count = min(TENANTS * EACH, len(texts))
    for number in range(count):
        namespace = f"tenant {number % (count // EACH)}"
        query = cache.query(texts[number], model=model, namespace=namespace)
        repository.record(entry(query, answer), vectors[number])
        if number % 100_000 == 0:
            say(f"  {number:,}")
            repository.refresh_index()
    fill = (time.perf_counter() - start) / count
    repository.refresh_index()
    cache.wait()
    cache.close()
    real = [number for number in range(count) if prompts.is_real(texts[number])]
    chosen = random.Random(4).sample(real, ROUNDS)
    asked = [(f"please: {texts[n]}", model, f"tenant {n % (count // EACH)}") for n in chosen]
    found = opened(directory, asked)
    return {
        "scopes": count // EACH,
        "fill_ms_per_entry": round(fill * 1e3, 4),
        "snapshot_mb": round((directory / SNAPSHOT).stat().st_size / 1e6, 1),
        **found,
    }


def forms(
    folder: Path, texts: Sequence[str], vectors: Vector, queries: Vector, model: str, answer: str
) -> list[dict[str, Any]]:
    """What an entry takes on disk, and what rounding costs, by the form of its vector."""
    rows = []
    best = np.argmax(queries @ vectors.T, axis=1)
    for form in FORMS:
        directory = folder / form
        cache = SemanticCache(directory, threshold=0.5, backend=LocalOptions(vectors=form))
        repository = repository_of(cache)
        for text, vector in zip(texts, vectors, strict=True):
            query = cache.query(text, model=model)
            repository.record(entry(query, answer), vector)
        scope = cache.query("-", model=model).scope.digest
        found = [repository.nearest(scope, query, 1, -1.0).candidates[0] for query in queries]
        exact = (queries * vectors[best]).sum(axis=1)
        off = np.abs(np.array([c.similarity for c in found]) - exact)
        right = np.array([c.entry.id - 1 for c in found]) == best
        backend_of(cache).store.vacuum()
        size = (directory / DATABASE).stat().st_size
        cache.close()
        rows.append(
            {
                "form": form,
                "entries": len(texts),
                "bytes_per_entry": round(size / len(texts)),
                "recall_at_1": round(float(right.mean()), 4),
                "similarity_off_p99": round(float(np.percentile(off, 99)), 5),
            }
        )
        say(f"  {rows[-1]}")
    return rows


def table(result: dict[str, Any]) -> str:
    """The figures of a million entries in Markdown."""
    figures = {found["entries"]: found for found in result["sizes"]}
    most = max(figures)
    at, large, scopes = figures[most], result["large"], result["small_scopes"]
    small = figures.get(10_000, figures[min(figures)])
    record = at["record"]["p50_ms"] / small["record"]["p50_ms"]
    deleted, rebuild = large["deleted"], large["rebuild"]
    rows: list[tuple[str, str, str]] = [
        ("open, in a new process, the index checked", _seconds(large["opened"]["open_s"]), "2 s"),
        (
            "resident memory of that process after 1,000 lookups",
            f"{large['opened']['resident_mb']:,.0f} MB",
            "1,200 MB",
        ),
        ("semantic hit, median", _ratio(at["semantic_hit"]["ratio_p50"], "embedding"), "1.35 ×"),
        (
            "the same in the new process",
            _ratio(large["opened"]["ratio_p50"], "embedding"),
            "1.35 ×",
        ),
        ("record, median", _ratio(record, f"that at {small['entries']:,} entries"), "2 ×"),
        ("recall@1 against exact search", f"{at['recall']['recall_at_1']:.1%}", "98%"),
        (
            "the same, where a neighbour of 0.8 exists",
            f"{at['recall']['recall_at_1_near']:.1%}",
            "",
        ),
        (
            f"p99 of lookups during a rebuild of {rebuild['seconds']:.0f} s",
            _ratio(rebuild["ratio_p99"], "that at rest"),
            "3 ×",
        ),
        ("disk per entry, answers of 330 characters", f"{at['bytes_per_entry']:,} B", ""),
        (
            "30% deleted: memory of a new process",
            f"{large['opened']['resident_mb']:,.0f} → {deleted['opened']['resident_mb']:,.0f} MB",
            "",
        ),
        (
            "30% deleted: recall@1",
            f"{deleted['recall_before']['recall_at_1']:.1%} → "
            f"{deleted['recall_after']['recall_at_1']:.1%}",
            "",
        ),
        (
            "30% deleted: the database, after `vacuum`",
            f"{deleted['file_mb'][0]:,.0f} → {deleted['file_mb'][1]:,.0f} MB",
            "",
        ),
        (
            f"as {scopes['scopes']:,} tenants: open",
            f"{_seconds(scopes['open_s'])} ({_seconds(large['opened']['open_s'])} as one)",
            "",
        ),
        (
            f"as {scopes['scopes']:,} tenants: memory",
            f"{scopes['resident_mb']:,.0f} MB ({large['opened']['resident_mb']:,.0f} MB as one)",
            "",
        ),
        (
            f"as {scopes['scopes']:,} tenants: semantic hit, median",
            f"{_ratio(scopes['ratio_p50'], 'embedding')} "
            f"({large['opened']['ratio_p50']:.2f} × as one)",
            "",
        ),
    ]
    lines = [f"| at {most:,} entries | | asked for |", "| --- | ---: | ---: |"]
    lines += [f"| {title} | {found} | {wanted} |" for title, found, wanted in rows]
    lines += [
        "",
        "| vectors on disk | bytes per entry | recall@1 | similarity off, p99 |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['form']} | {row['bytes_per_entry']:,} | {row['recall_at_1']:.1%} "
        f"| {row['similarity_off_p99']:.4f} |"
        for row in result["forms"]
    ]
    machine = result["environment"]["machine"]
    return "\n".join([*lines, "", f"Prompts: {result['prompts']}. {machine}."]) + "\n"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _ratio(value: float, floor: str) -> str:
    return f"{value:.2f} × {floor}"
