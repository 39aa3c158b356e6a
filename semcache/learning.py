"""What a cache learns about its own answers, and how it comes to know.

One object for each cache: it looks at candidates (guards, pair model), hands out the policy
of the moment, takes labels, and keeps what it has learned in the store, so that it survives
the process and is shared by others. All thinking is done in `core.verifier` and
`core.calibration`, as values; here they are replaced one by another, under a lock.

Labels cost calls, and these are made anyway: a miss asks the model, and its answer tells what
the refused candidate was worth; of what would be served a small share is asked all the same.
The judge compares in the background, never on the caller's time.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from hashlib import sha256
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

from semcache.core import calibration, verifier
from semcache.core.calibration import Bins, Fit, Line, Rules
from semcache.core.policies import FLOOR, LOOKED_AT, NEIGHBOURS, Verified, place
from semcache.core.prior import WITH_MODEL, WITHOUT_MODEL, Prior
from semcache.core.verifier import chance_of, knows
from semcache.errors import SemcacheError
from semcache.events import BoundEvent, Event, LabelEvent
from semcache.protocols import Judge, Ledger, Verifier
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
    Standing,
)

if TYPE_CHECKING:
    from semcache.core.weights import Weights

_STATE, _PRIOR = "learned", "prior"
_STATE_VERSION = 2
_SAVE_EVERY = 200
"""Labels after which the state is kept, so that a killed process has little to learn again."""
_WAITING = 10_000
"""Labels and serves that are kept while the store cannot be written; older ones are dropped."""
_QUEUE = 256
"""Answers that wait for the judge; when more come, they are no labels."""
_GROUPS_KEPT, _GROUPS = 1000, 20_000
"""Namespaces whose state is kept on disk, and in memory: those that were seen last."""
_STANDINGS_KEPT = 200_000
_LOOK_AGAIN = 1.0
"""Seconds after which another process's labels are read."""
_SAID = 3
"""Bins by which the line must rise at once for it to be said."""
_FORGET = 0.1
"""What labels from before a broken bound still count."""
_REPORT_WEIGHT = 0.5
"""What a user's report counts for the weights: it is no random sample."""
_LATELY = 50_000
"""Observations that are read back for the standing of entries."""


