"""`SemanticCache`: the cache as its users see it."""

from __future__ import annotations

import atexit
import json
import os
import random
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack
from weakref import WeakKeyDictionary, WeakSet

from semcache import engine as flow
from semcache.assembly.embedding import LongPrompts, choose_embedder, semantics
from semcache.assembly.router import flags_of, router_of
from semcache.assembly.verification import learning_of, rules_of
from semcache.backends.local.opening import leases_of, open_repository, open_store
from semcache.backends.retention import TTL, UNSET, GivenTTL, Limit, Retention
from semcache.backends.vectors import Form
from semcache.config.flags import Flags
from semcache.decorator import OWN_NAME, Cached, Options, decorate
from semcache.embedders.base import Embedder
from semcache.engine.cache import Cache, Explanation, Keep, as_completion
from semcache.engine.single_flight import Flights
from semcache.engine.value_codecs import AnswerChunks
from semcache.errors import ConfigError, StoreError
from semcache.keys import keys
from semcache.keys.keys import Context, KeyRules
from semcache.keys.parse import RequestFields, name_of, tags_of
from semcache.keys.parse import request as make_request
from semcache.telemetry.events import BreakerEvent, Event, Hook, logging_hook
from semcache.types import Chunk, Completion, Entry, Lookup, Query, Request, Selection
from semcache.verification.base import Policy, Verifier
from semcache.verification.policies import FixedThreshold

if TYPE_CHECKING:
    from semcache.config.settings import Settings
    from semcache.router import Router

P = ParamSpec("P")
R = TypeVar("R")

MAX_FALSE_HIT_RATE = 0.02
CONFIDENCE = 0.93


