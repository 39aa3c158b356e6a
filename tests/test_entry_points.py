"""Other packages add backends, embedders and judges by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from semcache import Completion, ConfigError, SemanticCache
from semcache.backends import BackendKind
from semcache.backends.memory import MemoryBackend
from tests.helpers import hashing_embedder, open_cache


class Shelf(BackendKind):
    """A backend of another package."""

    label = "A shelf"
    opened: ClassVar[list[str]] = []

    def open(self, location: str, *, create: bool = True, options: object = None) -> MemoryBackend:
        self.opened.append(location)
        return MemoryBackend()


class Same:
    """A judge of another package."""

    def judge(self, question: str, stored: Completion, fresh: Completion) -> bool | None:
        return stored.text == fresh.text


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "semcache.backends": ("shelf", f"{__name__}:Shelf"),
        "semcache.embedders": ("hashed", "tests.helpers:hashing_embedder"),
        "semcache.judges": ("same", f"{__name__}:Same"),
    }

    def entry_points(*, group: str) -> list[EntryPoint]:
        name, value = points[group]
        return [EntryPoint(name, value, group)]

    for module in ("backends.opening", "embedders.named", "assembly.verification"):
        monkeypatch.setattr(f"semcache.{module}.entry_points", entry_points)


@pytest.mark.usefixtures("installed")
def test_a_backend_is_chosen_by_the_scheme_of_its_url() -> None:
    """It is opened with the whole location, and serves like any other."""
    with open_cache("shelf://top?row=2") as cache:
        cache.put("hello there", "Hi")
        assert str(cache.get("hello there")) == "Hi"
    assert Shelf.opened == ["shelf://top?row=2"]


@pytest.mark.usefixtures("installed")
def test_embedders_and_judges_are_chosen_by_name(tmp_path: Path) -> None:
    """Where an embedder or a judge is given as text."""
    with SemanticCache(tmp_path, embedder="hashed", judge="same") as cache:  # type: ignore[arg-type]
        assert cache.embedder is not None
        assert cache.embedder.fingerprint == hashing_embedder().fingerprint
    with pytest.raises(ConfigError, match="judge is 'other'"):
        SemanticCache(tmp_path, embedder="hashed", judge="other")  # type: ignore[arg-type]


def test_a_url_that_no_backend_takes_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    """At once, without a directory of that name, and without its password."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"redis:// URLs") as caught:
        SemanticCache("redis://user:secret@localhost:6379/0")
    assert "secret" not in str(caught.value)
    assert "user" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_in_memory(tmp_path: Path, monkeypatch: Any) -> None:
    """`:memory:` writes no file, keeps its promises, and ends with the object."""
    monkeypatch.chdir(tmp_path)
    with open_cache(":memory:", max_entries=2) as cache:
        for number in range(3):
            cache.put(f"question number {number}", f"answer {number}")
        assert len(cache) == 2
        lookup = cache.lookup("question number 2")
        assert lookup.tier == "exact"
        assert cache.stats().records == 3
        assert cache.invalidate(ids=[lookup.entry.id]) == 1  # type: ignore[union-attr]
        assert repr(cache).startswith("SemanticCache(':memory:'")
    with open_cache(":memory:") as other:
        assert len(other) == 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="no options of its own"):
        SemanticCache(":memory:", backend=object())
