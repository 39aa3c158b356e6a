"""Random input on every way in: prompts, imports, rows, settings, webhooks. No traceback, no hang.

Each test draws a few dozen examples, always the same ones. With `SEMCACHE_FUZZ_SECONDS=600`, each
goes on for that long with new ones.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from semcache import ConfigError, RequestError, SemanticCache
from semcache.config import load
from semcache.errors import SemcacheError
from semcache.integrations.webhooks import webhook_app
from tests.helpers import open_cache
from tests.security.test_planted import run
from tests.security.test_webhooks import SECRET, SETTINGS

SECONDS = float(os.environ.get("SEMCACHE_FUZZ_SECONDS", "0"))

pytestmark = pytest.mark.timeout(max(120.0, 3 * SECONDS))

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=not SECONDS,
    suppress_health_check=CHECKS,
    phases=(Phase.generate, Phase.shrink) if not SECONDS else (Phase.generate,),
)

NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 10**400, 1e308])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=30) | st.binary(max_size=8).map(repr),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def fuzzed(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[[Any, Any], None]], Any]:
    """Run a test of (fixture, example) for one batch of examples, or for `SECONDS`."""

    def decorate(test: Callable[[Any, Any], None]) -> Any:
        def repeated(target: Any) -> None:
            until = time.monotonic() + SECONDS
            while True:

                @FEW
                @given(strategy)
                def one(example: Any) -> None:
                    test(target, example)

                one()
                if time.monotonic() >= until:
                    return

        repeated.__doc__ = test.__doc__
        return repeated

    return decorate


def changed(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """A JSON value with one part of it replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    names = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    name = names[path[0] % len(names)]
    result = copy.copy(value)
    result[name] = changed(value[name], path[1:], new)
    return result


MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(["role", "content", "name", "tool_calls", "type", "parts", "tool_call_id"]),
        VALUES | st.sampled_from(["user", "system", "tool", "assistant"]),
    ),
    max_size=4,
)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "messages": MESSAGES | VALUES, "system": VALUES, "model": VALUES, "namespace": VALUES,
        "params": VALUES, "tools": VALUES, "response_format": VALUES, "tags": VALUES,
        "task_type": VALUES, "ignore": VALUES, "context": VALUES,
    },
)  # fmt: skip


def prompts(cache: Any, example: Any) -> None:
    """A request is taken or refused with an error that says why; what is stored is found again."""
    prompt, call = example
    try:
        lookup = cache.lookup(prompt, **call)
    except (RequestError, ConfigError):
        return
    assert lookup.decision is not None
    if cache.record(lookup, "answer") is not None:
        assert cache.get(prompt, **call) == "answer" or cache.get(prompt, **call) is not None


