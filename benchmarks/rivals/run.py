"""What one cache does, in a process and a Python of its own.

PYTHON benchmarks/rivals/run.py NAME TASK OPTIONS.json

Tasks: latency, replay, put (and wait to be killed), count. Prints one JSON object.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from drivers import DRIVERS  # beside this file


def _given(folder: str) -> tuple[list[str], Any, dict[str, int]]:
    import numpy as np

    texts = json.loads((Path(folder) / "texts.json").read_text())
    vectors = np.load(Path(folder) / "vectors.npy")
    return texts, vectors, {text: place for place, text in enumerate(texts)}


def _open(name: str, options: dict[str, Any], threshold: float | None) -> tuple[Any, list[str]]:
    texts, vectors, places = _given(options["given"])
    extra = {k: options[k] for k in ("redis_url", "name") if k in options}

    def embed(text: str) -> Any:
        return vectors[places[text]]

    return DRIVERS[name](options["directory"], embed, threshold, **extra), texts


def latency(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Puts and lookups without the embedding, which is the same for all."""
    import numpy as np

    driver, texts = _open(name, options, 0.9)
    count = options["entries"]
    stored, unseen = texts[:count], texts[count : count + 500]
    puts = [_timed(driver.put, text, f"answer {i}", "default") for i, text in enumerate(stored)]
    ours = random.Random(7)
    asked = ours.sample(stored, min(500, count))
    for text in asked[:50]:
        driver.get(text, "default")
    repeats = [_timed(driver.get, text, "default") for text in asked]
    again = [f"{text} (in other words)" for text in asked]
    found = [driver.get(text, "default") for text in again]
    hits = [_timed(driver.get, text, "default") for text in again]
    misses = [_timed(driver.get, text, "default") for text in unseen]
    memory = _memory_mb()
    driver.close()
    return {
        "import_s": round(driver.import_s, 3),
        "open_s": round(driver.open_s, 4),
        "memory_mb": memory,
        "put": _milliseconds(np, puts[len(puts) // 2 :]),
        "repeat": _milliseconds(np, repeats),
        "hit": _milliseconds(np, hits),
        "served_in_other_words": sum(one is not None for one in found) / len(found),
        "miss": _milliseconds(np, misses),
    }


def replay(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A stream in order; what was served, and whether it was right."""
    driver, _ = _open(name, options, options["threshold"])
    outcomes = []
    for row in json.loads(Path(options["stream"]).read_text()):
        found = driver.get(row["prompt"], row["tenant"])
        if found is None:
            driver.put(row["prompt"], row["answer"], row["tenant"])
        outcomes.append(None if found is None else found == row["answer"])
    driver.close()
    return {"outcomes": outcomes}


def put(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Put entries one by one, say so, and wait to be killed."""
    driver, texts = _open(name, options, 0.9)
    for place, text in enumerate(texts[: options["entries"]]):
        driver.put(text, f"answer {place}", "default")
    print("ready", flush=True)
    time.sleep(600)
    return {}


def count(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """How many of the entries are still found."""
    driver, texts = _open(name, options, 0.99)
    asked = texts[: options["entries"]]
    found = sum(driver.get(text, "default") is not None for text in asked)
    driver.close()
    return {"found": found}


def _timed(work: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def _milliseconds(np: Any, seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return {"p50_ms": round(float(p50), 4), "p95_ms": round(float(p95), 4)}


def _memory_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1e3, 1)
    return float("nan")


TASKS = {"latency": latency, "replay": replay, "put": put, "count": count}

if __name__ == "__main__":
    chosen, task, file = sys.argv[1:4]
    print(json.dumps(TASKS[task](chosen, json.loads(Path(file).read_text()))))
