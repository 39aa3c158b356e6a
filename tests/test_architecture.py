"""The rooms and the arrows between them, read off the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "semcache"

VALUES = {"errors", "types"}

ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": {"types"},
    "sansio": set(),
    "keys": VALUES,
    "embedders": VALUES,
    "providers": VALUES,
    "backends": VALUES,
    "backends.local": {*VALUES, "backends", "embedders", "keys"},
    "telemetry": {*VALUES, "backends.local"},
    "config": {"errors", "providers"},
    "verification": {*VALUES, "backends", "embedders", "telemetry"},
    "router": {*VALUES, "config", "keys", "providers", "sansio", "telemetry"},
    "engine": {
        *VALUES, "backends", "backends.local", "config", "keys", "providers", "sansio",
        "telemetry", "verification",
    },
    "decorator": {*VALUES, "backends", "engine", "keys"},
    "assembly": {
        *VALUES, "backends", "backends.local", "config", "embedders", "engine", "integrations",
        "keys", "providers", "router", "verification",
    },
    "semantic_cache": {
        *VALUES, "assembly", "backends", "backends.local", "config", "decorator", "embedders",
        "engine", "keys", "router", "telemetry", "verification",
    },
    "batch": {*VALUES, "keys"},
    "integrations": {"errors", "config"},
    "tools": {
        *VALUES, "backends", "backends.local", "embedders", "engine", "keys", "providers",
        "router", "semantic_cache", "telemetry", "verification",
    },
    "cli": {
        *VALUES, "assembly", "backends", "backends.local", "batch", "config", "embedders",
        "engine", "integrations", "keys", "router", "semantic_cache", "tools", "verification",
    },
    "__init__": {*VALUES, "config", "decorator", "engine", "semantic_cache", "telemetry",
                 "verification"},
    "__main__": {"cli"},
}  # fmt: skip
"""Which rooms each room may import; a room may always import itself."""

PURE = (
    "keys/canonical.py", "keys/digests.py", "keys/keys.py", "keys/parse.py", "keys/summary.py",
    "verification/calibration.py", "verification/decision.py", "verification/features.py",
    "verification/guards.py", "verification/lexicon.py", "verification/policies.py",
    "verification/prior.py", "verification/weights.py",
    "backends/retention.py",
    "router/rate_limits.py", "router/resilience.py", "router/routing.py",
    "telemetry/intervals.py",
)  # fmt: skip
"""Files that decide and do nothing else."""

IMPURE = {"asyncio", "logging", "os", "random", "sqlite3", "subprocess", "threading", "time"}
"""What a pure file may not import: I/O, clock, chance, threads, logging."""


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, by the parts of its name below `semcache`."""
    if parts[:2] == ("backends", "local"):
        return "backends.local"
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
    adapters = {"backends.local", "embedders", "providers"}
    above = {"assembly", "cli", "decorator", "engine", "router", "semantic_cache", "verification"}
    for adapter in adapters:
        assert not ALLOWED[adapter] & above
    assert not ALLOWED["embedders"] & {"backends", "backends.local", "providers"}
    assert not ALLOWED["providers"] & {"backends", "backends.local", "embedders"}
