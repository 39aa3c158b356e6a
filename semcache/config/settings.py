"""Settings from the environment, `.env` and `semcache.toml`.

Where a value comes from, the first that has it:

1. what the program says itself (`Settings(threshold=0.9)`);
2. `SEMCACHE_*` in the environment; two underscores lead inside: `SEMCACHE_FLAGS__CACHING_ENABLED`;
3. the same names in `.env`, in the working directory;
4. `semcache.toml`, in the working directory or where `SEMCACHE_CONFIG` says;
5. for keys alone, their usual names (`OPENAI_API_KEY`, ...) in the environment, then in `.env`;
6. the default.

Nested values are merged: a provider may have its address in the file and its key in the
environment. A provider is there if anything is said of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from semcache.backends.retention import Retention
from semcache.config.flags import DEFAULTS
from semcache.errors import ConfigError
from semcache.options import GROUPS, Matching, Trust, description

PREFIX = "SEMCACHE_"
FILE = "semcache.toml"
DOTENV = ".env"
KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
}
"""The usual names of keys, by provider."""
_NOT_SETTINGS = frozenset({"config", "models"})
"""SEMCACHE_CONFIG and SEMCACHE_MODELS are read elsewhere."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderSettings(_Section):
    """One provider.

    Attributes:
        kind: "openai", "anthropic", "gemini", or an entry point's name; by default its own name.
        model: for requests that name none. models: patterns of models that are its own.
        requests_per_minute, tokens_per_minute: its rate limits; wait: the longest that a call
            waits for its turn (seconds). concurrency: calls at once.
    """

    kind: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    model: str | None = None
    models: tuple[str, ...] = ()
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    version: str | None = None
    price_list: str | None = None
    requests_per_minute: float | None = Field(default=None, ge=1)
    tokens_per_minute: float | None = Field(default=None, ge=1)
    wait: float = Field(default=30.0, ge=0)
    concurrency: int | None = Field(default=None, ge=1)


class RouteSettings(_Section):
    """One rule, see `router.Route`. targets: "provider/model" or "provider/model@weight"."""

    targets: tuple[str, ...] = Field(min_length=1)
    task_type: str | None = None
    model: str | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None


class RetrySettings(_Section):
    """See `router.resilience.Retry`."""

    attempts: int = Field(default=3, ge=1)
    base: float = Field(default=0.5, ge=0)
    cap: float = Field(default=8.0, ge=0)
    patience: float = Field(default=20.0, ge=0)
    budget: float = Field(default=0.2, ge=0)


class BreakerSettings(_Section):
    """See `router.resilience.BreakerRules`."""

    failures: int = Field(default=5, ge=1)
    cooldown: float = Field(default=30.0, ge=0)
    probes: int = Field(default=1, ge=1)


class WebhookSource(_Section):
    """Who may send webhooks, under `/webhook/NAME`.

    Attributes:
        scheme: how deliveries are signed: "standard" (Standard Webhooks, as OpenAI sends),
            "hex" (`X-Signature`) or "github" (`X-Hub-Signature-256`).
        secret: without one every delivery is refused.
    """

    scheme: Literal["standard", "hex", "github"] = "standard"
    secret: SecretStr | None = None

    @field_validator("secret")
    @classmethod
    def _none_if_empty(cls, value: SecretStr | None) -> SecretStr | None:
        """An empty secret, as an unset variable gives it, is none: anybody could sign with it."""
        text = "" if value is None else value.get_secret_value().strip()
        return None if text in ("", "whsec_") else value


class WebhookSettings(_Section):
    """The receiver of webhooks. tolerance: seconds; max_bytes: of one delivery."""

    sources: dict[str, WebhookSource] = Field(default_factory=dict)
    tolerance: float = Field(default=300.0, gt=0, le=300)  # what standardwebhooks lets by
    max_bytes: int = Field(default=1_000_000, ge=1)


def _option(group: type[Any], name: str, **limits: Any) -> Any:
    """A setting that is an option of a cache; its description is the option's."""
    return Field(default=None, description=description(group, name), **limits)


class Settings(BaseSettings):
    """All settings. See the head of the module for where they come from."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        env_file=DOTENV,
        extra="forbid",
        frozen=True,
        toml_file=FILE,
    )

    path: str | None = Field(default=None, description="A directory, or the URL of a backend.")
    max_false_hit_rate: float | None = _option(Trust, "max_false_hit_rate", gt=0, lt=0.5)
    threshold: float | None = _option(Trust, "threshold", gt=0, le=1)
    embedder: str | None = _option(Matching, "embedder")
    ttl: float | None = _option(Retention, "ttl", gt=0)
    sliding: bool | None = _option(Retention, "sliding")
    stale_while_revalidate: float | None = _option(Retention, "stale_while_revalidate", gt=0)
    max_entries: int | None = _option(Retention, "max_entries", ge=1)
    max_bytes: int | None = _option(Retention, "max_bytes", ge=1)
    namespace_max_entries: int | None = _option(Retention, "namespace_max_entries", ge=1)
    namespace_max_bytes: int | None = _option(Retention, "namespace_max_bytes", ge=1)
    eviction: str | None = _option(Retention, "eviction")
    deadline: float | None = Field(default=120.0, gt=0)
    connect_timeout: float = Field(default=10.0, gt=0)
    read_timeout: float = Field(default=60.0, gt=0)
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    routes: tuple[RouteSettings, ...] = ()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    flags: dict[str, bool] = Field(default_factory=dict)
    webhooks: WebhookSettings = WebhookSettings()

    @classmethod
    def cache_options(cls) -> list[str]:
        """The settings that are options of a cache, by the options' own names."""
        options = {name for group in GROUPS.values() for name in group.__dataclass_fields__}
        options -= {"flags"}  # here a table of switches, there the object that reads them
        return [name for name in cls.model_fields if name in options]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - made anew, with names
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not read
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, *(source for _, source in _sources(settings_cls)))


