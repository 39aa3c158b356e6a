"""What the router costs, whether its limits hold, and what an outage does.

python -m benchmarks.routing [--quick] [--json OUT]

Against a local stub, in a process of its own: the overhead of a call over a bare httpx call,
in turns; the rate through a token bucket; and a provider that dies and comes back, with
another to fall back on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import RESULTS, environment, percentiles, say, write_json
from benchmarks.stub import stub
from semcache.errors import SemcacheError
from semcache.providers import OpenAICompatible
from semcache.router import Router
from semcache.router.rate_limits import Limit
from semcache.router.resilience import BreakerRules, Retry

PROMPT = "How do I reset my password?"
BODY = {"model": "stub", "messages": [{"role": "user", "content": PROMPT}]}


def provider(address: str, name: str = "stub") -> OpenAICompatible:
    return OpenAICompatible(name=name, base_url=f"{address}/v1", model="stub")


def ratio(ours: list[float], floor: list[float]) -> dict[str, Any]:
    one, two = percentiles(ours), percentiles(floor)
    return {
        **one,
        "floor": two,
        "ratio_p50": round(one["p50_ms"] / two["p50_ms"], 3),
        "ratio_p95": round(one["p95_ms"] / two["p95_ms"], 3),
        "overhead_p50_ms": round(one["p50_ms"] - two["p50_ms"], 4),
    }


# --------------------------------------------------------------------------- overhead


def one_by_one(address: str, rounds: int, calls: int) -> dict[str, Any]:
    """Blocking calls one after another: ours and the bare ones in turns."""
    ours: list[float] = []
    floor: list[float] = []
    url = f"{address}/v1/chat/completions"
    with Router([provider(address)]) as router, httpx.Client() as client:
        for _ in range(20):
            router.complete(PROMPT)
            client.post(url, json=BODY)
        for _ in range(rounds):
            for _ in range(calls):
                start = time.perf_counter()
                client.post(url, json=BODY).json()["choices"][0]["message"]["content"]
                floor.append(time.perf_counter() - start)
                start = time.perf_counter()
                _ = router.complete(PROMPT).text
                ours.append(time.perf_counter() - start)
    return ratio(ours, floor)


async def many_at_once(address: str, rounds: int, calls: int, width: int) -> dict[str, Any]:
    """Tasks, `width` at once: rounds of ours and of the bare ones in turns."""
    ours: list[float] = []
    floor: list[float] = []
    url = f"{address}/v1/chat/completions"
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
    router = Router([provider(address)])
    async with httpx.AsyncClient(limits=limits) as client:

        async def bare() -> None:
            for _ in range(calls):
                start = time.perf_counter()
                reply = await client.post(url, json=BODY)
                _ = reply.json()["choices"][0]["message"]["content"]
                floor.append(time.perf_counter() - start)

        async def routed() -> None:
            for _ in range(calls):
                start = time.perf_counter()
                _ = (await router.acomplete(PROMPT)).text
                ours.append(time.perf_counter() - start)

        for number in range(rounds + 1):
            await asyncio.gather(*(bare() for _ in range(width)))
            await asyncio.gather(*(routed() for _ in range(width)))
            if number == 0:  # connections are made
                ours.clear()
                floor.clear()
    await router.aclose()
    return ratio(ours, floor)


# -------------------------------------------------------------------------- rate limit


async def through_a_bucket(address: str, limit: Limit, seconds: float) -> dict[str, Any]:
    """As many calls as will go, for so long: what arrives at the provider."""
    router = Router([provider(address)], limits={"stub": [limit]}, deadline=None)
    end = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end:
            await router.acomplete(PROMPT)

    await asyncio.gather(*(caller() for _ in range(64)))
    await router.aclose()
    async with httpx.AsyncClient() as client:
        times = (await client.get(f"{address}/times")).json()
    first = times[0]
    within = bisect_right(times, first + seconds)
    most = max(bisect_right(times, at + limit.seconds) - i for i, at in enumerate(times))
    allowed = limit.amount / limit.seconds
    return {
        "limit": str(limit),
        "seconds": seconds,
        "requests": within,
        "per_second": round(within / seconds, 2),
        "allowed_per_second": round(allowed, 2),
        "share_of_limit": round(within / seconds / allowed, 4),
        "most_in_any_window": most,
        "allowed_in_any_window": limit.amount,
    }


# ------------------------------------------------------------------------------ outage


async def outage(seconds: float, deadline: float) -> dict[str, Any]:
    """The first provider is killed, and comes back: nothing is lost, nothing is late."""
    with stub(delay_ms=20) as (_, backup), stub(delay_ms=20) as (primary, address):
        router = Router(
            [provider(address, "first"), provider(backup, "second")],
            retry=Retry(attempts=2, base=0.05),
            breaker=BreakerRules(failures=5, cooldown=1.0),
            deadline=deadline,
            hooks=(),
        )
        begin = time.monotonic()
        took: list[float] = []
        lost: list[str] = []
        by: list[tuple[float, str]] = []

        async def caller() -> None:
            while time.monotonic() - begin < seconds:
                start = time.perf_counter()
                try:
                    answer = await router.acomplete(PROMPT)
                    by.append((time.monotonic() - begin, str(answer.provider)))
                except SemcacheError as error:
                    lost.append(str(error))
                took.append(time.perf_counter() - start)

        async def trouble() -> None:
            await asyncio.sleep(seconds / 3)
            primary.kill()
            primary.wait()
            await asyncio.sleep(seconds / 3)
            port = int(address.rsplit(":", 1)[1])
            again.append(await asyncio.to_thread(lambda: _restarted(port)))

        again: list[Any] = []
        await asyncio.gather(trouble(), *(caller() for _ in range(32)))
        await router.aclose()
        for context in again:
            context.__exit__(None, None, None)
    thirds = [Counter(name for at, name in by if i <= at * 3 / seconds < i + 1) for i in range(3)]
    return {
        "seconds": seconds,
        "deadline_s": deadline,
        "requests": len(took),
        "lost": len(lost),
        "slowest_s": round(max(took), 3),
        **percentiles(took),
        "answered_by": {
            when: dict(counts)
            for when, counts in zip(("before", "while it is down", "after"), thirds, strict=True)
        },
    }


def _restarted(port: int) -> Any:
    context = stub(delay_ms=20, port=port)
    context.__enter__()
    return context


def measure(*, quick: bool) -> dict[str, Any]:
    rounds = 3 if quick else 20
    overhead: dict[str, Any] = {}
    for delay in (0.0, 50.0):
        with stub(delay_ms=delay) as (_, address):
            say(f"overhead, the model takes {delay:g} ms")
            few = 5 if quick else 10
            calls = (10 if quick else 200) if not delay else few
            overhead[f"{delay:g}_ms"] = {
                "1": one_by_one(address, rounds if not delay else 5, calls),
                "32": asyncio.run(many_at_once(address, rounds, few, 32)),
            }
    seconds = 6.0 if quick else 30.0
    limit = Limit(1000.0, 10.0)
    with stub() as (_, address):
        say(f"{limit}, for {seconds:g} s")
        bucket = asyncio.run(through_a_bucket(address, limit, seconds))
    say("an outage")
    return {
        "environment": environment(),
        "overhead": overhead,
        "token_bucket": bucket,
        "outage": asyncio.run(outage(6.0 if quick else 18.0, 2.0)),
    }


def table(result: dict[str, Any], batch: dict[str, Any]) -> str:
    """The table of docs/results.md."""
    alone, many = (result["overhead"]["0_ms"][width] for width in ("1", "32"))
    slow = result["overhead"]["50_ms"]["32"]
    bucket, down, ours = result["token_bucket"], result["outage"], batch["ways"]["batch"]
    faster = batch["throughput_over_gather"]["median_of_rounds"]
    memory, theirs = ours["memory_mb"], batch["ways"]["gather"]["memory_mb"]
    rows = (
        ("", "figure", "beside"),
        ("---", "---:", "---"),
        (
            "a call through the router",
            f"{alone['p50_ms']:.2f} ms = {alone['ratio_p50']:.2f} × floor",
            "bare httpx to the same local server, in turns",
        ),
        (
            "32 at once",
            f"{many['p50_ms']:.1f} ms = {many['ratio_p50']:.2f} × floor",
            "the same, one client",
        ),
        (
            "32 at once, the model takes 50 ms",
            f"{slow['p50_ms']:.1f} ms = {slow['ratio_p50']:.2f} × floor",
            "the same",
        ),
        (
            "through a token bucket",
            f"{bucket['per_second']:.1f}/s = {bucket['share_of_limit']:.1%} of the limit",
            f"{bucket['limit']}; the most that arrived in any: {bucket['most_in_any_window']:,}",
        ),
        (
            "a provider dies and comes back",
            f"{down['lost']} of {down['requests']:,} lost, slowest {down['slowest_s']:.2f} s",
            f"deadline {down['deadline_s']:g} s, with another to fall back on",
        ),
        (
            f"a batch of {ours['lines']:,} lines",
            f"{ours['per_second']:,.0f}/s = {faster:.2f} × gather",
            f"`asyncio.gather` over httpx, {batch['concurrency']} at once",
        ),
        (
            "its memory, at a fifth and at the end",
            f"{memory[len(memory) // 5]:.0f} and {memory[-1]:.0f} MB",
            f"gather: {theirs[-1]:.0f} MB",
        ),
    )
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=RESULTS / "routing.json")
    args = parser.parse_args()
    result = measure(quick=args.quick)
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=2))
    write_json(args.json, result)


if __name__ == "__main__":
    main()
