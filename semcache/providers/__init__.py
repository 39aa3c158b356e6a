"""Who answers: codecs between a `Request` and each provider's HTTP, and functions.

Loaded one by one: reading an answer does not need what asking for one does.
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
