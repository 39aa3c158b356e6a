"""From settings to the parts of a cache: the one place that knows every implementation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semcache.cache import Semantics
from semcache.core.retention import EVICTION, Retention
from semcache.embedders.minilm import HUB_NAME, MODEL, default_fingerprint, form_of
from semcache.errors import ConfigError, IndexMismatchError, StoreError
from semcache.indexes.files import FaissFiles
from semcache.protocols import Embedder, Judge, Leases, Verifier
from semcache.repository import Repository
from semcache.stores.sqlite import SQLiteStore
from semcache.vectors import FORMS, Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semcache.cache import Cache
    from semcache.core.calibration import Rules
    from semcache.core.limits import Limit
    from semcache.core.routing import Route
    from semcache.flags import Client, Flags
    from semcache.indexes.faiss import FaissIndex
    from semcache.learning import Learning
    from semcache.router import Router
    from semcache.settings import ProviderSettings, Settings
    from semcache.types import Vector

DATABASE = "semcache.db"
SNAPSHOT = "semcache.index"
LEASES = "semcache-leases.db"

_REMOTE_RUNS = 16
_LONGEST_TOKEN = 100
"""Characters; a text with more than this for every token of the window is not even counted."""

LongPrompts = Literal["exact", "chunks"]


def open_store(
    directory: Path, *, busy_timeout: float = 5.0, create: bool = True, vectors: Form = "float32"
) -> SQLiteStore:
    """The store of a cache directory.

    Args:
        vectors: the form in which new vectors are written.

    Raises:
        ConfigError: the path is a file, or there is no cache and none is to be made, or the
            form is none.
        StoreError: it cannot be opened.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; a cache is a directory. Give another path.")
    if vectors not in FORMS:
        raise ConfigError(f"vectors is {vectors!r}; it is one of {', '.join(map(repr, FORMS))}.")
    database = directory / DATABASE
    if not create and not database.exists():
        raise ConfigError(
            f"There is no cache in {directory} (no {DATABASE}). Give the directory of one with "
            "--cache PATH or SEMCACHE_PATH."
        )
    return SQLiteStore(database, busy_timeout=busy_timeout, vectors=vectors)


def choose_embedder(given: Embedder | str | None, store: SQLiteStore) -> Embedder:
    """The embedder that was given, or the default one in the form that the store holds.

    Raises:
        IndexMismatchError: the store's vectors come from another.
        ConfigError: it is no embedder.
    """
    stored = store.meta("fingerprint")
    if given is None:
        from semcache.embedders.default import DefaultEmbedder

        form = None if stored is None else form_of(stored)
        if stored is not None and form is None:
            raise IndexMismatchError(
                stored=stored, given=default_fingerprint("int8"), where=store.name
            )
        return DefaultEmbedder(form)
    embedder = named_embedder(given)
    if stored is not None and embedder.fingerprint != stored:
        raise IndexMismatchError(stored=stored, given=embedder.fingerprint, where=store.name)
    return embedder


def named_embedder(given: Embedder | str) -> Embedder:
    """An embedder, or a sentence-transformers model by name or path.

    Raises:
        ConfigError: it is neither.
    """
    if given in (MODEL, HUB_NAME):
        from semcache.embedders.default import DefaultEmbedder

        return DefaultEmbedder()
    if isinstance(given, str):
        from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(given)
    if isinstance(given, Embedder):
        return given
    raise ConfigError(
        f"embedder is a {type(given).__name__}; give an embedder such as "
        "SentenceTransformerEmbedder(...), a model's name, or FunctionEmbedder(function, ...) "
        "around a function."
    )


def semantics(embedder: Embedder, *, long_prompts: LongPrompts, timeout: float | None) -> Semantics:
    """The semantic tier over an embedder: batches, a time limit, and long prompts.

    Raises:
        ConfigError: `long_prompts` or `timeout` is wrong.
    """
    if long_prompts not in ("exact", "chunks"):
        raise ConfigError(f"long_prompts is {long_prompts!r}; it is 'exact' or 'chunks'.")
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"embed_timeout is {timeout!r}; give seconds above 0, or None.")
    from semcache.embedders.pool import EmbedderPool

    limited = embedder
    # The default model looks at 256 tokens at most: it cannot hang, and a thread costs it more.
    bounded = type(embedder).__module__ in ("semcache.embedders.default", "semcache.embedders.onnx")
    if timeout is not None and not bounded:
        from semcache.embedders.time_limit import TimeLimited

        limited = TimeLimited(embedder, timeout)
    pool = EmbedderPool(
        limited,
        # A server's answers are waited for, not computed: more of them at once.
        runs=None if embedder.local else _REMOTE_RUNS,
        trusted=type(embedder).__module__.startswith("semcache.embedders."),
    )
    long = _embed_long(limited) if long_prompts == "chunks" else None
    return Semantics(pool.embed, _fits(limited), long)


