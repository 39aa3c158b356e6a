"""Eight processes over one directory: is a request one call, is every record seen, how fast?

    python -m benchmarks.processes [--processes 8] [--seconds 60] [--json OUT]

Single flight: every process asks for requests of one list, in an order of its own in which the
others' requests come up at about the same time, through `answer` with a model that takes a
while and writes down what it was asked. Each distinct request must have been asked once; at
the end every process must find every record. Every fault that a caller could hear of is
counted; "database is locked" must be among none.

Throughput: lookups of known and new questions with a record for every tenth, without a model,
in one process and then in all; the default embedder does the work of each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import prompts
from benchmarks.common import RESULTS, environment, percentiles, say, write_json
from semcache import Completion, Event, Request, SemanticCache
from semcache.telemetry.events import FaultEvent

MODEL_SECONDS = 0.05
THRESHOLD = 0.9999
"""Only the same question in the same words is served, so that a request is a call."""


class Faults:
    """Counts what went wrong, by place and first words."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        if isinstance(event, FaultEvent):
            self.found[f"{event.where}: {str(event.error)[:160]}"] += 1


def opened(path: Path, faults: Faults) -> SemanticCache:
    cache = SemanticCache(path, threshold=THRESHOLD, hooks=[faults])
    cache.lookup("are you ready?")  # the model is loaded
    return cache


def asking(path: Path, texts: list[str], seconds: float, seed: int, pipe: Connection) -> None:
    """Ask for requests that others ask for too; then find all that were recorded."""
    faults, rng, called = Faults(), random.Random(seed), Counter[str]()
    cache = opened(path, faults)

    def send(request: Request) -> Completion:
        question = str(request.messages[-1].parts[0].text)  # type: ignore[union-attr]
        called[question] += 1
        time.sleep(MODEL_SECONDS)
        return Completion(f"the answer to {question}")

    pipe.send("ready")
    pipe.recv()
    start, served, wrong, waits = time.perf_counter(), 0, 0, []
    asked: set[str] = set()
    while (passed := time.perf_counter() - start) < seconds:
        # All move through the list at one pace: the same few requests come up everywhere.
        at = int(passed / seconds * len(texts)) + rng.randrange(8)
        text = texts[min(at, len(texts) - 1)]
        began = time.perf_counter()
        found = cache.answer(text, send)
        waits.append(time.perf_counter() - began)
        wrong += found.text != f"the answer to {text}"
        served += 1
        asked.add(text)
    pipe.send({"called": called, "asked": asked, "answers": served, "wrong": wrong, "waits": waits})
    every = pipe.recv()
    missing = sum(cache.get(text) is None for text in every)
    unseen = sum(cache.lookup(f"{text} ").similarity is None for text in list(every)[:200])
    pipe.send({"missing": missing + unseen, "faults": faults.found})
    cache.close()


def working(path: Path, texts: list[str], seconds: float, seed: int, pipe: Connection) -> None:
    """Lookups and records, as fast as it goes."""
    faults, rng = Faults(), random.Random(seed)
    cache = opened(path, faults)
    pipe.send("ready")
    pipe.recv()
    start, done, locked = time.perf_counter(), 0, 0
    while time.perf_counter() - start < seconds:
        text = texts[rng.randrange(len(texts))]
        lookup = cache.lookup(text if done % 2 else f"{text} {seed} {done}")
        if done % 10 == 0:
            locked += cache.record(lookup, f"the answer to {text}") is None
        done += 1
    pipe.send({"done": done, "not_recorded": locked, "faults": faults.found})
    cache.close()


class Crew:
    """Processes that begin at once."""

    def __init__(self, work: Any, path: Path, texts: list[str], seconds: float, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for seed in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(path, texts, seconds, seed, theirs))
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        assert self.heard() == ["ready"] * count
        self.say("go")

    def say(self, what: Any) -> None:
        for pipe in self.pipes:
            pipe.send(what)

    def heard(self) -> list[Any]:
        return [pipe.recv() for pipe in self.pipes]

    def end(self) -> None:
        for process in self.processes:
            process.join(60)
            assert process.exitcode == 0


