"""From options to what decides and learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from semcache.backends.local.sqlite.store import SQLiteStore
from semcache.embedders.base import Embedder
from semcache.errors import ConfigError
from semcache.verification.base import Judge, Verifier

if TYPE_CHECKING:
    from semcache.engine.cache import Cache
    from semcache.router import Router
    from semcache.verification.calibration import Rules
    from semcache.verification.learner import Learning


def rules_of(max_false_hit_rate: float, confidence: float) -> Rules:
    """What the bound is held with.

    Raises:
        ConfigError: a number is out of its range.
    """
    from statistics import NormalDist

    from semcache.verification.calibration import Rules

    if not _number(max_false_hit_rate) or not 0 < max_false_hit_rate < 0.5:
        raise ConfigError(
            f"max_false_hit_rate is {max_false_hit_rate!r}; it is the largest share of semantic "
            "hits that may be wrong, above 0 and below 0.5, such as 0.02."
        )
    if not _number(confidence) or not 0.5 <= confidence < 1:
        raise ConfigError(
            f"confidence is {confidence!r}; it is 0.5 (the bound is kept on average) or more, "
            "below 1."
        )
    return Rules(max_false_hit_rate, caution=NormalDist().inv_cdf(confidence))


def _number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def learning_of(
    rules: Rules,
    *,
    store: SQLiteStore,
    embedder: Embedder,
    verifier: Verifier | Literal["shipped"] | None,
    judge: Any,
    router: Router | None,
    clock: Callable[[], float],
    in_background: bool,
) -> Callable[[Cache], Learning]:
    """Makes what a cache learns with.

    Raises:
        ConfigError: the judge is none.
    """
    if isinstance(verifier, str) and verifier != "shipped":
        raise ConfigError(
            f"verifier is {verifier!r}; it is 'shipped', a semcache Verifier, or None."
        )
    looking: Verifier | None = None
    if verifier == "shipped":
        from semcache.verification.pair_model import PairModel

        looking = PairModel()
    elif verifier is not None:
        looking = verifier
    chosen = judge_of(judge, embedder, router, looking)
    if chosen is None:  # nobody could tell what an exploration found
        rules = replace(rules, explored=0.0)

    def made(cache: Cache) -> Learning:
        from semcache.verification.learner import Learning

        return Learning(
            store,
            rules,
            verifier=looking,
            judge=chosen,
            clock=clock,
            emit=cache.emit,
            fault=cache.fault,
            wake=cache.tally.rouse,
            in_background=in_background,
        )

    return made


def judge_of(
    given: Any, embedder: Embedder, router: Router | None, verifier: Verifier | None = None
) -> Judge | None:
    """The judge that was asked for.

    Raises:
        ConfigError: it is none, or "model" without a router.
    """
    if given is None or given is False:
        return None
    from semcache.verification.judges import LocalJudge, ModelJudge, as_judge

    if given == "local":
        return LocalJudge(embedder.embed, verifier=verifier)
    if given == "model":
        if router is None:
            raise ConfigError("judge='model' asks the router, and the cache has none: router=...")
        from semcache.keys.parse import request

        asked = router
        return ModelJudge(lambda prompt: asked.complete(request(prompt)).text)
    return as_judge(given)
