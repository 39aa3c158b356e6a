"""What a cache has learned about its own answers: weights, labels by bin, serving thresholds.

`weights` and `calibration` hold the mathematics, as values; here one value replaces another, for
the traffic as a whole and for each namespace. No I/O, no clock; the owner holds a lock around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np

from semcache.types import Candidate, NeighbourAgreement, Observation
from semcache.verification import calibration, features
from semcache.verification.calibration import BINS, Bins, BoundConfig, Fit, ServingThreshold
from semcache.verification.features import Prior, chance_of
from semcache.verification.policies import CalibratedPolicy, bin_of_chance
from semcache.verification.weights import Weights

_STATE_VERSION = 3
_NAMESPACES_SAVED, _NAMESPACES = 1000, 20_000
"""Namespaces whose state is saved, and kept in memory: the most recently seen ones."""
_ENTRIES = 200_000
"""Entries whose labels are remembered one by one."""
_STEEP_RISE = 3
"""Emit a `BoundEvent` if one label raises the threshold by at least this many bins."""
_AFTER_ALARM = 0.1
"""What labels from before an alarm still count."""
_REPORT_WEIGHT = 0.5
"""What a user's report counts for the weights: it is no random sample."""

OVERALL = None
"""Stands for the traffic as a whole where a namespace is named."""


