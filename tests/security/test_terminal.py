"""What others have written is shown by a terminal, not obeyed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from semcache import SemanticCache
from semcache.cli.app import application
from semcache.cli.terminal import json_text, visible
from semcache.telemetry.counters import Labelled

EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\x00e\u202ef\u2066g[bold]h[/nonsense]"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with SemanticCache(tmp_path / "cache") as cache:
        for number in range(3):
            cache.put(f"{EVIL} question {number}", f"{EVIL} answer", tags=["t"])
        for _ in range(3):
            cache.lookup(f"{EVIL} question 0 please")
        counters = cache.telemetry.counters if hasattr(cache, "telemetry") else None
        if counters is not None:
            counters.increment_labelled(Labelled.NOT_STORED, EVIL)
    Path("log.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{EVIL} {n % 2}", "answer": EVIL}) + "\n" for n in range(6))
    )
    return tmp_path / "cache"


COMMANDS: dict[str, list[str]] = {
    "list": ["list"],
    "list --json": ["list", "--json"],
    "show": ["show", "1"],
    "show --json": ["show", "1", "--json"],
    "show what is missing": ["show", "9"],
    "search": ["search", f"{EVIL} question"],
    "search --json": ["search", f"{EVIL} question", "--json"],
    "explain": ["explain", f"{EVIL} question 0"],
    "explain a paraphrase": ["explain", f"{EVIL} question 0 again"],
    "explain --json": ["explain", f"{EVIL} question 0", "--json"],
    "stats": ["stats"],
    "stats --json": ["stats", "--json"],
    "export": ["export", "-"],
    "a namespace that is refused": ["list", "-n", f"{EVIL} "],
    "a file that is missing": ["import", EVIL.replace("\x00", "").replace("/", "")],
    "replay": ["replay", "log.jsonl"],
    "review": ["review", "--json"],
    "check": ["check"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(place: Path, command: list[str]) -> None:
    """On either stream, in tables, in JSON and in errors."""
    extra = [] if command[0] == "replay" else ["--cache", str(place)]
    result = CliRunner().invoke(application(command[:1]), [*command, *extra])
    output = result.output + visible(str(result.exception or ""))
    assert not OBEYED.search(output), repr(output)
    assert output
    if "--json" in command and result.exit_code == 0 and result.stdout.startswith(("[", "{")):
        json.loads(result.stdout)


@given(st.text())
def test_json_means_the_same(text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert json.loads(json_text({encoded: encoded})) == {encoded: encoded}
    assert not OBEYED.search(json_text(encoded))


@given(st.text())
def test_visible_text_is_not_obeyed(text: str) -> None:
    shown = visible(text)
    assert not OBEYED.search(shown)
    assert visible(shown) == shown
    if text.isprintable() and text.isascii():
        assert shown == text


def test_a_providers_name_may_look_like_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tables of settings and providers."""
    monkeypatch.chdir(tmp_path)
    Path("semcache.toml").write_text(
        '[providers."[red]"]\nkind = "openai"\nmodel = "[/x]"\nbase_url = "http://127.0.0.1:1/v1"\n'
    )
    for command in (["config", "show"], ["providers"], ["config", "check"]):
        result = CliRunner().invoke(application(command[:1]), command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert command[-1] == "check" or "[red]" in result.output