class _Dotenv(DotEnvSettingsSource):
    """`.env` may hold other programs' variables too: only known names are taken."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        return {name: value for name, value in found.items() if name in Settings.model_fields}


class _Keys(PydanticBaseSettingsSource):
    """Keys under their usual names."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, str | None]) -> None:
        super().__init__(settings_cls)
        self.values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - asked by nobody
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {}
        for provider, names in KEYS.items():
            key = next((self.values[name] for name in names if self.values.get(name)), None)
            if key:
                found[provider] = {"api_key": key}
        return {"providers": found} if found else {}


def config_file() -> Path:
    """The file of settings.

    Raises:
        ConfigError: SEMCACHE_CONFIG names one that is not there.
    """
    named = os.environ.get(f"{PREFIX}CONFIG")
    if named and not Path(named).is_file():
        raise ConfigError(f"SEMCACHE_CONFIG is {named!r}, and there is no such file.")
    return Path(named or FILE)


def _sources(cls: type[BaseSettings]) -> list[tuple[str, PydanticBaseSettingsSource]]:
    """(name, source), the first to be asked first."""
    path = config_file()
    try:
        toml = TomlConfigSettingsSource(cls, toml_file=path)
    except ValueError as error:  # the parser's errors are ValueErrors
        raise ConfigError(f"{path} is no valid TOML: {error}") from None
    return [
        ("environment", EnvSettingsSource(cls)),
        (DOTENV, _Dotenv(cls, env_file=DOTENV)),
        (str(path), toml),
        ("environment", _Keys(cls, os.environ)),
        (DOTENV, _Keys(cls, _dotenv())),
    ]


def _dotenv() -> Mapping[str, str | None]:
    from dotenv import dotenv_values

    return dotenv_values(DOTENV) if Path(DOTENV).is_file() else {}


def load(**values: Any) -> Settings:
    """The settings as they are now.

    Args:
        values: said by the program itself.

    Raises:
        ConfigError: a value is wrong or unknown; all that is wrong is said at once.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        found = said(error)
        raise ConfigError("The settings are wrong: " + "; ".join(found), problems=found) from None
    except SettingsError as error:
        raise _unparsed(error) from None


def _unparsed(error: SettingsError) -> ConfigError:
    said = str(error).replace("EnvSettingsSource", "environment").replace("_Dotenv", DOTENV)
    return ConfigError(
        f"The settings are wrong: {said}. Lists and sections in a variable are written as JSON, "
        """such as SEMCACHE_ROUTES='[{"targets": ["local"]}]'."""
    )


def said(error: ValidationError) -> list[str]:
    """What pydantic found wrong, in words that lead to the place. Values are not shown."""
    return [_problem(found["loc"], found["type"], found["msg"]) for found in error.errors()]


def _problem(where: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, where))
    if kind != "extra_forbidden":
        return f"{name}: {message[0].lower()}{message[1:]}"
    known = _fields_at(where[:-1])
    near = get_close_matches(str(where[-1]), known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."
    return f"{name} is no setting; {hint}"


def _fields_at(where: tuple[int | str, ...]) -> list[str]:
    """The fields of the section at a place."""
    sections: dict[str, type[BaseModel]] = {
        "providers": ProviderSettings,
        "routes": RouteSettings,
        "retry": RetrySettings,
        "breaker": BreakerSettings,
        "webhooks": WebhookSource if "sources" in where else WebhookSettings,
    }
    section = sections.get(str(where[0]), Settings) if where else Settings
    return list(section.model_fields)


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting, as it is shown.

    Attributes:
        name: with dots. value: secrets are masked. source: where it comes from.
    """

    name: str
    value: Any
    source: str


def origins(settings: Settings) -> list[Origin]:
    """Every setting, with where its value comes from.

    Raises:
        ConfigError: a source cannot be read.
    """
    try:
        given = [(name, _flat(source())) for name, source in _sources(Settings)]
    except SettingsError as error:
        raise _unparsed(error) from None
    shown = _flat({**settings.model_dump(), "flags": {**DEFAULTS, **settings.flags}})
    found = []
    for name, value in shown.items():
        source = next((where for where, values in given if _says(values, name)), "default")
        found.append(Origin(name, _masked(value), source))
    return found


def unknown_variables() -> list[str]:
    """Problems with `SEMCACHE_*` variables that no setting is called by."""
    known = {*Settings.model_fields, *_NOT_SETTINGS}
    problems = []
    for where, names in (("environment", os.environ), (DOTENV, _dotenv())):
        for name in sorted(names):
            if not name.upper().startswith(PREFIX):
                continue
            field = name[len(PREFIX) :].lower().split("__")[0]
            if field in known:
                continue
            near = get_close_matches(field, known, 1, 0.5)
            hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else "it changes nothing."
            problems.append(f"{name} ({where}) is no setting; {hint}")
    return problems


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names; a list is one value."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat.update(_flat(inner, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _says(values: Mapping[str, Any], name: str) -> bool:
    """Whether a source has said a value: in its own place, or as JSON for all of a section."""
    return any(
        key and (name == key or name.startswith(f"{key}.")) and value not in (None, {})
        for key, value in values.items()
    )


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, str):
        return re.sub(r"//[^/@]*@", "//***@", value)  # a password in an address
    return str(value) if isinstance(value, Path) else value
