"""Settings: where values come from, how problems are reported, and that keys are not shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from semcache.assembly.router import problems, router_of
from semcache.config.settings import load, origins, unknown_variables
from semcache.errors import ConfigError
from semcache.types import Completion
from tests.helpers import hashing_embedder

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in an empty directory, without the settings of this machine."""
    import os

    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if (name.startswith("SEMCACHE_") and name != "SEMCACHE_MODELS") or name.endswith(
            "_API_KEY"
        ):
            monkeypatch.delenv(name)


def source_of(name: str, **values: Any) -> str:
    return next(o.source for o in origins(load(**values)) if o.name == name)


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order: the program, the environment, .env, the file, the default."""
    assert load().threshold is None
    Path("semcache.toml").write_text("threshold = 0.5\nttl = 5\n")
    assert load().threshold == 0.5
    Path(".env").write_text("SEMCACHE_THRESHOLD=0.6\nDATABASE_URL=postgres://elsewhere\n")
    assert load().threshold == 0.6
    assert source_of("threshold") == ".env"
    monkeypatch.setenv("SEMCACHE_THRESHOLD", "0.7")
    assert load().threshold == 0.7
    assert source_of("threshold") == "environment"
    assert load(threshold=0.8).threshold == 0.8
    assert source_of("ttl") == "semcache.toml"
    assert source_of("deadline") == "default"


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("OPENAI_API_KEY", "openai"),
        ("ANTHROPIC_API_KEY", "anthropic"),
        ("OPENROUTER_API_KEY", "openrouter"),
        ("GEMINI_API_KEY", "gemini"),
        ("GOOGLE_API_KEY", "gemini"),
    ],
)
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_keys_have_their_usual_names(
    monkeypatch: pytest.MonkeyPatch, name: str, provider: str, where: str
) -> None:
    """A key is enough to set up a provider, with routes for every kind of task."""
    if where == ".env":
        Path(".env").write_text(f"{name}={KEY}\n")
    else:
        monkeypatch.setenv(name, KEY)
    settings = load()
    key = settings.providers[provider].api_key
    assert key is not None
    assert key.get_secret_value() == KEY
    assert KEY not in repr(settings)
    assert source_of(f"providers.{provider}.api_key") == where
    router = router_of(settings)
    assert router is not None
    assert {route.task_type for route in router.routes} >= {"bulk_processing", "general"}
    assert problems(settings) == []


def test_our_own_name_for_a_key_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEMCACHE_PROVIDERS__OPENAI__API_KEY wins over OPENAI_API_KEY; other values are merged."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual-000000000")
    monkeypatch.setenv("SEMCACHE_PROVIDERS__OPENAI__API_KEY", KEY)
    Path("semcache.toml").write_text('[providers.openai]\nmodel = "gpt-4o"\nconcurrency = 3\n')
    given = load().providers["openai"]
    assert given.api_key is not None
    assert given.api_key.get_secret_value() == KEY
    assert (given.model, given.concurrency) == ("gpt-4o", 3)


def test_nothing_that_is_shown_holds_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """This covers keys, secrets of webhooks, and headers."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Path("semcache.toml").write_text(
        f'[providers.openai]\nheaders = {{ "x-team" = "{KEY}" }}\n'
        f'[webhooks.sources.gh]\nscheme = "github"\nsecret = "{KEY}"\n'
    )
    settings = load()
    shown = repr(settings) + str(origins(settings)) + repr(router_of(settings))
    assert KEY not in shown
    assert any(
        o.name == "webhooks.sources.gh.secret" and o.value == "***" for o in origins(settings)
    )


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("treshold = 0.5", "treshold is not a setting; did you mean 'threshold'"),
        ("threshold = 2", "threshold: input should be less than or equal to 1"),
        ("[retry]\natempts = 1", "retry.atempts is not a setting; did you mean 'attempts'"),
        ("[providers.openai]\napi_kye = 'x'", "did you mean 'api_key'"),
        ("[[routes]]\ntargets = []", "routes.0.targets"),
        ("flags = { caching_enabled = 'perhaps' }", "flags.caching_enabled"),
        ("threshold = ", "semcache.toml is not valid TOML"),
    ],
)
def test_wrong_settings_are_named(toml: str, says: str) -> None:
    """The error names the setting, and for an unknown one the most similar that exists."""
    Path("semcache.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load()
    assert says in str(caught.value)


def test_a_wrong_secret_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error about a section that holds a key does not show it."""
    monkeypatch.setenv("SEMCACHE_PROVIDERS__OPENAI", json.dumps({"api_key": KEY, "wait": -1}))
    with pytest.raises(ConfigError, match="wait") as caught:
        load()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('[providers.openai]\nmodel = "gpt-4o"', "providers.openai: a route leads to it, but it"),
        ('[providers.mine]\nbase_url = "http://localhost"', "no kind of provider 'mine'"),
        ('[providers.antropic]\nmodel = "m"', "Did you mean 'anthropic'"),
        (
            '[providers.openai]\napi_key = "k"\n[[routes]]\ntargets = ["openrouter/x"]',
            "routes[0]: openrouter/x leads to openrouter, which is not set up. Set OPENROUTER",
        ),
        ('[[routes]]\ntargets = ["openai/x"]', "leads to openai, which is not set up"),
        (
            '[providers.mine]\nkind = "openai"\nbase_url = "https://api.example.com/v1"',
            "providers.mine: it has no API key",
        ),
        ('[webhooks.sources.gh]\nscheme = "github"', "webhooks.sources.gh: it has no secret"),
        ('[providers.gemini]\nversion = "1"\napi_key = "k"', "providers.gemini: "),
    ],
)
def test_problems_that_only_show_together(toml: str, says: str) -> None:
    """Examples: a route to a provider without a key, an unknown kind, a missing secret."""
    Path("semcache.toml").write_text(toml)
    assert any(says in problem for problem in problems(load()))


def test_unknown_variables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable has no effect, so it is reported."""
    monkeypatch.setenv("SEMCACHE_TRESHOLD", "0.9")
    monkeypatch.setenv("SEMCACHE_FLAGS__MINE", "true")
    assert unknown_variables() == [
        "SEMCACHE_TRESHOLD (environment) is not a setting; did you mean SEMCACHE_THRESHOLD?"
    ]


def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path is not the current directory."""
    from semcache import SemanticCache

    for name in ("SEMCACHE_PATH", "SEMCACHE_TTL", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")
    assert (load().path, load().ttl, load().providers) == (None, None, {})
    with pytest.raises(ConfigError, match="No cache directory"):
        SemanticCache.from_settings(embedder=hashing_embedder())


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong SEMCACHE_CONFIG is an error, rather than no settings."""
    monkeypatch.setenv("SEMCACHE_CONFIG", "elsewhere.toml")
    with pytest.raises(ConfigError, match="no such file"):
        load()


def test_a_cache_from_settings(tmp_path: Path) -> None:
    """The cache gets a router with the routes, limits and flags of the settings."""
    from semcache import SemanticCache

    Path("semcache.toml").write_text(
        'path = "here"\nthreshold = 0.8\ndeadline = 9\n'
        '[providers.local]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
        "requests_per_minute = 60\ntokens_per_minute = 1000\nconcurrency = 2\n"
        '[[routes]]\ntask_type = "summaries"\ntargets = ["local/big@2", "local"]\n'
        "[flags]\ncaching_enabled = false\nmine = true\n"
    )
    with SemanticCache.from_settings(embedder=hashing_embedder()) as cache:
        assert cache.path == "here"
        assert cache.router is not None
        state = cache.router.state()["local"]
        assert state.places == 2
        assert [limit.unit for limit, _, _ in state.limits] == ["requests", "tokens"]
        assert cache.router.flags.enabled("mine")
        cache.put("hello", Completion("hi"))
        assert cache.get("hello") is None
        with cache.router.flags.override(caching_enabled=True):
            cache.put("hello", Completion("hi"))
            assert str(cache.get("hello")) == "hi"
        assert cache.stats().misses == {"bypassed": 1, "caching_off": 2}


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other packages can add kinds of providers."""
    from importlib.metadata import EntryPoint

    from semcache.config import registry

    points = [
        EntryPoint("mine", "semcache.providers:OpenAICompatible", registry.PROVIDERS),
        EntryPoint("broken", "semcache.no_such:Thing", registry.PROVIDERS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    Path("semcache.toml").write_text('[providers.mine]\nbase_url = "http://localhost"\nmodel = "m"')
    router = router_of(load())
    assert router is not None
    assert list(router.providers) == ["mine"]
    Path("semcache.toml").write_text('[providers.broken]\nmodel = "m"')
    with pytest.raises(ConfigError, match="cannot be loaded"):
        router_of(load())


@pytest.mark.parametrize("name", ["SEMCACHE_ROUTES", "SEMCACHE_PROVIDERS__OPENAI__MODELS"])
@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_variable_that_is_not_json(
    monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    """The error says what is wrong, and how lists are written."""
    if where == ".env":
        Path(".env").write_text(f"{name}=oops\n")
    else:
        monkeypatch.setenv(name, "oops")
    with pytest.raises(ConfigError, match="written as JSON"):
        load()


def test_a_key_alone_does_not_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers that were set up come before one for which there is only a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Path("semcache.toml").write_text(
        '[providers.local]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    )
    router = router_of(load())
    assert router is not None
    assert list(router.providers) == ["local", "openai"]
    assert router.routes[0].targets[0].provider == "local"