def _fits(embedder: Embedder) -> Callable[[str], bool]:
    def fits(question: str) -> bool:
        window = embedder.window
        # No token is shorter than a byte; two tokens mark beginning and end.
        if window is None or len(question.encode()) + 2 <= window:
            return True
        if len(question) > _LONGEST_TOKEN * window:
            return False
        return embedder.count_tokens(question) <= window

    return fits


def _embed_long(embedder: Embedder) -> Callable[[str], Vector]:
    def embed_long(question: str) -> Vector:
        from semcache.embedders.chunks import embed_in_chunks

        return embed_in_chunks(embedder, question)

    return embed_long


def open_repository(
    directory: Path,
    store: SQLiteStore,
    *,
    fingerprint: Callable[[], str],
    retention: Retention,
    clock: Callable[[], float],
    exact_below: int | None = None,
    background: bool = True,
) -> Repository[FaissIndex]:
    """The repository of a cache directory."""
    order = EVICTION[retention.eviction]
    with suppress(StoreError):  # locked, perhaps: the first eviction sees to it then
        if retention.quota is not None:
            store.keep_order(order, by_namespace=False)
        if retention.by_namespace:
            store.keep_order(order, by_namespace=True)
    files = FaissFiles(directory / SNAPSHOT, exact_below=exact_below, background=background)
    return Repository(store, files, fingerprint=fingerprint, retention=retention, clock=clock)


def leases_of(directory: Path) -> Callable[[Callable[[BaseException], None]], Leases]:
    """Makes the leases of a cache directory; nothing is opened before the first."""
    from semcache.stores.leases import SQLiteLeases

    return lambda fault: SQLiteLeases(directory / LEASES, fault)


# ------------------------------------------------------------------------- the verified policy


def rules_of(max_false_hit_rate: float, confidence: float) -> Rules:
    """What the bound is held with.

    Raises:
        ConfigError: a number is out of its range.
    """
    from statistics import NormalDist

    from semcache.core.calibration import Rules

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
        from semcache.verifiers.pair import PairModel

        looking = PairModel()
    elif verifier is not None:
        looking = verifier
    chosen = judge_of(judge, embedder, router, looking)
    if chosen is None:  # nobody could tell what an exploration found
        rules = replace(rules, explored=0.0)

    def made(cache: Cache) -> Learning:
        from semcache.learning import Learning

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
    from semcache.judges import LocalJudge, ModelJudge, as_judge

    if given == "local":
        return LocalJudge(embedder.embed, verifier=verifier)
    if given == "model":
        if router is None:
            raise ConfigError("judge='model' asks the router, and the cache has none: router=...")
        from semcache.core.requests import request

        asked = router
        return ModelJudge(lambda prompt: asked.complete(request(prompt)).text)
    return as_judge(given)


# --------------------------------------------------------------------------- the router

TASKS = ("general", "bulk_processing", "complex_reasoning", "long_context")
MODELS: dict[str, tuple[str, str, str, str]] = {
    "openai": ("gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.1"),
    "anthropic": (
        "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5",
    ),
    "gemini": ("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-2.5-pro"),
    "openrouter": (
        "deepseek/deepseek-chat", "deepseek/deepseek-chat", "deepseek/deepseek-r1",
        "google/gemini-2.5-pro",
    ),
}  # fmt: skip
"""Models for `TASKS`, in its order, where the settings say nothing; a setting is better."""
LONG_PROMPT = 100_000
"""Tokens from which a prompt is taken for long_context, where the settings have no routes."""


def flags_of(settings: Settings, client: Client | None = None) -> Flags:
    """The feature flags that the settings set."""
    from semcache.flags import Flags

    return Flags(settings.flags, client=client)


