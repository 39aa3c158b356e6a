"""The options of a cache, in frozen groups.

Every option but `router` and `hooks` is a field of one group, documented in the group's docstring;
settings and the command line read names, defaults and descriptions from here. `router`, `hooks` and
six common options are arguments of `SemanticCache`: `max_false_hit_rate`, `threshold`, `embedder`,
`ttl`, `max_entries` and `judge`.
"""

from __future__ import annotations

import inspect
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from semcache.backends import LocalOptions
from semcache.backends.retention import Retention
from semcache.errors import ConfigError
from semcache.privacy.personal import Privacy

if TYPE_CHECKING:
    from semcache.config.flags import Flags
    from semcache.embedders.base import Embedder
    from semcache.verification.base import Judge, Policy, Verifier

Context = Literal["full", "none"]
LongPrompts = Literal["exact", "chunks"]
Coalesce = Literal["exact", "semantic", "off"]

GroupT = TypeVar("GroupT")

MAX_FALSE_HIT_RATE = 0.05
"""Default bound. A few percent of the local judge's labels are wrong (`benchmarks.judge`), too many
to show that a smaller bound holds."""
CONFIDENCE = 0.93


@dataclass(frozen=True, slots=True)
class Trust:
    """When a stored answer may be served, and how the cache finds out whether it was right.

    Attributes:
        max_false_hit_rate: the largest share of semantic hits that may be wrong; 0.05 by default.
            The cache learns from the answers that pass through it which hits it can serve
            within this bound.
        confidence: how certain the cache must be that the bound holds, from 0.5 (it holds on
            average) to just below 1.
        judge: compares a stored answer with a fresh one, in the background: "local" (by text and
            embedding, on this machine), "model" (asks the router), a `Judge`, or a function of
            (question, stored, fresh) that returns True, False, or None if it is not sure. None
            disables judging.
        judge_in_background: False judges before `record` returns, which makes runs reproducible.
        audit: share of the semantic hits, from 0 to 1, for which the model is also asked after the
            answer was served. Each audit costs a call.
        verifier: model that compares two questions: "shipped" for the pair model that comes with
            the package, or a `Verifier`. None disables it; fewer hits are served.
        threshold: serve at or above this cosine similarity, instead of by a bound.
        policy: decide by a `Policy` of your own, instead of by a bound.

    Raises:
        ConfigError: a value is wrong, or more than one of `max_false_hit_rate`, `threshold` and
            `policy` is given.
    """

    max_false_hit_rate: float | None = None
    confidence: float = CONFIDENCE
    judge: Judge | Callable[[str, str, str], bool | None] | Literal["local", "model"] | None = (
        "local"
    )
    judge_in_background: bool = True
    audit: float = 0.0
    verifier: Verifier | Literal["shipped"] | None = "shipped"
    threshold: float | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        alternatives = (self.max_false_hit_rate, self.threshold, self.policy)
        if sum(option is not None for option in alternatives) > 1:
            raise ConfigError("Give only one of max_false_hit_rate, threshold and policy.")
        if not isinstance(self.audit, int | float) or not 0 <= self.audit <= 1:
            raise ConfigError(f"audit is {self.audit!r}; it must be a share, from 0 to 1.")
        if isinstance(self.verifier, str) and self.verifier != "shipped":
            raise ConfigError(
                f"verifier is {self.verifier!r}; it must be 'shipped', a Verifier, or None."
            )


@dataclass(frozen=True, slots=True)
class Matching:
    """What makes two requests the same, and how their questions are embedded.

    Attributes:
        embedder: an `Embedder`, or the name or path of a sentence-transformers model; by default
            all-MiniLM-L6-v2, run on this machine.
        semantic: False uses the exact tier only; nothing is embedded.
        ignore: names of parameters that do not change the answer, such as {"temperature"}.
        context: "full" makes earlier turns part of the scope; "none" ignores them.
        long_prompts: how to handle prompts longer than the embedder's window: look them up in the
            "exact" tier only, or embed them in "chunks".
        embed_timeout: seconds to wait for the embedder before a lookup becomes a miss; None waits
            forever.

    Raises:
        ConfigError: a value is wrong.
    """

    embedder: Embedder | str | None = None
    semantic: bool = True
    ignore: Iterable[str] = ()
    context: Context = "full"
    long_prompts: LongPrompts = "exact"
    embed_timeout: float | None = 5.0

    def __post_init__(self) -> None:
        if self.long_prompts not in ("exact", "chunks"):
            raise ConfigError(
                f"long_prompts is {self.long_prompts!r}; it must be 'exact' or 'chunks'."
            )
        if self.embed_timeout is not None and not self.embed_timeout > 0:
            raise ConfigError(
                f"embed_timeout is {self.embed_timeout!r}; it must be above 0 (seconds), or None."
            )


