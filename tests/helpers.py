"""Stand-ins and shorthands for tests."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcache import Event, SemanticCache
from semcache.embedders.function import FunctionEmbedder
from semcache.options import grouped

ROOT = Path(__file__).parents[1]

DIMENSION = 512


def hashed(texts: Sequence[str]) -> Any:
    """Bags of hashed words: equal words lie near. For tests that claim nothing about meaning."""
    vectors = np.zeros((len(texts), DIMENSION), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            vectors[row, place % DIMENSION] += 1
        vectors[row, 0] += 1e-3
    return vectors


def hashing_embedder(**options: Any) -> FunctionEmbedder:
    return FunctionEmbedder(hashed, **{"name": "hashed", "dimension": DIMENSION, **options})


def started(code: str, *args: str) -> subprocess.Popen[str]:
    """Another Python process, with pipes, that can import these helpers."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def open_cache(path: Any, **options: Any) -> SemanticCache:
    """A cache with the hashing embedder. Options by their own names, whatever their group."""
    given = {"embedder": hashing_embedder(), "threshold": 0.9, **options}
    return SemanticCache(path, **grouped(given))


class Clock:
    """A clock that is turned by hand."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Heard:
    """A hook that keeps what it heard."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
