"""Builds a router from settings."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from semcache.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from semcache.config.flags import Client, Flags
    from semcache.config.sections import ProviderSettings
    from semcache.config.settings import Settings
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
"""Default models of each provider, one for each of `TASKS`, used unless the settings name one."""

LONG_PROMPT = 100_000
"""Minimum tokens of a prompt that counts as long_context, unless the settings define routes."""


def flags_of(settings: Settings, client: Client | None = None) -> Flags:
    """The feature flags in the settings."""
    from semcache.config.flags import Flags

    return Flags(settings.flags, client=client)


def router_of(settings: Settings, **options: Any) -> Router | None:
    """The router that the settings describe; None if they have no provider.

    Args:
        options: arguments of `Router`, which override the settings.

    Raises:
        ConfigError: the settings contradict themselves.
    """
    if not settings.providers:
        return None
    from semcache.router import Router, Timeouts
    from semcache.router.resilience import BreakerRules, Retry

    providers = settings.providers
    concurrency = {n: p.concurrency for n, p in providers.items() if p.concurrency is not None}
    arguments: dict[str, Any] = {
        "routes": routes_of(settings),
        "limits": {name: limits_of(provider) for name, provider in providers.items()},
        "concurrency": concurrency,
        "retry": Retry(**settings.retry.model_dump()),
        "breaker": BreakerRules(**settings.breaker.model_dump()),
        "timeouts": Timeouts(settings.connect_timeout, settings.read_timeout),
        "deadline": settings.deadline,
        "flags": flags_of(settings),
    }
    return Router(providers_of(settings), **{**arguments, **options})


def providers_of(settings: Settings) -> list[Any]:
    """The providers that the settings describe.

    Raises:
        ConfigError: a provider cannot be created.
    """
    from semcache.config.registry import provider_kind

    providers = []
    for name, provider in _in_order(settings):
        arguments = {
            field: value
            for field in (
                "base_url", "api_key", "models", "headers", "version", "price_list"
            )
            if (value := getattr(provider, field))
        }  # fmt: skip
        model = provider.model or (MODELS[name][0] if name in MODELS else None)
        try:
            kind = provider_kind(provider.kind or name)
            providers.append(kind(name=name, model=model, **arguments))
        except TypeError as error:
            raise ConfigError(f"providers.{name}: {error}") from None
    return providers


def _in_order(settings: Settings) -> list[tuple[str, ProviderSettings]]:
    """The providers in order of preference: those with only an API key come last.

    A key that happens to be in the environment must not divert requests from a provider that was
    configured on purpose.
    """
    return sorted(
        settings.providers.items(), key=lambda item: item[1].model_fields_set <= {"api_key"}
    )


def limits_of(provider: ProviderSettings) -> Sequence[Limit]:
    """The rate limits of a provider."""
    from semcache.router.rate_limits import Limit

    limits = []
    if provider.requests_per_minute is not None:
        limits.append(Limit(provider.requests_per_minute, unit="requests", wait=provider.wait))
    if provider.tokens_per_minute is not None:
        limits.append(Limit(provider.tokens_per_minute, unit="tokens", wait=provider.wait))
    return limits


def routes_of(settings: Settings) -> list[Route]:
    """The routes in the settings; by default, one for each task type.

    Raises:
        ConfigError: a target is malformed.
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
    by_task = {task: _targets(settings, index) for index, task in enumerate(TASKS)}
    if not by_task["general"]:
        return []
    routes = [Route(targets, task_type=task) for task, targets in by_task.items()]
    return [
        *routes,
        Route(by_task["long_context"], min_tokens=LONG_PROMPT),
        Route(by_task["general"]),
    ]


def _targets(settings: Settings, task: int) -> tuple[Any, ...]:
    """The targets for a task, given as its index in `TASKS`, in order of preference."""
    from semcache.router.routing import Target

    targets = []
    for name, provider in _in_order(settings):
        model = provider.model or (MODELS[name][task] if name in MODELS else None)
        if model is not None:
            targets.append(Target(name, model))
    return tuple(targets)


def _route_problems(settings: Settings) -> Iterator[str]:
    """Routes that lead to a provider that is not set up."""
    from semcache.config.settings import KEYS

    for number, route in enumerate(settings.routes):
        for target in route.targets:
            name = str(target).partition("/")[0]
            if name not in settings.providers:
                set_up = f"Set {' or '.join(KEYS[name])}" if name in KEYS else "Set it up"
                yield (
                    f"routes[{number}]: {target} leads to {name}, which is not set up. {set_up}, "
                    f"or add a section [providers.{name}]."
                )


def _is_local(url: str) -> bool:
    """Whether an address is on this machine or in a private network."""
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))
    return address.is_private or address.is_loopback


def problems(settings: Settings) -> list[str]:
    """Descriptions of what is wrong with the settings, as far as can be checked offline."""
    from semcache.config.settings import KEYS
    from semcache.integrations.webhooks.signatures import usable
    from semcache.providers.base import HTTPProvider

    messages = [*_route_problems(settings)]
    if settings.providers and not messages:
        try:
            router = router_of(settings)
        except ConfigError as error:
            return [str(error)]
        assert router is not None
        routed = {target.provider for route in router.routes for target in route.targets}
        for name, provider in router.providers.items():
            if not isinstance(provider, HTTPProvider) or provider.has_key:
                continue
            if provider.price_list is None and (
                _is_local(provider.base_url) or settings.providers[name].headers
            ):
                continue  # a local server needs no key, and headers may hold one
            subject = "a route leads to it, but it" if name in routed else "it"
            hint = f" Set {' or '.join(KEYS[name])}." if name in KEYS else ""
            messages.append(f"providers.{name}: {subject} has no API key.{hint}")
    for name, source in settings.webhooks.sources.items():
        if source.secret is None:
            messages.append(
                f"webhooks.sources.{name}: it has no secret, so its deliveries are refused."
            )
        elif not usable(source.scheme, source.secret.get_secret_value()):
            messages.append(
                f"webhooks.sources.{name}: its secret is malformed (not whsec_ followed by base64)."
            )
    return messages