class CalibrationState:
    """Everything that labels have changed.

    Args:
        prior: where the weights begin.
        config: the bound, and what it is held with.
    """

    def __init__(self, prior: Prior, config: BoundConfig) -> None:
        self.config = config
        self.overall = Bins()
        self._prior = prior
        self._weights = Weights.of(prior)
        self._namespaces: dict[str, Bins] = {}
        self._thresholds: dict[str | None, ServingThreshold] = {}
        self._overall_fit: Fit | None = None
        self._residual: dict[int, float] = {}
        self._answer_of: dict[int, int] = {}

    # -------------------------------------------------------------------------- reading

    def policy(self, namespace: str) -> CalibratedPolicy:
        """The policy of this moment."""
        return CalibratedPolicy(self.config, self._weights, self.threshold(namespace))

    def threshold(self, namespace: str | None) -> ServingThreshold:
        """From where on candidates are served, in a namespace or overall."""
        known = self._thresholds
        if OVERALL not in known:
            self._overall_fit, known[OVERALL] = calibration.overall(self.overall, self.config)
        if namespace is OVERALL:
            return known[OVERALL]
        if namespace not in known:
            bins, fit = self._bins(namespace), self._overall_fit
            if fit is None or bins.labels < self.config.namespace_labels:
                known[namespace] = known[OVERALL]
            else:
                known[namespace] = calibration.for_namespace(bins, fit, self.config)[1]
        return known[namespace]

    def thresholds(self) -> dict[str | None, ServingThreshold]:
        """Of the traffic as a whole, and of the namespaces with enough labels."""
        own = [n for n, b in self._namespaces.items() if b.labels >= self.config.namespace_labels]
        return {OVERALL: self.threshold(OVERALL), **{name: self.threshold(name) for name in own}}

    def neighbour_agreements(self, candidates: Sequence[Candidate]) -> list[NeighbourAgreement]:
        """How each candidate of a lookup compares with the others."""
        ids = [candidate.entry.id for candidate in candidates]
        return features.neighbour_agreements(
            [self._answer_of.get(i, i) for i in ids],
            [candidate.similarity for candidate in candidates],
            [self._residual.get(i, 0.0) for i in ids],
        )

    # ------------------------------------------------------------------------- learning

    def observe_lookup(self, namespace: str, chance: float) -> None:
        """A lookup whose best candidate had this chance."""
        index = bin_of_chance(chance)
        self.overall = self.overall.with_lookup(index, self.config)
        self._keep(namespace, self._bins(namespace).with_lookup(index, self.config))

    def apply_label(self, observation: Observation, *, replayed: bool = False) -> list[str | None]:
        """Learn from one label.

        Args:
            replayed: another process has learned from it already: look for no alarm.

        Returns the namespaces (or `OVERALL`) whose threshold has risen steeply because of it.
        """
        right, namespace = observation.right, observation.namespace
        self.note_outcome(observation)
        random_sample = observation.kind != "feedback"
        if len(observation.features) == len(features.FEATURES):
            weight = 1.0 if random_sample else _REPORT_WEIGHT
            self._weights = self._weights.updated(observation.features, right, weight)
        if not random_sample:
            return []
        index = bin_of_chance(self._expected(observation, replayed=replayed))
        before = ServingThreshold() if replayed else self.threshold(namespace)
        self.overall = self.overall.with_label(index, right, self.config)
        self._keep(namespace, self._bins(namespace).with_label(index, right, self.config))
        self._thresholds.clear()
        if replayed:
            return []
        raised = self._alarms(namespace, right) if index >= before.first_bin else []
        if not raised and before.first_bin < BINS:
            now = self.threshold(namespace).first_bin
            if now - before.first_bin >= _STEEP_RISE or now >= BINS:
                return [namespace]
        return raised

    def _expected(self, observation: Observation, *, replayed: bool) -> float:
        """The chance that decided; of labels of other versions and processes, the chance that
        the weights of today give."""
        if replayed and len(observation.features) == len(features.FEATURES):
            return chance_of(self._weights.logit(observation.features))
        return observation.expected

    def note_outcome(self, observation: Observation) -> None:
        """What a label says of the entry itself, and of the fresh entry beside it."""
        entry = observation.entry_id
        residual = self._residual.get(entry, 0.0) + observation.right - observation.expected
        self._residual[entry] = max(-2.0, min(2.0, residual))
        if observation.right and observation.other_id is not None:
            self._answer_of[observation.other_id] = self._answer_of.get(entry, entry)
        for known in (self._residual, self._answer_of):
            if len(known) > _ENTRIES:
                del known[next(iter(known))]

    def _alarms(self, namespace: str, right: bool) -> list[str | None]:
        """Watch a label of what is served at present for a broken bound."""
        raised: list[str | None] = []
        self.overall, broken = calibration.alarm_after(self.overall, right, self.config)
        if broken:
            self.overall = self.overall.discounted(_AFTER_ALARM)
            self._namespaces = {
                name: bins.discounted(_AFTER_ALARM) for name, bins in self._namespaces.items()
            }
            raised.append(OVERALL)
        bins, broken = calibration.alarm_after(self._bins(namespace), right, self.config)
        self._keep(namespace, bins.discounted(_AFTER_ALARM) if broken else bins)
        if broken and not raised:
            raised.append(namespace)
        if raised:
            self._thresholds.clear()
        return raised

    def _bins(self, namespace: str) -> Bins:
        return self._namespaces.get(namespace, _NO_LABELS)

    def _keep(self, namespace: str, bins: Bins) -> None:
        """Most recently seen last; the least recently seen one is dropped when there are too
        many."""
        self._namespaces.pop(namespace, None)
        self._namespaces[namespace] = bins
        if len(self._namespaces) > _NAMESPACES:
            del self._namespaces[next(iter(self._namespaces))]

    # --------------------------------------------------------------------------- saving

    def as_json(self) -> dict[str, Any]:
        """Everything but what single entries' labels said, which is read from the labels."""
        threshold = self.threshold(OVERALL)
        namespaces = list(self._namespaces.items())[-_NAMESPACES_SAVED:]
        return {
            "version": _STATE_VERSION,
            "prior": self._prior_digest,
            "bound": self.config.bound,
            "expected": threshold.expected if threshold.first_bin < BINS else None,
            "mean": self._weights.mean.tolist(),
            "spread": self._weights.spread.ravel().tolist(),
            "whole": asdict(self.overall),
            "groups": {name: asdict(bins) for name, bins in namespaces},
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Continue from what was saved; False if that is of another version or prior.

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        size = len(features.FEATURES)
        known = (state.get("version"), state.get("prior"), len(state.get("mean", ())))
        if known != (_STATE_VERSION, self._prior_digest, size):
            return False
        spread = np.array(state["spread"], np.float64).reshape(size, size)
        self._weights = Weights(self._prior, np.array(state["mean"], np.float64), spread)
        self.overall = _bins_of(state["whole"])
        self._namespaces = {name: _bins_of(bins) for name, bins in state["groups"].items()}
        return True

    @property
    def _prior_digest(self) -> str:
        """Names the prior: what was learned from one says nothing about another."""
        return sha256(repr(self._prior).encode()).hexdigest()[:16]


_NO_LABELS = Bins()


def _bins_of(saved: dict[str, Any]) -> Bins:
    parts = {name: tuple(map(float, saved[name])) for name in ("right", "wrong", "seen")}
    if any(len(part) != BINS for part in parts.values()):
        raise ValueError("another number of bins")
    return Bins(**parts, alarm=float(saved["alarm"]))
