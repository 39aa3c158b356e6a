"""Settings from the environment, `.env` and `semcache.toml`.

The value of a setting comes from the first of these that has it:

1. the program itself (`Settings(threshold=0.9)`);
2. `SEMCACHE_*` in the environment, with two underscores between the names of nested settings:
   `SEMCACHE_FLAGS__CACHING_ENABLED`;
3. the same names in `.env`, in the working directory;
4. `semcache.toml`, in the working directory, or the file that `SEMCACHE_CONFIG` names;
5. for API keys only, their usual names (`OPENAI_API_KEY`, ...) in the environment, then in `.env`;
6. the default.

Nested values are merged. A provider exists if any of its settings is given. A key from the
environment is not sent to an address from the working directory; see `key_destinations`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationError
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
from semcache.config.key_destinations import DIRECTORY, ENVIRONMENT, PROGRAM, diverted_keys
from semcache.config.sections import (
    BreakerSettings,
    ProviderSettings,
    RetrySettings,
    RouteSettings,
    WebhookSettings,
    WebhookSource,
)
from semcache.credentials import without_password
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
"""The usual names of the variables that hold API keys, by provider."""
_NOT_SETTINGS = frozenset({"config", "models"})
"""SEMCACHE_CONFIG and SEMCACHE_MODELS are not settings; they are read elsewhere."""


def _option(group: type[Any], name: str, **limits: Any) -> Any:
    """A setting that is an option of a cache, with the option's description."""
    return Field(default=None, description=description(group, name), **limits)


class Settings(BaseSettings):
    """All settings. The module's docstring says where they come from."""

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
    deadline: float | None = Field(
        default=120.0,
        gt=0,
        description="The most seconds that a call may take, with waits, retries and streaming.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, description="Seconds to wait for a connection."
    )
    read_timeout: float = Field(
        default=60.0,
        gt=0,
        description="Seconds to wait for the first piece of an answer, and between two pieces.",
    )
    providers: dict[str, ProviderSettings] = Field(
        default_factory=dict,
        description="The providers, by name. A provider exists if anything is set for it.",
    )
    routes: tuple[RouteSettings, ...] = Field(
        default=(),
        description="Where requests are sent; the first matching route applies.",
    )
    retry: RetrySettings = Field(
        default=RetrySettings(),
        description="How often a provider is retried, and after what pauses.",
    )
    breaker: BreakerSettings = Field(
        default=BreakerSettings(),
        description="When calls to a provider that keeps failing are paused.",
    )
    flags: dict[str, bool] = Field(
        default_factory=dict,
        description="Feature flags by name: caching_enabled, semantic_enabled, "
        "streaming_enabled, use_deepseek_for_bulk, and any of your own.",
    )
    webhooks: WebhookSettings = Field(
        default=WebhookSettings(), description="The receiver of webhooks."
    )

    @classmethod
    def cache_options(cls) -> list[str]:
        """The names of the settings that are options of a cache."""
        options = {name for group in GROUPS.values() for name in group.__dataclass_fields__}
        options -= {"flags"}  # the setting holds values, the option an object that reads them
        return [name for name in cls.model_fields if name in options]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - `_sources` creates its own
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, *(source for _, source in _sources(settings_cls)))


class _Dotenv(DotEnvSettingsSource):
    """Reads known names only, since `.env` may hold the variables of other programs too."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        return {name: value for name, value in values.items() if name in Settings.model_fields}


class _Keys(PydanticBaseSettingsSource):
    """API keys under their usual names."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, str | None]) -> None:
        super().__init__(settings_cls)
        self.values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - abstract in the base class, but never called
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        providers = {}
        for provider, names in KEYS.items():
            key = next((self.values[name] for name in names if self.values.get(name)), None)
            if key:
                providers[provider] = {"api_key": key}
        return {"providers": providers} if providers else {}


def config_file() -> Path:
    """The path of the settings file, which need not exist.

    Raises:
        ConfigError: SEMCACHE_CONFIG names a file that does not exist.
    """
    configured = os.environ.get(f"{PREFIX}CONFIG")
    if configured and not Path(configured).is_file():
        raise ConfigError(f"SEMCACHE_CONFIG is {configured!r}, but there is no such file.")
    return Path(configured or FILE)


