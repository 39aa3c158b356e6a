"""Loads and saves what a cache has learned, in the backend's metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from semcache.backends.base import Metadata
    from semcache.verification.features import Prior

_STATE, _PRIOR = "learned", "prior"


class LearnedBound(NamedTuple):
    """The bound that a cache last ran with, and the false hit rate that it expects."""

    bound: float | None
    expected_false_hit_rate: float | None


def load_state(metadata: Metadata) -> dict[str, Any]:
    """The state that was last saved, in the form of `CalibrationState.as_json`; {} if none was.

    Raises:
        ValueError: the state is damaged. StoreError: it could not be read.
    """
    state = json.loads(metadata.meta(_STATE) or "{}")
    if not isinstance(state, dict):
        raise ValueError("the saved state is not a JSON object")
    return state


def save_state(metadata: Metadata, state: dict[str, Any]) -> None:
    """Save the state. Raises `StoreError`."""
    metadata.set_meta(_STATE, json.dumps(state))


def forget_namespace(metadata: Metadata, namespace: str) -> None:
    """Drop what the saved state says about a namespace. Raises `StoreError`."""
    try:
        state = load_state(metadata)
    except ValueError:
        return
    if namespace in state.get("groups", {}):
        del state["groups"][namespace]
        save_state(metadata, state)


POLICY = "policy"
"""Metadata name of the options that decide what is served, which are stored as JSON."""


def learned_bound(metadata: Metadata) -> LearnedBound:
    """What the saved state says about the bound. Raises `StoreError`."""
    try:
        state = load_state(metadata)
    except ValueError:
        return LearnedBound(None, None)
    return LearnedBound(state.get("bound"), state.get("expected"))


def load_prior(metadata: Metadata, shipped: Prior, *, with_model: bool) -> Prior:
    """The prior that `semcache tune` has fitted, or the shipped one.

    Raises:
        ValueError, TypeError: the prior is damaged. StoreError: it could not be read.
    """
    saved = metadata.meta(_PRIOR)
    if saved is None:
        return shipped
    fitted = json.loads(saved)
    weights = tuple(map(float, fitted.get("weights", ())))
    if fitted.get("with_model") is not with_model or len(weights) != len(shipped.weights):
        return shipped
    return replace(shipped, weights=weights)


def install_prior(metadata: Metadata, weights: tuple[float, ...], *, with_model: bool) -> None:
    """Make a cache start from these weights; what it learned with other weights is dropped.

    Raises:
        StoreError: it could not be written.
    """
    metadata.set_meta(_PRIOR, json.dumps({"weights": weights, "with_model": with_model}))
    save_state(metadata, {})