def router_of(settings: Settings, **options: Any) -> Router | None:
    """The router that the settings describe; None where they know no provider.

    Args:
        options: for `Router`, instead of what the settings say.

    Raises:
        ConfigError: the settings contradict themselves.
    """
    if not settings.providers:
        return None
    from semcache.core.resilience import BreakerRules, Retry
    from semcache.router import Router, Timeouts

    given = settings.providers
    concurrency = {n: p.concurrency for n, p in given.items() if p.concurrency is not None}
    described: dict[str, Any] = {
        "routes": routes_of(settings),
        "limits": {name: limits_of(provider) for name, provider in given.items()},
        "concurrency": concurrency,
        "retry": Retry(**settings.retry.model_dump()),
        "breaker": BreakerRules(**settings.breaker.model_dump()),
        "timeouts": Timeouts(settings.connect_timeout, settings.read_timeout),
        "deadline": settings.deadline,
        "flags": flags_of(settings),
    }
    return Router(providers_of(settings), **{**described, **options})


def providers_of(settings: Settings) -> list[Any]:
    """The providers that the settings describe.

    Raises:
        ConfigError: one of them cannot be made.
    """
    from semcache.registry import provider_kind

    made = []
    for name, given in _in_order(settings):
        told = {
            field: value
            for field in (
                "base_url", "api_key", "models", "headers", "version", "price_list"
            )
            if (value := getattr(given, field))
        }  # fmt: skip
        model = given.model or (MODELS[name][0] if name in MODELS else None)
        try:
            made.append(provider_kind(given.kind or name)(name=name, model=model, **told))
        except TypeError as error:
            raise ConfigError(f"providers.{name}: {error}") from None
    return made


def _in_order(settings: Settings) -> list[tuple[str, ProviderSettings]]:
    """Providers that were set up, in their order, before those of which there is just a key.

    A key that happens to be in the environment must not take requests away from them.
    """
    return sorted(
        settings.providers.items(), key=lambda item: item[1].model_fields_set <= {"api_key"}
    )


def limits_of(given: ProviderSettings) -> Sequence[Limit]:
    """The rate limits of a provider."""
    from semcache.core.limits import Limit

    found = []
    if given.requests_per_minute is not None:
        found.append(Limit(given.requests_per_minute, unit="requests", wait=given.wait))
    if given.tokens_per_minute is not None:
        found.append(Limit(given.tokens_per_minute, unit="tokens", wait=given.wait))
    return found


def routes_of(settings: Settings) -> list[Route]:
    """The rules of the settings; where there are none, one for each task type.

    Raises:
        ConfigError: a target cannot be read.
    """
    from semcache.core.routing import Route, Target

    if settings.routes:
        return [
            Route(
                tuple(map(Target.parse, route.targets)),
                route.task_type,
                route.model,
                route.min_tokens,
                route.max_tokens,
            )
            for route in settings.routes
        ]
    by_task = {task: _targets(settings, place) for place, task in enumerate(TASKS)}
    if not by_task["general"]:
        return []
    routes = [Route(targets, task_type=task) for task, targets in by_task.items()]
    return [
        *routes,
        Route(by_task["long_context"], min_tokens=LONG_PROMPT),
        Route(by_task["general"]),
    ]


def _targets(settings: Settings, place: int) -> tuple[Any, ...]:
    from semcache.core.routing import Target

    found = []
    for name, given in _in_order(settings):
        model = given.model or (MODELS[name][place] if name in MODELS else None)
        if model is not None:
            found.append(Target(name, model))
    return tuple(found)


def problems(settings: Settings) -> list[str]:
    """What would go wrong with these settings, in words; empty: nothing that can be seen here."""
    from semcache.providers.base import HTTPProvider
    from semcache.settings import KEYS
    from semcache.webhooks.signatures import usable

    found = []
    if settings.providers:
        try:
            router = router_of(settings)
        except ConfigError as error:
            return [str(error)]
        assert router is not None
        asked = {target.provider for route in router.routes for target in route.targets}
        for name, provider in router.providers.items():
            if (
                not isinstance(provider, HTTPProvider)
                or provider.has_key
                or provider.price_list is None
            ):
                continue  # a server of one's own needs no key
            used = "a route leads to it, but it" if name in asked else "it"
            hint = f" Set {' or '.join(KEYS[name])}." if name in KEYS else ""
            found.append(f"providers.{name}: {used} has no API key.{hint}")
    for name, source in settings.webhooks.sources.items():
        if source.secret is None:
            found.append(f"webhooks.sources.{name}: it has no secret, so all it sends is refused.")
        elif not usable(source.scheme, source.secret.get_secret_value()):
            found.append(f"webhooks.sources.{name}: its secret is none (whsec_ and base64).")
    return found
