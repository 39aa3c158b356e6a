"""Which address an API key may be sent to.

A working directory is trusted less than the user's environment: a `semcache.toml` or `.env` that
came with a repository must not divert the keys of whoever runs a program there. So a key is sent
to its provider's own host, or to an address from a source that is trusted at least as much as the
source of the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

PROGRAM, ENVIRONMENT, DIRECTORY = 3, 2, 1
"""How much each source is trusted; a file that the environment names counts as ENVIRONMENT."""

OWN_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "openrouter": "openrouter.ai",
    "gemini": "generativelanguage.googleapis.com",
}
"""The hosts of the providers, by kind."""


def diverted_keys(sources: Sequence[tuple[str, int, Mapping[str, Any]]]) -> list[str]:
    """A problem for each provider whose key would be sent to an address that is less trusted.

    Args:
        sources: (name, trust, values by dotted name) of each source of settings, in order of
            precedence.
    """
    names = {
        name.split(".")[1]
        for _, _, values in sources
        for name in values
        if name.startswith("providers.") and name.count(".") >= 2
    }
    return [problem for name in sorted(names) if (problem := _problem(name, sources))]


def _problem(provider: str, sources: Sequence[tuple[str, int, Mapping[str, Any]]]) -> str | None:
    key = _found(f"providers.{provider}.api_key", sources)
    places = [
        place
        for part in ("base_url", "kind")
        if (place := _found(f"providers.{provider}.{part}", sources)) is not None
    ]
    if key is None or not places:
        return None
    weakest = min(places, key=lambda place: place[1])
    if weakest[1] >= key[1]:
        return None
    url = _found(f"providers.{provider}.base_url", sources)
    kind = _found(f"providers.{provider}.kind", sources)
    own = OWN_HOSTS.get(provider)
    host = _host(str(url[2])) if url else OWN_HOSTS.get(str(kind[2]) if kind else provider)
    if own is not None and host == own and (url is None or _is_safe(str(url[2]))):
        return None
    variable = f"SEMCACHE_PROVIDERS__{provider.upper()}__BASE_URL"
    return (
        f"providers.{provider}: its key comes from the {key[0]}, but the address it would be sent "
        f"to ({host or 'unknown'}) comes from {weakest[0]} in the working directory, which may be "
        f"somebody else's. If you trust the address, set {variable}, or name the file in "
        "SEMCACHE_CONFIG, or write the key into the same file. If the server needs no key, give "
        'the provider another name, such as [providers.local] with kind = "openai".'
    )


def _found(
    name: str, sources: Sequence[tuple[str, int, Mapping[str, Any]]]
) -> tuple[str, int, Any] | None:
    """(source, trust, value) of the first source that has a setting."""
    for source, trust, values in sources:
        if values.get(name) not in (None, ""):
            return source, trust, values[name]
    return None


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _is_safe(url: str) -> bool:
    """Whether the connection is encrypted."""
    return url.lower().startswith("https://")
