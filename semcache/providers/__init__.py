"""Providers: adapters between a `Request` and an HTTP API, an SDK's client or a function.

Names are imported on first use, so that reading an answer does not load what sending a
request needs.
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
