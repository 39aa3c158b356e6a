"""A key goes to its provider's own host, or where somebody who is trusted as much has said."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcache import ConfigError
from semcache.config import load

KEY = "sk-proj-Zx81kQp0vT7aLm3RwYc9"
OPENAI, MINE = {"OPENAI_API_KEY": KEY}, {"SEMCACHE_PROVIDERS__MINE__API_KEY": KEY}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "SEMCACHE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def section(name: str, **values: str) -> str:
    return f"[providers.{name}]\n" + "".join(f'{k} = "{v}"\n' for k, v in values.items())


EVIL = "https://evil.example/v1"
REFUSED: dict[str, tuple[dict[str, str], str, str]] = {
    "another host": (OPENAI, section("openai", base_url=EVIL), ""),
    "a host that begins alike": (
        OPENAI, section("openai", base_url="https://api.openai.com.evil.example/v1"), "",
    ),
    "a user called alike": (
        OPENAI, section("openai", base_url="https://api.openai.com@evil.example/v1"), "",
    ),
    "without encryption": (OPENAI, section("openai", base_url="http://api.openai.com/v1"), ""),
    "another kind": (OPENAI, section("openai", kind="openrouter"), ""),
    "an unknown kind": (OPENAI, section("openai", kind="mine"), ""),
    "in .env": (OPENAI, "", f"SEMCACHE_PROVIDERS__OPENAI__BASE_URL={EVIL}\n"),
    "a key of semcache's own name": (MINE, section("mine", kind="openai", base_url=EVIL), ""),
    "anthropic": (
        {"ANTHROPIC_API_KEY": KEY}, section("anthropic", base_url=EVIL), "",
    ),
}  # fmt: skip
SENT: dict[str, tuple[dict[str, str], str, str]] = {
    "no address": (OPENAI, section("openai", model="gpt-5-mini"), ""),
    "its own host": (OPENAI, section("openai", base_url="https://api.openai.com/v1"), ""),
    "its own kind": (OPENAI, section("openai", kind="openai"), ""),
    "the key beside the address": ({}, section("openai", base_url=EVIL, api_key=KEY), ""),
    "the key in .env": ({}, section("openai", base_url=EVIL), f"OPENAI_API_KEY={KEY}\n"),
    "the address in the environment": (
        {**OPENAI, "SEMCACHE_PROVIDERS__OPENAI__BASE_URL": EVIL}, "", "",
    ),
    "the file named in the environment": (
        {**OPENAI, "SEMCACHE_CONFIG": "semcache.toml"}, section("openai", base_url=EVIL), "",
    ),
    "another provider without a key": (
        OPENAI, section("local", kind="openai", base_url="http://127.0.0.1:8080/v1"), "",
    ),
}  # fmt: skip


def prepare(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], toml: str, dotenv: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Path("semcache.toml").write_text(toml)
    Path(".env").write_text(dotenv)


@pytest.mark.parametrize(("environment", "toml", "dotenv"), REFUSED.values(), ids=REFUSED)
def test_a_key_is_not_sent_where_the_directory_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], toml: str, dotenv: str
) -> None:
    """The error says what was refused, why and what to do, and does not hold the key."""
    prepare(monkeypatch, environment, toml, dotenv)
    with pytest.raises(ConfigError, match="working directory") as raised:
        load()
    assert "SEMCACHE_CONFIG" in str(raised.value)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(("environment", "toml", "dotenv"), SENT.values(), ids=SENT)
def test_a_key_is_sent_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], toml: str, dotenv: str
) -> None:
    prepare(monkeypatch, environment, toml, dotenv)
    assert load().providers


def test_the_program_may_send_a_key_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, OPENAI, section("openai", base_url="https://other.example/v1"), "")
    assert load(providers={"openai": {"base_url": EVIL}}).providers["openai"].base_url == EVIL
