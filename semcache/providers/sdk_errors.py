"""Translates the exceptions of functions and SDKs into a `ProviderError`."""

from __future__ import annotations

import json
import time
from typing import Any

from semcache.errors import ProviderError, UnavailableError
from semcache.providers.failures import error_of, redact
from semcache.providers.http_messages import HTTPReply

_CONNECTION_ERRORS = frozenset(
    {"APIConnectionError", "APITimeoutError", "TransportError", "TimeoutException", "ConnectError"}
)
"""Names of exceptions for a failed connection. By name, because each SDK has its own classes."""


def translate(error: Exception, provider: str) -> ProviderError | None:
    """The `ProviderError` for an exception; None if the provider did not cause it.

    Recognises semcache's own errors, those of the `openai` and `anthropic` packages and of
    HTTP clients such as httpx (by their status and response), and Python's connection errors.
    """
    if isinstance(error, ProviderError):
        return error
    status = getattr(error, "status_code", None)
    response = getattr(error, "response", None)
    if status is None:
        status = getattr(response, "status_code", None)
    if isinstance(status, int):
        headers = {k.lower(): v for k, v in dict(getattr(response, "headers", None) or {}).items()}
        body = getattr(error, "body", None)
        if body is None:
            body = {"error": {"message": str(error)}}
        reply = HTTPReply(status, headers, json.dumps(_wrapped(body), default=str).encode())
        return error_of(reply, provider=provider, now=time.time())
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, ConnectionError | TimeoutError) or names & _CONNECTION_ERRORS:
        message = redact(str(error) or type(error).__name__, ())
        return UnavailableError(message, provider=provider)
    return None


def _wrapped(body: Any) -> Any:
    """The body of an error reply; OpenAI's SDK keeps only what is inside its "error"."""
    return body if isinstance(body, dict) and "error" in body else {"error": body}
