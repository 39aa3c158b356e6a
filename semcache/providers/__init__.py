"""Who answers: codecs between a `Request` and each provider's HTTP, and functions."""

from semcache.providers.anthropic import Anthropic
from semcache.providers.functions import CallableProvider
from semcache.providers.gemini import Gemini
from semcache.providers.openai import OpenAICompatible
from semcache.providers.sdk import SDKProvider

__all__ = ["Anthropic", "CallableProvider", "Gemini", "OpenAICompatible", "SDKProvider"]
