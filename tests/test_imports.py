"""What a program that uses semcache loads, and when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import semcache
from semcache.embedders.default import DefaultEmbedder

HEAVY = (
    "{'torch', 'transformers', 'sentence_transformers', 'faiss', 'onnxruntime', 'numpy', 'onnx'}"
)


def loaded(code: str, *args: str) -> str:
    """Which of the heavy modules a new process has loaded after running some code."""
    code += f"\nimport sys; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_importing_semcache_loads_nothing_heavy() -> None:
    """Neither a model's runtime nor an index, not even NumPy."""
    assert loaded("import semcache") == "[]"


def test_an_exact_hit_loads_nothing_heavy(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """A repeat in a new process is answered from SQLite alone."""
    with semcache.SemanticCache(tmp_path, embedder=embedder) as cache:
        cache.put("hello", "Hi")
    code = (
        "import sys, semcache; c = semcache.SemanticCache(sys.argv[1]);"
        "assert str(c.get('hello')) == 'Hi'"
    )
    assert loaded(code, str(tmp_path)) == "[]"


def test_after_warmup_no_process_imports_torch(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """A semantic lookup in a new process runs on onnxruntime and FAISS alone."""
    with semcache.SemanticCache(tmp_path, embedder=embedder) as cache:
        cache.put("How do I reset my password?", "Open Settings.")
    code = (
        "import sys, semcache; c = semcache.SemanticCache(sys.argv[1], threshold=0.8);"
        "assert c.lookup('how can i reset my password').tier == 'semantic'"
    )
    assert loaded(code, str(tmp_path)) == "['faiss', 'numpy', 'onnxruntime']"


def test_everything_public_is_there() -> None:
    """What __all__ names exists, and is sorted."""
    assert [name for name in semcache.__all__ if not hasattr(semcache, name)] == []
    assert len(set(semcache.__all__)) == len(semcache.__all__)
