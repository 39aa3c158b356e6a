"""From a provider's HTTP reply to an error of ours, in its own words and without keys.

400, 401, 402, 403, 404, 405, 413, 422 and the rest of 4xx are rejections; 408, 409, 425 and
5xx (529 too) are faults that may pass; 429 is a rate limit. When to come back is read from
`Retry-After` (RFC 9110, section 10.2.3: seconds or a date), `retry-after-ms`, OpenAI's
`x-ratelimit-reset-*` ("1s", "6m0s"), Anthropic's `anthropic-ratelimit-*-reset` (RFC 3339)
and Gemini's `RetryInfo` ("34s").
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

_MAY_PASS = frozenset({408, 409, 425})
_MOST_WORDS = 500
_REQUEST_IDS = ("x-request-id", "request-id", "x-goog-request-id", "cf-ray")
_USED_UP = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_error"})
"""Codes of a 429 that no waiting mends."""
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KEYLIKE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|or)-[\w*.-]{6,}|\bAIza[\w-]{10,}|\bBearer\s+\S+", re.I
)


def error_of(
    reply: HTTPReply, *, provider: str, model: str = "", now: float, secrets: Iterable[Any] = ()
) -> ProviderError:
    """The error that a reply outside 2xx tells of. now: seconds since the epoch."""
    body = json_of(reply)
    detail, code = words_of(body)
    code = _told_by(detail, code)
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
    said = scrubbed(detail or _plain_words(reply), secrets)
    return kind_of(reply.status, code)(said, **fields)


_TELLING = (
    ("context_length_exceeded", ("exceed_context_size", "context length", "context window")),
    ("context_length_exceeded", ("prompt is too long", "input token count", "too many tokens")),
    ("account", ("api key not valid", "api_key_invalid", "credit balance", "billing")),
)
"""What a 400 may mean besides a fault of the request, by words that providers use for it."""


def _told_by(detail: str, code: str | None) -> str | None:
    """The code, or a plainer one where the provider's words tell more than its code."""
    said = f"{code} {detail}".lower()
    found = (name for name, phrases in _TELLING if any(phrase in said for phrase in phrases))
    return next(found, code)


def kind_of(status: int, code: str | None) -> type[ProviderError]:
    """Which of our errors a status is."""
    if status == 429:
        return RejectedError if code in _USED_UP else RateLimitedError
    if status in _MAY_PASS or status >= 500:
        return UnavailableError
    return RejectedError


def failure_in(
    value: Mapping[str, Any], provider: str, secrets: Iterable[Any] = ()
) -> ProviderError | None:
    """The error that an answer with status 200, or an event of its stream, tells of."""
    if not value.get("error"):
        return None
    detail, code = words_of(value)
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
        scrubbed(detail or str(code), secrets),
        provider=provider,
        status=status,
        code=code,
        request_id=value.get("request_id"),
    )


def json_of(reply: HTTPReply) -> Any:
    """The body as JSON; None where it is none."""
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        return None


def object_of(reply: HTTPReply, provider: str, secrets: Iterable[Any] = ()) -> Mapping[str, Any]:
    """The JSON object that an answer is.

    Raises:
        UnavailableError: it is none (an HTML page of a proxy, a body cut short).
    """
    body = json_of(reply)
    if isinstance(body, Mapping):
        return body
    kind = reply.content_type or "no content type"
    raise UnavailableError(
        f"the body ({kind}, {len(reply.content):,} bytes) is no JSON object: "
        f"{scrubbed(_plain_words(reply), secrets)}",
        provider=provider,
        status=reply.status,
    )


def words_of(body: Any) -> tuple[str, str | None]:
    """(what the provider said, its name for the error) of an error's JSON."""
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
    """Seconds until the provider may be asked again, if it said so. Never below 0."""
    found = _from_retry_after(headers, now)
    if found is None:
        found = _from_body(body)
    if found is None:
        found = _from_resets(headers, now)
    return None if found is None else max(0.0, found)


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
    """The reset of a limit that is used up; without one, nothing is known."""
    found = []
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
            found.append(seconds)
    return max(found, default=None)


def _until(moment: str, now: float) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp() - now
    except (ValueError, OverflowError):
        return None


def duration(text: str) -> float | None:
    """Seconds of "1s", "6m0s", "120ms" or "1.5"; None for anything else."""
    plain = _number(text)
    if plain is not None:
        # A plain number may be seconds, or a moment since the epoch (in s or ms): only the first.
        return plain if plain < 1e6 else None
    parts = _PARTS.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None


def _plain_words(reply: HTTPReply) -> str:
    text = " ".join(re.sub(r"<[^>]*>", " ", reply.content.decode(errors="replace")).split())
    return text or "(no body)"


def scrubbed(text: str, secrets: Iterable[SecretStr]) -> str:
    """Words that hold no key, at most 500 characters of them."""
    for secret in secrets:
        value = secret.get_secret_value()
        if len(value) >= 4:
            text = text.replace(value, "***")
    text = _KEYLIKE.sub("***", text).encode(errors="replace").decode()
    return text if len(text) <= _MOST_WORDS else text[: _MOST_WORDS - 1] + "…"
