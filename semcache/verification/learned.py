"""The default verification: several kinds of evidence, with a threshold learned in use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from semcache.telemetry.telemetry import Telemetry
from semcache.types import (
    Candidate,
    Completion,
    Decision,
    Evidence,
    Explore,
    Finding,
    Lookup,
    NeighbourAgreement,
    Neighbours,
    ObservationKind,
    Query,
)
from semcache.verification import features
from semcache.verification.decision import no_candidate, servable
from semcache.verification.features import model_supports
from semcache.verification.labels import chance_of_candidate
from semcache.verification.learner import Learner
from semcache.verification.policies import FLOOR, MAX_EVALUATED, NEIGHBOURS, CalibratedPolicy


class LearnedVerification:
    """A `Verification` that bounds the share of served answers that are wrong.

    Args:
        learner: holds what was learned so far, and receives labels.
        telemetry: receives failures of the pair model.
        clock: returns seconds since the epoch.
    """

    k = NEIGHBOURS
    floor = FLOOR

    def __init__(self, learner: Learner, telemetry: Telemetry, clock: Callable[[], float]) -> None:
        self.learner = learner
        self._telemetry = telemetry
        self._clock = clock

    def describe(self) -> str:
        return f"at most {self.learner.config.bound:.1%} of the semantic hits wrong"

    # ------------------------------------------------------------------------- deciding

    def decide(self, query: Query, neighbours: Neighbours, *, now: float, draw: float) -> Decision:
        policy = self.learner.policy(query.request.namespace)
        fresh = servable(neighbours.candidates, policy.floor, now)
        if not fresh:
            return no_candidate(neighbours, policy.floor)
        return policy.decide(self._evaluate(policy, query.question or "", fresh), draw)

    def examine(
        self, query: Query, candidates: Sequence[Candidate], *, now: float
    ) -> list[Candidate]:
        policy = self.learner.policy(query.request.namespace)
        fresh = servable(candidates, policy.floor, now)
        if not fresh:
            return list(candidates)
        examined = self._evaluate(policy, query.question or "", fresh, every_one=True)
        by_id = {candidate.entry.id: candidate for candidate in examined}
        return [by_id.get(candidate.entry.id, candidate) for candidate in candidates]

    def _evaluate(
        self,
        policy: CalibratedPolicy,
        question: str,
        candidates: Sequence[Candidate],
        *,
        every_one: bool = False,
    ) -> list[Candidate]:
        """The candidates with their evidence.

        The pair model scores one candidate after another, until one is good enough to serve. It
        always scores the first, whose label is learned from, and any other only if its score can
        make a difference.

        Args:
            candidates: the candidates, nearest first.
            every_one: evaluate all of them, even after one that would be served.
        """
        agreements = self.learner.neighbour_agreements(candidates)
        evaluated: list[Candidate] = []
        asked = 0
        for candidate, agreement in zip(candidates, agreements, strict=True):
            if (candidate.entry.id, question) in self.learner.rejected_pairs:
                evidence = _reported_wrong(candidate.similarity)
                evaluated.append(replace(candidate, evidence=evidence))
                continue
            evidence = self._evidence(question, candidate, agreement)
            if self._wants_model(evidence, question):
                stored = candidate.entry.question or ""
                if asked >= MAX_EVALUATED and not every_one:
                    break
                if (
                    asked
                    and not every_one
                    and not self._may_serve(policy, question, stored, evidence)
                ):
                    continue
                asked += 1
                evidence = self._with_model(stored, question, evidence)
            evidence = policy.with_chance(evidence)
            evaluated.append(replace(candidate, evidence=evidence))
            if policy.serves(evidence) and not every_one:
                break
        return evaluated

    def _evidence(
        self, question: str, candidate: Candidate, agreement: NeighbourAgreement
    ) -> Evidence:
        age = self._clock() - candidate.entry.created_at
        stored = candidate.entry.question or ""
        return features.extract_evidence(stored, question, candidate.similarity, agreement, age)

    def _wants_model(self, evidence: Evidence, question: str) -> bool:
        return (
            evidence.by == "cosine"
            and self.learner.verifier is not None
            and model_supports(question)
        )

    def _may_serve(
        self, policy: CalibratedPolicy, question: str, stored: str, evidence: Evidence
    ) -> bool:
        """Whether the pair model's score could make this candidate good enough to serve."""
        highest = getattr(self.learner.verifier, "highest_logit", None)
        return highest is None or policy.may_serve(stored, question, evidence, highest)

    def _with_model(self, stored: str, question: str, evidence: Evidence) -> Evidence:
        verifier = self.learner.verifier
        assert verifier is not None
        try:
            (score,) = verifier.logits([(stored, question)])
            logit = float(score)
            if not math.isfinite(logit):
                raise ValueError(f"the verifier returned {logit}, which is not a finite number")
        except Exception as error:
            self._telemetry.fault("verify", error)
            return evidence
        return features.with_model_score(stored, question, evidence, logit)

    # ------------------------------------------------------------------------- learning

    def observe_lookup(self, lookup: Lookup) -> None:
        if (chance := chance_of_candidate(lookup.candidate)) is not None:
            self.learner.observe_lookup(lookup, chance)

    def observe_answer(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        if chance_of_candidate(lookup.candidate) is not None:
            explored = isinstance(lookup.decision, Explore)
            self.learner.submit(lookup, fresh, entry_id, "explore" if explored else "miss")

    @property
    def judges(self) -> bool:
        return self.learner.judges

    def observe_audit(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        self.learner.submit(lookup, fresh, entry_id, "audit")

    def report(self, lookup: Lookup | str, right: bool, *, kind: ObservationKind) -> bool:
        return self.learner.report(lookup, right, kind=kind)

    def forget(self, namespace: str) -> None:
        self.learner.forget(namespace)

    def save(self) -> None:
        self.learner.save()

    def wait(self) -> None:
        self.learner.wait()

    def after_fork(self) -> None:
        self.learner.after_fork()

    def close(self) -> None:
        self.learner.close()


def _reported_wrong(similarity: float) -> Evidence:
    """The evidence for a candidate that was reported wrong for this very question."""
    return Evidence(
        similarity, (Finding("reported", "a wrong answer", "the same question"),), by="guards"
    )
