"""From settings to a router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semcache.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semcache.config.flags import Client, Flags
    from semcache.config.settings import ProviderSettings, Settings
    from semcache.router import Router
    from semcache.router.rate_limits import Limit
    from semcache.router.routing import Route

TASKS = ("general", "bulk_processing", "complex_reasoning", "long_context")


MODELS: dict[str, tuple[str, str, str, str]] = {
    "openai": ("gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.1"),
    "anthropic": (
        "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5",
    ),
    "gemini": ("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-2.5-pro"),
    "openrouter": (
        "deepseek/deepseek-chat", "deepseek/deepseek-chat", "deepseek/deepseek-r1",
        "google/gemini-2.5-pro",
    ),
}  # fmt: skip
"""Models for `TASKS`, in its order, where the settings say nothing; a setting is better."""


LONG_PROMPT = 100_000
"""Tokens from which a prompt is taken for long_context, where the settings have no routes."""


def flags_of(settings: Settings, client: Client | None = None) -> Flags:
    """The feature flags that the settings set."""
    from semcache.config.flags import Flags

    return Flags(settings.flags, client=client)


def router_of(settings: Settings, **options: Any) -> Router | None:
    """The router that the settings describe; None where they know no provider.

    Args:
        options: for `Router`, instead of what the settings say.

    Raises:
        ConfigError: the settings contradict themselves.
    """
    if not settings.providers:
        return None
    from semcache.router import Router, Timeouts
    from semcache.router.resilience import BreakerRules, Retry

    given = settings.providers
    concurrency = {n: p.concurrency for n, p in given.items() if p.concurrency is not None}
    described: dict[str, Any] = {
        "routes": routes_of(settings),
        "limits": {name: limits_of(provider) for name, provider in given.items()},
        "concurrency": concurrency,
        "retry": Retry(**settings.retry.model_dump()),
        "breaker": BreakerRules(**settings.breaker.model_dump()),
        "timeouts": Timeouts(settings.connect_timeout, settings.read_timeout),
        "deadline": settings.deadline,
        "flags": flags_of(settings),
    }
    return Router(providers_of(settings), **{**described, **options})


def providers_of(settings: Settings) -> list[Any]:
    """The providers that the settings describe.

    Raises:
        ConfigError: one of them cannot be made.
    """
    from semcache.config.registry import provider_kind

    made = []
    for name, given in _in_order(settings):
        told = {
            field: value
            for field in (
                "base_url", "api_key", "models", "headers", "version", "price_list"
            )
            if (value := getattr(given, field))
        }  # fmt: skip
        model = given.model or (MODELS[name][0] if name in MODELS else None)
        try:
            made.append(provider_kind(given.kind or name)(name=name, model=model, **told))
        except TypeError as error:
            raise ConfigError(f"providers.{name}: {error}") from None
    return made


def _in_order(settings: Settings) -> list[tuple[str, ProviderSettings]]:
    """Providers that were set up, in their order, before those of which there is just a key.

    A key that happens to be in the environment must not take requests away from them.
    """
    return sorted(
        settings.providers.items(), key=lambda item: item[1].model_fields_set <= {"api_key"}
    )


def limits_of(given: ProviderSettings) -> Sequence[Limit]:
    """The rate limits of a provider."""
    from semcache.router.rate_limits import Limit

    found = []
    if given.requests_per_minute is not None:
        found.append(Limit(given.requests_per_minute, unit="requests", wait=given.wait))
    if given.tokens_per_minute is not None:
        found.append(Limit(given.tokens_per_minute, unit="tokens", wait=given.wait))
    return found


def routes_of(settings: Settings) -> list[Route]:
    """The rules of the settings; where there are none, one for each task type.

    Raises:
        ConfigError: a target cannot be read.
    """
    from semcache.router.routing import Route, Target

    if settings.routes:
        return [
            Route(
                tuple(map(Target.parse, route.targets)),
                route.task_type,
                route.model,
                route.min_tokens,
                route.max_tokens,
            )
            for route in settings.routes
        ]
    by_task = {task: _targets(settings, place) for place, task in enumerate(TASKS)}
    if not by_task["general"]:
        return []
    routes = [Route(targets, task_type=task) for task, targets in by_task.items()]
    return [
        *routes,
        Route(by_task["long_context"], min_tokens=LONG_PROMPT),
        Route(by_task["general"]),
    ]


def _targets(settings: Settings, place: int) -> tuple[Any, ...]:
    from semcache.router.routing import Target

    found = []
    for name, given in _in_order(settings):
        model = given.model or (MODELS[name][place] if name in MODELS else None)
        if model is not None:
            found.append(Target(name, model))
    return tuple(found)


def problems(settings: Settings) -> list[str]:
    """What would go wrong with these settings, in words; empty: nothing that can be seen here."""
    from semcache.config.settings import KEYS
    from semcache.integrations.webhooks.signatures import usable
    from semcache.providers.base import HTTPProvider

    found = []
    if settings.providers:
        try:
            router = router_of(settings)
        except ConfigError as error:
            return [str(error)]
        assert router is not None
        asked = {target.provider for route in router.routes for target in route.targets}
        for name, provider in router.providers.items():
            if (
                not isinstance(provider, HTTPProvider)
                or provider.has_key
                or provider.price_list is None
            ):
                continue  # a server of one's own needs no key
            used = "a route leads to it, but it" if name in asked else "it"
            hint = f" Set {' or '.join(KEYS[name])}." if name in KEYS else ""
            found.append(f"providers.{name}: {used} has no API key.{hint}")
    for name, source in settings.webhooks.sources.items():
        if source.secret is None:
            found.append(f"webhooks.sources.{name}: it has no secret, so all it sends is refused.")
        elif not usable(source.scheme, source.secret.get_secret_value()):
            found.append(f"webhooks.sources.{name}: its secret is none (whsec_ and base64).")
    return found
