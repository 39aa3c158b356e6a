"""What a function or an SDK raises, as an error of ours where it is the provider's failure."""

from __future__ import annotations

import json
import time
from typing import Any

from semcache.errors import ProviderError, UnavailableError
from semcache.providers.failures import error_of, scrubbed
from semcache.providers.http_messages import HTTPReply

_CONNECTION = frozenset(
    {"APIConnectionError", "APITimeoutError", "TransportError", "TimeoutException", "ConnectError"}
)
"""Names of classes that mean: no answer came. SDKs bring HTTP clients of their own."""


def translated(error: Exception, provider: str) -> ProviderError | None:
    """The `ProviderError` that an exception amounts to; None for a bug of the caller's.

    Known are our own errors, those of the `openai` and `anthropic` packages and of HTTP
    clients like httpx (by their status and response), and what Python raises for connections.
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
    if isinstance(error, ConnectionError | TimeoutError) or names & _CONNECTION:
        said = scrubbed(str(error) or type(error).__name__, ())
        return UnavailableError(said, provider=provider)
    return None


def _wrapped(body: Any) -> Any:
    """OpenAI's SDK gives the inside of "error" alone."""
    return body if isinstance(body, dict) and "error" in body else {"error": body}