class Learning:
    """The verified policy of a cache, and its memory.

    Args:
        ledger: where labels are kept.
        rules: the bound, and what it is held with.
        verifier: the pair model; None: there is none, and the cosine must do.
        judge: compares answers; None: labels come from people alone.
        clock: seconds since the epoch.
        emit: told of labels and of a broken bound. fault: told of what failed.
        wake: called when there is something to write.
        in_background: False: judge inside `answered`, so that equal runs are equal.
    """

    k = NEIGHBOURS
    floor = FLOOR

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
        self._judge = judge
        self._clock, self._emit, self._fault, self._wake = clock, emit, fault, wake
        self._in_background = in_background
        self._writer = os.urandom(6).hex()
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._loaded = self._closed = False
        self._prior = WITH_MODEL
        self._weights: Weights | None = None  # NumPy is loaded when first looked at
        self._whole = Bins()
        self._groups: dict[str, Bins] = {}
        self._lines: dict[str | None, Line] = {}
        self._fit: Fit = calibration.PRIOR
        self._surprise: dict[int, float] = {}
        self._answer_of: dict[int, int] = {}
        self._refuted: set[tuple[int, str]] = set()
        self._observed: list[Observation] = []
        self._served: list[Serve] = []
        self._last = 0
        self._looked = 0.0
        self._unsaved, self._changed = 0, False
        self._failed: list[BaseException] = []
        self._queue: Queue[tuple[Any, ...]] = Queue(_QUEUE)
        self._thread: threading.Thread | None = None

    @property
    def judges(self) -> bool:
        """Whether anybody compares answers."""
        return self._judge is not None

    # ------------------------------------------------------------------------ looking

    def policy(self, namespace: str) -> Verified:
        """The policy of this moment for a namespace.

        Raises:
            StoreError: what was learned cannot be read, for the first time.
        """
        with self._lock:
            self._load()
            assert self._weights is not None
            found = Verified(self.rules, self._weights, self._line(namespace))
        self._tell_faults()
        return found

    def _tell_faults(self) -> None:
        """Told without the lock: a listener may want to look at the cache."""
        while self._failed:
            self._fault("verify", self._failed.pop())

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
        found: list[Candidate] = []
        asked = 0
        standings = self._standings(candidates)
        for candidate, standing in zip(candidates, standings, strict=True):
            stored = candidate.entry.question or ""
            if (candidate.entry.id, question) in self._refuted:
                found.append(replace(candidate, evidence=_reported(candidate.similarity)))
                continue
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

    def _standings(self, candidates: Sequence[Candidate]) -> list[Standing]:
        ids = [candidate.entry.id for candidate in candidates]
        return verifier.standings(
            [self._answer_of.get(i, i) for i in ids],
            [candidate.similarity for candidate in candidates],
            [self._surprise.get(i, 0.0) for i in ids],
        )

    def saw(self, lookup: Lookup) -> None:
        """A lookup was decided; it is part of the traffic, and a hit may be reported on."""
        candidate = lookup.candidate
        evidence = None if candidate is None else candidate.evidence
        if candidate is None or evidence is None or evidence.chance is None:
            return
        namespace = lookup.query.request.namespace
        at = place(evidence.chance)
        with self._lock:
            self._whole = self._whole.saw(at, self.rules)
            self._keep_group(namespace, self._group(namespace).saw(at, self.rules))
            self._changed = True
            if isinstance(lookup.decision, Hit):
                self._served.append(_serve(lookup, candidate, evidence, self._clock()))
                del self._served[:-_WAITING]
        if isinstance(lookup.decision, Hit):
            self._wake()

    # -------------------------------------------------------------------------- labels

    def answered(self, lookup: Lookup, fresh: Completion, entry_id: int | None) -> None:
        """The model was asked: what was the candidate worth? Told in the background."""
        candidate = lookup.candidate
        if self._judge is None or candidate is None or not _labels(candidate):
            return
        kind: ObservationKind = "explore" if isinstance(lookup.decision, Explore) else "miss"
        self.compare(lookup, candidate, fresh, entry_id, kind)

    def compare(
        self,
        lookup: Lookup,
        candidate: Candidate,
        fresh: Completion,
        entry_id: int | None,
        kind: ObservationKind,
    ) -> None:
        """Have a candidate's answer held against a fresh one."""
        if self._closed or self._judge is None:
            return
        work = (lookup, candidate, fresh, entry_id, kind)
        if not self._in_background:
            self._judged(*work)
            return
        try:
            self._queue.put_nowait(work)
        except Full:
            return
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._judge_on, name="semcache-judge", daemon=True
                    )
                    self._thread.start()

    def _judge_on(self) -> None:
        while True:
            work = self._queue.get()
            try:
                if work and not self._closed:
                    self._judged(*work)
            except BaseException as error:  # a judge that wants to end the program ends nothing
                self._fault("judge", error)
            finally:
                self._queue.task_done()
            if self._closed and self._queue.empty():
                return

    def _judged(
        self,
        lookup: Lookup,
        candidate: Candidate,
        fresh: Completion,
        entry_id: int | None,
        kind: ObservationKind,
    ) -> None:
        assert self._judge is not None
        question = lookup.query.question or ""
        namespace = lookup.query.request.namespace
        try:
            right = self._judge.judge(question, candidate.entry.completion, fresh)
        except Exception as error:
            self._fault("judge", error)
            right = None
        self._emit(LabelEvent(namespace, candidate.entry.id, kind, right))
        if right is None or candidate.evidence is None:
            return
        self.learn(
            Observation(
                self._clock(),
                self._writer,
                kind,
                namespace,
                candidate.entry.id,
                entry_id,
                bool(right),
                candidate.evidence.chance or 0.0,
                candidate.evidence.features,
            )
        )

    def learn(self, observation: Observation) -> None:
        """Take a label over, and keep it."""
        with self._lock:
            self._load()
            events = self._take(observation)
            self._observed.append(observation)
            del self._observed[:-_WAITING]
            self._unsaved += 1
        self._wake()
        for event in events:
            self._emit(event)

    def report(self, lookup: Lookup | str, right: bool, *, kind: ObservationKind) -> bool:
        """Somebody says whether what a lookup served was right.

        Returns whether the lookup is remembered.
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
        # The verdict first: who reads the label must find it.
        self.flush()
        self._ledger.observe([], [serve])
        self._ledger.reviewed(serve.id, right)
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
        with self._writing, self._lock:  # what is being written is in one place or the other
            name = lookup if isinstance(lookup, str) else lookup.id
            waiting = [serve for serve in self._served if serve.id == name]
        found = waiting[0] if waiting else self._ledger.serve(name)
        if found is not None or isinstance(lookup, str):
            return found
        candidate = lookup.candidate
        if not isinstance(lookup.decision, Hit) or candidate is None:
            return None
        assert candidate.evidence is not None
        return _serve(lookup, candidate, candidate.evidence, self._clock())

    def _take(self, observation: Observation, *, quietly: bool = False) -> list[Event]:
        """Learn from one label. The lock is held.

        Args:
            quietly: it was learned from before, or elsewhere: draw no lines, say nothing.
        """
        right, namespace = observation.right, observation.namespace
        self._stand(observation)
        self._changed = True
        random_one = observation.kind != "feedback"
        if len(observation.features) == len(verifier.FEATURES) and self._weights is not None:
            self._weights = self._weights.learned(
                observation.features, right, 1.0 if random_one else _REPORT_WEIGHT
            )
        if not random_one:
            return []
        at = place(observation.expected)
        line = Line() if quietly else self._line(namespace)
        self._whole = self._whole.labelled(at, right, self.rules)
        self._keep_group(namespace, self._group(namespace).labelled(at, right, self.rules))
        if quietly:
            self._lines.clear()
            return []
        events: list[Event] = []
        if at >= line.place:
            events = self._watched(namespace, right)
        self._lines.clear()
        if not events and line.place < calibration.BINS:
            risen = self._line(namespace).place - line.place
            if risen >= _SAID or self._line(namespace).place >= calibration.BINS:
                events.append(self._moved(namespace))
        return events

    def _stand(self, observation: Observation) -> None:
        """What the label says of the entry itself, and of the fresh one beside it."""
        entry = observation.entry_id
        surprise = self._surprise.get(entry, 0.0) + observation.right - observation.expected
        self._surprise[entry] = max(-2.0, min(2.0, surprise))
        if observation.right and observation.other_id is not None:
            self._answer_of[observation.other_id] = self._answer_of.get(entry, entry)
        for known in (self._surprise, self._answer_of):
            if len(known) > _STANDINGS_KEPT:
                del known[next(iter(known))]

    def _watched(self, namespace: str, right: bool) -> list[Event]:
        """Look for a broken bound in a label of what is served."""
        events: list[Event] = []
        self._whole, broken = calibration.alarmed(self._whole, right, self.rules)
        if broken:
            self._whole = self._whole.forgotten(_FORGET)
            self._groups = {n: bins.forgotten(_FORGET) for n, bins in self._groups.items()}
            self._lines.clear()
            events.append(self._moved(None))
        group, broken = calibration.alarmed(self._group(namespace), right, self.rules)
        self._keep_group(namespace, group.forgotten(_FORGET) if broken else group)
        if broken and not events:
            self._lines.clear()
            events.append(self._moved(namespace))
        return events

    def _moved(self, namespace: str | None) -> BoundEvent:
        line = self._line(namespace)
        from_ = None if line.place >= calibration.BINS else chance_of(line.logit)
        return BoundEvent(namespace, self.rules.bound, from_)

    # ---------------------------------------------------------------------------- lines

    def _line(self, namespace: str | None) -> Line:
        """Where serving begins, for a namespace or for the whole. The lock is held."""
        if None not in self._lines:
            self._fit, self._lines[None] = calibration.whole(self._whole, self.rules)
        if namespace is None:
            return self._lines[None]
        if namespace not in self._lines:
            bins = self._group(namespace)
            self._lines[namespace] = (
                calibration.group(bins, self._fit, self.rules)[1]
                if bins.labels >= self.rules.group_labels
                else self._lines[None]
            )
        return self._lines[namespace]

    def _group(self, namespace: str) -> Bins:
        return self._groups.get(namespace, _NOTHING)

    def _keep_group(self, namespace: str, bins: Bins) -> None:
        """The one seen last stands last; the one not seen for longest is let go."""
        self._groups.pop(namespace, None)
        self._groups[namespace] = bins
        if len(self._groups) > _GROUPS:
            del self._groups[next(iter(self._groups))]

    def lines(self) -> dict[str | None, Line]:
        """Where serving begins: for the whole (None), and for namespaces with enough labels."""
        with self._lock:
            self._load()
            own = [n for n, b in self._groups.items() if b.labels >= self.rules.group_labels]
            return {None: self._line(None), **{name: self._line(name) for name in own}}

    # --------------------------------------------------------------------------- memory

    def _load(self) -> None:
        """Read what was learned before, once, and now and then what others have learned.

        The lock is held. What fails is told later; the first reading is tried again.
        """
        now = time.monotonic()
        if self._loaded and now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        if not self._loaded:
            self._begin()
            self._loaded = True
        try:
            self._catch_up()
        except SemcacheError as error:
            self._failed.append(error)

    def _catch_up(self) -> None:
        """Take over what others have learned."""
        reported = False
        for number, observation in self._ledger.observations_after(self._last, _LATELY):
            self._last = number
            if observation.writer != self._writer:
                self._take(observation, quietly=True)
                reported |= observation.kind in ("feedback", "review")
        if reported:
            self._refuted = self._ledger.refuted()

    def _begin(self) -> None:
        """The prior, the state that was kept, and the standing of entries."""
        from semcache.core.weights import Weights

        if self._verifier is not None:
            try:
                self._verifier.load()
            except Exception as error:
                self._failed.append(error)
                self._verifier = None
        self._prior = WITH_MODEL if self._verifier is not None else WITHOUT_MODEL
        try:
            self._prior = fitted_prior(
                self._ledger.meta(_PRIOR), self._prior, with_model=self._verifier is not None
            )
            self._weights = Weights.of(self._prior)
            self._restore(self._ledger.meta(_STATE))
        except (ValueError, TypeError, KeyError) as error:  # somebody else's, or damaged
            self._failed.append(error)
            self._weights = Weights.of(self._prior)
        self._refuted = self._ledger.refuted()
        lately = max(0, self._last - _LATELY)
        for number, observation in self._ledger.observations_after(lately, _LATELY):
            if number <= self._last:
                self._stand(observation)

    def _restore(self, kept: str | None) -> None:
        if kept is None:
            return
        import numpy as np

        from semcache.core.weights import Weights

        state = json.loads(kept)
        size = len(verifier.FEATURES)
        known = (state.get("version"), state.get("prior"), len(state.get("mean", ())))
        if known != (_STATE_VERSION, _digest(self._prior), size):
            return
        spread = np.array(state["spread"], np.float64).reshape(size, size)
        self._weights = Weights(self._prior, np.array(state["mean"], np.float64), spread)
        self._whole = _bins(state["whole"])
        self._groups = {name: _bins(found) for name, found in state["groups"].items()}
        self._last = int(state["last"])

    def flush(self) -> None:
        """Write labels and serves that are not written yet."""
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
        """
        self._unsaved = 0
        self.flush()
        with self._writing, self._lock:
            if not self._loaded or not self._changed:
                return
            if self._observed:  # came in just now: it has no number yet, and waits for the next
                return
            self._catch_up()
            kept = json.dumps(self._state())
            self._changed = False
            self._ledger.set_meta(_STATE, kept)

    def _state(self) -> dict[str, Any]:
        assert self._weights is not None
        line = self._line(None)
        groups = list(self._groups.items())[-_GROUPS_KEPT:]
        return {
            "version": _STATE_VERSION,
            "bound": self.rules.bound,
            "expected": line.expected if line.place < calibration.BINS else None,
            "prior": _digest(self._prior),
            "last": self._last,
            "mean": self._weights.mean.tolist(),
            "spread": self._weights.spread.ravel().tolist(),
            "whole": asdict(self._whole),
            "groups": {name: asdict(bins) for name, bins in groups},
        }

    def wait(self) -> None:
        """Until the judge has nothing left to do."""
        if self._thread is not None:
            self._queue.join()

    def after_fork(self) -> None:
        """In a child process: threads and locks are the parent's, and so are its labels.

        The child begins from what is written down, as any other process.
        """
        self._lock, self._writing = threading.RLock(), threading.Lock()
        self._queue, self._thread = Queue(_QUEUE), None
        self._observed, self._served = [], []
        self._writer = os.urandom(6).hex()
        self._loaded, self._last, self._changed, self._unsaved = False, 0, False, 0
        self._whole, self._groups, self._weights = Bins(), {}, None
        self._surprise, self._answer_of = {}, {}
        self._lines.clear()
        renew = getattr(self._verifier, "after_fork", None)
        if renew is not None:
            renew()

    def close(self) -> None:
        """Judge what waits no longer; write and keep the rest. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        with suppress(Full):
            self._queue.put_nowait(())
        self.save()


_NOTHING = Bins()


def _labels(candidate: Candidate) -> bool:
    """Whether a label of this candidate would teach anything."""
    return candidate.evidence is not None and candidate.evidence.chance is not None


def _serve(lookup: Lookup, candidate: Candidate, evidence: Evidence, now: float) -> Serve:
    return Serve(
        lookup.id,
        now,
        lookup.query.request.namespace,
        candidate.entry.id,
        lookup.query.question or "",
        candidate.similarity,
        evidence.chance or 0.0,
        evidence.features,
    )


def _reported(similarity: float) -> Evidence:
    """Of a candidate that somebody has called wrong for this very question."""
    return Evidence(similarity, (Finding("reported", "this answer", "called wrong"),), by="guards")


def _digest(prior: Prior) -> str:
    """Names a prior: what was learned from one does not go with another."""
    return sha256(repr(prior).encode()).hexdigest()[:16]


def _bins(kept: dict[str, Any]) -> Bins:
    size = calibration.BINS
    parts = {name: tuple(map(float, kept[name])) for name in ("right", "wrong", "seen")}
    if any(len(part) != size for part in parts.values()):
        return Bins()
    return Bins(**parts, alarm=float(kept["alarm"]))


def fitted_prior(kept: str | None, shipped: Prior, *, with_model: bool) -> Prior:
    """The prior that `semcache tune` has fitted, or the shipped one."""
    if kept is None:
        return shipped
    found = json.loads(kept)
    weights = tuple(map(float, found.get("weights", ())))
    if found.get("with_model") is not with_model or len(weights) != len(shipped.weights):
        return shipped
    return replace(shipped, weights=weights)
