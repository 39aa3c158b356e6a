"""Decides whether a stored answer may be served: evidence, guards, the bound, and learning.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.lazy import lazy_names

if TYPE_CHECKING:
    from semcache.verification.base import Judge, Policy, Verification, Verifier
    from semcache.verification.judges import FunctionJudge, LocalJudge, ModelJudge
    from semcache.verification.policies import FixedThreshold
    from semcache.verification.reliability import Reliability

__all__ = [
    "FixedThreshold",
    "FunctionJudge",
    "Judge",
    "LocalJudge",
    "ModelJudge",
    "Policy",
    "Reliability",
    "Verification",
    "Verifier",
]

_HOMES = {
    "FixedThreshold": "policies",
    "FunctionJudge": "judges",
    "Judge": "base",
    "LocalJudge": "judges",
    "ModelJudge": "judges",
    "Policy": "base",
    "Reliability": "reliability",
    "Verification": "base",
    "Verifier": "base",
}


__getattr__ = lazy_names(__name__, _HOMES)
