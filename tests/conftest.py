from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from semcache import SemanticCache
from semcache.embedders.default import DefaultEmbedder
from tests.helpers import open_cache

SHARED = Path(__file__).parents[2] / "shared" / "data"

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def embedder() -> DefaultEmbedder:
    """The real default embedder."""
    chosen = DefaultEmbedder()
    chosen.load()
    return chosen


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SemanticCache]:
    """An empty cache with the hashing embedder."""
    with open_cache(tmp_path / "cache") as opened:
        yield opened


@pytest.fixture(scope="session")
def streams() -> Path:
    """The folder of replay streams; tests that need it are skipped where it is absent."""
    folder = SHARED / "streams"
    if not folder.is_dir():
        pytest.skip(f"needs the replay streams in {folder}")
    return folder
