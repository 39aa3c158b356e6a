"""Who answers: codecs between a `Request` and each provider's HTTP, and functions.

Loaded one by one: reading an answer does not need what asking for one does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semcache.providers.anthropic import Anthropic
    from semcache.providers.functions import CallableProvider
    from semcache.providers.gemini import Gemini
    from semcache.providers.openai import OpenAICompatible
    from semcache.providers.sdk import SDKProvider

__all__ = ["Anthropic", "CallableProvider", "Gemini", "OpenAICompatible", "SDKProvider"]

_HOMES = {
    "Anthropic": "anthropic",
    "CallableProvider": "functions",
    "Gemini": "gemini",
    "OpenAICompatible": "openai",
    "SDKProvider": "sdk",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
