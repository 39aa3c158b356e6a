"""`SemanticCache`: the cache as its users see it.

One module, though a long one: it is the public face, and its methods only hand their arguments on.
"""

from __future__ import annotations

import json
import os
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
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack

from semcache import inspection
from semcache.assembly.cache import open_engine
from semcache.backends.opening import location_of, masked
from semcache.backends.retention import TTL, UNSET, GivenTTL, Retention, seconds
from semcache.decorator import OWN_NAME, Cached, FunctionOptions, decorate
from semcache.engine import calls as engine_calls
from semcache.engine.call_options import TEXT_CHUNKS, CallOptions, Codec
from semcache.engine.explain import Explanation
from semcache.engine.record import StoragePolicy, as_completion
from semcache.engine.value_codecs import AnswerChunks
from semcache.errors import ConfigError, StoreError
from semcache.keys import keys
from semcache.keys.keys import Context, KeyRules
from semcache.keys.parse import RequestFields, name_of, tags_of
from semcache.keys.parse import request as make_request
from semcache.options import Calls, Matching, Options, Trust, merged
from semcache.telemetry.events import BreakerEvent, Event, Hook, logging_hook
from semcache.telemetry.stats import Stats
from semcache.types import Chunk, Completion, Entry, Lookup, Query, Request, Selection

if TYPE_CHECKING:
    from semcache.config.settings import Settings
    from semcache.embedders.base import Embedder
    from semcache.router import Router
    from semcache.verification.base import Judge

P = ParamSpec("P")
R = TypeVar("R")


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


