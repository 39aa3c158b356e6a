"""Turns a provider's error reply into a `ProviderError`, with its message and without keys.

Statuses 408, 409, 425 and 5xx (including 529) are transient faults, 429 is a rate limit, or a
rejection if a quota is used up, and all other 4xx are rejections. The time to wait before a retry
is read from `Retry-After` (RFC 9110, section 10.2.3: seconds or a date), `retry-after-ms`, OpenAI's
`x-ratelimit-reset-*` ("1s", "6m0s"), Anthropic's `anthropic-ratelimit-*-reset` (RFC 3339) and
Gemini's `RetryInfo` ("34s").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from semcache.errors import ProviderError, RateLimitedError, RejectedError, UnavailableError
from semcache.providers.answers import mapping, mappings
from semcache.providers.http_messages import HTTPReply

if TYPE_CHECKING:
    from pydantic import SecretStr

_TRANSIENT = frozenset({408, 409, 425})
_MAX_CHARS = 500
_REQUEST_IDS = ("x-request-id", "request-id", "x-goog-request-id", "cf-ray")
_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_error"})
"""Codes of a 429 that waiting does not resolve."""
_DURATION_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KEYLIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|or)-[\w*.-]{6,}|\bAIza[\w-]{10,}|\bBearer\s+\S+", re.I
)


def error_of(
    reply: HTTPReply, *, provider: str, model: str = "", now: float, secrets: Iterable[Any] = ()
) -> ProviderError:
    """The error that a reply with a status other than 2xx reports.

    Args:
        now: seconds since the epoch.
        secrets: keys to remove from the message.
    """
    body = json_of(reply)
    detail, code = message_and_code(body)
    code = _refined_code(detail, code)
    fields: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "status": reply.status,
        "request_id": next(
            (reply.headers[name] for name in _REQUEST_IDS if name in reply.headers),
            mapping(body).get("request_id"),
        ),
        "retry_after": retry_after(reply.headers, body, now=now),
        "code": code,
    }
    message = redact(detail or _plain_text(reply), secrets)
    return kind_of(reply.status, code)(message, **fields)


_CODES_BY_PHRASE = (
    ("context_length_exceeded", ("exceed_context_size", "context length", "context window")),
    ("context_length_exceeded", ("prompt is too long", "input token count", "too many tokens")),
    ("account", ("api key not valid", "api_key_invalid", "credit balance", "billing")),
)
"""Codes for errors that providers report as a 400 although another provider might answer, by
the phrases in their messages."""


def _refined_code(detail: str, code: str | None) -> str | None:
    """The code, or a more specific one if the message contains a known phrase."""
    text = f"{code} {detail}".lower()
    codes = (
        refined
        for refined, phrases in _CODES_BY_PHRASE
        if any(phrase in text for phrase in phrases)
    )
    return next(codes, code)


def kind_of(status: int, code: str | None) -> type[ProviderError]:
    """The class of error that a status and a code stand for."""
    if status == 429:
        return RejectedError if code in _QUOTA_CODES else RateLimitedError
    if status in _TRANSIENT or status >= 500:
        return UnavailableError
    return RejectedError


def failure_in(
    value: Mapping[str, Any], provider: str, secrets: Iterable[Any] = ()
) -> ProviderError | None:
    """The error in a body with status 200 or in an event of a stream; None if there is none."""
    if not value.get("error"):
        return None
    detail, code = message_and_code(value)
    error = mapping(value["error"])
    status = error.get("code") if isinstance(error.get("code"), int) else None
    kind: type[ProviderError] = UnavailableError
    if status is not None:
        kind = kind_of(status, code)
    elif code == "rate_limit_error":
        kind = RateLimitedError
    elif code in ("invalid_request_error", "authentication_error", "permission_error"):
        kind = RejectedError
    return kind(
        redact(detail or str(code), secrets),
        provider=provider,
        status=status,
        code=code,
        request_id=value.get("request_id"),
    )


def json_of(reply: HTTPReply) -> Any:
    """The body parsed as JSON; None if it is not JSON."""
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        return None


def object_of(reply: HTTPReply, provider: str, secrets: Iterable[Any] = ()) -> Mapping[str, Any]:
    """The body as a JSON object.

    Raises:
        UnavailableError: it is not one (a proxy's HTML page, a truncated body).
    """
    body = json_of(reply)
    if isinstance(body, Mapping):
        return body
    content_type = reply.content_type or "no content type"
    raise UnavailableError(
        f"the body ({content_type}, {len(reply.content):,} bytes) is not a JSON object: "
        f"{redact(_plain_text(reply), secrets)}",
        provider=provider,
        status=reply.status,
    )


def message_and_code(body: Any) -> tuple[str, str | None]:
    """(the provider's message, its code for the error) from the JSON of an error."""
    if isinstance(body, list) and body:  # Gemini streams a list
        body = body[0]
    body = mapping(body)
    error = body.get("error", body)
    if isinstance(error, str):
        return error, None
    error = mapping(error)
    detail = error.get("message") or error.get("detail") or body.get("message")
    if detail is None and "detail" in body:  # FastAPI
        detail = json.dumps(body["detail"])
    names = (error.get("code"), error.get("type"), error.get("status"))
    code = next((str(name) for name in names if isinstance(name, str) and name), None)
    return str(detail or ""), code


def retry_after(headers: Mapping[str, str], body: Any, *, now: float) -> float | None:
    """Seconds until the provider accepts another call, never below 0; None if it does not say."""
    seconds = _from_retry_after(headers, now)
    if seconds is None:
        seconds = _from_body(body)
    if seconds is None:
        seconds = _from_resets(headers, now)
    return None if seconds is None else max(0.0, seconds)


def _from_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None


def _from_body(body: Any) -> float | None:
    if isinstance(body, list) and body:
        body = body[0]
    for detail in mappings(mapping(mapping(body).get("error")).get("details")):
        if str(detail.get("@type", "")).endswith("RetryInfo"):
            return duration(str(detail.get("retryDelay")))
    return None


def _from_resets(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until all limits that are used up have been reset; None if unknown."""
    waits = []
    for name, value in headers.items():
        if (
            not name.startswith(("x-ratelimit-reset", "anthropic-ratelimit-"))
            or "reset" not in name
        ):
            continue
        left = headers.get(name.replace("reset", "remaining"))
        if _number(left) not in (None, 0.0):
            continue
        seconds = duration(value)
        if seconds is None:
            seconds = _until(value, now)
        if seconds is not None:
            waits.append(seconds)
    return max(waits, default=None)


def _until(date: str, now: float) -> float | None:
    try:
        return datetime.fromisoformat(date).timestamp() - now
    except (ValueError, OverflowError):
        return None


def duration(text: str) -> float | None:
    """The seconds in "1s", "6m0s", "120ms" or "1.5"; None for any other text."""
    plain = _number(text)
    if plain is not None:
        # A large number is a time since the epoch (in s or ms), not a duration.
        return plain if plain < 1e6 else None
    parts = _DURATION_PARTS.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None


def _plain_text(reply: HTTPReply) -> str:
    text = " ".join(re.sub(r"<[^>]*>", " ", reply.content.decode(errors="replace")).split())
    return text or "(no body)"


def redact(text: str, secrets: Iterable[SecretStr]) -> str:
    """The text without keys, cut to 500 characters."""
    for secret in secrets:
        value = secret.get_secret_value()
        if len(value) >= 4:
            text = text.replace(value, "***")
    text = _KEYLIKE.sub("***", text).encode(errors="replace").decode()
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
