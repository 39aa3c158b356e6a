"""Kinds of providers by name, from this package and from others.

Another package can add a kind with an entry point in the group "semcache.providers"::

    [project.entry-points."semcache.providers"]
    mine = "my_package:MyProvider"

The object is called with keyword arguments from the settings: name=, and those of base_url=,
api_key=, model=, models=, headers=, price_list= and version= that are set.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from semcache.errors import ConfigError

PROVIDERS = "semcache.providers"


def provider_kinds() -> dict[str, Callable[..., Any]]:
    """The factory of each kind of provider; those of other packages are loaded on first call."""
    from semcache.providers import Anthropic, Gemini, OpenAICompatible
    from semcache.providers.openai import OLLAMA_URL, OPENROUTER_URL

    def openrouter(**options: Any) -> OpenAICompatible:
        return OpenAICompatible(**{"base_url": OPENROUTER_URL, **options})

    def ollama(**options: Any) -> OpenAICompatible:
        return OpenAICompatible(**{"base_url": OLLAMA_URL, **options})

    kinds: dict[str, Callable[..., Any]] = {
        point.name: _loader(point) for point in entry_points(group=PROVIDERS)
    }
    kinds.update(
        openai=OpenAICompatible,
        anthropic=Anthropic,
        gemini=Gemini,
        openrouter=openrouter,
        ollama=ollama,
    )
    return kinds


def _loader(point: Any) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        try:
            factory = point.load()
        except Exception as error:
            raise ConfigError(
                f"The provider kind {point.name!r} ({point.value}) cannot be loaded: {error}"
            ) from error
        return factory(**options)

    return make


def provider_kind(kind: str) -> Callable[..., Any]:
    """The factory of a kind of provider.

    Raises:
        ConfigError: there is no such kind.
    """
    kinds = provider_kinds()
    if kind not in kinds:
        near = get_close_matches(kind, kinds, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"There is no kind of provider {kind!r}; the kinds are {', '.join(sorted(kinds))}."
            f'{hint} For a provider with any other name, set its kind, as in kind = "openai".'
        )
    return kinds[kind]
