"""Caches that are dropped without `close`, and places that are none."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semcache import ConfigError, SemanticCache
from semcache.embedders import export
from semcache.errors import EmbedderError
from semcache.private_files import changeable_by_others
from tests.helpers import open_cache


def used(place: Path) -> Any:
    cache = open_cache(place)

    @cache.cached
    def ask(prompt: str) -> str:
        return f"answer {prompt}"

    @cache.cached
    def stream(prompt: str) -> Iterator[str]:
        yield prompt

    cache.put("a question", "an answer")
    cache.lookup("a question please")
    ask("x")
    list(stream("y"))
    return ask


def settled(count: int, most: float = 20) -> int:
    """The number of threads of semcache, once it is small enough or after a while."""
    deadline = time.monotonic() + most
    while True:
        gc.collect()
        found = sum(t.name.startswith("semcache") for t in threading.enumerate())
        if found <= count or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors by /proc")
def test_a_dropped_cache_leaves_no_threads_and_descriptors(tmp_path: Path) -> None:
    threads = settled(0, 1)
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        used(tmp_path / str(number))
    assert settled(threads) <= threads
    deadline = time.monotonic() + 20
    while len(os.listdir("/proc/self/fd")) > descriptors + 2 and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
    with open_cache(tmp_path / "3") as cache:
        assert str(cache.get("a question")) == "an answer"


def test_a_decorated_function_keeps_its_cache_open(tmp_path: Path) -> None:
    """Although nothing else refers to it any more."""
    ask = used(tmp_path / "cache")
    gc.collect()
    time.sleep(0.1)
    assert ask("x") == "answer x"
    assert ask.cache_info().exact_hits == 1


@pytest.mark.parametrize("place", ["a\0b", "x" * 5000, b"bytes"])
def test_a_path_that_is_no_directory_is_refused(place: Any) -> None:
    with pytest.raises(ConfigError):
        SemanticCache(place)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_model_that_others_can_change_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "models" / "model"
    model.mkdir(parents=True, mode=0o700)
    (model / "model.onnx").write_bytes(b"x")
    assert changeable_by_others(model) is None
    monkeypatch.setattr(export, "export_directory", lambda: model)
    monkeypatch.setattr(export, "read_manifest", lambda directory: directory)
    assert export.export_float32() == model
    (model / "model.onnx").chmod(0o666)
    with pytest.raises(EmbedderError, match="every user can write"):
        export.export_float32()
