"""The commands ask, providers, config, batch and webhooks, run as a user would."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults import FaultServer, ok, status

KEY = "sk-test-0123456789abcdef"

SECRET = "s3cret-s3cret-s3cret"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    started = FaultServer()
    yield started
    started.close()


class Shell:
    """Runs semcache in a directory, without the settings of this machine."""

    def __init__(self, path: Path, toml: str) -> None:
        self.path = path
        (path / "semcache.toml").write_text(toml)
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.endswith("_API_KEY")
            and (not k.startswith("SEMCACHE_") or k == "SEMCACHE_MODELS")
        }
        self.environ = {**kept, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
        self.environ["XDG_CACHE_HOME"] = str(path / "caches")

    def __call__(
        self, *args: str, given: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "semcache", *args],
            cwd=self.path,
            env={**self.environ, **environ},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def local(url: str) -> str:
    return f'path = "cache"\n[providers.local]\nkind = "openai"\nbase_url = "{url}"\nmodel = "m"\n'


@pytest.fixture
def shell(tmp_path: Path, server: FaultServer) -> Shell:
    return Shell(tmp_path, local(server.case("up", [ok])))


def test_ask(shell: Shell, server: FaultServer, embedder: object) -> None:
    """The answer goes to standard output and its origin to standard error; repeats are served."""
    first = shell("ask", "How are you?")
    assert (first.returncode, first.stdout) == (0, "Fine.\n")
    assert "from the model · local/gpt-4o-mini · 10 + 5 tokens" in first.stderr
    again = shell("ask", "-", given="How are you?")
    assert again.stdout == "Fine.\n"
    assert "from the cache (exact)" in again.stderr
    streamed = shell("ask", "How are you?", "--stream")
    assert streamed.stdout == "Fine.\n"
    assert len(server.seen["up"]) == 1
    report = json.loads(shell("ask", "How are you?", "--json").stdout)
    assert (report["text"], report["served_from"]) == ("Fine.", "exact")
    shell("ask", "How are you?", "--no-cache", "--stream")
    assert len(server.seen["up"]) == 2


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[routes]\ntargets = 1", "write [[routes]], in two brackets"),
        ('[providers]\nopenai = "k"', "write a section [providers.openai]"),
        ('[[routes]]\ntargets = ["openai/x"]', "leads to openai, which is not set up"),
        ("max_false_hit_rate = 0.1\nthreshold = 0.9", "Give only one of"),
        ('eviction = "random"', "eviction is 'random'"),
    ],
)
def test_config_check_finds_what_would_fail_later(tmp_path: Path, toml: str, says: str) -> None:
    """With what to write instead."""
    checked = Shell(tmp_path, toml)("config", "check")
    assert checked.returncode == 3
    assert says in checked.stdout


def test_config_shows_what_holds_also_by_default(tmp_path: Path) -> None:
    """The bound, the threshold, the lifetime, the quotas and the routes, each with its source."""
    shown = Shell(tmp_path, '[[routes]]\ntargets = ["openai/x"]\ntask_type = "general"')("config")
    assert re.search(r"max_false_hit_rate +0\.05 +default", shown.stdout)
    assert re.search(r"threshold +not used: max_false_hit_rate decides", shown.stdout)
    assert re.search(r"ttl +none +default", shown.stdout)
    assert re.search(r"eviction +least-recently-used +default", shown.stdout)
    assert re.search(r"routes\[0\] +openai/x \(task_type general\) +semcache.toml", shown.stdout)


def test_ask_says_what_is_missing(tmp_path: Path, server: FaultServer) -> None:
    """Errors name a missing provider, a wrong task type, and a rejection; a cache has a default."""
    empty = Shell(tmp_path, "")
    found = empty("ask", "hello")
    assert found.returncode == 1
    assert "No provider is set up" in found.stderr
    assert "OPENAI_API_KEY" in found.stderr
    no_path = Shell(tmp_path, local(server.case("up", [ok])).split("\n", 1)[1])
    asked = no_path("ask", "hello")
    assert f"cache: {tmp_path / 'caches' / 'semcache'} (for another" in asked.stderr
    assert "from the cache (exact)" in no_path("ask", "hello").stderr
    assert "1 exact" in no_path("stats").stdout  # it looks where `ask` has written
    wrong = Shell(tmp_path, local(server.case("no", [status(400, "too hot")])))
    assert "too hot" in wrong("ask", "hello", "--no-cache").stderr
    typo = wrong("ask", "hello", "--no-cache", "--task-type", "bulk_procesing")
    assert "Did you mean 'bulk_processing'" in typo.stderr
    assert "Traceback" not in found.stderr + typo.stderr


def test_providers(shell: Shell) -> None:
    """Shows models, prices, limits and routes, and whether there is a key, but not the key."""
    shown = shell("providers", OPENAI_API_KEY=KEY)
    assert shown.returncode == 0, shown.stderr
    for word in ("openai", "local", "gpt-5-mini", "0.25", "closed", "bulk_processing"):
        assert word in shown.stdout
    assert KEY not in shown.stdout
    report = json.loads(shell("providers", "--json", OPENAI_API_KEY=KEY).stdout)
    assert [p["provider"] for p in report["providers"]] == ["local", "openai"]
    assert report["providers"][0]["usd_per_million_tokens"] is None


def test_config(shell: Shell) -> None:
    """show prints values and their sources, masked; check prints problems, with exit code 3."""
    shown = shell("config", "show", OPENAI_API_KEY=KEY, SEMCACHE_THRESHOLD="0.9")
    assert shown.returncode == 0
    assert "***" in shown.stdout
    assert KEY not in shown.stdout
    report = json.loads(shell("config", "show", "--json", SEMCACHE_THRESHOLD="0.9").stdout)
    assert report["threshold"] == {"value": 0.9, "source": "environment"}
    assert report["path"]["source"] == "semcache.toml"
    assert report["flags.caching_enabled"] == {"value": True, "source": "default"}
    assert shell("config", "check").stdout == "the settings are valid\n"
    wrong = shell("config", "check", SEMCACHE_TRESHOLD="0.9", ANTHROPIC_API_KEY="  ")
    assert wrong.returncode == 3
    assert "did you mean SEMCACHE_THRESHOLD" in wrong.stdout
    bad = shell("config", "check", SEMCACHE_THRESHOLD="7")
    assert bad.returncode == 3
    assert "threshold" in bad.stdout
    assert shell("config", "show", SEMCACHE_THRESHOLD="7").returncode == 1


def test_batch(shell: Shell, server: FaultServer, embedder: object) -> None:
    """Writes answers and failures, with a summary; existing output is not overwritten."""
    rows = ['{"prompt": "How are you?"}', '{"prompt": "How are you?"}', "nonsense"]
    (shell.path / "in.jsonl").write_text("\n".join(rows) + "\n")
    done = shell("batch", "in.jsonl", "out.jsonl")
    assert done.returncode == 3, done.stderr
    assert "3 lines in" in done.stdout
    assert "1 from the cache, 1 failed" in done.stdout
    assert "out.jsonl.failures.jsonl" in done.stdout
    assert len((shell.path / "out.jsonl").read_text().splitlines()) == 2
    assert len(server.seen["up"]) == 1
    again = shell("batch", "in.jsonl", "out.jsonl")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    report = json.loads(shell("batch", "in.jsonl", "out.jsonl", "--resume", "--json").stdout)
    assert (report["done"], report["before"]) == (0, 3)


def test_webhooks_serve(shell: Shell, server: FaultServer) -> None:
    """The server refuses deliveries that are not signed."""
    unset = shell("webhooks", "serve")
    assert unset.returncode == 1
    assert "No source of webhooks is set up" in unset.stderr
    toml = (shell.path / "semcache.toml").read_text()
    (shell.path / "semcache.toml").write_text(toml + '[webhooks.sources.own]\nscheme = "hex"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "semcache", "webhooks", "serve", "--port", str(port)],
        cwd=shell.path,
        env={**shell.environ, "SEMCACHE_WEBHOOKS__SOURCES__OWN__SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}/webhook/own"
        end = time.monotonic() + 60
        while True:
            try:
                reply = httpx.post(url, json={})
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
        assert reply.status_code == 401
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert "refused" in out
