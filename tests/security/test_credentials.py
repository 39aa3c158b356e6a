"""Credentials are nowhere shown, and nowhere stored in plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from semcache import ConfigError, EmbedderError, SemanticCache
from semcache.batch.lines import failure_line
from semcache.cli.app import application
from semcache.config.settings import _masked
from semcache.credentials import HIDDEN, masked, masked_text
from semcache.embedders import RemoteEmbedder

KEY = "sk-proj-Zx81kQp0vT7aLm3RwYc9"
CREDENTIALS: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": KEY},
    "any value by that name": {"api_key": "hunter2"},
    "password": {"password": "hunter2"},
    "camel case": {"clientSecret": "hunter2"},
    "headers": {"extra_headers": {"X-Customer": "hunter2"}},
    "nested": {"options": {"auth": {"token": "hunter2"}}},
    "in a list": {"tokens_of_users": [KEY]},
    "an address": {"proxy": "https://user:hunter2@example.org/x"},
    "an address whose password holds an @": {"proxy": "https://user:hun@hunter2@example.org/x"},
    "by its form": {"note": f"use {KEY} please"},
    "a web token": {"note": "eyJhbGciOi.eyJzdWIi.hunter2"},
    "random": {"opaque": "hunter2Zx81kQp0vT7aLm3RwYc9"},
}
HARMLESS: dict[str, Any] = {
    "temperature": 0.2,
    "max_tokens": 500,
    "max_completion_tokens": 500,
    "stop": ["\n\n"],
    "seed": 7,
    "model_path": "meta-llama/Llama-3.3-70B-Instruct",
    "language": "de",
    "menu": "Soup, fish and a dessert of the day",
    "date": "2026-11-29T10:00:00+01:00",
    "keyboard": "qwerty",
    "compass": "north",
    "logit_bias": {"50256": -100},
}


def secrets_in(text: str) -> bool:
    return "hunter2" in text or KEY in text


@pytest.mark.parametrize("params", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_credential_is_masked(params: dict[str, Any]) -> None:
    assert not secrets_in(json.dumps(masked(params)))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_none_stays(name: str) -> None:
    assert masked({name: HARMLESS[name]}) == {name: HARMLESS[name]}


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_masking_keeps_the_shape(value: Any) -> None:
    """Any JSON; masking it again changes nothing."""
    once = masked(value)
    assert masked(once) == once
    assert type(once) is type(value)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_masking_is_quick(size: int) -> None:
    """Texts of any form; a quadratic search would take hours."""
    for text in ("a" * size, "sk-" * size, "://" * size, "Bearer " * size, "a1-" * size):
        masked_text(text)
        masked({text: text})
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    masked(deep)


@pytest.mark.parametrize("params", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_credential_is_not_in_the_files_or_shown(tmp_path: Path, params: dict[str, Any]) -> None:
    """Not in the database, an export, `show`, `list`, `explain`, or a lookup's repr."""
    place = tmp_path / "cache"
    with SemanticCache(place) as cache:
        cache.put("question", "answer", params=params)

        @cache.cached
        def ask(prompt: str, **options: Any) -> str:
            return "answer"

        ask("question", **params)
        ask("other", **params)
        found = cache.lookup("question", params=params)
        assert found.tier == "exact"
        assert not secrets_in(repr(found))
        assert not secrets_in(repr(ask.lookup("question", **params)))
        assert not secrets_in(repr(cache.explain("question", params=params)))
    given = [f"--param={name}={json.dumps(value)}" for name, value in params.items()]
    commands = [
        ["show", "1"], ["list"], ["list", "--json"], ["show", "2", "--json"],
        ["explain", "question", *given], ["explain", "question", "--json", *given],
        ["explain", "something", "--json"], ["export", str(tmp_path / "export")],
    ]  # fmt: skip
    for command in commands:
        result = CliRunner().invoke(application(command[:1]), [*command, "--cache", str(place)])
        assert result.exit_code in (0, 1), result.output
        assert not secrets_in(result.output + str(result.exception)), command
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"hunter2" not in content, path
            assert KEY.encode() not in content, path


def test_a_failed_line_of_a_batch_is_masked() -> None:
    line = json.dumps({"prompt": "q", "params": {"api_key": "hunter2"}}).encode()
    assert not secrets_in(failure_line(1, line, ValueError("x")).decode())
    assert not secrets_in(failure_line(1, b"{" + KEY.encode(), ValueError("x")).decode())


def test_an_embedders_error_does_not_repeat_the_key() -> None:
    """A server may: "Incorrect API key provided: ..."."""

    def reply(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, text=f"wrong key: {request.headers['authorization']}")

    embedder = RemoteEmbedder(
        "m",
        base_url="https://user:hunter2@example.org/v1",
        dimension=3,
        api_key=KEY,
        client=httpx.Client(transport=httpx.MockTransport(reply)),
    )
    with pytest.raises(EmbedderError) as raised:
        embedder.embed(["x"])
    assert not secrets_in(str(raised.value) + repr(raised.value.__context__))
    assert not secrets_in(repr(embedder))


@pytest.mark.parametrize(
    "address", ["https://u:hunter2@h/x", "https://u:hun@hunter2@h/x", "redis://:hunter2@h:6379/0"]
)
def test_no_part_of_a_password_in_an_address_is_shown(address: str) -> None:
    assert not secrets_in(str(_masked(address)))
    assert HIDDEN in masked_text(address)


def test_reprs_hold_no_parameters(cache: SemanticCache) -> None:
    found = cache.lookup("q", params={"api_key": "hunter2"})
    assert not secrets_in(repr(found.query) + repr(found.query.request) + repr(found.query.scope))


def test_no_part_of_a_password_in_a_location_is_shown() -> None:
    """Of a backend's URL, by the error and by the repr alike."""
    with pytest.raises(ConfigError) as raised:
        SemanticCache("redis://user:hun@hunter2@host")
    assert not secrets_in(str(raised.value))
