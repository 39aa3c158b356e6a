"""A large batch: does memory stay where it is, and what does it cost over a bare gather?

python -m benchmarks.batch [--lines N] [--json OUT]

Each way in a process of its own, against one local stub: `asyncio.gather` over httpx with a
semaphore, which is what people write first; the batch through the router alone; and through
the cache's exact tier as well. Rounds of the first two go in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import RESULTS, environment, resident_mb, say, write_json
from benchmarks.stub import stub
from semcache import Matching, SemanticCache
from semcache.batch import BatchProcessor, Progress
from semcache.providers import OpenAICompatible
from semcache.router import Router

WIDTH = 32
WAYS = ("gather", "batch", "batch_with_cache")


def write_lines(path: Path, count: int) -> None:
    with path.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"prompt": f"What is {number} in words?"}) + "\n")


async def gather(lines: list[str], address: str) -> list[str]:
    """Everything at once, with a semaphore."""
    room = asyncio.Semaphore(WIDTH)
    url = f"{address}/v1/chat/completions"
    async with httpx.AsyncClient() as client:

        async def one(line: str) -> str:
            prompt = json.loads(line)["prompt"]
            body = {"model": "stub", "messages": [{"role": "user", "content": prompt}]}
            async with room:
                reply = await client.post(url, json=body)
            return str(reply.json()["choices"][0]["message"]["content"])

        return await asyncio.gather(*(one(line) for line in lines))


def gathered(source: Path, target: Path, address: str) -> dict[str, Any]:
    """The file read whole, everything gathered, and written."""
    answers = asyncio.run(gather(source.read_text().splitlines(), address))
    with target.open("w") as file:
        for answer in answers:
            file.write(json.dumps({"answer": answer}) + "\n")
    return {"memory_mb": [round(resident_mb(), 1)]}


async def batch(source: Path, target: Path, address: str, *, cached: bool) -> dict[str, Any]:
    """Through the router, and the cache's exact tier if asked for."""
    memory: list[float] = []
    every = 0

    def watch(progress: Progress) -> None:
        nonlocal every
        if progress.done >= every:
            memory.append(round(resident_mb(), 1))
            every += 5_000

    provider = OpenAICompatible(base_url=f"{address}/v1", model="stub")
    with tempfile.TemporaryDirectory() as directory, Router([provider]) as router:
        cache = (
            SemanticCache(directory, matching=Matching(semantic=False), router=router)
            if cached
            else None
        )
        ask = router.acomplete if cache is None else cache.aanswer
        report = await BatchProcessor(ask, concurrency=WIDTH).run(source, target, progress=watch)
        await router.aclose()
        if cache is not None:
            cache.close()
    assert report.progress.failed == 0
    return {"memory_mb": memory, "hits": report.progress.hits}


def run_way(way: str, source: Path, target: Path, address: str) -> dict[str, Any]:
    """One run, in this process."""
    start = time.perf_counter()
    if way == "gather":
        found = gathered(source, target, address)
    else:
        found = asyncio.run(batch(source, target, address, cached=way != "batch"))
    seconds = time.perf_counter() - start
    lines = sum(1 for _ in target.open())
    return {
        "lines": lines,
        "seconds": round(seconds, 2),
        "per_second": round(lines / seconds, 1),
        **found,
    }


def apart(way: str, source: Path, address: str) -> dict[str, Any]:
    """One run, in a process of its own."""
    target = source.with_name(f"{way}.{time.monotonic_ns()}.jsonl")
    args = ["-m", "benchmarks.batch", "--way", way, str(source), str(target), address]
    done = subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    found: dict[str, Any] = json.loads(done.stdout)
    say(f"{way}: {found['lines']:,} lines, {found['per_second']:,}/s, {found['memory_mb'][-1]} MB")
    return found


def _grown(memory: list[float]) -> float:
    """MB between the end of the first fifth and the end of the run."""
    return round(memory[-1] - memory[len(memory) // 5], 1)


def measure(lines: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory, stub() as (_, address):
        large, small = Path(directory) / "large.jsonl", Path(directory) / "small.jsonl"
        write_lines(large, lines)
        write_lines(small, max(lines // 10, 100))
        whole = {way: apart(way, large, address) for way in WAYS}
        rounds = [{way: apart(way, small, address) for way in WAYS[:2]} for _ in range(5)]
    ratios = sorted(r["batch"]["per_second"] / r["gather"]["per_second"] for r in rounds)
    grown = {way: _grown(whole[way]["memory_mb"]) for way in WAYS[1:]}
    return {
        "environment": environment(),
        "concurrency": WIDTH,
        "ways": whole,
        "throughput_over_gather": {
            "median_of_rounds": round(ratios[len(ratios) // 2], 3),
            "rounds": [round(r, 3) for r in ratios],
            "whole": round(whole["batch"]["per_second"] / whole["gather"]["per_second"], 3),
        },
        "memory_grown_mb_after_the_first_fifth": grown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--json", type=Path, default=RESULTS / "batch.json")
    parser.add_argument("--way", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way is not None:
        way, source, target, address = args.way
        print(json.dumps(run_way(way, Path(source), Path(target), address)))
        return
    result = measure(args.lines)
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=2))
    write_json(args.json, result)


if __name__ == "__main__":
    main()
