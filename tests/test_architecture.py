"""The rooms and the arrows between them, read off the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "semcache"

BASE = {"types", "errors"}
ADAPTERS = ("embedders", "indexes", "providers", "stores", "verifiers")

ALLOWED: dict[str, set[str]] = {
    "errors": {"types"},
    "types": set(),
    "events": {"types"},
    "wire": set(),
    "vectors": {"types"},
    "protocols": {"errors", "types", "wire"},
    "core": {*BASE, "protocols"},
    "embedders": {*BASE, "protocols"},
    "indexes": {*BASE, "protocols", "vectors"},
    "stores": {*BASE, "protocols", "vectors"},
    "providers": {*BASE, "wire"},
    "repository": {*BASE, "protocols", "core", "vectors"},
    "tally": {*BASE, "protocols"},
    "flags": {"errors"},
    "verifiers": {*BASE, "embedders"},
    "judges": {*BASE, "core", "protocols"},
    "learning": {*BASE, "core", "events", "protocols"},
    "cache": {
        *BASE, "protocols", "core", "events", "flags", "learning", "repository", "tally",
    },
    "codec": {*BASE, "providers"},
    "driving": set(),
    "flights": {*BASE, "protocols"},
    "flow": {*BASE, "cache", "core", "driving", "flights", "protocols"},
    "prices": {"types"},
    "router": {
        *BASE, "core", "driving", "events", "flags", "prices", "protocols", "providers", "wire",
    },
    "settings": {"errors", "flags"},
    "registry": {"errors", "providers"},
    "decorator": {*BASE, "cache", "codec", "core", "flights", "flow"},
    "build": {
        *BASE, "protocols", "cache", "core", "flags", "registry", "repository", "router",
        "settings", "webhooks", "judges", "learning", "vectors", *ADAPTERS,
    },
    "maintenance": {*BASE, "protocols", "build", "core", "repository", "vectors", *ADAPTERS},
    "backups": {*BASE, "build", "stores"},
    "transfer": {*BASE, "protocols", "repository", "vectors", *ADAPTERS},
    "semantic_cache": {
        *BASE, "protocols", "events", "build", "cache", "codec", "core", "decorator", "flags",
        "flights", "flow", "router", "settings", "vectors",
    },
    "batch": {*BASE, "core"},
    "webhooks": {"errors", "settings"},
    "logs": {*BASE, "core", "providers"},
    "trial": {*BASE, "core", "logs", "prices", "protocols", "semantic_cache"},
    "tuning": {*BASE, "core", "logs", "protocols"},
    "demo": {*BASE, "cache", "semantic_cache"},
    "cli": {
        *BASE, "backups", "batch", "build", "cache", "core", "demo", "embedders", "logs",
        "maintenance", "prices", "protocols", "router", "semantic_cache", "settings", "stores",
        "transfer", "trial", "tuning", "verifiers", "webhooks",
    },
    "__init__": {*BASE, "cache", "decorator", "events", "flags", "protocols", "semantic_cache"},
    "__main__": {"cli"},
}  # fmt: skip
"""Who may import whom; a room may always import itself."""

PURE = {"asyncio", "logging", "os", "random", "sqlite3", "subprocess", "threading", "time"}
"""What core may not touch: it decides, and does nothing."""


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path: Path) -> None:
    """Every import of ours goes to a room that this one may call."""
    mine = room(path)
    called = {name.split(".")[1] for name in imports(path) if name.startswith("semcache.")}
    assert called - {mine} <= ALLOWED[mine]


def test_there_are_no_circles() -> None:
    """The table itself can be put in an order."""
    left = {name: set(callees) for name, callees in ALLOWED.items()}
    while left:
        free = {name for name, callees in left.items() if not callees & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {name: callees for name, callees in left.items() if name not in free}


def test_every_room_is_in_the_table() -> None:
    """A new room says what it may call."""
    assert {room(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "core"], ids=lambda p: p.stem)
def test_core_is_pure(path: Path) -> None:
    """No clock, no chance, no I/O, no threads, no logging in core."""
    assert not {name.split(".")[0] for name in imports(path)} & PURE


def test_adapters_do_not_know_each_other() -> None:
    """An embedder imports no store, an index no embedder, and so on."""
    for adapter in ADAPTERS:
        # The pair model has the default embedder's word embeddings.
        shared = {"embedders"} if adapter == "verifiers" else set()
        assert not (ALLOWED[adapter] - shared) & set(ADAPTERS)
