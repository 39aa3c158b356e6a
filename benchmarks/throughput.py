"""Lookups per second: 1 and 8 threads, 32 tasks; beside the embedding alone.

python -m benchmarks.throughput [--sizes 1000 10000 100000] [--large] [--json OUT]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import prompts
from benchmarks.bench import MODEL, NAMESPACE, Bench, embedded, ready_embedder
from benchmarks.common import RESULTS, environment, per_second, resident_mb, say, write_json

THREADS = (1, 8)
TASKS = 32


def tasks_per_second(bench: Bench, items: Sequence[str]) -> float:
    """The same lookups by so many tasks of one event loop."""

    async def main() -> float:
        async def worker(share: Sequence[str]) -> None:
            for item in share:
                await bench.cache.alookup(item, model=MODEL, namespace=NAMESPACE)

        start = time.perf_counter()
        await asyncio.gather(*(worker(items[number::TASKS]) for number in range(TASKS)))
        return len(items) / (time.perf_counter() - start)

    return asyncio.run(main())


def rates(bench: Bench, items: Sequence[str], rounds: int) -> dict[str, Any]:
    """Medians over rounds, in turns with the embedding alone."""

    def lookup(item: str) -> Any:
        return bench.cache.lookup(item, model=MODEL, namespace=NAMESPACE)

    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for threads in THREADS:
            name = f"{threads}_threads"
            found.setdefault(name, []).append(per_second(lookup, items, threads))
            floor = per_second(bench.floor_embed, items[:400], threads)
            found.setdefault(f"embedding_{name}", []).append(floor)
        found.setdefault(f"{TASKS}_tasks", []).append(tasks_per_second(bench, items))
    return {name: round(float(np.median(values)), 1) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--large", action="store_true", help="1,000,000 entries too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=Path, default=prompts.DEFAULT)
    parser.add_argument("--json", type=Path, default=RESULTS / "throughput.json")
    args = parser.parse_args()
    sizes = [*args.sizes, 1_000_000] if args.large else args.sizes
    texts, source = prompts.load(args.prompts, max(sizes), make_up=args.large)
    embedder = ready_embedder()
    vectors = embedded(embedder, texts, asked=0)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary) / "cache", embedder, 1000)
        for size in sizes:
            say(f"filling to {size:,} entries")
            new = slice(len(bench.stored), size)
            bench.fill(texts[new], vectors[new])
            bench.dial.threshold = 0.5
            exact = bench.stored[:: max(size // 2000, 1)][:2000]
            semantic = [f"please: {text}" for text in exact[:600]]
            rows.append(
                {
                    "entries": size,
                    "exact_hits_per_s": rates(bench, exact, args.rounds),
                    "semantic_hits_per_s": rates(bench, semantic, args.rounds),
                    "resident_mb": round(resident_mb(), 1),
                }
            )
            say(f"{rows[-1]}")
        bench.bare.close()
        bench.cache.close()
    write_json(args.json, {"environment": environment(), "prompts": source, "sizes": rows})


def table(result: dict[str, Any]) -> str:
    """Lookups per second, in Markdown."""
    lines = [
        "| entries | | 1 thread | 8 threads | 32 tasks | embedding alone, 1 and 8 threads |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in result["sizes"]:
        for name in ("exact_hits_per_s", "semantic_hits_per_s"):
            found = row[name]
            lines.append(
                f"| {row['entries']:,} | {name.split('_')[0]} hits/s | {found['1_threads']:,.0f} | "
                f"{found['8_threads']:,.0f} | {found['32_tasks']:,.0f} | "
                f"{found['embedding_1_threads']:,.0f}, {found['embedding_8_threads']:,.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
