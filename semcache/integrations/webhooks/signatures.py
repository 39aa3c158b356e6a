"""Verifies that a delivery is genuine, and identifies it so that a repeat can be recognised.

There are three schemes, all HMAC-SHA256 over the raw body, compared in constant time:

- "standard": Standard Webhooks, which OpenAI uses; the id and the time are signed too.
- "hex": `X-Signature: HEX`. With `X-Timestamp` (seconds since the epoch) the signed text is
  `TIMESTAMP.BODY`, and the time is compared with the clock.
- "github": `X-Hub-Signature-256: sha256=HEX`.

The identity of a delivery must be signed; otherwise an eavesdropper could replay it under another
id. So it is the signed id for "standard", and the signature itself for the other schemes;
`X-GitHub-Delivery` is not signed and therefore ignored. Repeats are recognised for 30 days. Under
"hex" without a time they are recognised only within the tolerance, because an equal event may
well be sent again on purpose: sign the time to be safe from replays of old deliveries.

Sources: standardwebhooks.com, "Spec"; GitHub Docs, "Validating webhook deliveries".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from semcache.errors import WebhookError

Scheme = Literal["standard", "hex", "github"]
_THIRTY_DAYS = 30 * 86400.0


class Name(NamedTuple):
    """The identity of a delivery.

    Attributes:
        text: the same for repeats of a delivery, different for different deliveries.
        kept: seconds for which a repeat is recognised.
    """

    text: str
    kept: float


def verify(
    scheme: Scheme,
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance: float,
) -> Name:
    """Check that a delivery is genuine; return its identity.

    Args:
        headers: headers by name, in lower case.
        now: seconds since the epoch.
        tolerance: seconds by which the signed time may differ from `now`.

    Raises:
        WebhookError: the delivery is not genuine; the status is 401.
    """
    return _SCHEMES[scheme](secret, headers, body, now, tolerance)


def usable(scheme: Scheme, secret: str) -> bool:
    """Whether a secret can be used with a scheme."""
    if scheme != "standard":
        return bool(secret.strip())
    from standardwebhooks import Webhook

    try:
        Webhook(secret)
    except Exception:  # the library's own errors, or those of base64
        return False
    return True


def _standard(
    secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> Name:
    from standardwebhooks import Webhook

    _check_time(headers.get("webhook-timestamp"), now, tolerance)
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except Exception:  # for malformed input: the library's own errors, ValueError, base64's
        raise _refused("the signature does not match") from None
    return Name(headers["webhook-id"], _THIRTY_DAYS)


def _hex(
    secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> Name:
    signature = headers.get("x-signature", "").removeprefix("sha256=")
    if "x-timestamp" not in headers:
        return Name(_checked(secret, body, signature), tolerance)
    _check_time(headers["x-timestamp"], now, tolerance)
    signed = headers["x-timestamp"].encode() + b"." + body
    return Name(_checked(secret, signed, signature), _THIRTY_DAYS)


def _github(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    now: float,  # noqa: ARG001 - GitHub does not sign a time
    tolerance: float,  # noqa: ARG001 - the same
) -> Name:
    signature = headers.get("x-hub-signature-256", "")
    if not signature.startswith("sha256="):
        raise _refused("there is no X-Hub-Signature-256 header with sha256=")
    return Name(_checked(secret, body, signature.removeprefix("sha256=")), _THIRTY_DAYS)


def _checked(secret: str, signed: bytes, signature: str) -> str:
    """The signature in hexadecimal, after comparing it with the expected one."""
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.strip().lower().encode()):
        raise _refused("the signature is missing or does not match")
    return expected


def _check_time(timestamp: str | None, now: float, tolerance: float) -> None:
    try:
        signed_at = float(timestamp or "")
    except ValueError:
        raise _refused("the timestamp is missing or is not in seconds since the epoch") from None
    if not abs(now - signed_at) <= tolerance:
        raise _refused(
            f"the timestamp is off by {abs(now - signed_at):.0f} s; at most {tolerance:.0f} s "
            "are allowed"
        )


def _refused(reason: str) -> WebhookError:
    return WebhookError(reason, status=401)


_SCHEMES: dict[Scheme, Callable[[str, Mapping[str, str], bytes, float, float], Name]] = {
    "standard": _standard,
    "hex": _hex,
    "github": _github,
}