def single_flight(folder: Path, texts: list[str], seconds: float, count: int) -> dict[str, Any]:
    crew = Crew(asking, folder / "flight", texts, seconds, count)
    said = crew.heard()
    called: Counter[str] = sum((one["called"] for one in said), Counter())
    every = set().union(*(one["asked"] for one in said))
    crew.say(every)
    ends = crew.heard()
    crew.end()
    waits = [wait for one in said for wait in one["waits"]]
    return {
        "requests": sum(one["answers"] for one in said),
        "distinct_requests": len(every),
        "calls": called.total(),
        "asked_more_than_once": sum(n > 1 for n in called.values()),
        "never_asked": len(every - called.keys()),
        "wrong_answers": sum(one["wrong"] for one in said),
        "not_seen_by_some_process": sum(one["missing"] for one in ends),
        "faults": dict(sum((one["faults"] for one in ends), Counter())),
        "model_ms": MODEL_SECONDS * 1e3,
        "answer": percentiles(waits),
    }


def throughput(folder: Path, texts: list[str], seconds: float, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, many in (("one_process", 1), ("all_processes", count)):
        crew = Crew(working, folder / name, texts, seconds, many)
        said = crew.heard()
        crew.end()
        found[name] = {
            "processes": many,
            "operations_per_s": round(sum(one["done"] for one in said) / seconds, 1),
            "least_and_most_of_a_process": sorted(one["done"] for one in said)[:: max(many - 1, 1)],
            "not_recorded": sum(one["not_recorded"] for one in said),
            "faults": dict(sum((one["faults"] for one in said), Counter())),
        }
    one, every = (found[n]["operations_per_s"] for n in ("one_process", "all_processes"))
    return {**found, "ratio": round(every / one, 3)}


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    flight, through = result["single_flight"], result["throughput"]
    locked = sum(
        "locked" in text
        for part in (flight, through["one_process"], through["all_processes"])
        for text in part["faults"]
    )
    rows = (
        ("processes, seconds", f"{result['processes']}, {result['seconds']:g}"),
        ("requests, distinct", f"{flight['requests']:,}, {flight['distinct_requests']:,}"),
        ("calls to the model", f"{flight['calls']:,}"),
        ("distinct requests that were asked more than once", f"{flight['asked_more_than_once']}"),
        ("records not seen by some process", f"{flight['not_seen_by_some_process']}"),
        ("wrong answers", f"{flight['wrong_answers']}"),
        ('faults with "locked" in them', f"{locked}"),
        (
            "lookups and records per second, one process",
            f"{through['one_process']['operations_per_s']:,.0f}",
        ),
        (
            f"the same, {result['processes']} processes",
            f"{through['all_processes']['operations_per_s']:,.0f} = {through['ratio']:.2f} ×",
        ),
    )
    return "| | |\n| --- | ---: |\n" + "".join(f"| {a} | {b} |\n" for a, b in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--prompts", type=Path, default=prompts.DEFAULT)
    parser.add_argument("--json", type=Path, default=RESULTS / "processes.json")
    args = parser.parse_args()
    texts, source = prompts.load(args.prompts, 4000)
    # To the embedder texts that differ in case are the same, and so are unknown letters: these
    # would be served for each other.
    texts = list({" ".join(t.casefold().split()): t for t in texts if t.isascii()}.values())
    np.random.default_rng(7).shuffle(texts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say(f"single flight, {args.processes} processes, {args.seconds:g} s")
        flight = single_flight(folder, texts, args.seconds, args.processes)
        say("throughput")
        through = throughput(folder, texts, args.seconds / 4, args.processes)
    result = {
        "environment": environment(),
        "prompts": source,
        "processes": args.processes,
        "seconds": args.seconds,
        "single_flight": flight,
        "throughput": through,
    }
    write_json(args.json, result)
    say(table(result))


if __name__ == "__main__":
    main()