def _sources(cls: type[BaseSettings]) -> list[tuple[str, PydanticBaseSettingsSource]]:
    """(name, source) of each source, in order of precedence."""
    path = config_file()
    try:
        toml = TomlConfigSettingsSource(cls, toml_file=path)
    except ValueError as error:  # the base class of the parser's errors
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
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
    """Read the settings as they are now.

    Args:
        values: settings given by the program itself; they take precedence.

    Raises:
        ConfigError: a value is wrong or a setting unknown, or a key would be sent to an address
            that is trusted less than the key; the error lists all problems.
    """
    try:
        settings = Settings(**values)
        if problems := diverted_keys(_by_trust(values)):
            raise ConfigError(" ".join(problems), problems=problems)
        return settings
    except ValidationError as error:
        problems = said(error)
        message = "The settings are wrong: " + "; ".join(problems)
        raise ConfigError(message, problems=problems) from None
    except SettingsError as error:
        raise _unparsed(error) from None


def _by_trust(values: Mapping[str, Any]) -> list[tuple[str, int, dict[str, Any]]]:
    """(name, trust, values) of each source, those of the program first."""
    trusted = {"environment"}
    if os.environ.get(f"{PREFIX}CONFIG"):
        trusted.add(str(config_file()))
    return [
        ("program", PROGRAM, _flat(_plain(values))),
        *(
            (name, ENVIRONMENT if name in trusted else DIRECTORY, _flat(source()))
            for name, source in _sources(Settings)
        ),
    ]


def _plain(value: Any) -> Any:
    """Sections as mappings of the settings that were given."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in value.model_fields_set}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


def _unparsed(error: SettingsError) -> ConfigError:
    reason = str(error).replace("EnvSettingsSource", "environment").replace("_Dotenv", DOTENV)
    return ConfigError(
        f"The settings are wrong: {reason}. Lists and sections in a variable are written as JSON, "
        """such as SEMCACHE_ROUTES='[{"targets": ["local"]}]'."""
    )


def said(error: ValidationError) -> list[str]:
    """The problems in a validation error, by setting, without values: these may be secrets."""
    return [_problem(entry["loc"], entry["type"], entry["msg"]) for entry in error.errors()]


def _problem(path: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, path))
    if path == ("routes",) and kind == "tuple_type":
        return "routes: write [[routes]], in two brackets, once for each route"
    if len(path) == 2 and path[0] == "providers" and kind.startswith(("model", "dict")):
        return f"{name}: write a section [{name}] with its settings, such as api_key"
    if kind != "extra_forbidden":
        return f"{name}: {message[0].lower()}{message[1:]}"
    known = _fields_at(path[:-1])
    near = get_close_matches(str(path[-1]), known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(sorted(known))}."
    return f"{name} is not a setting; {hint}"


def _fields_at(path: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of the section at `path`."""
    sections: dict[str, type[BaseModel]] = {
        "providers": ProviderSettings,
        "routes": RouteSettings,
        "retry": RetrySettings,
        "breaker": BreakerSettings,
        "webhooks": WebhookSource if "sources" in path else WebhookSettings,
    }
    section = sections.get(str(path[0]), Settings) if path else Settings
    return list(section.model_fields)


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting as it is shown to people.

    Attributes:
        name: the full name, with dots between sections.
        value: the value; a secret is masked.
        source: where the value comes from: "environment", ".env", the file's path or "default".
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
        by_source = [(name, _flat(source())) for name, source in _sources(Settings)]
    except SettingsError as error:
        raise _unparsed(error) from None
    flat = _flat({**settings.model_dump(), "flags": {**DEFAULTS, **settings.flags}})
    shown = []
    for name, value in flat.items():
        source = next((where for where, values in by_source if _sets(values, name)), "default")
        shown.append(Origin(name, _masked(value), source))
    return shown


def unknown_variables() -> list[str]:
    """A problem for each `SEMCACHE_*` variable that does not name a setting."""
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
            hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else "it has no effect."
            problems.append(f"{name} ({where}) is not a setting; {hint}")
    return problems


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names; a list counts as one value."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat.update(_flat(inner, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _sets(values: Mapping[str, Any], name: str) -> bool:
    """Whether a source sets a value, under its own name or as part of a whole section."""
    return any(
        key and (name == key or name.startswith(f"{key}.")) and value not in (None, {})
        for key, value in values.items()
    )


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, str):
        return without_password(value)
    return str(value) if isinstance(value, Path) else value
