"""Finds what looks like a credential, so that it is neither stored nor shown.

A credential is recognised by its name (`api_key`, `Authorization`), by its form (`sk-...`, a JSON
Web Token, an address with a password) or by its randomness. A false positive hides a value from
people and changes nothing else: keys and scopes are digests of the values themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

HIDDEN = "(hidden)"

_NAME = re.compile(
    r"(?:^|[_\-.\s])(?:api_?key|key|secrets?|token|auth|authorization|bearer|credentials?|cookies?|"
    r"pass|passwd|password|passphrase|pwd|pw|pin|session|session_?id|signature|dsn|jwt|"
    r"connection_?string|private_?key|access_?key|account_?key)(?:$|[_\-.\s])",
    re.ASCII,
)
_ALL_OF_IT = frozenset({"cookies", "default_headers", "extra_headers", "headers", "http_headers"})
"""Names of mappings in which every value is hidden."""
_COUNTED = re.compile(r"tokens|token_(count|limit|budget)|logit|stop|pass_(rate|k)|pin_memory")
_FORM = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|ghs|github_pat|glpat|xox[a-z]|whsec|AIza|ya29\.|AKIA|ASIA|SG\.)"
    r"[-_A-Za-z0-9.]{8,}|\bBearer\s+\S+|\bBasic\s+[A-Za-z0-9+/=]{8,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    re.ASCII,
)
_IN_URL = re.compile(r"(?<=//)[^/\s?#]*@")
_OPAQUE = re.compile(r"[A-Za-z0-9+]{20,}", re.ASCII)
_RANDOM = 0.3
"""A text counts as random if a larger share of neighbouring characters differ in kind (lower case,
upper case, digit)."""
_MAX_DEPTH = 20
_MAX_LOOKED_AT = 10_000
"""Characters of a text that are searched for credentials; the rest is cut off."""


def masked(value: Any, name: str = "", depth: int = _MAX_DEPTH) -> Any:
    """JSON with credentials replaced by `HIDDEN`.

    Args:
        name: what the value is called.
        depth: how many levels are searched; anything deeper is hidden.
    """
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return HIDDEN if is_credential_name(name) and value > 1 else value
    if depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        if _lower(name) in _ALL_OF_IT:
            return dict.fromkeys(value, HIDDEN)
        return {key: masked(item, str(key), depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, name, depth - 1) for item in value]
    if is_credential_name(name) and value != "":
        return HIDDEN
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """The text with everything that looks like a credential replaced by `HIDDEN`."""
    text = text[:_MAX_LOOKED_AT]
    text = without_password(text, HIDDEN)
    text = _FORM.sub(HIDDEN, text)
    return _OPAQUE.sub(lambda found: HIDDEN if _is_random(found[0]) else found[0], text)


def without_password(text: str, instead: str = "***") -> str:
    """Text with the user and password in each of its URLs replaced; these may contain an @."""
    return _IN_URL.sub(f"{instead}@", text)


def is_credential_name(name: str) -> bool:
    """Whether this looks like the name of a credential."""
    lower = _lower(name)
    return bool(_NAME.search(lower)) and not _COUNTED.search(lower)


def _lower(name: str) -> str:
    """A name in snake case: `clientSecret` as `client_secret`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:200]).lower()


def _is_random(text: str) -> bool:
    """Whether a text of letters and digits is more random than words, names and dates."""
    if not (any(map(str.isdigit, text)) and any(map(str.isalpha, text))):
        return False
    kinds = [(c.isdigit(), c.isupper()) for c in text]
    changes = sum(one != other for one, other in pairwise(kinds))
    return changes / (len(text) - 1) > _RANDOM