class Call(RequestFields, total=False):
    """What may be said of a call besides its prompt.

    Attributes:
        messages: chat messages instead of a prompt, in OpenAI's or Anthropic's form.
        system: the system prompt, where it is given apart.
        model: the model's name.
        namespace: the caller's partition; answers never cross it.
        params: sampling parameters and whatever else changes the answer.
        tools, response_format: as the provider takes them.
        tags: labels for `invalidate`.
        task_type: what kind of work it is, for a router to choose by.
        ignore: names that do not belong to the scope, such as {"temperature"}.
        context: "full": earlier turns belong to the scope; "none": they do not.
    """

    ignore: Iterable[str]
    context: Context


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache holds and has done, over all processes.

    Attributes:
        entries, entry_bytes: how many, and the bytes of their texts and vectors.
        file_bytes: what the database takes on disk.
        exact_hits, semantic_hits, shared: served from the cache; from another caller's
            call under way.
        misses: by reason. faults: by the part that failed.
        records: answers stored. not_stored: by reason.
        tokens_saved, usd_saved: of served answers whose usage was known.
        explorations, audits: calls that were made to learn, though a stored answer was good
            enough. tokens_bought, usd_bought: what these cost, where known.
        labels: how many labels there are, by how they came about.
        served_labels: of hits that were explored, audited or reviewed at random, the newest
            1,000. served_wrong: how many of these were wrong.
        bound: the largest false hit rate that was asked for; None: another policy decides.
        expected_false_hit_rate: what is expected of what is served now; None: nothing is.
        embedder: fingerprint of the embedder; None while there is no vector.
    """

    entries: int
    entry_bytes: int
    file_bytes: int
    exact_hits: int
    semantic_hits: int
    shared: int
    misses: Mapping[str, int]
    faults: Mapping[str, int]
    records: int
    not_stored: Mapping[str, int]
    tokens_saved: int
    usd_saved: float
    embedder: str | None
    explorations: int = 0
    audits: int = 0
    tokens_bought: int = 0
    usd_bought: float = 0.0
    labels: Mapping[str, int] = field(default_factory=dict)
    served_labels: int = 0
    served_wrong: int = 0
    bound: float | None = None
    expected_false_hit_rate: float | None = None

    @property
    def lookups(self) -> int:
        """Lookups that could have been served (`put` and `refresh` could not)."""
        missed = sum(count for reason, count in self.misses.items() if reason != "bypassed")
        return self.exact_hits + self.semantic_hits + missed + self.explorations

    @property
    def calls_saved(self) -> int:
        """Calls that were not made, less those that only audits made."""
        return self.exact_hits + self.semantic_hits - self.audits

    @property
    def false_hit_interval(self) -> tuple[float, float] | None:
        """95% interval of the share of wrong semantic hits (Wilson 1927); None: no labels."""
        if not self.served_labels:
            return None
        from semcache.telemetry.intervals import wilson

        return wilson(self.served_wrong, self.served_labels)

    @property
    def hit_rate(self) -> float | None:
        """Served / all lookups; None before the first."""
        return (self.exact_hits + self.semantic_hits) / self.lookups if self.lookups else None


class SemanticCache:
    """A semantic cache in a directory.

    Safe to use from many threads and tasks; several processes may open one directory.

    Args:
        path: the directory; made where it is missing.
        max_false_hit_rate: the largest share of the semantic hits that may be wrong; 0.02 by
            default. The cache learns from the answers that it is given which hits keep it.
        confidence: how sure of that to be; more is more cautious. 0.5: on average.
        judge: compares a stored answer with a fresh one, in the background: "local" (equal
            texts, embeddings), "model" (asks the router), a function of (question, stored,
            fresh) that returns True, False or None for not sure, a `Judge`, or None.
        judge_in_background: False: judge before `record` returns, so that equal runs are equal.
        audit: share of the semantic hits for which the model is asked all the same, after
            the answer was served; each is a call. 0: none.
        verifier: what looks at two questions at once; None: nothing does, and the cache is shyer.
        threshold: instead of all that: the least cosine similarity that is served.
        policy: a `Policy`, instead of all that.
        embedder: an `Embedder`, or the name or path of a sentence-transformers model; by
            default all-MiniLM-L6-v2, on this machine.
        semantic: False: the exact tier only; nothing is ever embedded.
        ttl: seconds (or a timedelta) an entry may be served for; None: for ever.
        namespace_ttl: TTLs by namespace, before `ttl`.
        sliding: a TTL begins anew whenever its entry is served (written within a second: of no
            use for TTLs below that).
        stale_while_revalidate: seconds (or a timedelta) for which an entry is served still
            when its TTL has passed, while one caller makes it anew in the background.
        max_entries, max_bytes: quota, and `eviction`: "least-recently-used",
            "least-frequently-used" or "oldest".
        namespace_max_entries, namespace_max_bytes: quota of each namespace: one for all of
            them, or by name.
        ignore, context: what does not belong to the scope, see `Call`.
        long_prompts: prompts longer than the embedder's window use the exact tier only
            ("exact"), or are embedded in pieces ("chunks").
        store_truncated, store_tool_calls: store such answers too.
        coalesce: of equal calls under way, in all processes that use the directory, one asks
            the model ("exact"); also of nearly equal ones, if the policy then serves its
            answer ("semantic"); "off".
        router: answers what the cache does not, where no `send` is given.
        flags: `caching_enabled` and `semantic_enabled` are looked at with every call; by
            default the router's.
        hooks: called with every event; by default the logging hook.
        embed_timeout: seconds after which an embedder that hangs is given up and the call
            goes on as a miss.
        vectors: how new vectors are kept on disk: "float32", "float16" or "int8". A directory
            may hold several forms.
        busy_timeout: seconds that a write waits for another process's.
        clock: seconds since the epoch. draw: uniform in [0, 1), for policies that explore.
        exact_below: scopes with fewer entries are searched exactly.
        index_in_background: False: build large indexes inside the write that makes them
            due, so that equal runs give equal hits.

    Raises:
        ConfigError: a setting is wrong.
        StoreError: the directory cannot be used.
        IndexMismatchError: it holds vectors of another embedder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_false_hit_rate: float | None = None,
        confidence: float = CONFIDENCE,
        judge: Any = "local",
        judge_in_background: bool = True,
        audit: float = 0.0,
        verifier: Verifier | Literal["shipped"] | None = "shipped",
        threshold: float | None = None,
        policy: Policy | None = None,
        embedder: Embedder | str | None = None,
        semantic: bool = True,
        ttl: TTL = None,
        namespace_ttl: Mapping[str, TTL] | None = None,
        sliding: bool = False,
        stale_while_revalidate: TTL = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        namespace_max_entries: Limit = None,
        namespace_max_bytes: Limit = None,
        eviction: str = "least-recently-used",
        ignore: Iterable[str] = (),
        context: Context = "full",
        long_prompts: LongPrompts = "exact",
        store_truncated: bool = False,
        store_tool_calls: bool = False,
        coalesce: flow.Coalesce = "exact",
        router: Router | None = None,
        flags: Flags | None = None,
        hooks: Sequence[Hook] = (logging_hook,),
        embed_timeout: float | None = 5.0,
        busy_timeout: float = 5.0,
        vectors: Form = "float32",
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        exact_below: int | None = None,
        index_in_background: bool = True,
    ) -> None:
        if sum(given is not None for given in (max_false_hit_rate, threshold, policy)) > 1:
            raise ConfigError("Give one of max_false_hit_rate, threshold and policy.")
        if not isinstance(audit, int | float) or not 0 <= audit <= 1:
            raise ConfigError(f"audit is {audit!r}; it is a share of the hits, from 0 to 1.")
        if threshold is not None:
            policy = FixedThreshold(threshold)
        bound = MAX_FALSE_HIT_RATE if max_false_hit_rate is None else max_false_hit_rate
        held = None if policy is not None else rules_of(bound, confidence)
        if coalesce not in ("exact", "semantic", "off"):
            raise ConfigError(f"coalesce is {coalesce!r}; it is 'exact', 'semantic' or 'off'.")
        if not isinstance(busy_timeout, int | float) or not busy_timeout >= 0:
            raise ConfigError(f"busy_timeout is {busy_timeout!r}; it is a number of seconds.")
        if path == "":
            raise ConfigError("path is empty. Write '.' for the current directory.")
        self.path = Path(path).expanduser()
        rules = keys.key_rules(ignore, context)
        retention = Retention(
            ttl,
            dict(namespace_ttl or {}),
            max_entries,
            max_bytes,
            eviction,
            namespace_max_entries,
            namespace_max_bytes,
            sliding,
            stale_while_revalidate,
        )
        store = open_store(self.path, busy_timeout=busy_timeout, vectors=vectors)
        try:
            chosen = choose_embedder(embedder, store) if semantic else None
            repository = open_repository(
                self.path,
                store,
                fingerprint=lambda: "" if chosen is None else chosen.fingerprint,
                retention=retention,
                clock=clock,
                exact_below=exact_below,
                background=index_in_background,
            )
            tier = (
                semantics(chosen, long_prompts=long_prompts, timeout=embed_timeout)
                if chosen is not None
                else None
            )
            learning = None
            if held is not None and chosen is not None:
                learning = learning_of(
                    held,
                    store=store,
                    embedder=chosen,
                    verifier=verifier,
                    judge=judge,
                    router=router,
                    clock=clock,
                    in_background=judge_in_background,
                )
        except BaseException:
            store.close()
            raise
        self._store = store
        self._embedder = chosen
        self._flights = Flights()
        self._functions: dict[str, Any] = {}
        self._cache = Cache(
            repository,
            semantics=tier,
            policy=policy,
            rules=rules,
            retention=retention,
            keep=Keep(store_truncated, store_tool_calls),
            hooks=hooks,
            flags=flags or (None if router is None else router.flags),
            clock=clock,
            draw=draw,
            learning=learning,
            audit=audit,
            leases=None if coalesce == "off" else leases_of(self.path),
        )
        self._coalesce = coalesce
        self.router = router
        if router is not None:
            router.listen(self._note_breaker)
        _open_caches.add(self._cache)
        _flights_of[self._cache] = self._flights

    @classmethod
    def from_settings(
        cls, settings: Settings | None = None, *, path: str | Path | None = None, **options: Any
    ) -> SemanticCache:
        """A cache as the environment, `.env` and `semcache.toml` say, with its router.

        Args:
            settings: instead of those; see `semcache.config.settings`.
            path: the directory, instead of the settings' own.
            options: arguments of `SemanticCache`, instead of what the settings say.

        Raises:
            ConfigError: a setting is wrong, or no path is given.
        """
        if settings is None:
            from semcache.config.settings import load

            settings = load()
        where = settings.path if path is None else path
        if where is None:
            raise ConfigError(
                "Which directory? Give path=, SEMCACHE_PATH, or path in the settings."
            )
        names = (
            "embedder", "ttl", "sliding", "stale_while_revalidate", "max_entries", "max_bytes",
            "namespace_max_entries", "namespace_max_bytes", "eviction",
        )  # fmt: skip
        told = {name: getattr(settings, name) for name in names}
        if not options.keys() & {"policy", "threshold", "max_false_hit_rate"}:
            told["threshold"] = settings.threshold
            told["max_false_hit_rate"] = settings.max_false_hit_rate
        if "router" not in options:
            options["router"] = router_of(settings)
        if options["router"] is None:
            options.setdefault("flags", flags_of(settings))
        return cls(where, **{**told, **options})

    # --------------------------------------------------------------- lookup and record

    def lookup(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Lookup:
        """Look for an answer.

        Raises:
            RequestError: the request cannot be used. Faults of the cache are misses.
        """
        return self._cache.find(self.query(prompt, **call))

    def record(
        self,
        lookup: Lookup,
        answer: str | Completion,
        *,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
    ) -> Entry | None:
        """Store the answer to a request that was looked up; nothing is embedded twice.

        Returns the entry, or None if it was not stored: an answer that is cut off, empty or
        asks for tools is not, and a fault of the store is no fault of the caller's.

        Raises:
            RequestError: the answer is neither text nor a `Completion`.
            ConfigError: the TTL is wrong.
        """
        return self._cache.store(lookup, as_completion(answer), ttl=ttl, tags=tags)

    def get(
        self, prompt: str | Request | None = None, /, **call: Unpack[Call]
    ) -> Completion | None:
        """The stored answer, or None. See `lookup`."""
        return self.lookup(prompt, **call).completion

    def put(
        self,
        prompt: str | Request | None,
        answer: str | Completion,
        /,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> Entry | None:
        """Store an answer, in place of one for the same request. See `record`."""
        completion = as_completion(answer)
        lookup = self._cache.find(self.query(prompt, **call), serve=False)
        return self._cache.store(lookup, completion, ttl=ttl)

    async def alookup(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Lookup:
        """`lookup` in a worker thread."""
        return await flow.in_thread(partial(self.lookup, prompt, **call))

    async def arecord(
        self,
        lookup: Lookup,
        answer: str | Completion,
        *,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
    ) -> Entry | None:
        """`record` in a worker thread."""
        return await flow.in_thread(partial(self.record, lookup, answer, ttl=ttl, tags=tags))

    async def aget(
        self, prompt: str | Request | None = None, /, **call: Unpack[Call]
    ) -> Completion | None:
        """`get` in a worker thread."""
        return await flow.in_thread(partial(self.get, prompt, **call))

    async def aput(
        self,
        prompt: str | Request | None,
        answer: str | Completion,
        /,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> Entry | None:
        """`put` in a worker thread."""
        return await flow.in_thread(partial(self.put, prompt, answer, ttl=ttl, **call))

    # ------------------------------------------------------------------------- answer

    def answer(
        self,
        prompt: str | Request | None = None,
        send: Callable[[Request], Completion] | None = None,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> Completion:
        """The stored answer, or that of `send(request)`, which is then stored.

        Without `send` the cache's router is asked.

        Raises:
            ConfigError: there is neither. Errors of whoever is asked pass through.
        """
        query = self.query(prompt, **call)
        ask = send or self._router().complete
        terms = flow.Terms(ttl=_checked(ttl), coalesce=self._coalesce)
        done: Completion = flow.answer(
            self._cache, self._flights, query, partial(ask, query.request), terms
        )
        return done

    async def aanswer(
        self,
        prompt: str | Request | None = None,
        send: Callable[[Request], Awaitable[Completion]] | None = None,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> Completion:
        """`answer` for an async `send`."""
        query = self.query(prompt, **call)
        ask = send or self._router().acomplete
        terms = flow.Terms(ttl=_checked(ttl), coalesce=self._coalesce)
        done: Completion = await flow.aanswer(
            self._cache, self._flights, query, partial(ask, query.request), terms
        )
        return done

    def stream(
        self,
        prompt: str | Request | None = None,
        send: Callable[[Request], Iterator[str]] | None = None,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> Iterator[str]:
        """The stored answer in its chunks, or those of `send(request)` as they arrive.

        Without `send` the cache's router is asked, whose answer is kept if it is whole (a
        stream of mere text does not say so).
        """
        query = self.query(prompt, **call)
        if send is not None:
            terms = flow.Terms(
                codec=flow.TEXT_CHUNKS, ttl=_checked(ttl), coalesce=self._coalesce, streams=True
            )
            return flow.stream(
                self._cache, self._flights, query, partial(send, query.request), terms
            )
        terms = flow.Terms(
            codec=AnswerChunks(), ttl=_checked(ttl), coalesce=self._coalesce, streams=True
        )
        ask = partial(self._router().stream, query.request)
        return _texts(flow.stream(self._cache, self._flights, query, ask, terms))

    def astream(
        self,
        prompt: str | Request | None = None,
        send: Callable[[Request], AsyncIterator[str]] | None = None,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> AsyncIterator[str]:
        """`stream` for an async iterator."""
        query = self.query(prompt, **call)
        if send is not None:
            terms = flow.Terms(
                codec=flow.TEXT_CHUNKS, ttl=_checked(ttl), coalesce=self._coalesce, streams=True
            )
            return flow.astream(
                self._cache, self._flights, query, partial(send, query.request), terms
            )
        terms = flow.Terms(
            codec=AnswerChunks(), ttl=_checked(ttl), coalesce=self._coalesce, streams=True
        )
        ask = partial(self._router().astream, query.request)
        return _atexts(flow.astream(self._cache, self._flights, query, ask, terms))

    def _router(self) -> Router:
        if self.router is None:
            raise ConfigError(
                "Nobody is there to answer a miss: give send=, or open the cache with router=."
            )
        return self.router

    def _note_breaker(self, event: Event) -> None:
        """Breakers live in one process; the command line shows them from another."""
        if isinstance(event, BreakerEvent):
            note = {"state": event.state, "at": self._cache.now(), "pid": os.getpid()}
            try:
                self._store.set_meta(f"breaker:{event.provider}", json.dumps(note))
            except StoreError as error:
                self._cache.fault("counters", error)

    def cached(
        self,
        *,
        model: str | None = None,
        namespace: str | Callable[..., str] | None = None,
        prompt: str | None = None,
        key: Callable[..., Any] | None = None,
        name: str | None = OWN_NAME,
        ignore: Iterable[str] = (),
        context: Context | None = None,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
        store_if: Callable[[Any], bool] | None = None,
        store_truncated: bool | None = None,
        store_tool_calls: bool | None = None,
    ) -> Callable[[Callable[P, R]], Cached[P, R]]:
        """Decorate a function that asks a model; async functions and generators too.

        Args:
            model: the model that the function asks.
            namespace: the caller's partition, or a function of the call's arguments.
            prompt: the argument that holds the prompt or the messages; found by itself where
                it is called prompt, question, query, message, text or messages, or is alone.
            key: a function of the call's arguments that gives the prompt, the messages or a
                `Request`; the other arguments then do not count.
            name: what the function is called in the scope; functions of one name share
                answers. By default its module and qualified name; None: none, so that
                answers are shared with `lookup` and `get`.
            ignore: arguments that do not change the answer.
            context: "full" or "none", instead of the cache's own.
            ttl: for this function's answers.
            tags: for this function's answers.
            store_if: asked with each value; it is not stored if the answer is no.
            store_truncated, store_tool_calls: instead of the cache's own.

        Raises:
            ConfigError: a setting is wrong, or it cannot be told which argument is the prompt.
        """
        cache_rules, keep = self._cache.rules, self._cache.keep
        options = Options(
            model=model,
            namespace=namespace,
            prompt=prompt,
            key=key,
            name=name,
            rules=KeyRules(
                keys.key_rules(ignore).ignore | cache_rules.ignore, context or cache_rules.context
            ),
            ttl=_checked(ttl),
            tags=tags_of(tags),
            store_if=store_if,
            keep=Keep(
                keep.truncated if store_truncated is None else store_truncated,
                keep.tool_calls if store_tool_calls is None else store_tool_calls,
            ),
            known=self._functions,
            coalesce=self._coalesce,
        )
        return lambda function: decorate(function, self._cache, self._flights, options)

    # -------------------------------------------------------------------------- learning

    def feedback(self, lookup: Lookup | str, *, correct: bool) -> bool:
        """Say whether what a semantic hit served was right.

        An answer reported wrong is not served to that question again, and less readily to
        others. Reports are no random sample: they move no estimate of how often hits are
        wrong (`semcache review` does).

        Args:
            lookup: the lookup, or its id (`LookupEvent.lookup_id`).

        Returns whether the lookup is remembered (the newest 10,000 semantic hits are).

        Raises:
            StoreError: it could not be written.
        """
        learning = self._cache.learning
        return learning is not None and learning.report(lookup, correct, kind="feedback")

    # -------------------------------------------------------------------------- looking

    def explain(
        self, prompt: str | Request | None = None, /, *, k: int = 5, **call: Unpack[Call]
    ) -> Explanation:
        """Everything a lookup would see and decide, without changing or counting anything.

        Raises:
            RequestError: the request cannot be used.
            EmbedderError, StoreError: a part failed.
        """
        return self._cache.explain_query(self.query(prompt, **call), k=k)

    def query(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Query:
        """How the cache sees a request: scope, question and exact key.

        Raises:
            RequestError: the request cannot be used.
        """
        request, rules = self._request(prompt, call)
        return self._cache.query(request, rules)

    def explain_query(self, query: Query, *, k: int = 5) -> Explanation:
        """`explain` for a query."""
        return self._cache.explain_query(query, k=k)

    def stats(self) -> Stats:
        """What the cache holds and has done, with what this process has not yet written."""
        self.flush()
        return read_stats(self._store)

    def entries(self, *, limit: int | None = None, **selected: Any) -> list[Entry]:
        """Stored entries, the newest first; `selected`: the fields of `types.Selection`."""
        return self._store.select(_selection(selected), limit=limit)

    def __len__(self) -> int:
        return self._store.totals()[0]

    # ------------------------------------------------------------------------- removing

    def invalidate(
        self,
        *,
        tag: str | None = None,
        namespace: str | None = None,
        model: str | None = None,
        ids: Iterable[int] | None = None,
        older_than: float | None = None,
    ) -> int:
        """Delete the entries for which all the given conditions hold; return their number.

        Args:
            older_than: stored at least so many seconds ago.

        Raises:
            ConfigError: no condition was given (`clear` deletes everything).
            StoreError: they could not be deleted.
        """
        selection = Selection(
            None if namespace is None else name_of(namespace, "namespace", ""),
            None if model is None else name_of(model, "model", ""),
            None if tag is None else name_of(tag, "tag", ""),
            None if ids is None else tuple(ids),
            None if older_than is None else self._cache.now() - older_than,
        )
        if selection.everything:
            raise ConfigError("invalidate() needs a condition; clear() deletes everything.")
        return self._cache.remove(selection)

    def clear(self) -> int:
        """Delete every entry; return their number."""
        return self._cache.remove(Selection())

    # ---------------------------------------------------------------------------- ending

    def flush(self) -> None:
        """Write the counters, and what was learned, now (otherwise within a second)."""
        self._cache.tally.flush()
        if self._cache.learning is not None:
            try:
                self._cache.learning.save()
            except StoreError as error:
                self._cache.fault("counters", error)

    def wait(self) -> None:
        """Until what goes on in the background is done: indexes built, answers judged."""
        self._cache.repository.wait()
        if self._cache.learning is not None:
            self._cache.learning.wait()

    def close(self) -> None:
        """Write what is counted, keep the index on disk, give files back.

        The router, which may serve others, is closed by whoever made it.
        """
        self._cache.close()

    def __enter__(self) -> SemanticCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SemanticCache({str(self.path)!r}, {self._cache.policy_in_words})"

    def _request(self, prompt: str | Request | None, call: Call) -> tuple[Request, KeyRules | None]:
        fields: dict[str, Any] = dict(call)
        ignore, context = fields.pop("ignore", None), fields.pop("context", None)
        rules = None
        if ignore is not None or context is not None:
            own = self._cache.rules
            rules = KeyRules(
                own.ignore | keys.key_rules(ignore or ()).ignore, context or own.context
            )
        if not isinstance(prompt, Request):
            return make_request(prompt, **fields), rules
        if fields:
            raise ConfigError(f"A Request already says everything; leave out {sorted(fields)}.")
        return prompt, rules


def _texts(chunks: Generator[Chunk, None, None]) -> Iterator[str]:
    with closing(chunks):
        for chunk in chunks:
            if chunk.text:
                yield chunk.text


async def _atexts(chunks: AsyncGenerator[Chunk, None]) -> AsyncIterator[str]:
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.text:
                yield chunk.text


_RECENT_LABELS = 1000


def read_stats(store: Any) -> Stats:
    """The statistics of a store."""
    entries, size = store.totals()
    counters = store.counters()
    served = store.served_labels(_RECENT_LABELS)
    learned = json.loads(store.meta("learned") or "{}")

    def by_reason(prefix: str) -> dict[str, int]:
        return {
            name.removeprefix(prefix): int(value)
            for name, value in sorted(counters.items())
            if name.startswith(prefix)
        }

    return Stats(
        entries=entries,
        entry_bytes=size,
        file_bytes=store.file_bytes(),
        exact_hits=int(counters.get("hits:exact", 0)),
        semantic_hits=int(counters.get("hits:semantic", 0)),
        shared=int(counters.get("shared", 0)),
        misses=by_reason("misses:"),
        faults=by_reason("faults:"),
        records=int(counters.get("records", 0)),
        not_stored=by_reason("not_stored:"),
        tokens_saved=int(counters.get("tokens_saved", 0)),
        usd_saved=float(counters.get("usd_saved", 0.0)),
        embedder=store.meta("fingerprint"),
        explorations=int(counters.get("explorations", 0)),
        audits=int(counters.get("bought:audit", 0)),
        tokens_bought=int(counters.get("tokens_bought", 0)),
        usd_bought=float(counters.get("usd_bought", 0.0)),
        labels={kind: count for kind, count, _ in store.observation_counts()},
        served_labels=len(served),
        served_wrong=served.count(False),
        bound=learned.get("bound"),
        expected_false_hit_rate=learned.get("expected"),
    )


def _selection(selected: Mapping[str, Any]) -> Selection:
    try:
        return Selection(**selected)
    except TypeError as error:
        raise ConfigError(f"entries(): {error}") from None


def _checked(ttl: GivenTTL) -> GivenTTL:
    if ttl is not UNSET:
        from semcache.backends.retention import seconds

        seconds(ttl)
    return ttl


_open_caches: WeakSet[Cache] = WeakSet()
_flights_of: WeakKeyDictionary[Cache, Flights] = WeakKeyDictionary()
_fork_turn = threading.RLock()
_forking: list[Cache] = []
"""Those that are held while a thread forks; one at a time."""


def _close_all() -> None:
    """At the end of the program: what is counted is written, indexes are kept."""
    for cache in list(_open_caches):
        with suppress(Exception):
            cache.close()


def _before_fork() -> None:
    """Wait until none of our threads is in the middle of a write, and keep it so."""
    _fork_turn.acquire()
    _forking[:] = list(_open_caches)
    for cache in _forking:
        cache.before_fork()


def _after_fork_here() -> None:
    """In the parent."""
    for cache in reversed(_forking):
        cache.after_fork_here()
    _forking.clear()
    _fork_turn.release()


def _after_fork() -> None:
    """In a child process: the parent's threads are gone, with the locks that they held."""
    global _fork_turn
    _fork_turn = threading.RLock()
    _forking.clear()
    for cache in list(_open_caches):
        cache.after_fork()
        _flights_of[cache].after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_here, after_in_child=_after_fork
    )
