"""`SemanticCache`: the public face of the package.

One module, though a long one, because its methods only pass their arguments on to the engine.
"""

from __future__ import annotations

import inspect
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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, TypeVar, Unpack, overload

from semcache import inspection
from semcache.assembly.cache import open_engine
from semcache.backends.opening import location_of
from semcache.backends.retention import TTL, UNSET, GivenTTL, Retention, seconds
from semcache.credentials import without_password
from semcache.decorator import OWN_NAME, Cached, FunctionOptions, decorate
from semcache.engine import calls as engine_calls
from semcache.engine import streams as engine_streams
from semcache.engine.call_options import TEXT_CHUNKS, CallOptions, Codec
from semcache.engine.erasure import Erased
from semcache.engine.explain import Explanation
from semcache.engine.record import StoragePolicy, as_completion
from semcache.engine.value_codecs import AnswerChunks
from semcache.errors import ConfigError, RequestError, StoreError
from semcache.keys import keys
from semcache.keys.keys import Context, KeyRules
from semcache.keys.parse import RequestFields, name_of, tags_of
from semcache.keys.parse import request as make_request
from semcache.lifecycle import Handle
from semcache.options import (
    Calls,
    Matching,
    Options,
    Trust,
    did_you_mean,
    merged,
    no_such_option,
)
from semcache.privacy.personal import Privacy
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
    """Keyword arguments that describe a call, besides its prompt.

    Attributes:
        messages: chat messages instead of a prompt, in OpenAI's or Anthropic's format.
        system: the system prompt, if it is not one of the messages.
        model: the model's name.
        namespace: the caller's partition; answers are never shared across namespaces.
        params: sampling parameters and anything else that changes the answer.
        tools, response_format: in the provider's format.
        tags: labels for `invalidate`.
        task_type: the kind of work, which a router may choose a model by.
        ignore: names to leave out of the scope, such as {"temperature"}.
        context: "full" makes earlier turns part of the scope; "none" leaves them out.
    """

    ignore: Iterable[str]
    context: Context


