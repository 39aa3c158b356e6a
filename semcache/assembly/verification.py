"""Builds the `Verification` that the options ask for, which decides on hits and learns."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from semcache.errors import ConfigError
from semcache.options import MAX_FALSE_HIT_RATE
from semcache.verification.base import Judge, Verification, Verifier
from semcache.verification.calibration import BoundConfig
from semcache.verification.fixed import EXACT_ONLY, PolicyVerification
from semcache.verification.policies import FixedThreshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from semcache.backends.base import Backend
    from semcache.embedders.base import Embedder
    from semcache.options import Trust
    from semcache.router import Router
    from semcache.telemetry.telemetry import Telemetry

JUDGES = "semcache.judges"
"""Entry point group of judges; `judge=` takes the name of an entry point."""


def bound_config(max_false_hit_rate: float, confidence: float) -> BoundConfig:
    """The configuration of the bound on the false hit rate.

    Raises:
        ConfigError: a number is out of range.
    """
    if not _is_number(max_false_hit_rate) or not 0 < max_false_hit_rate < 0.5:
        raise ConfigError(
            f"max_false_hit_rate is {max_false_hit_rate!r}; it must be a share of the semantic "
            "hits, above 0 and below 0.5, such as 0.02."
        )
    if not _is_number(confidence) or not 0.5 <= confidence < 1:
        raise ConfigError(
            f"confidence is {confidence!r}; it must be at least 0.5 (the bound holds on average) "
            "and below 1."
        )
    return BoundConfig(max_false_hit_rate, caution=NormalDist().inv_cdf(confidence))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_trust(trust: Trust) -> None:
    """Check options before anything is opened; raises `ConfigError`."""
    if trust.threshold is not None:
        FixedThreshold(trust.threshold)
    elif trust.policy is None:
        bound = trust.max_false_hit_rate
        bound_config(MAX_FALSE_HIT_RATE if bound is None else bound, trust.confidence)


def verification_of(
    trust: Trust,
    *,
    backend: Backend,
    embedder: Embedder | None,
    router: Router | None,
    telemetry: Telemetry,
    clock: Callable[[], float],
) -> Verification:
    """The verification that the options ask for.

    Args:
        embedder: None means exact tier only.

    Raises:
        ConfigError: an option is wrong.
    """
    if trust.threshold is not None:
        return PolicyVerification(FixedThreshold(trust.threshold))
    if trust.policy is not None:
        return PolicyVerification(trust.policy)
    if embedder is None:
        return EXACT_ONLY
    from semcache.verification.learned import LearnedVerification
    from semcache.verification.learner import Learner

    bound = trust.max_false_hit_rate
    config = bound_config(MAX_FALSE_HIT_RATE if bound is None else bound, trust.confidence)
    verifier = _verifier_of(trust)
    judge = judge_of(trust.judge, embedder, router, verifier)
    if judge is None:  # without a judge, explorations teach nothing
        config = replace(config, exploration_rate=0.0)
    else:
        from semcache.verification.judges import reliability_of

        config = replace(config, judge=reliability_of(judge))
    learner = Learner(
        backend.ledger,
        backend.metadata,
        config,
        verifier=verifier,
        judge=judge,
        telemetry=telemetry,
        clock=clock,
        in_background=trust.judge_in_background,
    )
    return LearnedVerification(learner, telemetry, clock)


def _verifier_of(trust: Trust) -> Verifier | None:
    if trust.verifier == "shipped":
        from semcache.verification.pair_model import PairModel

        return PairModel()
    assert not isinstance(trust.verifier, str)
    return trust.verifier


def judge_of(
    given: Any, embedder: Embedder, router: Router | None, verifier: Verifier | None = None
) -> Judge | None:
    """The judge that `judge=` asks for.

    Raises:
        ConfigError: there is no such judge, or it is "model" and there is no router.
    """
    if given is None or given is False:
        return None
    from semcache.verification.judges import LocalJudge, ModelJudge, as_judge

    if given == "local":
        return LocalJudge(embedder.embed, verifier=verifier)
    if given == "model":
        if router is None:
            raise ConfigError("judge='model' asks the router, but there is none: pass router=.")
        from semcache.keys.parse import request

        model = router
        return ModelJudge(lambda prompt: model.complete(request(prompt)).text)
    if isinstance(given, str):
        for point in entry_points(group=JUDGES):
            if point.name == given:
                return as_judge(point.load()())
    return as_judge(given)