class SemanticCache:
    """A semantic cache in a directory, in memory, or on a server.

    Safe to use from many threads and tasks; several processes may open one directory.

    The eight arguments that most programs need are given directly. The others come in groups,
    each documented in its class; an option may be given in one place only.

    Args:
        path: the directory, made where it is missing; ":memory:" for a cache of this process
            alone; or the URL of an installed backend.
        max_false_hit_rate, threshold, judge: see `Trust`.
        embedder: see `Matching`.
        ttl, max_entries: see `Retention`.
        router: answers what the cache does not, where no `send` is given.
        hooks: called with every event; by default the logging hook.
        trust: when a stored answer may be served.
        matching: what makes two requests the same, and how questions are embedded.
        retention: how long entries are kept.
        calls: coalescing, what is stored, feature flags, clock.
        backend: options of the backend itself, such as `LocalOptions` for a directory.

    Raises:
        ConfigError: an option is wrong.
        StoreError: the backend cannot be opened.
        IndexMismatchError: it holds vectors of another embedder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_false_hit_rate: float | None = None,
        threshold: float | None = None,
        embedder: Embedder | str | None = None,
        ttl: TTL = None,
        max_entries: int | None = None,
        judge: Judge
        | Callable[[str, str, str], bool | None]
        | Literal["local", "model"]
        | None = "local",
        router: Router | None = None,
        hooks: Sequence[Hook] = (logging_hook,),
        trust: Trust = Trust(),
        matching: Matching = Matching(),
        retention: Retention = Retention(),
        calls: Calls = Calls(),
        backend: object = None,
    ) -> None:
        decides = _given(max_false_hit_rate=max_false_hit_rate, threshold=threshold)
        if judge != "local":
            decides["judge"] = judge
        options = Options(
            trust=merged(trust, decides),
            matching=merged(matching, _given(embedder=embedder)),
            retention=merged(retention, _given(ttl=ttl, max_entries=max_entries)),
            calls=calls,
        )
        self.path = location_of(path)
        self._engine = open_engine(
            self.path, options, backend_options=backend, router=router, hooks=hooks
        )
        self._coalesce = calls.coalesce
        self._functions: dict[str, Any] = {}
        self.router = router
        if router is not None:
            router.listen(self._note_breaker)

    @classmethod
    def from_settings(
        cls, settings: Settings | None = None, *, path: str | Path | None = None, **options: Any
    ) -> SemanticCache:
        """A cache as the environment, `.env` and `semcache.toml` say, with its router.

        Args:
            settings: instead of those; see `semcache.config.Settings`.
            path: instead of the settings' own.
            options: arguments of `SemanticCache`, instead of what the settings say.

        Raises:
            ConfigError: a setting is wrong, or no path is given.
        """
        from semcache.assembly.settings import arguments_of
        from semcache.config.settings import load

        settings = load() if settings is None else settings
        where = settings.path if path is None else path
        if where is None:
            raise ConfigError(
                "Which directory? Give path=, SEMCACHE_PATH, or path in the settings."
            )
        return cls(where, **arguments_of(settings, options))

    @property
    def embedder(self) -> Embedder | None:
        """What turns questions into vectors; None for the exact tier only."""
        return self._engine.embedder

    # --------------------------------------------------------------- lookup and record

    def lookup(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Lookup:
        """Look for an answer.

        Raises:
            RequestError: the request cannot be used. Faults of the cache are misses.
        """
        return self._engine.lookups.lookup(self.query(prompt, **call))

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
        return self._engine.recorder.record(lookup, as_completion(answer), ttl=ttl, tags=tags)

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
        lookup = self._engine.lookups.lookup(self.query(prompt, **call), serve=False)
        return self._engine.recorder.record(lookup, completion, ttl=ttl)

    async def alookup(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Lookup:
        """`lookup` in a worker thread."""
        return await self._engine.in_thread(partial(self.lookup, prompt, **call))

    async def arecord(
        self,
        lookup: Lookup,
        answer: str | Completion,
        *,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
    ) -> Entry | None:
        """`record` in a worker thread."""
        return await self._engine.in_thread(
            partial(self.record, lookup, answer, ttl=ttl, tags=tags)
        )

    async def aget(
        self, prompt: str | Request | None = None, /, **call: Unpack[Call]
    ) -> Completion | None:
        """`get` in a worker thread."""
        return await self._engine.in_thread(partial(self.get, prompt, **call))

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
        return await self._engine.in_thread(partial(self.put, prompt, answer, ttl=ttl, **call))

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
        options = CallOptions(ttl=_checked(ttl), coalesce=self._coalesce)
        answer: Completion = engine_calls.answer(
            self._engine, query, partial(ask, query.request), options
        )
        return answer

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
        options = CallOptions(ttl=_checked(ttl), coalesce=self._coalesce)
        answer: Completion = await engine_calls.aanswer(
            self._engine, query, partial(ask, query.request), options
        )
        return answer

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
            ask = partial(send, query.request)
            return engine_calls.stream(self._engine, query, ask, self._stream_options(ttl))
        routed = partial(self._router().stream, query.request)
        options = self._stream_options(ttl, AnswerChunks())
        return _texts(engine_calls.stream(self._engine, query, routed, options))

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
            ask = partial(send, query.request)
            return engine_calls.astream(self._engine, query, ask, self._stream_options(ttl))
        routed = partial(self._router().astream, query.request)
        options = self._stream_options(ttl, AnswerChunks())
        return _atexts(engine_calls.astream(self._engine, query, routed, options))

    def _stream_options(self, ttl: GivenTTL, codec: Codec = TEXT_CHUNKS) -> CallOptions:
        return CallOptions(codec=codec, ttl=_checked(ttl), coalesce=self._coalesce, streams=True)

    def _router(self) -> Router:
        if self.router is None:
            raise ConfigError("No model is configured: pass send=, or open the cache with router=.")
        return self.router

    def _note_breaker(self, event: Event) -> None:
        """Breakers live in one process; the command line shows them from another."""
        if isinstance(event, BreakerEvent):
            note = {"state": event.state, "at": self._engine.clock(), "pid": os.getpid()}
            try:
                self._engine.backend.metadata.set_meta(
                    f"breaker:{event.provider}", json.dumps(note)
                )
            except StoreError as error:
                self._engine.telemetry.fault("counters", error)

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
        own_rules, own_storage = self._engine.lookups.rules, self._engine.recorder.policy
        options = FunctionOptions(
            model=model,
            namespace=namespace,
            prompt=prompt,
            key=key,
            name=name,
            rules=KeyRules(
                keys.key_rules(ignore).ignore | own_rules.ignore, context or own_rules.context
            ),
            ttl=_checked(ttl),
            tags=tags_of(tags),
            store_if=store_if,
            storage=StoragePolicy(
                own_storage.truncated if store_truncated is None else store_truncated,
                own_storage.tool_calls if store_tool_calls is None else store_tool_calls,
            ),
            known=self._functions,
            coalesce=self._coalesce,
        )
        return lambda function: decorate(function, self._engine, options)

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
        return self._engine.verification.report(lookup, correct, kind="feedback")

    # -------------------------------------------------------------------------- looking

    def explain(
        self, prompt: str | Request | None = None, /, *, k: int = 5, **call: Unpack[Call]
    ) -> Explanation:
        """Everything a lookup would see and decide, without changing or counting anything.

        Raises:
            RequestError: the request cannot be used.
            EmbedderError, StoreError: a part failed.
        """
        return self._engine.lookups.explain(self.query(prompt, **call), k=k)

    def query(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Query:
        """How the cache sees a request: scope, question and exact key.

        Raises:
            RequestError: the request cannot be used.
        """
        request, rules = self._request(prompt, call)
        return self._engine.lookups.query(request, rules)

    def explain_query(self, query: Query, *, k: int = 5) -> Explanation:
        """`explain` for a query."""
        return self._engine.lookups.explain(query, k=k)

    def stats(self) -> Stats:
        """What the cache holds and has done, with what this process has not yet written."""
        self.flush()
        return inspection.read_stats(self._engine.backend)

    def entries(self, *, limit: int | None = None, **selected: Any) -> list[Entry]:
        """Stored entries, the newest first; `selected`: the fields of `types.Selection`."""
        return self._engine.backend.catalogue.select(_selection(selected), limit=limit)

    def __len__(self) -> int:
        return self._engine.backend.catalogue.totals().entries

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
            None if older_than is None else self._engine.clock() - older_than,
        )
        if selection.everything:
            raise ConfigError("invalidate() needs a condition; clear() deletes everything.")
        return self._engine.delete(selection)

    def clear(self) -> int:
        """Delete every entry; return their number."""
        return self._engine.delete(Selection())

    # ---------------------------------------------------------------------------- ending

    def flush(self) -> None:
        """Write the counters, and what was learned, now (otherwise within a second)."""
        self._engine.flush()

    def wait(self) -> None:
        """Until what goes on in the background is done: indexes built, answers judged."""
        self._engine.wait()

    def close(self) -> None:
        """Write what is counted, keep the index on disk, give files back.

        The router, which may serve others, is closed by whoever made it.
        """
        self._engine.close()

    def __enter__(self) -> SemanticCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SemanticCache({masked(self.path)!r}, {self._engine.verification.describe()})"

    def _request(self, prompt: str | Request | None, call: Call) -> tuple[Request, KeyRules | None]:
        fields: dict[str, Any] = dict(call)
        ignore, context = fields.pop("ignore", None), fields.pop("context", None)
        rules = None
        if ignore is not None or context is not None:
            own = self._engine.lookups.rules
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


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _selection(selected: Mapping[str, Any]) -> Selection:
    try:
        return Selection(**selected)
    except TypeError as error:
        raise ConfigError(f"entries(): {error}") from None


def _checked(ttl: GivenTTL) -> GivenTTL:
    if ttl is not UNSET:
        seconds(ttl)
    return ttl
