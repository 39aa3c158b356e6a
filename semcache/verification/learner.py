"""Turns answers and reports into labels, learns from them, and stores labels and learned state.

A label costs a call to the model, but most of these calls are made anyway: on a miss, the fresh
answer shows whether the doubtful candidate was right. In addition, the model is called for a small
share of the candidates that would be served. Each label is a row in the ledger. The state is saved
now and then, so that it outlives the process and other processes on the same backend share it.
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
    PendingComparison,
    ServedHit,
)
from semcache.verification.base import ForkAware, Judge, Verifier
from semcache.verification.calibration import BINS, BoundConfig, ServingThreshold
from semcache.verification.features import chance_of
from semcache.verification.judge_worker import MAX_WAITING, JudgeWorker
from semcache.verification.labels import (
    label_from,
    label_of,
    pending_comparison,
    served_hit,
)
from semcache.verification.memory import load_prior, load_state, save_state
from semcache.verification.policies import CalibratedPolicy
from semcache.verification.prior import WITH_MODEL, WITHOUT_MODEL

if TYPE_CHECKING:
    from semcache.backends.base import Ledger, Metadata
    from semcache.telemetry.telemetry import Telemetry
    from semcache.verification.state import CalibrationState

_SAVE_EVERY = 200
"""Labels after which the state is saved, so that little is lost if the process is killed."""
_UNWRITTEN = 10_000
"""Labels and served hits held in memory until they are written; older ones are dropped."""
_CATCH_UP_EVERY = 1.0
"""Seconds between reads of the labels from other processes."""
_RECENT = 50_000
"""Maximum number of labels read at once. On loading, this many of those that the saved state
includes are read again, since it leaves out what they say about single entries."""


class Learner:
    """Turns answers and reports into labels, and labels into state.

    Args:
        ledger, metadata: where labels and state are stored.
        config: the bound, and the parameters used to enforce it.
        verifier: the pair model; None means that the evidence comes without its score.
        judge: compares answers; None means that labels come only from people.
        telemetry: receives labels, rising thresholds and faults.
        clock: returns seconds since the epoch.
        in_background: if False, answers are compared before `submit` returns, so that runs are
            reproducible.
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
        """(entry id, question) of answers that were reported wrong."""
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
        """Held while labels and served hits move to the ledger; acquired before `_lock`."""
        self._state: CalibrationState | None = None
        self._last_label = 0
        """Number of the newest label that the state includes."""
        self._caught_up_at = 0.0
        self._observed: list[Observation] = []
        self._served: list[ServedHit] = []
        self._unsaved = 0
        self._changed = False
        self._failed: list[Exception] = []
        self._resumed = False
        self.rejected_pairs = set()

    # --------------------------------------------------------------------------- asking

    @property
    def judges(self) -> bool:
        """Whether answers are compared at all."""
        return self._worker is not None

    def policy(self, namespace: str) -> CalibratedPolicy:
        """A snapshot of the current policy for a namespace."""
        with self._lock:
            policy = self._current_state().policy(namespace)
        while self._failed:  # reported without the lock: a listener may use the cache
            self._telemetry.fault("verify", self._failed.pop())
        return policy

    def neighbour_agreements(self, candidates: Sequence[Candidate]) -> list[NeighbourAgreement]:
        """How each candidate of a lookup compares with the others."""
        with self._lock:
            return self._current_state().neighbour_agreements(candidates)

    def thresholds(self) -> dict[str | None, ServingThreshold]:
        """The thresholds of the whole traffic (None) and of the namespaces with enough labels."""
        with self._lock:
            return self._current_state().thresholds()

    def labels(self) -> float:
        """Number of labels of the traffic as a whole; old ones count less."""
        with self._lock:
            return self._current_state().overall.labels

    # -------------------------------------------------------------------------- traffic

    def observe_lookup(self, lookup: Lookup, chance: float) -> None:
        """Count a lookup as traffic; remember a hit, so that it can be reported on later."""
        hit = isinstance(lookup.decision, Hit)
        self._resume()
        with self._lock:
            self._current_state().observe_lookup(lookup.query.request.namespace, chance)
            self._changed = True
            if hit:
                self._served.append(served_hit(lookup, self._clock()))
                del self._served[:-_UNWRITTEN]
        if hit:
            self._telemetry.counters.wake()

    def submit(
        self, lookup: Lookup, fresh: Completion, entry_id: int | None, kind: ObservationKind
    ) -> None:
        """Queue a comparison of the candidate's answer with a fresh one."""
        if self._worker is not None:
            comparison = pending_comparison(lookup, fresh, entry_id, kind)
            if comparison is not None:
                self._worker.submit(comparison)

    def _on_verdict(self, comparison: PendingComparison, right: bool | None) -> None:
        namespace, entry_id = comparison.namespace, comparison.entry_id
        self._telemetry.emit(LabelEvent(namespace, entry_id, comparison.kind, right))
        self.apply_label(label_from(comparison, right, self._clock(), self._writer))

    def _resume(self) -> None:
        """Queue, on the first call, the comparisons that an earlier process left in the ledger."""
        if self._resumed or self._worker is None:
            return
        self._resumed = True
        try:
            for comparison in self._ledger.take_comparisons(MAX_WAITING):
                self._worker.submit(comparison)
        except SemcacheError as error:
            self._telemetry.fault("verify", error)

    def apply_label(self, observation: Observation) -> None:
        """Learn from a label, and queue it for the ledger."""
        with self._lock:
            state = self._current_state()
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
        """Record a report on whether the answer that a lookup served was right.

        Returns whether the lookup is still known.

        Raises:
            StoreError: the report could not be written.
        """
        hit = self._find_hit(lookup)
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
        self._ledger.set_verdict(hit.id, right)  # before the label, whose readers need the verdict
        self._telemetry.emit(LabelEvent(hit.namespace, hit.entry_id, kind, right))
        self.apply_label(label_of(hit, right, kind, self._clock(), self._writer))
        self.flush()
        return True

    def _find_hit(self, lookup: Lookup | str) -> ServedHit | None:
        lookup_id = lookup if isinstance(lookup, str) else lookup.id
        with self._writing, self._lock:  # so that a hit being written is not missed
            unwritten = [hit for hit in self._served if hit.id == lookup_id]
        hit = unwritten[0] if unwritten else self._ledger.served_hit(lookup_id)
        if hit is not None or isinstance(lookup, str):
            return hit
        if not isinstance(lookup.decision, Hit) or lookup.candidate is None:
            return None
        return served_hit(lookup, self._clock())

    # --------------------------------------------------------------------------- memory

    def _current_state(self) -> CalibrationState:
        """The state, caught up with labels of other processes. The caller holds the lock.

        Failures are reported later; if the first load fails, the next call tries again.
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
        """Build the state from the prior, the saved state and recent labels."""
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
        except (ValueError, TypeError, KeyError) as error:  # damaged, or not written by us
            self._failed.append(error)
            state = CalibrationState(shipped, self.config)
        since = max(0, self._last_label - _RECENT)
        for number, observation in self._ledger.observations_after(since, _RECENT):
            if number <= self._last_label:
                state.note_outcome(observation)
        return state

    def _catch_up(self, state: CalibrationState) -> None:
        """Learn from the labels that other processes wrote."""
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
        """Write the pending labels and served hits.

        Raises:
            StoreError: they could not be written; the next call tries again.
        """
        with self._writing:
            with self._lock:
                observed, self._observed = self._observed, []
                served, self._served = self._served, []
            if not observed and not served:
                return
            try:
                self._ledger.observe(observed, served)
            except SemcacheError:  # after any other error they would fail again: drop them
                with self._lock:
                    self._observed = observed + self._observed
                    self._served = served + self._served
                raise
        if self._unsaved >= _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Save the state, so that the next process need not learn it from the labels again.

        Nothing is written if nothing has changed: inspecting a cache does not modify it.

        Raises:
            StoreError: the state could not be written.
        """
        self._unsaved = 0
        self.flush()
        with self._writing, self._lock:
            state = self._state
            # A label that has just arrived has no number yet: leave saving to the next call.
            if state is None or not self._changed or self._observed:
                return
            self._catch_up(state)
            save_state(self._metadata, {**state.as_json(), "last": self._last_label})
            self._changed = False

    def forget(self, namespace: str) -> None:
        """Drop what was learned about a namespace."""
        with self._lock:
            self._current_state().forget(namespace)
            self._observed = [one for one in self._observed if one.namespace != namespace]
            self._served = [hit for hit in self._served if hit.namespace != namespace]
            self._changed = True

    def wait(self) -> None:
        """Wait until no comparison is pending."""
        if self._worker is not None:
            self._worker.wait()

    def after_fork(self) -> None:
        """Start over in a child process: threads, locks and unwritten labels belong to the parent.

        The child starts from what is stored, like any other process.
        """
        self._reset()
        if self._worker is not None:
            self._worker.after_fork()
        if isinstance(self.verifier, ForkAware):
            self.verifier.after_fork()

    def close(self) -> None:
        """Stop comparing answers, and save everything. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        left = [] if self._worker is None else self._worker.close()
        if left:
            self._ledger.keep_comparisons(left)
        self.save()
