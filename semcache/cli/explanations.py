"""An explanation, for scripts and for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from semcache.cli.common import (
    console,
    entry_json,
    short,
)

if TYPE_CHECKING:
    from semcache.engine.explain import Explanation
    from semcache.types import Candidate, Evidence


def explanation_json(found: Explanation) -> dict[str, Any]:
    """An explanation for scripts."""
    return {
        "question": found.query.question,
        "exact_key": found.query.exact_key.hex(),
        "scope": {"digest": found.query.scope.digest.hex(), "parts": found.query.scope.parts},
        "exact_entry": None if found.exact is None else found.exact.id,
        "policy": found.policy,
        "candidates": [
            {
                **entry_json(c.entry),
                "similarity": c.similarity,
                "evidence": None if c.evidence is None else evidence_json(c.evidence),
            }
            for c in found.neighbours
        ],
        "tier": found.tier,
        "decision": type(found.decision).__name__.lower(),
        "reason": found.decision.reason,
        "detail": getattr(found.decision, "detail", ""),
        "notes": list(found.notes),
    }


def evidence_json(evidence: Evidence) -> dict[str, Any]:
    """What is known of a candidate, for scripts."""
    return {
        "chance": evidence.chance,
        "by": evidence.by,
        "model_logit": evidence.logit,
        "findings": [
            {**asdict(finding), "decisive": finding.decisive} for finding in evidence.findings
        ],
        **asdict(evidence.neighbours),
    }


def _print_candidate(number: int, candidate: Candidate) -> None:
    from rich.markup import escape

    from semcache.verification.features import chance_of, refusal

    out, evidence = console(), candidate.evidence
    out.print(
        f"[bold]candidate {number}[/] similarity {candidate.similarity:.4f}  entry "
        f"{candidate.entry.id}  {escape(short(candidate.entry.question, 70))}"
    )
    if evidence is None:
        return
    refused = refusal(evidence)
    if refused is not None:
        out.print(f"            refused: {escape(f'{refused.stored} / {refused.asked}')}", end="")
        out.print(f" ({refused.kind})")
        return
    seen = [] if evidence.chance is None else [f"right with a chance of {evidence.chance:.1%}"]
    if evidence.by == "same words":
        seen.append("the same words")
    elif evidence.logit is not None:
        seen.append(f"pair model {chance_of(evidence.logit):.1%}")
    neighbours = evidence.neighbours
    if neighbours.agreement:
        seen.append(f"{neighbours.agreement:.0%} of its neighbours have the same answer")
    if neighbours.residual:
        seen.append(
            f"its labels were {'better' if neighbours.residual > 0 else 'worse'} than expected"
        )
    seen += [str(finding) for finding in evidence.findings]
    out.print(f"            {escape('; '.join(seen))}")


def print_explanation(found: Explanation) -> None:
    """An explanation for people."""
    from rich.markup import escape

    from semcache.types import Hit

    out = console()
    query, decision = found.query, found.decision
    out.print(f"[bold]question[/]   {escape(query.question or '(none)')}")
    parts = ", ".join(f"{k}={short(json.dumps(v), 60)}" for k, v in query.scope.parts.items())
    out.print(f"[bold]scope[/]      {query.scope.digest.hex()[:16]}…  {escape(parts)}")
    exact = "no entry" if found.exact is None else f"entry {found.exact.id}"
    out.print(f"[bold]exact tier[/] {query.exact_key.hex()[:16]}…  {exact}")
    out.print(f"[bold]policy[/]     {escape(found.policy)}")
    for number, candidate in enumerate(found.neighbours, start=1):
        _print_candidate(number, candidate)
    if not found.neighbours and not found.notes:
        out.print("[bold]candidates[/] none: nothing is stored in this scope")
    for note in found.notes:
        out.print(f"[bold]note[/]       {escape(note)}")
    if isinstance(decision, Hit):
        out.print(
            f"[bold green]HIT[/]        {found.tier} tier, entry {decision.entry.id}: "
            f"{escape(decision.reason)}"
        )
    else:
        detail = getattr(decision, "detail", "")
        out.print(
            f"[bold yellow]MISS[/]       {escape(decision.reason)}"
            + (f": {escape(detail)}" if detail else "")
        )
