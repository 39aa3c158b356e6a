"""The rooms and the arrows between them, read off the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "semcache"

VALUES = {"errors", "lazy", "types"}

ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": {"types"},
    "sansio": set(),
    "lazy": set(),
    "lifecycle": set(),
    "credentials": set(),
    "private_files": set(),
    "privacy": {*VALUES, "credentials"},
    "keys": {*VALUES, "credentials"},
    "embedders": {*VALUES, "credentials", "private_files"},
    "providers": {*VALUES, "credentials", "keys", "lifecycle"},
    "backends.base": {*VALUES, "embedders"},
    "backends.memory": {*VALUES, "backends.base"},
    "backends.local": {*VALUES, "backends.base", "embedders", "keys", "private_files"},
    "backends": {*VALUES, "backends.base", "backends.local", "backends.memory", "credentials"},
    "telemetry": {*VALUES, "backends.base"},
    "verification": {*VALUES, "backends.base", "embedders", "telemetry"},
    "options": {
        *VALUES, "backends", "backends.base", "config.flags", "embedders", "privacy",
        "verification",
    },
    "config.flags": {"errors"},
    "config": {
        "backends.base", "config.flags", "credentials", "errors", "lazy", "options", "providers",
    },
    "router": {*VALUES, "config.flags", "keys", "lifecycle", "providers", "sansio", "telemetry"},
    "engine": {
        *VALUES, "backends.base", "config.flags", "embedders", "keys", "lifecycle", "privacy",
        "providers", "sansio", "telemetry", "verification",
    },
    "decorator": {*VALUES, "backends.base", "engine", "keys", "telemetry"},
    "inspection": {*VALUES, "backends.base", "embedders", "telemetry", "verification"},
    "assembly": {
        *VALUES, "backends", "backends.base", "config", "config.flags", "embedders", "engine",
        "integrations", "keys", "lifecycle", "options", "privacy", "providers", "router",
        "telemetry", "verification",
    },
    "semantic_cache": {
        *VALUES, "assembly", "backends", "backends.base", "config", "credentials", "decorator",
        "embedders",
        "engine", "inspection", "keys", "lifecycle", "options", "privacy", "router", "telemetry",
        "verification",
    },
    "batch": {*VALUES, "credentials", "keys", "private_files", "providers"},
    "integrations": {"config", "errors", "private_files"},
    "tools": {
        *VALUES, "backends", "backends.base", "embedders", "engine", "keys", "options",
        "providers", "router", "semantic_cache", "telemetry", "verification",
    },
    "cli": {
        *VALUES, "assembly", "backends", "backends.base", "batch", "config", "credentials",
        "embedders",
        "engine", "inspection", "integrations", "keys", "options", "private_files", "router",
        "semantic_cache", "telemetry", "tools", "verification",
    },
    "__init__": {
        *VALUES, "backends", "config.flags", "decorator", "engine", "options", "privacy",
        "semantic_cache",
        "telemetry", "verification",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""Which rooms each room may import; a room may always import itself."""

PURE = (
    "keys/canonical.py", "keys/digests.py", "keys/keys.py", "keys/parse.py", "keys/summary.py",
    "verification/base.py", "verification/calibration.py", "verification/decision.py",
    "verification/features.py", "verification/fixed.py", "verification/guards.py",
    "verification/lexicon.py", "verification/memory.py", "verification/policies.py",
    "verification/prior.py", "verification/state.py", "verification/weights.py",
    "backends/base.py", "backends/eviction.py", "backends/retention.py", "backends/vectors.py",
    "engine/embedding.py", "engine/explain.py", "engine/record.py", "sansio.py",
    "router/rate_limits.py", "router/resilience.py", "router/routing.py",
    "telemetry/intervals.py", "telemetry/stats.py",
)  # fmt: skip
"""Files that decide and do nothing else."""

IMPURE = {"asyncio", "logging", "os", "random", "sqlite3", "subprocess", "threading", "time"}
"""What a pure file may not import: I/O, clock, chance, threads, logging."""


BASE = {"base", "eviction", "kinds", "retention", "vectors"}
"""Modules of `backends` that every backend is written against."""


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, by the parts of its name below `semcache`."""
    if parts[0] == "backends" and len(parts) > 1:
        if parts[1] in BASE:
            return "backends.base"
        if parts[1] in ("local", "memory"):
            return f"backends.{parts[1]}"
    if parts[:2] == ("config", "flags"):
        return "config.flags"
    return parts[0]


def room(path: Path) -> str:
    return room_of(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes that are left over when those without arrows are taken away again and again."""
    left = dict(graph)
    while left:
        free = {name for name, callees in left.items() if not callees & left.keys() - {name}}
        if not free:
            return sorted(left)
        left = {name: callees for name, callees in left.items() if name not in free}
    return []


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    """Every import of ours goes to a room that this one may call."""
    mine = room(path)
    called = {
        room_of(tuple(name.split(".")[1:]))
        for name in imports(path)
        if name.startswith("semcache.")
    }
    assert called - {mine} <= ALLOWED[mine]


def test_there_are_no_circles() -> None:
    """The table itself can be put in an order."""
    assert circle(ALLOWED) == []


def test_every_room_is_in_the_table() -> None:
    """A new room says what it may call, and a room that is gone leaves the table."""
    assert {room(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("name", PURE)
def test_pure_files_do_nothing(name: str) -> None:
    """No clock, no chance, no I/O, no threads, no logging where decisions are made."""
    assert not {module.split(".")[0] for module in imports(PACKAGE / name)} & IMPURE


def test_adapters_know_the_protocols_and_nothing_else_of_ours() -> None:
    """A backend, an embedder and a provider import no engine, no policy and no other adapter."""
    adapters = {"backends.local", "backends.memory", "embedders", "providers"}
    above = {"assembly", "cli", "decorator", "engine", "router", "semantic_cache", "verification"}
    for adapter in adapters:
        assert not ALLOWED[adapter] & above
        # The one exception: a directory embeds its questions again by an embedder it is given.
        others = adapters - {adapter, "embedders" if adapter == "backends.local" else ""}
        assert not ALLOWED[adapter] & others


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_above_the_backends_knows_what_they_are_made_of(path: Path) -> None:
    """No SQLite, no FAISS, no file of theirs is named outside of `backends`."""
    if room(path).startswith("backends"):
        return
    modules = imports(path)
    assert not {name.split(".")[0] for name in modules} & {"faiss", "sqlite_utils"}
    if path != PACKAGE / "integrations" / "webhooks" / "deliveries.py":  # a file of its own
        assert "sqlite3" not in modules
    text = path.read_text()
    for name in ("semcache.db", "semcache.index", "semcache-leases", "data_version"):
        assert name not in text, name


def test_benchmarks_import_each_other_without_circles() -> None:
    """A benchmark can be read without the others that use it."""
    folder = ROOT / "benchmarks"
    names = {path.stem for path in folder.glob("*.py")}
    graph = {
        path.stem: {
            part
            for name in imports(path)
            if name.startswith("benchmarks.") and (part := name.split(".")[1]) in names
        }
        for path in folder.glob("*.py")
    }
    assert circle(graph) == []


def test_long_modules_say_why() -> None:
    """A module over 400 lines gives the reason in its docstring."""
    for path in FILES:
        lines = path.read_text().count("\n")
        if lines > 400:
            head = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "One module" in head, f"{path.relative_to(PACKAGE)} has {lines} lines"
