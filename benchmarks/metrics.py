"""What a replay came to, in the field's words. Pure: outcomes in, figures out.

- hit rate: served / prompts; exact and semantic hits apart.
- false hit rate: wrong / served semantic hits, with a 95% interval (Clopper and Pearson,
  Biometrika 26, 1934: exact, so never too narrow).
- error rate: wrong answers served / prompts (what vCache's delta bounds).
- oracle hit rate: prompts whose right answer was known by then / prompts.
- calls made: what the model was asked: misses, explorations, audits. calls saved: prompts
  without a call of their own, less the audits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

End = Literal["exact", "semantic", "miss", "explore"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one prompt of a stream ended.

    Attributes:
        right: whether what was served was right; None: nothing was.
        crossed: it was another tenant's.
        known: its right answer had been given before (the oracle would hit).
        similarity: to the nearest stored question looked at, or None.
        near_right: whether that neighbour's answer was right; None: there was none.
        label: the policy asked whether a stored answer is right, by exploring or by an audit.
        audit: the label cost a call of its own.
        reason: why nothing was served, in the cache's words.
    """

    kind: str
    end: End
    right: bool | None = None
    crossed: bool = False
    known: bool = False
    similarity: float | None = None
    near_right: bool | None = None
    label: bool = False
    audit: bool = False
    reason: str = ""


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All figures of a replay, by kind and by halves too."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    middle = len(outcomes) // 2
    return {
        **_figures(outcomes),
        "by_kind": {kind: _figures(found) for kind, found in sorted(by_kind.items())},
        "halves": [_figures(outcomes[:middle]), _figures(outcomes[middle:])],
    }


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    prompts = len(outcomes)
    exact = sum(o.end == "exact" for o in outcomes)
    semantic = [o for o in outcomes if o.end == "semantic"]
    false = sum(o.right is False for o in semantic)
    wrong_exact = sum(o.right is False for o in outcomes if o.end == "exact")
    audits = sum(o.audit for o in outcomes)
    calls = prompts - exact - len(semantic) + audits
    return {
        "prompts": prompts,
        "hit_rate": _share(exact + len(semantic), prompts),
        "exact_hits": exact,
        "semantic_hits": len(semantic),
        "false_hits": false,
        "false_hit_rate": _share(false, len(semantic)) if semantic else None,
        "false_hit_interval": interval(false, len(semantic)),
        "false_exact_hits": wrong_exact,
        "error_rate": _share(false + wrong_exact, prompts),
        "oracle_hit_rate": _share(sum(o.known for o in outcomes), prompts),
        "calls_made": calls,
        "calls_saved": prompts - calls,
        "labels_bought": sum(o.label for o in outcomes),
        "audits": audits,
        "across_tenants": sum(o.crossed for o in outcomes),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def interval(wrong: int, served: int, confidence: float = 0.95) -> list[float] | None:
    """Clopper and Pearson's interval of a rate; None where nothing was served."""
    if not served:
        return None
    from scipy.stats import binomtest

    found = binomtest(wrong, served).proportion_ci(confidence, method="exact")
    return [round(float(found.low), 6), round(float(found.high), 6)]
