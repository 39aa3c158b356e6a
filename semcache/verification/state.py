"""What a cache has learned about its own answers: weights, labels by bin, serving thresholds.

`weights` and `calibration` do the mathematics with immutable values. `CalibrationState` holds the
current ones, for the traffic as a whole and for each namespace. It does no I/O and reads no clock;
its owner holds a lock around every call.
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
from semcache.verification.reliability import VERDICTS
from semcache.verification.weights import Weights

_STATE_VERSION = 4
_NAMESPACES_SAVED, _NAMESPACES = 1000, 20_000
"""Maximum number of namespaces saved, and held in memory: the most recently used ones."""
_ENTRIES = 200_000
"""Maximum number of entries whose own labels are remembered."""
_STEEP_RISE = 3
"""Emit a `BoundEvent` if labels raise the threshold by at least this many bins."""
_AFTER_ALARM = 0.1
"""Weight of labels from before an alarm."""
_REPORT_WEIGHT = 0.5
"""Weight of a report from a user when the weights are updated: it is not a random sample."""

CERTAIN_KINDS = frozenset(("review", "feedback"))
"""Kinds of labels that come from people."""

OVERALL = None
"""Used in place of a namespace for the traffic as a whole."""


class CalibrationState:
    """The mutable state of calibration: everything learned from lookups and labels.

    Args:
        prior: the initial distribution of the weights.
        config: the bound, and the parameters used to enforce it.
    """

    def __init__(self, prior: Prior, config: BoundConfig) -> None:
        self.config = config
        self.overall = Bins()
        self._prior = prior
        self._weights = self._prior_weights = Weights.of(prior)
        self._namespaces: dict[str, Bins] = {}
        self._thresholds: dict[str | None, ServingThreshold] = {}
        self._overall_fit: Fit | None = None
        self._lowest: dict[str, int] = {}
        """The lowest threshold of each namespace since the last steep rise."""
        self._new: ServingThreshold | None = None
        """The threshold of a cache without labels."""
        self._residual: dict[int, float] = {}
        self._answer_of: dict[int, int] = {}

    # -------------------------------------------------------------------------- reading

    @property
    def weights(self) -> Weights:
        """The weights as learned so far, for the traffic as a whole."""
        return self._weights

    def policy(self, namespace: str) -> CalibratedPolicy:
        """A snapshot of the current policy for a namespace."""
        prior = None if self._has_labels(namespace) else self._prior_weights
        return CalibratedPolicy(self.config, self._weights, self.threshold(namespace), prior)

    def threshold(self, namespace: str | None) -> ServingThreshold:
        """The serving threshold of a namespace, or overall."""
        thresholds = self._thresholds
        if OVERALL not in thresholds:
            last = self._overall_fit
            self._overall_fit, thresholds[OVERALL] = calibration.overall(
                self.overall, self.config, None if last is None else last.judge
            )
        if namespace is OVERALL:
            return thresholds[OVERALL]
        if namespace not in thresholds:
            bins, fit = self._bins(namespace), self._overall_fit
            if fit is None or not self._has_labels(namespace):
                thresholds[namespace] = self._without_labels()
            else:
                thresholds[namespace] = calibration.for_namespace(bins, fit, self.config)[1]
        return thresholds[namespace]

    def _has_labels(self, namespace: str) -> bool:
        """Whether a namespace has enough labels for a threshold of its own."""
        return self._bins(namespace).labels >= self.config.namespace_labels

    def _without_labels(self) -> ServingThreshold:
        """The threshold of a namespace that has too few labels for one of its own.

        Labels from other namespaces may make it stricter than in a new cache, but never more
        lenient: their traffic may be of a different kind, or sent on purpose to lower it.
        """
        overall = self._thresholds[OVERALL]
        if self._new is None:
            self._new = calibration.overall(Bins(), self.config)[1]
        return max(overall, self._new, key=lambda threshold: threshold.first_bin)

    def thresholds(self) -> dict[str | None, ServingThreshold]:
        """The thresholds of the traffic as a whole and of the namespaces with enough labels."""
        own = [name for name in self._namespaces if self._has_labels(name)]
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
        """Count a lookup whose best candidate had this chance."""
        index = bin_of_chance(chance)
        self.overall = self.overall.with_lookup(index, self.config)
        self._store_bins(namespace, self._bins(namespace).with_lookup(index, self.config))

    def apply_label(self, observation: Observation, *, replayed: bool = False) -> list[str | None]:
        """Learn from one label.

        Args:
            replayed: whether another process wrote the label; that process checks for alarms.

        Returns the namespaces (or `OVERALL`) whose threshold has risen steeply because of it.
        """
        right, namespace = observation.right, observation.namespace
        self.note_outcome(observation)
        random_sample = observation.kind != "feedback"
        if len(observation.features) == len(features.FEATURES):
            weight = 1.0 if random_sample else _REPORT_WEIGHT
            likely = self._likely(observation)
            self._weights = self._weights.updated(observation.features, likely, weight)
        if not random_sample:
            return []
        index = bin_of_chance(self._expected(observation, replayed=replayed))
        before = ServingThreshold() if replayed else self.threshold(namespace)
        label = self._label(observation)
        self.overall = self.overall.with_label(index, label, self.config)
        self._store_bins(namespace, self._bins(namespace).with_label(index, label, self.config))
        self._thresholds.clear()
        if replayed or right is None:
            return []
        raised = self._alarms(namespace, right) if index >= before.first_bin else []
        risen = self._has_risen(namespace, before.first_bin)
        return raised or ([namespace] if risen else [])

    def _has_risen(self, namespace: str, before: int) -> bool:
        """Whether the threshold of a namespace has risen steeply.

        It is compared with its lowest value since the last steep rise, so that a rise in many
        small steps counts as well.
        """
        now = self.threshold(namespace).first_bin
        lowest = min(self._lowest.pop(namespace, before), before, now)
        risen = now > lowest and (now - lowest >= _STEEP_RISE or now >= BINS)
        self._lowest[namespace] = now if risen else lowest
        if len(self._lowest) > _NAMESPACES:
            del self._lowest[next(iter(self._lowest))]
        return risen

    def _expected(self, observation: Observation, *, replayed: bool) -> float:
        """The chance that the decision was based on; if replayed, that by the current weights."""
        # A replayed label may come from another version, with other weights.
        if replayed and len(observation.features) == len(features.FEATURES):
            return chance_of(self._weights.logit(observation.features))
        return observation.expected

    def note_outcome(self, observation: Observation) -> None:
        """Learn what a label says about its entry, and about the entry with the fresh answer."""
        entry = observation.entry_id
        likely = self._likely(observation)
        residual = self._residual.get(entry, 0.0) + likely - observation.expected
        self._residual[entry] = max(-2.0, min(2.0, residual))
        if observation.right and observation.other_id is not None:
            self._answer_of[observation.other_id] = self._answer_of.get(entry, entry)
        for by_entry in (self._residual, self._answer_of):
            if len(by_entry) > _ENTRIES:
                del by_entry[next(iter(by_entry))]

    def _likely(self, observation: Observation) -> float:
        """The chance, given the label, that the answer was right."""
        if observation.kind in CERTAIN_KINDS:
            return float(bool(observation.right))
        fit = self._overall_fit
        judge = self.config.judge if fit is None else fit.judge
        return judge.chance_of_same(self._label(observation), observation.expected)

    @staticmethod
    def _label(observation: Observation) -> str:
        """The name of a label in `Bins`."""
        if observation.right is None:
            return "unsure"
        if observation.kind in CERTAIN_KINDS:
            return "right" if observation.right else "wrong"
        if observation.right:
            return "equal" if observation.equal else "same"
        return "different"

    def _alarms(self, namespace: str, right: bool) -> list[str | None]:
        """Test for a broken bound after the label of a candidate that is served now."""
        raised: list[str | None] = []
        self.overall, broken = calibration.alarm_after(self.overall, right, self.config)
        if broken:
            self.overall = self.overall.discounted(_AFTER_ALARM)
            self._namespaces = {
                name: bins.discounted(_AFTER_ALARM) for name, bins in self._namespaces.items()
            }
            raised.append(OVERALL)
        bins, broken = calibration.alarm_after(self._bins(namespace), right, self.config)
        self._store_bins(namespace, bins.discounted(_AFTER_ALARM) if broken else bins)
        if broken and not raised:
            raised.append(namespace)
        if raised:
            self._thresholds.clear()
        return raised

    def forget(self, namespace: str) -> None:
        """Drop what was learned about a namespace."""
        for by_namespace in (self._namespaces, self._thresholds, self._lowest):
            by_namespace.pop(namespace, None)

    def _bins(self, namespace: str) -> Bins:
        return self._namespaces.get(namespace, _NO_LABELS)

    def _store_bins(self, namespace: str, bins: Bins) -> None:
        """Replace a namespace's counts; if there are too many, drop the least recently used."""
        self._namespaces.pop(namespace, None)
        self._namespaces[namespace] = bins
        if len(self._namespaces) > _NAMESPACES:
            del self._namespaces[next(iter(self._namespaces))]

    # --------------------------------------------------------------------------- saving

    def as_json(self) -> dict[str, Any]:
        """The state to save, without the knowledge about single entries (rebuilt from labels)."""
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
        """Restore a saved state; return False if it is from another version or prior.

        Raises:
            ValueError, TypeError, KeyError: the saved state is damaged.
        """
        size = len(features.FEATURES)
        identity = (state.get("version"), state.get("prior"), len(state.get("mean", ())))
        if identity != (_STATE_VERSION, self._prior_digest, size):
            return False
        spread = np.array(state["spread"], np.float64).reshape(size, size)
        self._weights = Weights(self._prior, np.array(state["mean"], np.float64), spread)
        self.overall = _bins_of(state["whole"])
        self._namespaces = {name: _bins_of(bins) for name, bins in state["groups"].items()}
        return True

    @property
    def _prior_digest(self) -> str:
        """Identifies the prior: a state learned from one prior cannot be used with another."""
        return sha256(repr(self._prior).encode()).hexdigest()[:16]


_NO_LABELS = Bins()
_COUNTS = (*VERDICTS, "right", "wrong", "seen")


def _bins_of(saved: dict[str, Any]) -> Bins:
    parts = {name: tuple(map(float, saved[name])) for name in _COUNTS}
    if any(len(part) != BINS for part in parts.values()):
        raise ValueError("the saved state has a different number of bins")
    return Bins(**parts, alarm=float(saved["alarm"]))
