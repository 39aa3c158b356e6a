"""Providers: adapters between a `Request` and an HTTP API, an SDK's client or a function.

Names are imported on first use, so that reading an answer does not load what sending a
request needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.lazy import lazy_names

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


__getattr__ = lazy_names(__name__, _HOMES)
