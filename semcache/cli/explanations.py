"""Formats the explanation of a lookup, as JSON or for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from semcache.cli.common import MISS_REASONS, console, entry_json, short
from semcache.credentials import masked

if TYPE_CHECKING:
    from semcache.engine.explain import Explanation
    from semcache.inspection import ScopeSummary
    from semcache.types import Candidate, Entry, Evidence


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON."""
    query, decision = explanation.query, explanation.decision
    return {
        "question": query.question,
        "exact_key": query.exact_key.hex(),
        "scope": {"digest": query.scope.digest.hex(), "parts": masked(query.scope.parts)},
        "exact_entry": None if explanation.exact is None else explanation.exact.id,
        "policy": explanation.policy,
        "candidates": [
            {
                **entry_json(c.entry),
                "similarity": c.similarity,
                "evidence": None if c.evidence is None else evidence_json(c.evidence),
            }
            for c in explanation.neighbours
        ],
        "tier": explanation.tier,
        "decision": type(decision).__name__.lower(),
        "reason": decision.reason,
        "detail": getattr(decision, "detail", ""),
        "notes": list(explanation.notes),
    }


def evidence_json(evidence: Evidence) -> dict[str, Any]:
    """The evidence about a candidate as JSON."""
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
    remarks = [] if evidence.chance is None else [f"{evidence.chance:.1%} likely to be right"]
    if evidence.by == "same words":
        remarks.append("same words")
    elif evidence.logit is not None:
        remarks.append(f"pair model {chance_of(evidence.logit):.1%}")
    neighbours = evidence.neighbours
    if neighbours.agreement:
        remarks.append(f"{neighbours.agreement:.0%} of its neighbours have the same answer")
    if neighbours.residual:
        often = "right" if neighbours.residual > 0 else "wrong"
        remarks.append(f"this entry was {often} more often than expected")
    remarks += [str(finding) for finding in evidence.findings]
    out.print(f"            {escape('; '.join(remarks))}")


def print_explanation(explanation: Explanation) -> None:
    """Print an explanation for people."""
    from rich.markup import escape

    from semcache.types import Hit

    out = console()
    query, decision = explanation.query, explanation.decision
    out.print(f"[bold]question[/]   {escape(query.question or '(none)')}")
    parts = ", ".join(
        f"{k}={short(json.dumps(v), 60)}" for k, v in _readable(query.scope.parts).items()
    )
    out.print(f"[bold]scope[/]      {query.scope.digest.hex()[:16]}…  {escape(parts)}")
    exact = "no entry" if explanation.exact is None else f"entry {explanation.exact.id}"
    out.print(f"[bold]exact tier[/] {query.exact_key.hex()[:16]}…  {exact}")
    out.print(f"[bold]policy[/]     {escape(explanation.policy)}")
    for number, candidate in enumerate(explanation.neighbours, start=1):
        _print_candidate(number, candidate)
    if not explanation.neighbours and not explanation.notes:
        out.print("[bold]candidates[/] none: nothing is stored in this scope")
    for note in explanation.notes:
        out.print(f"[bold]note[/]       {escape(note)}")
    if isinstance(decision, Hit):
        out.print(
            f"[bold green]HIT[/]        {explanation.tier} tier, entry {decision.entry.id}: "
            f"{escape(decision.reason)}"
        )
    else:
        detail = getattr(decision, "detail", "")
        out.print(
            f"[bold yellow]MISS[/]       {decision.reason}: "
            + escape(detail or MISS_REASONS.get(decision.reason, ""))
        )


def _readable(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a scope under readable names, with credentials hidden."""
    parts = masked(parts)
    params = parts.get("params")
    if not isinstance(params, Mapping):
        return dict(parts)
    return {**parts, "params": _of_a_function(params)}


def _of_a_function(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a decorated function's request, without the digest of its code."""
    return {k.removeprefix("@"): v for k, v in params.items() if k != "@version"}


def print_same_question(entries: Sequence[Entry]) -> None:
    """Print where else the same question is stored."""
    from rich.markup import escape

    for entry in entries:
        out = console()
        out.print(
            f"[bold]elsewhere[/]  entry {entry.id} answers this question in another scope "
            f"(namespace {escape(entry.namespace)}, model {escape(entry.model or '-')}); look "
            f"there with --like {entry.id}"
        )


def print_other_scopes(others: Sequence[ScopeSummary]) -> None:
    """Print where else in the namespace entries are stored, if nothing was found."""
    if not others:
        return
    from rich.markup import escape

    out = console()
    out.print("\nOther scopes of this namespace hold entries that are never served to this lookup:")
    for one in others:
        name = "entry" if one.entries == 1 else "entries"
        parts = [f"model {one.model}" if one.model else "no model"]
        parts += [f"{key}={value}" for key, value in _of_a_function(one.params).items()]
        out.print(
            f"  {one.entries} {name}: {escape(short(', '.join(parts), 90))}; look there with "
            f"--like {one.entry_id}"
        )