class SemanticCache:
    """A semantic cache in a directory, in memory, or on a server.

    Safe to use from many threads and tasks; several processes may open the same directory.

    The eight options that most programs need are arguments of their own. The others come in
    groups, each documented in its class; an option must not be given both ways.

    Args:
        path: the cache directory, created if it does not exist; ":memory:" for a cache that
            lives in this process only; or the URL of an installed backend.
        max_false_hit_rate, threshold, judge: see `Trust`.
        embedder: see `Matching`.
        ttl, max_entries: see `Retention`.
        router: answers cache misses of calls that pass no `send`.
        hooks: called with every event; by default only the logging hook.
        trust: when a stored answer may be served.
        matching: what makes two requests the same, and how questions are embedded.
        retention: how long entries are kept.
        calls: how concurrent calls are shared, which answers are stored, flags and clock.
        privacy: what happens to personal data, and how long a hit takes.
        backend: options specific to the backend, such as `LocalOptions` for a directory.

    Raises:
        ConfigError: an option has an invalid value.
        StoreError: the backend cannot be opened.
        IndexMismatchError: the stored vectors come from another embedder.
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
        privacy: Privacy = Privacy(),
        backend: object = None,
        **unknown: Never,
    ) -> None:
        for name in unknown:
            raise no_such_option(name, unknown[name])
        trust_options = _not_none(max_false_hit_rate=max_false_hit_rate, threshold=threshold)
        if judge != "local":
            trust_options["judge"] = judge
        options = Options(
            trust=merged(trust, trust_options, Trust),
            matching=merged(matching, _not_none(embedder=embedder), Matching),
            retention=merged(retention, _not_none(ttl=ttl, max_entries=max_entries), Retention),
            calls=merged(calls, {}, Calls),
            privacy=merged(privacy, {}, Privacy),
        )
        self.path = location_of(path)
        self._engine = open_engine(
            self.path, options, backend_options=backend, router=router, hooks=hooks
        )
        self._handle = Handle(self._engine.close)
        self._coalesce = calls.coalesce
        self._functions: dict[str, Any] = {}
        self.router = router
        if router is not None:
            router.listen(self._save_breaker_state)

    @classmethod
    def from_settings(
        cls, settings: Settings | None = None, *, path: str | Path | None = None, **options: Any
    ) -> SemanticCache:
        """Open a cache, with its router, as configured in the environment.

        Settings come from environment variables, `.env` and `semcache.toml`.

        Args:
            settings: used instead of those; see `semcache.config.Settings`.
            path: overrides the path in the settings.
            options: arguments of `SemanticCache`, which override the settings.

        Raises:
            ConfigError: a setting is wrong, or no path is configured.
        """
        from semcache.assembly.settings import arguments_of
        from semcache.config.settings import load

        settings = load() if settings is None else settings
        location = settings.path if path is None else path
        if location is None:
            raise ConfigError(
                "No cache directory is configured: pass path=, or set SEMCACHE_PATH or path in "
                "the settings."
            )
        return cls(location, **arguments_of(settings, options))

    @property
    def embedder(self) -> Embedder | None:
        """The embedder of the semantic tier; None if the cache has only the exact tier."""
        return self._engine.embedder

    # --------------------------------------------------------------- lookup and record

    def lookup(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Lookup:
        """Look up the stored answer to a request.

        A failing part of the cache never raises; at worst, the lookup is a miss.

        Raises:
            RequestError: the request is malformed.
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
        """Store the answer to a request that was looked up, reusing the lookup's embedding.

        Returns the entry, or None if the answer was not stored: because it is truncated, empty
        or a tool call, or because the store failed.

        Raises:
            RequestError: the answer is neither text nor a `Completion`.
            ConfigError: the TTL is invalid.
        """
        return self._engine.recorder.record(
            _checked(lookup), as_completion(answer), ttl=ttl, tags=tags
        )

    def get(
        self, prompt: str | Request | None = None, /, **call: Unpack[Call]
    ) -> Completion | None:
        """The stored answer, or None; its `served_from` is the tier. See `lookup`."""
        lookup = self.lookup(prompt, **call)
        completion = lookup.completion
        return None if completion is None else replace(completion, served_from=lookup.tier)

    def put(
        self,
        prompt: str | Request | None,
        answer: str | Completion,
        /,
        *,
        ttl: GivenTTL = UNSET,
        **call: Unpack[Call],
    ) -> Entry | None:
        """Store an answer, replacing any stored answer to the same request. See `record`."""
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
        """Return the stored answer, or call `send(request)` and store the answer it returns.

        Without `send`, the cache's router is called. Errors of either pass through unchanged.

        Raises:
            RequestError: the request is malformed.
            ConfigError: `send` was not given and the cache has no router.
        """
        query = self.query(prompt, **call)
        ask = send or self._router().complete
        options = CallOptions(ttl=_valid_ttl(ttl), coalesce=self._coalesce)
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
        options = CallOptions(ttl=_valid_ttl(ttl), coalesce=self._coalesce)
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
        """Yield the chunks of the stored answer, or those of `send(request)` as they arrive.

        Without `send`, the cache's router is called, and its answer is stored unless the finish
        reason says that it was cut off. A stream of plain text from `send` has no finish reason;
        it is stored if it was read to the end.
        """
        query = self.query(prompt, **call)
        if send is not None:
            ask = partial(send, query.request)
            return engine_streams.stream(self._engine, query, ask, self._stream_options(ttl))
        routed = partial(self._router().stream, query.request)
        options = self._stream_options(ttl, AnswerChunks())
        return _texts(engine_streams.stream(self._engine, query, routed, options))

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
            return engine_streams.astream(self._engine, query, ask, self._stream_options(ttl))
        routed = partial(self._router().astream, query.request)
        options = self._stream_options(ttl, AnswerChunks())
        return _atexts(engine_streams.astream(self._engine, query, routed, options))

    def _stream_options(self, ttl: GivenTTL, codec: Codec = TEXT_CHUNKS) -> CallOptions:
        return CallOptions(codec=codec, ttl=_valid_ttl(ttl), coalesce=self._coalesce, streams=True)

    def _router(self) -> Router:
        if self.router is None:
            raise ConfigError("No model is configured: pass send=, or open the cache with router=.")
        return self.router

    def _save_breaker_state(self, event: Event) -> None:
        """Save the breaker's state for the command line, which runs in another process."""
        if isinstance(event, BreakerEvent):
            state = {"state": event.state, "at": self._engine.clock(), "pid": os.getpid()}
            try:
                self._engine.backend.metadata.set_meta(
                    f"breaker:{event.provider}", json.dumps(state)
                )
            except StoreError as error:
                self._engine.telemetry.fault("counters", error)

    @overload
    def cached(self, function: Callable[P, R], /) -> Cached[P, R]: ...

    @overload
    def cached(
        self,
        function: None = None,
        /,
        *,
        model: str | None = None,
        namespace: str | Callable[..., str] | None = None,
        prompt: str | None = None,
        key: Callable[..., Any] | None = None,
        name: str | None = OWN_NAME,
        version: str | None = None,
        ignore: Iterable[str] = (),
        context: Context | None = None,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
        store_if: Callable[[Any], bool] | None = None,
        store_truncated: bool | None = None,
        store_tool_calls: bool | None = None,
    ) -> Callable[[Callable[P, R]], Cached[P, R]]: ...

    def cached(
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        model: str | None = None,
        namespace: str | Callable[..., str] | None = None,
        prompt: str | None = None,
        key: Callable[..., Any] | None = None,
        name: str | None = OWN_NAME,
        version: str | None = None,
        ignore: Iterable[str] = (),
        context: Context | None = None,
        ttl: GivenTTL = UNSET,
        tags: Iterable[str] = (),
        store_if: Callable[[Any], bool] | None = None,
        store_truncated: bool | None = None,
        store_tool_calls: bool | None = None,
        **unknown: Never,
    ) -> Callable[[Callable[P, R]], Cached[P, R]] | Cached[P, R]:
        """Decorate a function that calls a model: plain, async, or a generator of either kind.

        Args:
            model: the model that the function calls.
            namespace: the caller's partition, or a function that computes it from the call's
                arguments.
            prompt: the parameter that holds the prompt or the messages. By default, a parameter
                called prompt, question, query, message, user_message, text, messages, input or
                contents, or the only parameter.
            key: a function of the call's arguments that returns the prompt, the messages or a
                `Request`; the arguments themselves are then not part of the scope.
            name: the function's name in the scope; functions with the same name share answers.
                By default, its module and qualified name; None leaves the name out of the scope,
                so that answers are shared with `lookup` and `get`.
            version: a string that is part of the scope; change it to stop serving old answers. By
                default, a digest of the function's code, of what it captures, and of what it uses
                from its own module, so that an edited function does not serve its old answers.
                With a `name` of your own, there is no version by default.
            ignore: names of arguments that do not change the answer. With "self", all objects of
                a method's class share answers; otherwise the class must be a frozen dataclass or
                have a `__semcache_key__`, unless `key` or a namespace function tells objects
                apart. Arguments such as timeout and extra_headers are always left out.
            context: "full" or "none"; overrides the cache's setting.
            ttl: the TTL of this function's answers.
            tags: the tags of this function's answers.
            store_if: called with each value, which is stored only if it returns True.
            store_truncated, store_tool_calls: override the cache's settings.

        Raises:
            ConfigError: an option is wrong, or the prompt parameter cannot be determined.
        """
        for option in unknown:
            advice = did_you_mean(option, _CACHED) or "."
            raise ConfigError(f"cached() has no option {option!r}{advice}")
        rules, storage = self._engine.lookups.rules, self._engine.recorder.policy
        options = FunctionOptions(
            model=model,
            namespace=namespace,
            prompt=prompt,
            key=key,
            name=name,
            rules=KeyRules(keys.key_rules(ignore).ignore | rules.ignore, context or rules.context),
            ttl=_valid_ttl(ttl),
            tags=tags_of(tags),
            store_if=store_if,
            storage=StoragePolicy(
                storage.truncated if store_truncated is None else store_truncated,
                storage.tool_calls if store_tool_calls is None else store_tool_calls,
            ),
            version=version,
            known=self._functions,
            coalesce=self._coalesce,
        )
        if function is not None:
            return self._decorated(function, options)
        return lambda function: self._decorated(function, options)

    def _decorated(self, function: Callable[P, R], options: FunctionOptions) -> Cached[P, R]:
        cached = decorate(function, self._engine, options)
        cached.handle = self._handle
        return cached

    # -------------------------------------------------------------------------- feedback

    def feedback(self, lookup: Lookup | str, *, correct: bool) -> bool:
        """Report whether the answer served by a hit was right.

        An answer that a semantic hit served wrongly is not served to that question again, and
        less readily to others. If the answer of an exact hit is reported wrong, its entry is
        deleted. Reports are not a random sample, so they do not change the estimate of how often
        hits are wrong (`semcache review` does).

        Args:
            lookup: the lookup (`Cached.last_lookup` returns that of a decorated call); for a
                semantic hit, its id will do (`Lookup.id`, `LookupEvent.lookup_id`).

        Returns whether the lookup is known: whether it was a hit and, if only its id is given, one
        of the newest 10,000 semantic hits. With a fixed threshold, no semantic hit is known.

        Raises:
            RequestError: `lookup` is neither a lookup nor an id.
            StoreError: the report could not be written.
        """
        if not isinstance(lookup, Lookup | str):
            raise RequestError(
                f"feedback() takes a Lookup or its id, not a {type(lookup).__name__}; "
                "a decorated function has it as last_lookup()."
            )
        if isinstance(lookup, Lookup) and lookup.tier == "exact" and lookup.entry is not None:
            if not correct:
                self._engine.delete(Selection(ids=(lookup.entry.id,)))
            return True
        return self._engine.verification.report(lookup, correct, kind="feedback")

    # ------------------------------------------------------------------------ inspection

    def explain(
        self, prompt: str | Request | None = None, /, *, k: int = 5, **call: Unpack[Call]
    ) -> Explanation:
        """Show what a lookup would see and decide, without changing or counting anything.

        Args:
            k: how many neighbours to show.

        Raises:
            RequestError: the request is malformed.
            EmbedderError, StoreError: the embedder or the store failed.
        """
        return self._engine.lookups.explain(self.query(prompt, **call), k=k)

    def query(self, prompt: str | Request | None = None, /, **call: Unpack[Call]) -> Query:
        """Return the request as the cache sees it: scope, question and exact key.

        Raises:
            RequestError: the request is malformed.
        """
        request, rules = self._request(prompt, call)
        return self._engine.lookups.query(request, rules)

    def explain_query(self, query: Query, *, k: int = 5) -> Explanation:
        """`explain` for a request that `query` has already parsed."""
        return self._engine.lookups.explain(query, k=k)

    def stats(self) -> Stats:
        """Statistics of the cache over all processes, including all counts of this one so far."""
        self.flush()
        return inspection.read_stats(self._engine.backend)

    def entries(self, *, limit: int | None = None, **selected: Any) -> list[Entry]:
        """Stored entries, newest first, filtered by the fields of `types.Selection`."""
        return self._engine.backend.catalogue.select(_selection(selected), limit=limit)

    def __len__(self) -> int:
        return self._engine.backend.catalogue.totals().entries

    # ------------------------------------------------------------------------- deletion

    def invalidate(
        self,
        *,
        tag: str | None = None,
        namespace: str | None = None,
        model: str | None = None,
        ids: Iterable[int] | None = None,
        older_than: float | None = None,
    ) -> int:
        """Delete the entries that meet all the given conditions; return how many there were.

        Args:
            tag, namespace, model: the entry has this tag, namespace or model.
            ids: the entry has one of these ids.
            older_than: the entry was stored at least this many seconds ago.

        Raises:
            ConfigError: no condition was given (`clear` deletes everything).
            StoreError: the entries could not be deleted.
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

    def erase(self, *, namespace: str | None = None, tag: str | None = None) -> Erased:
        """Delete everything about a user: entries, served hits, and what was learned from them.

        The result lists backups and exports that may still hold some of it. Deleted text can stay
        in free pages of a database until `semcache vacuum` rewrites it.

        Args:
            namespace, tag: the user's entries have this namespace or tag; if both are given, they
                have both.

        Raises:
            ConfigError: neither was given.
            StoreError: something could not be deleted; entries may be left.
        """
        selection = Selection(
            None if namespace is None else name_of(namespace, "namespace", ""),
            tag=None if tag is None else name_of(tag, "tag", ""),
        )
        return self._engine.erase(selection)

    def clear(self) -> int:
        """Delete every entry; return how many there were."""
        return self._engine.delete(Selection())

    # ------------------------------------------------------------------------- lifecycle

    def flush(self) -> None:
        """Write counters, labels and learned state now.

        Otherwise counters and labels are written within a second, the state every 200 labels and on
        `close`.
        """
        self._engine.flush()

    def wait(self) -> None:
        """Block until background work is done: indexes are built and answers are judged."""
        self._engine.wait()

    def close(self) -> None:
        """Write counters and learned state, save the index and release the files.

        The router is not closed: other caches may share it, so its creator closes it.
        """
        self._engine.close()
        self._handle.closed()

    def __enter__(self) -> SemanticCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> SemanticCache:
        return self

    async def __aexit__(self, *exc: object) -> None:
        import asyncio

        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __repr__(self) -> str:
        path, policy = without_password(self.path), self._engine.verification.describe()
        return f"SemanticCache({path!r}, {policy})"

    def _request(self, prompt: str | Request | None, call: Call) -> tuple[Request, KeyRules | None]:
        fields: dict[str, Any] = dict(call)
        ignore, context = fields.pop("ignore", None), fields.pop("context", None)
        rules = None
        if ignore is not None or context is not None:
            default = self._engine.lookups.rules
            rules = KeyRules(
                default.ignore | keys.key_rules(ignore or ()).ignore, context or default.context
            )
        for name in fields.keys() - _CALL:
            raise _no_such_argument(name, fields[name])
        if not isinstance(prompt, Request):
            return make_request(prompt, **fields), rules
        if fields:
            raise ConfigError(f"A Request already holds every field; remove {sorted(fields)}.")
        return prompt, rules


_CALL = frozenset(Call.__annotations__) | frozenset(RequestFields.__annotations__)


_CACHED = frozenset(inspect.signature(SemanticCache.cached).parameters) - {
    "self",
    "function",
    "unknown",
}


def _checked(lookup: Lookup) -> Lookup:
    if not isinstance(lookup, Lookup):
        raise RequestError(
            f"record() takes what lookup() returned, not a {type(lookup).__name__}. To store an "
            "answer to a prompt, call put(prompt, answer)."
        )
    return lookup


def _no_such_argument(name: str, value: object) -> TypeError:
    """The error for an unknown keyword argument of a call."""
    if name == "prompt":
        return TypeError("The prompt is the first argument, without a name: lookup('...')")
    if name == "ttl":
        return TypeError("ttl is an argument of put(), record(), answer(), stream() and cached()")
    if name == "store_if":
        return TypeError("store_if is an argument of cached() only")
    advice = did_you_mean(name, _CALL) or (
        f"; what changes the answer goes into params={{{name!r}: {value!r}}}."
    )
    return TypeError(f"A request has no argument {name!r}{advice}")


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


def _not_none(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _selection(selected: Mapping[str, Any]) -> Selection:
    try:
        return Selection(**selected)
    except TypeError as error:
        raise ConfigError(f"entries(): {error}") from None


def _valid_ttl(ttl: GivenTTL) -> GivenTTL:
    """The TTL itself, once it is known to be valid: a wrong one must raise before the call."""
    if ttl is not UNSET:
        seconds(ttl)
    return ttl