def test_prompts() -> None:
    with open_cache(":memory:", hooks=()) as cache:
        fuzzed(st.tuples(st.none() | st.text() | VALUES, CALLS))(prompts)(cache)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A cache, and the lines of its export."""
    folder = tmp_path_factory.mktemp("fuzz")
    with SemanticCache(folder / "cache", hooks=()) as cache:
        for number in range(3):
            cache.put(f"How do I pay bill {number}?", "By card.", namespace="shop", tags=["t"])
        hit = cache.lookup("How can I pay bill 1?", namespace="shop")
        cache.feedback(hit, correct=True)
    assert run("export", str(folder / "export"), "--cache", str(folder / "cache"))[0] == 0
    return folder, [json.loads(line) for line in (folder / "export").read_text().splitlines()]


PATHS = st.tuples(*[st.integers(0, 20)] * 3).map(lambda p: p[: 1 + p[0] % 3])
LINES = st.lists(
    st.tuples(st.integers(1, 3), PATHS, VALUES)
    | st.text(max_size=60)
    | st.binary(max_size=20).map(lambda b: base64.b64encode(b).decode()),
    min_size=1,
    max_size=3,
)


def imports(target: tuple[Path, list[Any]], example: list[Any]) -> None:
    """An export with changed lines is imported or refused, and the cache is sound afterwards."""
    folder, lines = target
    written = [lines[0], *(
        changed(lines[one[0]], one[1], one[2]) if isinstance(one, tuple) else one
        for one in example
    )]  # fmt: skip
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in written)
    (folder / "bad").write_text(text, encoding="utf-8", errors="surrogatepass")
    for options in ((), ("--skip-bad-lines",), ("--trust",)):
        run("import", str(folder / "bad"), "--cache", str(folder / "cache"), *options)
    assert run("list", "--json", "--cache", str(folder / "cache"))[0] == 0


def test_imports(filled: tuple[Path, list[Any]]) -> None:
    fuzzed(LINES)(imports)(filled)


COLUMNS = {
    "entries": ("exact_key", "scope", "namespace", "model", "question", "summary", "text", "extra",
                "prompt_tokens", "cost_usd", "created_at", "expires_at", "hits", "stale_at"),
    "embeddings": ("scope", "vector"), "tags": ("tag",), "counters": ("name", "value"),
    "meta": ("name", "value"), "serves": ("question", "similarity", "features", "verdict"),
    "observations": ("kind", "namespace", "entry_id", "right", "expected", "features"),
}  # fmt: skip
CELLS = st.tuples(
    st.sampled_from([(table, column) for table, names in COLUMNS.items() for column in names]),
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(max_size=40)
    | VALUES.map(lambda value: json.dumps(value, default=repr)),
)  # fmt: skip


def rows(target: tuple[Path, list[Any]], example: Any) -> None:
    """A damaged cell is a miss for the caller, and an error in words for the command line."""
    folder, _ = target
    (table, column), value = example
    place = folder / "damaged"
    with SemanticCache(folder / "cache", hooks=()) as cache:
        cache.flush()
    for file in place.glob("**/*"):
        if file.is_file():
            file.unlink()
    place.mkdir(exist_ok=True)
    with (
        closing(sqlite3.connect(folder / "cache" / "semcache.db")) as source,
        closing(sqlite3.connect(place / "semcache.db")) as copied,
    ):
        source.backup(copied)
        try:
            copied.execute(f"UPDATE {table} SET {column} = ?", (value,))
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            return
        copied.commit()
    try:
        with SemanticCache(place, hooks=()) as cache:
            ask = cache.cached(lambda question: "asked", name="ask")
            assert isinstance(ask("How do I pay bill 1?"), str)
            found = cache.get("How can I pay bill 2?", namespace="shop")
            assert found is None or isinstance(found.text, str)
    except SemcacheError:
        pass  # in words, such as "the cache was made with another embedder"
    for command in ("list", "stats", "check", "show"):
        run(command, *(["1"] if command == "show" else []), "--cache", str(place))


def test_rows(filled: tuple[Path, list[Any]]) -> None:
    fuzzed(CELLS)(rows)(filled)


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fuzzed(TOML)(toml)(tmp_path)


NAMES = st.sampled_from(
    ["path", "threshold", "max_false_hit_rate", "providers", "routes", "webhooks", "ttl", "prices",
     "default_provider", "embedder", "namespaces", "budget", "x", "[[routes]]",
     "[providers.openai]", "[webhooks]"]
)  # fmt: skip
TOML = st.lists(st.tuples(NAMES, VALUES) | st.text(max_size=30), max_size=5)


def toml(folder: Path, example: list[Any]) -> None:
    """Settings are read or refused with a `ConfigError`, whatever the file holds."""
    lines = []
    for one in example:
        if isinstance(one, str):
            lines.append(one)
        elif one[0].startswith("["):
            lines += [one[0], f"a = {json.dumps(one[1], default=repr)}"]
        else:
            lines.append(f"{one[0]} = {json.dumps(one[1], default=repr)}")
    (folder / "semcache.toml").write_text("\n".join(lines), "utf-8", errors="surrogatepass")
    with suppress(ConfigError):
        load()


DELIVERIES = st.tuples(
    st.sampled_from(["any", "shop", "nobody", "%2e%2e", ""]),
    st.binary(max_size=60)
    | VALUES.map(lambda value: json.dumps(value, default=repr).encode())
    | st.tuples(st.sampled_from(["cache.invalidate", "x"]), VALUES).map(
        lambda pair: json.dumps({"type": pair[0], "data": pair[1]}, default=repr).encode()
    ),
    st.booleans(),
    st.dictionaries(
        st.sampled_from(["x-signature", "content-type", "webhook-id", "content-encoding"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    ),
)


def deliveries(client: TestClient, example: Any) -> None:
    """Answered with a status that is no server error; without a signature, refused."""
    source, body, signs, headers = example
    if signs:
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {**headers, "x-signature": signature}
    reply = client.post(f"/webhook/{source}", content=body, headers=headers)
    assert reply.status_code < 500
    assert signs or reply.status_code >= 400


def test_webhooks() -> None:
    with (
        open_cache(":memory:", hooks=()) as cache,
        TestClient(webhook_app(cache, SETTINGS)) as client,
    ):
        fuzzed(DELIVERIES)(deliveries)(client)
