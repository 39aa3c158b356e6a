"""Finds the providers that may answer a request, in the order to try them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from semcache.config.flags import Flags
from semcache.errors import ConfigError
from semcache.providers.preferences import PREFERENCES
from semcache.providers.protocols import DirectProvider, Provider
from semcache.router import routing
from semcache.router.routing import TASK_TYPES, Route, Target
from semcache.types import Request


class RoutePlanner:
    """The routes of a router and the providers they lead to.

    Raises:
        ConfigError: there are no providers, two have the same name, or a route leads to an
            unknown one.
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
                raise ConfigError(
                    f"Two providers are named {provider.name!r}; give them different names."
                )
            self.providers[provider.name] = provider
        if not self.providers:
            raise ConfigError("A router needs at least one provider.")
        self._http = {n for n, p in self.providers.items() if isinstance(p, Provider)}
        for name, provider in self.providers.items():
            if name not in self._http and not isinstance(provider, DirectProvider):
                raise ConfigError(
                    f"{provider!r} is not a provider (see semcache.providers.protocols)."
                )
        self._routes = tuple(routes)
        self._flags = flags
        for route in self._routes:
            self.check_names((target.provider for target in route.targets), route.describe())
        self._task_types = {*TASK_TYPES, *(r.task_type for r in self._routes if r.task_type)}

    def uses_http(self, provider: Provider | DirectProvider) -> bool:
        """Whether the router sends the provider's HTTP requests, rather than calling it."""
        return provider.name in self._http

    def check_names(self, names: Iterable[str], where: str) -> None:
        """Raise `ConfigError` if one of the names is not a provider of this router."""
        for name in names:
            if name not in self.providers:
                known = ", ".join(self.providers)
                raise ConfigError(f"{where}: there is no provider {name!r}, only {known}.")

    def targets(self, request: Request, tokens: int, draw: float) -> tuple[Target, ...]:
        """The targets to try for a request, in order, each with its model.

        Args:
            tokens: the estimated length of the prompt.
            draw: uniform in [0, 1); decides among targets with weights.

        Raises:
            ConfigError: no provider can answer the request.
        """
        route = routing.choose(self._routes, request, tokens)
        if route is not None:
            targets = routing.ordered(route.targets, draw)
        elif request.model:
            targets = self._targets_of_model(request.model)
        else:
            targets = tuple(Target(p.name) for p in self.providers.values() if p.default_model)
        self._check_task_type(request.task_type)
        targets = self._with_preferred(targets, request)
        if not targets:
            raise ConfigError(
                "The request names no model, no route matches it, and no provider has a default "
                "model. Pass model=, add a route, or give a provider a model."
            )
        return tuple(self._with_model(target, request) for target in targets)

    def _with_preferred(self, targets: tuple[Target, ...], request: Request) -> tuple[Target, ...]:
        """The targets, after those that feature flags prefer for the request's task type."""
        if request.model:
            return targets
        for preference in PREFERENCES:
            if (
                request.task_type == preference.task_type
                and preference.provider in self.providers
                and self._flags.enabled(preference.flag)
            ):
                first = Target(preference.provider, preference.model)
                targets = (first, *(target for target in targets if target != first))
        return targets

    def _targets_of_model(self, model: str) -> tuple[Target, ...]:
        """Targets for a model: "provider/model", else the providers whose patterns match it.

        If there are none, the providers without patterns, which accept any model.
        """
        provider, _, rest = model.partition("/")
        if rest and provider in self.providers:
            return (Target(provider, rest),)
        providers = self.providers.values()
        names = [p.name for p in providers if any(fnmatchcase(model, m) for m in p.models)]
        names = names or [p.name for p in providers if not p.models]
        if not names:
            known = "; ".join(f"{p.name}: {', '.join(p.models)}" for p in providers)
            raise ConfigError(f"No provider offers the model {model!r} ({known}). Add a route.")
        return tuple(Target(name, model) for name in names)

    def _with_model(self, target: Target, request: Request) -> Target:
        model = target.model or request.model or self.providers[target.provider].default_model
        if not model:
            raise ConfigError(
                f"{target.provider} has no default model, and neither the route nor the request "
                f'names one. Write "{target.provider}/MODEL" in the route.'
            )
        return routing.with_model(target, model)

    def _check_task_type(self, task_type: str | None) -> None:
        if task_type is None or task_type in self._task_types:
            return
        near = get_close_matches(task_type, self._task_types, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(self._task_types))
        raise ConfigError(f"There is no task type {task_type!r} (known: {known}).{hint}")
