"""From a request to the providers that may answer it, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from semcache.config.flags import Flags
from semcache.errors import ConfigError
from semcache.providers.protocols import DirectProvider, Provider
from semcache.router import routing
from semcache.router.routing import TASK_TYPES, Route, Target
from semcache.types import Request

DEEPSEEK = Target("openrouter", "deepseek/deepseek-chat")
"""Where `use_deepseek_for_bulk` sends bulk_processing first."""


class Plans:
    """The routes of a router over its providers.

    Raises:
        ConfigError: there are no providers, two of one name, or a route to one that is not there.
    """

    def __init__(
        self,
        providers: Sequence[Provider | DirectProvider],
        routes: Sequence[Route],
        flags: Flags,
    ) -> None:
        self.providers: dict[str, Any] = {}
        for provider in providers:
            if provider.name in self.providers:
                raise ConfigError(f"Two providers are called {provider.name!r}; name them apart.")
            self.providers[provider.name] = provider
        if not self.providers:
            raise ConfigError("A router needs at least one provider.")
        self._http = {n for n, p in self.providers.items() if isinstance(p, Provider)}
        for name, provider in self.providers.items():
            if name not in self._http and not isinstance(provider, DirectProvider):
                raise ConfigError(
                    f"{provider!r} is no provider (see semcache.providers.protocols)."
                )
        self._routes = tuple(routes)
        self._flags = flags
        for route in self._routes:
            self.check_names((target.provider for target in route.targets), route.describe())
        self._task_types = {*TASK_TYPES, *(r.task_type for r in self._routes if r.task_type)}

    def over_http(self, provider: Provider | DirectProvider) -> bool:
        """Whether it is a codec, and not called directly."""
        return provider.name in self._http

    def check_names(self, names: Iterable[str], where: str) -> None:
        """Raise `ConfigError` for a provider that is not there."""
        for name in names:
            if name not in self.providers:
                known = ", ".join(self.providers)
                raise ConfigError(f"{where}: there is no provider {name!r}, only {known}.")

    def targets(self, request: Request, tokens: int, draw: float) -> tuple[Target, ...]:
        """Who is asked, in order, each with its model.

        Raises:
            ConfigError: nobody is there for it.
        """
        route = routing.choose(self._routes, request, tokens)
        if route is not None:
            found = routing.ordered(route.targets, draw)
        elif request.model:
            found = self._of_model(request.model)
        else:
            found = tuple(Target(p.name) for p in self.providers.values() if p.default_model)
        self._check_task_type(request.task_type)
        if request.task_type == "bulk_processing" and not request.model and self._deepseek:
            found = (DEEPSEEK, *(target for target in found if target != DEEPSEEK))
        if not found:
            raise ConfigError(
                "The request names no model, no route is for it, and no provider has a model of "
                "its own. Give model=, a route, or providers with a model."
            )
        return tuple(self._with_model(target, request) for target in found)

    @property
    def _deepseek(self) -> bool:
        return DEEPSEEK.provider in self.providers and self._flags.enabled("use_deepseek_for_bulk")

    def _of_model(self, model: str) -> tuple[Target, ...]:
        """Providers for a model by name: "provider/model", then by pattern, then any."""
        provider, _, rest = model.partition("/")
        if rest and provider in self.providers:
            return (Target(provider, rest),)
        ours = self.providers.values()
        owners = [p.name for p in ours if any(fnmatchcase(model, m) for m in p.models)]
        owners = owners or [p.name for p in ours if not p.models]
        if not owners:
            known = "; ".join(f"{p.name}: {', '.join(p.models)}" for p in ours)
            raise ConfigError(f"No provider is for the model {model!r} ({known}). Add a route.")
        return tuple(Target(name, model) for name in owners)

    def _with_model(self, target: Target, request: Request) -> Target:
        model = target.model or request.model or self.providers[target.provider].default_model
        if not model:
            raise ConfigError(
                f"{target.provider} has no model of its own, and neither route nor request names "
                f'one. Write "{target.provider}/MODEL" in the route.'
            )
        return routing.with_model(target, model)

    def _check_task_type(self, task_type: str | None) -> None:
        if task_type is None or task_type in self._task_types:
            return
        near = get_close_matches(task_type, self._task_types, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(self._task_types))
        raise ConfigError(f"No route is for the task type {task_type!r} (known: {known}).{hint}")
