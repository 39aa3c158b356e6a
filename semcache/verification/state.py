"""What a cache believes of its own answers: weights, bins, lines, standings.

The thinking itself is in `weights` and `calibration`, as values; here they are
replaced one by another, for the traffic as a whole and for each namespace. No I/O, no clock;
whoever owns this holds a lock around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np

from semcache.types import Candidate, Observation, Standing
from semcache.verification import calibration
from semcache.verification import features as verifier
from semcache.verification.calibration import BINS, Bins, Fit, Line, Rules
from semcache.verification.features import Prior
from semcache.verification.policies import Verified, place
from semcache.verification.weights import Weights

_STATE_VERSION = 2
_GROUPS_KEPT, _GROUPS = 1000, 20_000
"""Namespaces whose state is kept on disk, and in memory: those that were seen last."""
_STANDINGS = 200_000
"""Entries whose standing is remembered."""
_SAID = 3
"""Bins by which the line must rise at once for it to be said."""
_FORGET = 0.1
"""What labels from before a broken bound still count."""
_REPORT_WEIGHT = 0.5
"""What a user's report counts for the weights: it is no random sample."""

WHOLE = None
"""The name of the traffic as a whole, among namespaces."""


class Beliefs:
    """Everything that labels have changed.

    Args:
        prior: where the weights begin.
        rules: the bound, and what it is held with.
    """

    def __init__(self, prior: Prior, rules: Rules) -> None:
        self.rules = rules
        self.whole = Bins()
        self._prior = prior
        self._weights = Weights.of(prior)
        self._groups: dict[str, Bins] = {}
        self._lines: dict[str | None, Line] = {}
        self._fit: Fit | None = None
        self._surprise: dict[int, float] = {}
        self._answer_of: dict[int, int] = {}

    # ---------------------------------------------------------------------- asked for

    def policy(self, namespace: str) -> Verified:
        """The policy of this moment."""
        return Verified(self.rules, self._weights, self.line(namespace))

    def line(self, namespace: str | None) -> Line:
        """Where serving begins, for a namespace or for the whole."""
        if WHOLE not in self._lines:
            self._fit, self._lines[WHOLE] = calibration.whole(self.whole, self.rules)
        if namespace is WHOLE:
            return self._lines[WHOLE]
        if namespace not in self._lines:
            bins, of_all = self._group(namespace), self._fit
            if of_all is None or bins.labels < self.rules.group_labels:
                self._lines[namespace] = self._lines[WHOLE]
            else:
                self._lines[namespace] = calibration.group(bins, of_all, self.rules)[1]
        return self._lines[namespace]

    def lines(self) -> dict[str | None, Line]:
        """Lines of the whole and of the namespaces with enough labels."""
        own = [n for n, b in self._groups.items() if b.labels >= self.rules.group_labels]
        return {WHOLE: self.line(WHOLE), **{name: self.line(name) for name in own}}

    def standings(self, candidates: Sequence[Candidate]) -> list[Standing]:
        """How each of a lookup's candidates stands."""
        ids = [candidate.entry.id for candidate in candidates]
        return verifier.standings(
            [self._answer_of.get(i, i) for i in ids],
            [candidate.similarity for candidate in candidates],
            [self._surprise.get(i, 0.0) for i in ids],
        )

    # ----------------------------------------------------------------------- learning

    def saw(self, namespace: str, chance: float) -> None:
        """A lookup whose best candidate had this chance."""
        at = place(chance)
        self.whole = self.whole.saw(at, self.rules)
        self._keep(namespace, self._group(namespace).saw(at, self.rules))

    def take(self, observation: Observation, *, quietly: bool = False) -> list[str | None]:
        """Learn from one label; return the namespaces (or the whole) whose line closed for it.

        Args:
            quietly: it was learned from before, or elsewhere: draw no lines for it.
        """
        right, namespace = observation.right, observation.namespace
        self.stand(observation)
        random_one = observation.kind != "feedback"
        if len(observation.features) == len(verifier.FEATURES):
            weight = 1.0 if random_one else _REPORT_WEIGHT
            self._weights = self._weights.learned(observation.features, right, weight)
        if not random_one:
            return []
        at = place(observation.expected)
        before = Line() if quietly else self.line(namespace)
        self.whole = self.whole.labelled(at, right, self.rules)
        self._keep(namespace, self._group(namespace).labelled(at, right, self.rules))
        self._lines.clear()
        if quietly:
            return []
        moved = self._watched(namespace, right) if at >= before.place else []
        if not moved and before.place < BINS:
            now = self.line(namespace).place
            if now - before.place >= _SAID or now >= BINS:
                return [namespace]
        return moved

    def stand(self, observation: Observation) -> None:
        """What a label says of the entry itself, and of the fresh one beside it."""
        entry = observation.entry_id
        surprise = self._surprise.get(entry, 0.0) + observation.right - observation.expected
        self._surprise[entry] = max(-2.0, min(2.0, surprise))
        if observation.right and observation.other_id is not None:
            self._answer_of[observation.other_id] = self._answer_of.get(entry, entry)
        for known in (self._surprise, self._answer_of):
            if len(known) > _STANDINGS:
                del known[next(iter(known))]

    def _watched(self, namespace: str, right: bool) -> list[str | None]:
        """Look for a broken bound in a label of what is served."""
        moved: list[str | None] = []
        self.whole, broken = calibration.alarmed(self.whole, right, self.rules)
        if broken:
            self.whole = self.whole.forgotten(_FORGET)
            self._groups = {n: bins.forgotten(_FORGET) for n, bins in self._groups.items()}
            moved.append(WHOLE)
        group, broken = calibration.alarmed(self._group(namespace), right, self.rules)
        self._keep(namespace, group.forgotten(_FORGET) if broken else group)
        if broken and not moved:
            moved.append(namespace)
        if moved:
            self._lines.clear()
        return moved

    def _group(self, namespace: str) -> Bins:
        return self._groups.get(namespace, _NOTHING)

    def _keep(self, namespace: str, bins: Bins) -> None:
        """The one seen last stands last; the one not seen for longest is let go."""
        self._groups.pop(namespace, None)
        self._groups[namespace] = bins
        if len(self._groups) > _GROUPS:
            del self._groups[next(iter(self._groups))]

    # ------------------------------------------------------------------------- keeping

    def as_json(self) -> dict[str, Any]:
        """All of it but the standings, which are read back from the labels themselves."""
        line = self.line(WHOLE)
        groups = list(self._groups.items())[-_GROUPS_KEPT:]
        return {
            "version": _STATE_VERSION,
            "prior": self._digest,
            "bound": self.rules.bound,
            "expected": line.expected if line.place < BINS else None,
            "mean": self._weights.mean.tolist(),
            "spread": self._weights.spread.ravel().tolist(),
            "whole": asdict(self.whole),
            "groups": {name: asdict(bins) for name, bins in groups},
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Go on from what was kept; False: it does not go with this version or this prior.

        Raises:
            ValueError, TypeError, KeyError: it is damaged.
        """
        size = len(verifier.FEATURES)
        known = (state.get("version"), state.get("prior"), len(state.get("mean", ())))
        if known != (_STATE_VERSION, self._digest, size):
            return False
        spread = np.array(state["spread"], np.float64).reshape(size, size)
        self._weights = Weights(self._prior, np.array(state["mean"], np.float64), spread)
        self.whole = _bins(state["whole"])
        self._groups = {name: _bins(found) for name, found in state["groups"].items()}
        return True

    @property
    def _digest(self) -> str:
        """Names the prior: what was learned from one does not go with another."""
        return sha256(repr(self._prior).encode()).hexdigest()[:16]


_NOTHING = Bins()


def _bins(kept: dict[str, Any]) -> Bins:
    parts = {name: tuple(map(float, kept[name])) for name in ("right", "wrong", "seen")}
    if any(len(part) != BINS for part in parts.values()):
        raise ValueError("bins of another number")
    return Bins(**parts, alarm=float(kept["alarm"]))
