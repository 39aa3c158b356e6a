"""Where labels come in, and how they survive the process.

Labels cost calls, and most of these are made anyway: a miss asks the model, and its answer shows
what the refused candidate was worth; of what would be served a small share is asked all the same.
Each label is a row in the ledger, and the state is saved beside them now and then, so that it
survives the process and is shared by others on the same backend.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from semcache.errors import SemcacheError
from semcache.telemetry.events import BoundEvent, LabelEvent
from semcache.types import (
    Candidate,
    Completion,
    Hit,
    Lookup,
    NeighbourAgreement,
    Observation,
    ObservationKind,
    ServedHit,
)
from semcache.verification.base import ForkAware, Judge, Verifier
from semcache.verification.calibration import BINS, BoundConfig, ServingThreshold
from semcache.verification.features import chance_of
from semcache.verification.judge_worker import Comparison, JudgeWorker
from semcache.verification.labels import label_of, served_hit
from semcache.verification.memory import load_prior, load_state, save_state
from semcache.verification.policies import CalibratedPolicy
from semcache.verification.prior import WITH_MODEL, WITHOUT_MODEL

if TYPE_CHECKING:
    from semcache.backends.base import Ledger, Metadata
    from semcache.telemetry.telemetry import Telemetry
    from semcache.verification.state import CalibrationState

_SAVE_EVERY = 200
"""Labels after which the state is saved, so that a killed process has little to learn again."""
_UNWRITTEN = 10_000
"""Labels and served hits that are kept while they cannot be written; older ones are dropped."""
_CATCH_UP_EVERY = 1.0
"""Seconds after which labels of other processes are read."""
_RECENT = 50_000
"""Labels that are read again for what they say of single entries."""


class Learner:
    """Turns answers and reports into labels, and labels into state.

    Args:
        ledger, metadata: where labels and state are kept.
        config: the bound, and what it is held with.
        verifier: the pair model; None if there is none, and the cosine must do.
        judge: compares answers; None if labels come from people alone.
        telemetry: told of labels, of thresholds that rise, and of faults.
        clock: seconds since the epoch.
        in_background: False compares answers before `submit` returns, so that equal runs are
            equal.
    """

    def __init__(
        self,
        ledger: Ledger,
        metadata: Metadata,
        config: BoundConfig,
        *,
        verifier: Verifier | None,
        judge: Judge | None,
        telemetry: Telemetry,
        clock: Callable[[], float],
        in_background: bool = True,
    ) -> None:
        self.config = config
        self.verifier = verifier
        self.rejected_pairs: set[tuple[int, str]] = set()
        """(entry id, question) of answers that somebody called wrong."""
        self._ledger, self._metadata = ledger, metadata
        self._telemetry, self._clock = telemetry, clock
        self._worker = (
            None
            if judge is None
            else JudgeWorker(judge, self._on_verdict, telemetry.fault, in_background=in_background)
        )
        self._closed = False
        self._reset()
        telemetry.counters.flush_hooks.append(self.flush)

    def _reset(self) -> None:
        self._writer = os.urandom(6).hex()
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        """Taken before `_lock` by whoever moves labels and served hits to the ledger."""
        self._state: CalibrationState | None = None
        self._last_label = 0
        """The newest label that the state takes in."""
        self._caught_up_at = 0.0
        self._observed: list[Observation] = []
        self._served: list[ServedHit] = []
        self._unsaved = 0
        self._changed = False
        self._failed: list[Exception] = []
        self.rejected_pairs = set()

    # --------------------------------------------------------------------------- asking

    @property
    def judges(self) -> bool:
        """Whether answers are compared at all."""
        return self._worker is not None

    def policy(self, namespace: str) -> CalibratedPolicy:
        """The policy of this moment for a namespace."""
        with self._lock:
            policy = self._known().policy(namespace)
        while self._failed:  # told without the lock: a listener may look into the cache
            self._telemetry.fault("verify", self._failed.pop())
        return policy

    def neighbour_agreements(self, candidates: Sequence[Candidate]) -> list[NeighbourAgreement]:
        """How each candidate of a lookup compares with the others."""
        with self._lock:
            return self._known().neighbour_agreements(candidates)

    def thresholds(self) -> dict[str | None, ServingThreshold]:
        """Of the traffic as a whole (None), and of the namespaces with enough labels."""
        with self._lock:
            return self._known().thresholds()

    def labels(self) -> float:
        """How many labels the traffic as a whole has, old ones counting less."""
        with self._lock:
            return self._known().overall.labels

    # -------------------------------------------------------------------------- traffic

    def observe_lookup(self, lookup: Lookup, chance: float) -> None:
        """A lookup was decided; it is part of the traffic, and a hit may be reported on."""
        hit = isinstance(lookup.decision, Hit)
        with self._lock:
            self._known().observe_lookup(lookup.query.request.namespace, chance)
            self._changed = True
            if hit:
                self._served.append(served_hit(lookup, self._clock()))
                del self._served[:-_UNWRITTEN]
        if hit:
            self._telemetry.counters.wake()

    def submit(
        self, lookup: Lookup, fresh: Completion, entry_id: int | None, kind: ObservationKind
    ) -> None:
        """Have the answer of the lookup's candidate compared with a fresh one."""
        candidate, query = lookup.candidate, lookup.query
        if self._worker is not None and candidate is not None:
            self._worker.submit(
                Comparison(
                    query.question or "",
                    query.request.namespace,
                    candidate,
                    fresh,
                    entry_id,
                    kind,
                )
            )

    def _on_verdict(self, comparison: Comparison, right: bool | None) -> None:
        candidate, namespace = comparison.candidate, comparison.namespace
        self._telemetry.emit(LabelEvent(namespace, candidate.entry.id, comparison.kind, right))
        if right is None or candidate.evidence is None:
            return
        self.apply_label(
            Observation(
                at=self._clock(),
                writer=self._writer,
                kind=comparison.kind,
                namespace=namespace,
                entry_id=candidate.entry.id,
                other_id=comparison.entry_id,
                right=right,
                expected=candidate.evidence.chance or 0.0,
                features=candidate.evidence.features,
            )
        )

    def apply_label(self, observation: Observation) -> None:
        """Learn from a label, and write it down soon."""
        with self._lock:
            state = self._known()
            raised = [(name, state.threshold(name)) for name in state.apply_label(observation)]
            self._changed = True
            self._unsaved += 1
            self._observed.append(observation)
            del self._observed[:-_UNWRITTEN]
        self._telemetry.counters.wake()
        for name, threshold in raised:
            served_from = None if threshold.first_bin >= BINS else chance_of(threshold.logit)
            self._telemetry.emit(BoundEvent(name, self.config.bound, served_from))

    def report(self, lookup: Lookup | str, right: bool, *, kind: ObservationKind) -> bool:
        """Somebody says whether what a lookup served was right.

        Returns whether the lookup is remembered.

        Raises:
            StoreError: it could not be written.
        """
        hit = self._remembered(lookup)
        if hit is None or hit.verdict is right:
            return hit is not None
        pair = (hit.entry_id, hit.question)
        with self._lock:
            if right:
                self.rejected_pairs.discard(pair)
            else:
                self.rejected_pairs.add(pair)
        self.flush()
        self._ledger.observe([], [hit])
        self._ledger.set_verdict(hit.id, right)  # before the label: who reads that must find it
        self._telemetry.emit(LabelEvent(hit.namespace, hit.entry_id, kind, right))
        self.apply_label(label_of(hit, right, kind, self._clock(), self._writer))
        self.flush()
        return True

    def _remembered(self, lookup: Lookup | str) -> ServedHit | None:
        name = lookup if isinstance(lookup, str) else lookup.id
        with self._writing, self._lock:  # what is being written is in one place or the other
            waiting = [hit for hit in self._served if hit.id == name]
        hit = waiting[0] if waiting else self._ledger.served_hit(name)
        if hit is not None or isinstance(lookup, str):
            return hit
        if not isinstance(lookup.decision, Hit) or lookup.candidate is None:
            return None
        return served_hit(lookup, self._clock())

    # --------------------------------------------------------------------------- memory

    def _known(self) -> CalibrationState:
        """The state, with what others have learned in the meantime. The lock is held.

        Failures are told later; a first reading that failed is tried again.
        """
        now = time.monotonic()
        state = self._state
        if state is not None and now - self._caught_up_at < _CATCH_UP_EVERY:
            return state
        self._caught_up_at = now
        if state is None:
            state = self._state = self._load()
        try:
            self._catch_up(state)
        except SemcacheError as error:
            self._failed.append(error)
        return state

    def _load(self) -> CalibrationState:
        """The prior, the saved state, and what labels say of single entries."""
        from semcache.verification.state import CalibrationState

        if self.verifier is not None:
            try:
                self.verifier.load()
            except Exception as error:
                self._failed.append(error)
                self.verifier = None
        with_model = self.verifier is not None
        shipped = WITH_MODEL if with_model else WITHOUT_MODEL
        self.rejected_pairs = self._ledger.rejected_pairs()
        self._last_label = 0
        try:
            prior = load_prior(self._metadata, shipped, with_model=with_model)
            state = CalibrationState(prior, self.config)
            saved = load_state(self._metadata)
            if state.restore(saved):
                self._last_label = int(saved["last"])
        except (ValueError, TypeError, KeyError) as error:  # damaged, or from somewhere else
            self._failed.append(error)
            state = CalibrationState(shipped, self.config)
        since = max(0, self._last_label - _RECENT)
        for number, observation in self._ledger.observations_after(since, _RECENT):
            if number <= self._last_label:
                state.note_outcome(observation)
        return state

    def _catch_up(self, state: CalibrationState) -> None:
        """Learn from the labels of others."""
        reported = False
        for number, observation in self._ledger.observations_after(self._last_label, _RECENT):
            self._last_label = number
            if observation.writer != self._writer:
                state.apply_label(observation, replayed=True)
                self._changed = True
                reported |= observation.kind in ("feedback", "review")
        if reported:
            self.rejected_pairs = self._ledger.rejected_pairs()

    def flush(self) -> None:
        """Write labels and served hits that are not written yet.

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
        """Save the state, so that the next process need not learn it again from the labels.

        Nothing is written where nothing has changed: who only looks leaves no trace.

        Raises:
            StoreError: it could not be written.
        """
        self._unsaved = 0
        self.flush()
        with self._writing, self._lock:
            state = self._state
            # A label that came in just now has no number yet; the state waits for the next time.
            if state is None or not self._changed or self._observed:
                return
            self._catch_up(state)
            save_state(self._metadata, {**state.as_json(), "last": self._last_label})
            self._changed = False

    def wait(self) -> None:
        """Return when the judge has nothing left to do."""
        if self._worker is not None:
            self._worker.wait()

    def after_fork(self) -> None:
        """In a child process: threads, locks and unwritten labels are the parent's.

        The child begins from what is written down, as any other process.
        """
        self._reset()
        if self._worker is not None:
            self._worker.after_fork()
        if isinstance(self.verifier, ForkAware):
            self.verifier.after_fork()

    def close(self) -> None:
        """Compare no more; write and save the rest. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._worker.close()
        self.save()
