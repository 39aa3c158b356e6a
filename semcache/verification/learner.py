"""`Learning`: the verified policy's memory, over the store.

Labels cost calls, and these are made anyway: a miss asks the model, and its answer tells what
the refused candidate was worth; of what would be served a small share is asked all the same.
What was learned survives the process and is shared by others on the same directory: each
label is a row, and the state is kept beside them now and then.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from semcache.backends.base import Ledger
from semcache.errors import SemcacheError
from semcache.telemetry.events import BoundEvent, Event, LabelEvent
from semcache.types import (
    Candidate,
    Completion,
    Evidence,
    Explore,
    Finding,
    Hit,
    Lookup,
    Observation,
    ObservationKind,
    Serve,
)
from semcache.verification import features as verifier
from semcache.verification.base import Judge, Verifier
from semcache.verification.calibration import BINS, Line, Rules
from semcache.verification.features import Prior, chance_of, knows
from semcache.verification.judge_worker import Comparison, Desk
from semcache.verification.policies import LOOKED_AT, Verified
from semcache.verification.prior import WITH_MODEL, WITHOUT_MODEL

if TYPE_CHECKING:
    from semcache.verification.state import Beliefs

_STATE, _PRIOR = "learned", "prior"
_SAVE_EVERY = 200
"""Labels after which the state is kept, so that a killed process has little to learn again."""
_WAITING = 10_000
"""Labels and serves that are kept while the store cannot be written; older ones are dropped."""
_LOOK_AGAIN = 1.0
"""Seconds after which another process's labels are read."""
_LATELY = 50_000
"""Labels that are read back for the standing of entries."""


