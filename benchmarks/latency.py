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
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from benchmarks import large, plots, prompts
from benchmarks.bench import (
    ANSWER,
    MODEL,
    NAMESPACE,
    THREADS,
    THREADS_UP_TO,
    Bench,
    embedded,
    ready_embedder,
)
from benchmarks.common import (
    RESULTS,
    environment,
    per_second,
    resident_mb,
    say,
    timed,
    write_json,
)
from semcache.embedders.onnx import OnnxEmbedder
from semcache.embedders.pool import EmbedderPool

if TYPE_CHECKING:
    from semcache.types import Vector


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
    """The table of figures of docs/results.md, in Markdown."""
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
                **({"eight_threads": bench.threads()} if size <= THREADS_UP_TO else {}),
                "miss_and_record": bench.miss_and_record([texts[i] for i in taken]),
                # Of this whole process, its own prompts and vectors included.
                "resident_mb": round(resident_mb(), 1),
                "bytes_per_entry": round(bench.cache.stats().stored_bytes / len(bench.cache)),
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


if __name__ == "__main__":
    main()
