"""Whether a delivery comes from whom it says, and has not come before.

Three schemes, all HMAC-SHA256 over the raw body, compared in constant time:

- "standard": Standard Webhooks, as OpenAI sends them; the id and the time are signed too.
- "hex": `X-Signature: HEX`. With `X-Timestamp` (seconds since the epoch) the signed text is
  `TIMESTAMP.BODY`, and the time is held against the clock.
- "github": `X-Hub-Signature-256: sha256=HEX`.

What tells one delivery from another must be signed, or whoever has overheard one could send
it again under another id. So it is the signed id of "standard", and the signature itself of
the others; `X-GitHub-Delivery` is not signed, and so not looked at.

Sources: standardwebhooks.com, "Spec"; GitHub Docs, "Validating webhook deliveries".
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Literal

from semcache.errors import WebhookError

Scheme = Literal["standard", "hex", "github"]


def verify(
    scheme: Scheme,
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance: float,
) -> str:
    """The name of a delivery that is genuine: equal for a repeat.

    Args:
        headers: names in lower case. now: seconds since the epoch.
        tolerance: how far the signed time may be from `now`, in seconds.

    Raises:
        WebhookError: with status 401, it is not.
    """
    return _SCHEMES[scheme](secret, headers, body, now, tolerance)


def _standard(
    secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> str:
    from standardwebhooks import Webhook
    from standardwebhooks.webhooks import WebhookVerificationError

    _check_time(headers.get("webhook-timestamp"), now, tolerance)
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError, binascii.Error):  # malformed, or another's
        raise _refused("the signature does not fit") from None
    return headers["webhook-id"]


def _hex(secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance: float) -> str:
    given = headers.get("x-signature", "")
    signed = body
    if "x-timestamp" in headers:
        _check_time(headers["x-timestamp"], now, tolerance)
        signed = headers["x-timestamp"].encode() + b"." + body
    return _compared(secret, signed, given.removeprefix("sha256="))


def _github(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    now: float,  # noqa: ARG001 - GitHub signs no time
    tolerance: float,  # noqa: ARG001 - the same
) -> str:
    given = headers.get("x-hub-signature-256", "")
    if not given.startswith("sha256="):
        raise _refused("there is no X-Hub-Signature-256 with sha256=")
    return _compared(secret, body, given.removeprefix("sha256="))


def _compared(secret: str, signed: bytes, given: str) -> str:
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), given.strip().lower().encode()):
        raise _refused("the signature is missing or does not fit")
    return expected


def _check_time(given: str | None, now: float, tolerance: float) -> None:
    try:
        moment = float(given or "")
    except ValueError:
        raise _refused("there is no time, in seconds since the epoch") from None
    if not abs(now - moment) <= tolerance:
        raise _refused(
            f"it is {abs(now - moment):.0f} s old or early, {tolerance:.0f} s are let by"
        )


def _refused(why: str) -> WebhookError:
    return WebhookError(why, status=401)


_SCHEMES: dict[Scheme, Callable[[str, Mapping[str, str], bytes, float, float], str]] = {
    "standard": _standard,
    "hex": _hex,
    "github": _github,
}