class Learning:
    """The verified policy of a cache, and its memory.

    Args:
        ledger: where labels are kept.
        rules: the bound, and what it is held with.
        verifier: the pair model; None: there is none, and the cosine must do.
        judge: compares answers; None: labels come from people alone.
        clock: seconds since the epoch.
        emit: told of labels and of lines that close. fault: told of what failed.
        wake: called when there is something to write.
        in_background: False: judge inside `answered`, so that equal runs are equal.
    """

    def __init__(
        self,
        ledger: Ledger,
        rules: Rules,
        *,
        verifier: Verifier | None,
        judge: Judge | None,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        fault: Callable[[str, BaseException], None],
        wake: Callable[[], None],
        in_background: bool = True,
    ) -> None:
        self.rules = rules
        self._ledger = ledger
        self._verifier = verifier
        self._clock, self._emit, self._fault, self._wake = clock, emit, fault, wake
        self._desk = (
            None if judge is None else Desk(judge, self._judged, fault, in_background=in_background)
        )
        self._closed = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._writer = os.urandom(6).hex()
        # Around what is believed; `_writing` around what goes to the store, and taken first.
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._beliefs: Beliefs | None = None  # NumPy is loaded when first looked at
        self._refuted: set[tuple[int, str]] = set()
        self._observed: list[Observation] = []
        self._served: list[Serve] = []
        self._last, self._looked = 0, 0.0
        self._unsaved, self._changed = 0, False
        self._failed: list[BaseException] = []

    @property
    def judges(self) -> bool:
        """Whether anybody compares answers."""
        return self._desk is not None

    # ------------------------------------------------------------------------ looking

    def policy(self, namespace: str) -> Verified:
        """The policy of this moment for a namespace.

        Raises:
            StoreError: what was learned cannot be read, for the first time.
        """
        with self._lock:
            found = self._known().policy(namespace)
        while self._failed:  # told without the lock: a listener may want to look at the cache
            self._fault("verify", self._failed.pop())
        return found

    def lines(self) -> dict[str | None, Line]:
        """Where serving begins: for the whole (None), and for namespaces with enough labels."""
        with self._lock:
            return self._known().lines()

    def labels(self) -> float:
        """How many labels the traffic as a whole has, old ones counting less."""
        with self._lock:
            return self._known().whole.labels

    def examined(
        self,
        policy: Verified,
        question: str,
        candidates: Sequence[Candidate],
        *,
        all_of: bool = False,
    ) -> list[Candidate]:
        """Candidates with what is known of them.

        The pair model is asked about one after another, and no more of them once one is good
        enough to be served.

        Args:
            candidates: the nearest first.
            all_of: ask it about all of them, for somebody who wants to see.
        """
        with self._lock:
            standings = self._known().standings(candidates)
        found: list[Candidate] = []
        asked = 0
        for candidate, standing in zip(candidates, standings, strict=True):
            if (candidate.entry.id, question) in self._refuted:
                found.append(replace(candidate, evidence=_reported(candidate.similarity)))
                continue
            stored = candidate.entry.question or ""
            age = self._clock() - candidate.entry.created_at
            evidence = verifier.look(stored, question, candidate.similarity, standing, age)
            if evidence.by == "cosine" and self._verifier is not None and knows(question):
                if asked >= LOOKED_AT and not all_of:
                    break
                asked += 1
                evidence = self._asked(stored, question, evidence)
            evidence = policy.weighed(evidence)
            found.append(replace(candidate, evidence=evidence))
            if policy.serves(evidence) and not all_of:
                break
        return found

    def _asked(self, stored: str, question: str, evidence: Evidence) -> Evidence:
        assert self._verifier is not None
        try:
            (found,) = self._verifier.logits([(stored, question)])
            logit = float(found)
            if not math.isfinite(logit):
                raise ValueError(f"the verifier says {logit}")
        except Exception as error:
            self._fault("verify", error)
            return evidence
        return verifier.verified(stored, question, evidence, logit)

    def saw(self, lookup: Lookup) -> None:
        """A lookup was decided; it is part of the traffic, and a hit may be reported on."""
        candidate = lookup.candidate
        if candidate is None or (chance := _chance(candidate)) is None:
            return
        hit = isinstance(lookup.decision, Hit)
        with self._lock:
            self._known().saw(lookup.query.request.namespace, chance)
            self._changed = True
            if hit:
                self._served.append(_serve(lookup, candidate, self._clock()))
                del self._served[:-_WAITING]
        if hit:
            self._wake()

    # -------------------------------------------------------------------------- labels

    def answered(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """The model was asked: what was the candidate worth? Told in the background."""
        candidate = lookup.candidate
        if candidate is not None and _chance(candidate) is not None:
            explored = isinstance(lookup.decision, Explore)
            self.compare(lookup, candidate, fresh, entry_id, "explore" if explored else "miss")

    def compare(
        self,
        lookup: Lookup,
        candidate: Candidate,
        fresh: Completion,
        entry_id: int | None,
        kind: ObservationKind,
    ) -> None:
        """Have a candidate's answer held against a fresh one."""
        if self._desk is not None:
            query = lookup.query
            namespace = query.request.namespace
            question = query.question or ""
            self._desk.give(Comparison(question, namespace, candidate, fresh, entry_id, kind))

    def _judged(self, found: Comparison, right: bool | None) -> None:
        candidate = found.candidate
        self._emit(LabelEvent(found.namespace, candidate.entry.id, found.kind, right))
        if right is None or candidate.evidence is None:
            return
        self.learn(
            Observation(
                self._clock(),
                self._writer,
                found.kind,
                found.namespace,
                candidate.entry.id,
                found.entry_id,
                right,
                candidate.evidence.chance or 0.0,
                candidate.evidence.features,
            )
        )

    def learn(self, observation: Observation) -> None:
        """Take a label over, and keep it."""
        with self._lock:
            beliefs = self._known()
            moved = [(name, beliefs.line(name)) for name in beliefs.take(observation)]
            self._changed = True
            self._unsaved += 1
            self._observed.append(observation)
            del self._observed[:-_WAITING]
        self._wake()
        for name, line in moved:
            served_from = None if line.place >= BINS else chance_of(line.logit)
            self._emit(BoundEvent(name, self.rules.bound, served_from))

    def report(self, lookup: Lookup | str, right: bool, *, kind: ObservationKind) -> bool:
        """Somebody says whether what a lookup served was right.

        Returns whether the lookup is remembered.

        Raises:
            StoreError: it could not be written.
        """
        serve = self._remembered(lookup)
        if serve is None or serve.verdict is right:
            return serve is not None
        pair = (serve.entry_id, serve.question)
        with self._lock:
            if right:
                self._refuted.discard(pair)
            else:
                self._refuted.add(pair)
        self.flush()
        self._ledger.observe([], [serve])
        self._ledger.reviewed(serve.id, right)  # before the label: who reads that must find it
        self._emit(LabelEvent(serve.namespace, serve.entry_id, kind, right))
        self.learn(
            Observation(
                self._clock(),
                self._writer,
                kind,
                serve.namespace,
                serve.entry_id,
                None,
                right,
                serve.chance,
                serve.features,
            )
        )
        self.flush()
        return True

    def _remembered(self, lookup: Lookup | str) -> Serve | None:
        name = lookup if isinstance(lookup, str) else lookup.id
        with self._writing, self._lock:  # what is being written is in one place or the other
            waiting = [serve for serve in self._served if serve.id == name]
        found = waiting[0] if waiting else self._ledger.serve(name)
        if found is not None or isinstance(lookup, str):
            return found
        candidate = lookup.candidate
        if not isinstance(lookup.decision, Hit) or candidate is None:
            return None
        return _serve(lookup, candidate, self._clock())

    # --------------------------------------------------------------------------- memory

    def _known(self) -> Beliefs:
        """What is believed, with what others have learned in the meantime. The lock is held.

        What fails is told later; the first reading is tried again.
        """
        now = time.monotonic()
        beliefs = self._beliefs
        if beliefs is not None and now - self._looked < _LOOK_AGAIN:
            return beliefs
        self._looked = now
        if beliefs is None:
            beliefs = self._beliefs = self._read()
        try:
            self._catch_up(beliefs)
        except SemcacheError as error:
            self._failed.append(error)
        return beliefs

    def _read(self) -> Beliefs:
        """The prior, the state that was kept, and the standing of entries."""
        from semcache.verification.state import Beliefs

        if self._verifier is not None:
            try:
                self._verifier.load()
            except Exception as error:
                self._failed.append(error)
                self._verifier = None
        shipped = WITH_MODEL if self._verifier is not None else WITHOUT_MODEL
        fitted, kept = self._ledger.meta(_PRIOR), self._ledger.meta(_STATE)
        self._refuted = self._ledger.refuted()
        self._last = 0
        try:
            prior = _fitted(fitted, shipped, with_model=self._verifier is not None)
            beliefs = Beliefs(prior, self.rules)
            state = json.loads(kept or "{}")
            if beliefs.restore(state):
                self._last = int(state["last"])
        except (ValueError, TypeError, KeyError) as error:  # somebody else's, or damaged
            self._failed.append(error)
            beliefs = Beliefs(shipped, self.rules)
        lately = max(0, self._last - _LATELY)
        for number, observation in self._ledger.observations_after(lately, _LATELY):
            if number <= self._last:
                beliefs.stand(observation)
        return beliefs

    def _catch_up(self, beliefs: Beliefs) -> None:
        """Take over what others have learned."""
        reported = False
        for number, observation in self._ledger.observations_after(self._last, _LATELY):
            self._last = number
            if observation.writer != self._writer:
                beliefs.take(observation, quietly=True)
                self._changed = True
                reported |= observation.kind in ("feedback", "review")
        if reported:
            self._refuted = self._ledger.refuted()

    def flush(self) -> None:
        """Write labels and serves that are not written yet.

        Raises:
            StoreError: they could not be written, and are kept for the next time.
        """
        with self._writing:
            with self._lock:
                observed, self._observed = self._observed, []
                served, self._served = self._served, []
            if not observed and not served:
                return
            try:
                self._ledger.observe(observed, served)
            except SemcacheError:  # anything else would fail again: it is dropped
                with self._lock:
                    self._observed = observed + self._observed
                    self._served = served + self._served
                raise
        if self._unsaved >= _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Keep the state, so that the next process need not learn it all from the labels.

        Nothing is written where nothing has changed: who only looks leaves no trace.

        Raises:
            StoreError: it could not be written.
        """
        self._unsaved = 0
        self.flush()
        with self._writing, self._lock:
            beliefs = self._beliefs
            # A label that came in just now has no number yet; the state waits for the next time.
            if beliefs is None or not self._changed or self._observed:
                return
            self._catch_up(beliefs)
            self._ledger.set_meta(_STATE, json.dumps({**beliefs.as_json(), "last": self._last}))
            self._changed = False

    def wait(self) -> None:
        """Until the judge has nothing left to do."""
        if self._desk is not None:
            self._desk.wait()

    def after_fork(self) -> None:
        """In a child process: threads and locks are the parent's, and so are its labels.

        The child begins from what is written down, as any other process.
        """
        self._begin_anew()
        if self._desk is not None:
            self._desk.after_fork()
        renew = getattr(self._verifier, "after_fork", None)
        if renew is not None:
            renew()

    def close(self) -> None:
        """Judge what waits no longer; write and keep the rest. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._desk is not None:
            self._desk.close()
        self.save()


def _chance(candidate: Candidate) -> float | None:
    """The chance that was given to a candidate; None: nobody looked, or a guard refused."""
    return None if candidate.evidence is None else candidate.evidence.chance


def _serve(lookup: Lookup, candidate: Candidate, now: float) -> Serve:
    evidence = candidate.evidence
    return Serve(
        lookup.id,
        now,
        lookup.query.request.namespace,
        candidate.entry.id,
        lookup.query.question or "",
        candidate.similarity,
        _chance(candidate) or 0.0,
        () if evidence is None else evidence.features,
    )


def _reported(similarity: float) -> Evidence:
    """Of a candidate that somebody has called wrong for this very question."""
    return Evidence(similarity, (Finding("reported", "this answer", "called wrong"),), by="guards")


def _fitted(kept: str | None, shipped: Prior, *, with_model: bool) -> Prior:
    """The prior that `semcache tune` has fitted, or the shipped one."""
    if kept is None:
        return shipped
    found = json.loads(kept)
    weights = tuple(map(float, found.get("weights", ())))
    if found.get("with_model") is not with_model or len(weights) != len(shipped.weights):
        return shipped
    return replace(shipped, weights=weights)
