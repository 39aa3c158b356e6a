"""Whether a delivery comes from whom it says, and has not come before.

Three schemes, all HMAC-SHA256 over the raw body, compared in constant time:

- "standard": Standard Webhooks, as OpenAI sends them; the id and the time are signed too.
- "hex": `X-Signature: HEX`. With `X-Timestamp` (seconds since the epoch) the signed text is
  `TIMESTAMP.BODY`, and the time is held against the clock.
- "github": `X-Hub-Signature-256: sha256=HEX`.

What tells one delivery from another must be signed, or whoever has overheard one could send
it again under another id. So it is the signed id of "standard", and the signature itself of
the others; `X-GitHub-Delivery` is not signed, and so not looked at. A repeat is known for 30
days; under "hex" without a time, where an event with equal words may well come again, only
within the tolerance: sign the time to be safe from an old one that is sent again.

Sources: standardwebhooks.com, "Spec"; GitHub Docs, "Validating webhook deliveries".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from semcache.errors import WebhookError

Scheme = Literal["standard", "hex", "github"]
_LONG = 30 * 86400.0


class Name(NamedTuple):
    """What tells a delivery from others, and how long a repeat is known for one (seconds)."""

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
    """The name of a delivery that is genuine: equal for a repeat.

    Args:
        headers: names in lower case. now: seconds since the epoch.
        tolerance: how far the signed time may be from `now`, in seconds.

    Raises:
        WebhookError: with status 401, it is not.
    """
    return _SCHEMES[scheme](secret, headers, body, now, tolerance)


def usable(scheme: Scheme, secret: str) -> bool:
    """Whether anything can be verified with a secret."""
    if scheme != "standard":
        return bool(secret.strip())
    from standardwebhooks import Webhook

    try:
        Webhook(secret)
    except Exception:  # its own, or of base64
        return False
    return True


def _standard(
    secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> Name:
    from standardwebhooks import Webhook

    _check_time(headers.get("webhook-timestamp"), now, tolerance)
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except Exception:  # whatever is malformed: its own errors, ValueError, those of base64
        raise _refused("the signature does not fit") from None
    return Name(headers["webhook-id"], _LONG)


def _hex(
    secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> Name:
    given = headers.get("x-signature", "").removeprefix("sha256=")
    if "x-timestamp" not in headers:
        return Name(_compared(secret, body, given), tolerance)
    _check_time(headers["x-timestamp"], now, tolerance)
    signed = headers["x-timestamp"].encode() + b"." + body
    return Name(_compared(secret, signed, given), _LONG)


def _github(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    now: float,  # noqa: ARG001 - GitHub signs no time
    tolerance: float,  # noqa: ARG001 - the same
) -> Name:
    given = headers.get("x-hub-signature-256", "")
    if not given.startswith("sha256="):
        raise _refused("there is no X-Hub-Signature-256 with sha256=")
    return Name(_compared(secret, body, given.removeprefix("sha256=")), _LONG)


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


_SCHEMES: dict[Scheme, Callable[[str, Mapping[str, str], bytes, float, float], Name]] = {
    "standard": _standard,
    "hex": _hex,
    "github": _github,
}