@dataclass(frozen=True, slots=True)
class Calls:
    """How concurrent calls are shared, which answers are stored, and what controls a call.

    Attributes:
        coalesce: which concurrent requests share one call to the model, in all processes that use
            the cache: "exact" for equal requests, "semantic" also for similar ones that the
            shared answer may serve, or "off".
        store_truncated: also store answers that were cut off by a length limit or a filter.
        store_tool_calls: also store answers that call tools.
        flags: feature flags; `caching_enabled` and `semantic_enabled` are checked on every call.
            By default, the router's flags.
        clock: returns the current time in seconds since the epoch.
        draw: returns uniform random numbers in [0, 1), for random explorations and audits.

    Raises:
        ConfigError: a value is wrong.
    """

    coalesce: Coalesce = "exact"
    store_truncated: bool = False
    store_tool_calls: bool = False
    flags: Flags | None = None
    clock: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.coalesce not in ("exact", "semantic", "off"):
            raise ConfigError(
                f"coalesce is {self.coalesce!r}; it must be 'exact', 'semantic' or 'off'."
            )


@dataclass(frozen=True, slots=True)
class Options:
    """All options of a cache except those of its backend."""

    trust: Trust = Trust()
    matching: Matching = Matching()
    retention: Retention = field(default_factory=Retention)
    calls: Calls = Calls()
    privacy: Privacy = field(default_factory=Privacy)


GROUPS: Mapping[str, type[Any]] = {
    "trust": Trust,
    "matching": Matching,
    "retention": Retention,
    "calls": Calls,
    "privacy": Privacy,
    "backend": LocalOptions,
}
"""Option groups, by the keyword argument of `SemanticCache` that takes them."""

DIRECT = (
    "max_false_hit_rate", "threshold", "embedder", "ttl", "max_entries", "judge", "router", "hooks",
)  # fmt: skip
"""Options that are arguments of `SemanticCache` itself; all but the last two are in a group too."""


def no_such_option(name: str, value: object) -> TypeError:
    """The error for an unknown argument: it names the group that has it, or a similar name."""
    keyword = next((k for k, group in GROUPS.items() if name in _names(group)), None)
    if keyword is not None:
        advice = f"write {keyword}={GROUPS[keyword].__name__}({name}={value!r})"
        return TypeError(f"SemanticCache has no argument {name!r}; {advice}.")
    known = [*DIRECT, *GROUPS, *(one for group in GROUPS.values() for one in _names(group))]
    return TypeError(f"SemanticCache has no argument {name!r}{did_you_mean(name, known) or '.'}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the most similar known name; "" if none is similar."""
    similar = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {similar[0]!r}?" if similar else ""


def merged(group: GroupT, direct: Mapping[str, Any], kind: type[Any]) -> GroupT:
    """A group, updated with the options that were passed to `SemanticCache` directly.

    Args:
        kind: the expected class of the group.

    Raises:
        ConfigError: `group` is of another class, an option is given in both ways, or a value is
            wrong.
    """
    if not isinstance(group, kind):
        keyword = next(k for k, known in GROUPS.items() if known is kind)
        raise ConfigError(
            f"{keyword} is a {type(group).__name__}; pass {keyword}={kind.__name__}(...)."
        )
    for name in direct:
        if getattr(group, name) != _default(type(group), name):
            raise ConfigError(
                f"{name} is given twice: as an argument and in {type(group).__name__}(...)."
            )
    return replace(group, **direct) if direct else group


def grouped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `SemanticCache` for options that are given by their own names.

    Raises:
        ConfigError: there is no such option, or a value is wrong.
    """
    arguments: dict[str, Any] = {}
    by_group: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        if name in DIRECT:
            arguments[name] = value
            continue
        keyword = next((k for k, group in GROUPS.items() if name in _names(group)), None)
        if keyword is None:
            raise ConfigError(f"There is no option {name!r}.")
        by_group.setdefault(keyword, {})[name] = value
    groups = {keyword: GROUPS[keyword](**fields) for keyword, fields in by_group.items()}
    return {**arguments, **groups}


def _names(group: type[Any]) -> set[str]:
    return {option.name for option in fields(group)}


def _default(group: type[Any], name: str) -> Any:
    option = next(option for option in fields(group) if option.name == name)
    return option.default if option.default_factory is MISSING else option.default_factory()


def descriptions(group: type[Any]) -> dict[str, str]:
    """One line about each option of a group, taken from the group's docstring."""
    text = inspect.cleandoc(group.__doc__ or "")  # Python 3.13 strips the indentation itself
    text = text.partition("Attributes:")[2].partition("Raises:")[0]
    lines: dict[str, str] = {}
    for part in re.split(r"\n {4}(?=\w+: )", text):
        name, colon, description = part.strip().partition(": ")
        if colon:
            lines[name] = " ".join(description.split())
    return lines


def description(group: type[Any], name: str, *, default: bool = False) -> str:
    """The description of an option, for help texts.

    Args:
        default: whether to add the default.
    """
    text = descriptions(group).get(name, "")  # python -OO has no docstrings
    sentence = text[:1].upper() + text[1:]
    return f"{sentence} (default: {_default(group, name)!r})" if default else sentence
