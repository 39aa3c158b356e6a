"""The options of a cache, in frozen groups.

Each option is a field of one group and is documented there, in the group's docstring; signatures,
settings and the command line take it from here. Eight common ones can be given to `SemanticCache`
directly: `max_false_hit_rate`, `threshold`, `embedder`, `ttl`, `max_entries`, `judge`, `router`
and `hooks`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from semcache.backends import LocalOptions
from semcache.backends.retention import Retention
from semcache.errors import ConfigError

if TYPE_CHECKING:
    from semcache.config.flags import Flags
    from semcache.embedders.base import Embedder
    from semcache.verification.base import Judge, Policy, Verifier

Context = Literal["full", "none"]
LongPrompts = Literal["exact", "chunks"]
Coalesce = Literal["exact", "semantic", "off"]

GroupT = TypeVar("GroupT")

MAX_FALSE_HIT_RATE = 0.02
CONFIDENCE = 0.93


@dataclass(frozen=True, slots=True)
class Trust:
    """When a stored answer may be served, and how the cache finds out whether it was right.

    Attributes:
        max_false_hit_rate: the largest share of the semantic hits that may be wrong; 0.02 by
            default. The cache learns from the answers that pass through it which hits keep it.
        confidence: how sure to be of that, from 0.5 (it is kept on average) up to, not
            including, 1.
        judge: compares a stored answer with a fresh one, in the background: "local" (texts and
            embeddings, on this machine), "model" (asks the router), a `Judge`, a function of
            (question, stored, fresh) that returns True, False, or None for not sure; or None.
        judge_in_background: False compares before `record` returns, so that equal runs are equal.
        audit: share of the semantic hits, from 0 to 1, for which the model is asked after the
            answer was served. Each audit is a call.
        verifier: what looks at two questions at once: "shipped" for the pair model of the
            package, or a `Verifier`. None disables it; fewer hits are served.
        threshold: serve by cosine similarity alone, from this value on, instead of by a bound.
        policy: decide by a `Policy` of your own instead of by a bound.

    Raises:
        ConfigError: a value is wrong, or several ways to decide are given.
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
        ways = (self.max_false_hit_rate, self.threshold, self.policy)
        if sum(given is not None for given in ways) > 1:
            raise ConfigError("Give one of max_false_hit_rate, threshold and policy.")
        if not isinstance(self.audit, int | float) or not 0 <= self.audit <= 1:
            raise ConfigError(f"audit is {self.audit!r}; it is a share of the hits, from 0 to 1.")
        if isinstance(self.verifier, str) and self.verifier != "shipped":
            raise ConfigError(
                f"verifier is {self.verifier!r}; it is 'shipped', a semcache Verifier, or None."
            )


@dataclass(frozen=True, slots=True)
class Matching:
    """What makes two requests the same, and how their questions are embedded.

    Attributes:
        embedder: an `Embedder`, or the name or path of a sentence-transformers model; by default
            all-MiniLM-L6-v2, on this machine.
        semantic: False uses the exact tier only; nothing is ever embedded.
        ignore: names of parameters that do not change the answer, such as {"temperature"}.
        context: "full" if earlier turns belong to the scope, "none" if they do not matter.
        long_prompts: what to do with prompts longer than the embedder's window: use the "exact"
            tier only, or embed them in "chunks".
        embed_timeout: seconds after which a call goes on as a miss because the embedder does not
            answer; None to wait for ever.

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
            raise ConfigError(f"long_prompts is {self.long_prompts!r}; it is 'exact' or 'chunks'.")
        if self.embed_timeout is not None and not self.embed_timeout > 0:
            raise ConfigError(
                f"embed_timeout is {self.embed_timeout!r}; give seconds above 0, or None."
            )


@dataclass(frozen=True, slots=True)
class Calls:
    """What happens to calls and to the answers that they bring.

    Attributes:
        coalesce: of equal calls under way, in every process that uses the cache, one asks the
            model ("exact"); with "semantic" also of nearly equal ones, if its answer may be
            served to them; or "off".
        store_truncated: store answers that were cut off by a length limit or a filter, too.
        store_tool_calls: store answers that ask for tools, too.
        flags: `caching_enabled` and `semantic_enabled` are looked at with every call; by default
            the router's flags.
        clock: returns seconds since the epoch.
        draw: returns uniform random numbers in [0, 1), for what is decided by chance.

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
            raise ConfigError(f"coalesce is {self.coalesce!r}; it is 'exact', 'semantic' or 'off'.")


@dataclass(frozen=True, slots=True)
class Options:
    """All options of a cache but those of its backend."""

    trust: Trust = Trust()
    matching: Matching = Matching()
    retention: Retention = field(default_factory=Retention)
    calls: Calls = Calls()


GROUPS: Mapping[str, type[Any]] = {
    "trust": Trust,
    "matching": Matching,
    "retention": Retention,
    "calls": Calls,
    "backend": LocalOptions,
}
"""Groups by the keyword under which `SemanticCache` takes them."""

DIRECT = (
    "max_false_hit_rate", "threshold", "embedder", "ttl", "max_entries", "judge", "router", "hooks",
)  # fmt: skip
"""What `SemanticCache` takes directly, too."""


def merged(group: GroupT, given: Mapping[str, Any]) -> GroupT:
    """A group with options that were also given directly, by name.

    Raises:
        ConfigError: an option is given in both places, or a value is wrong.
    """
    for name in given:
        if getattr(group, name) != _default(type(group), name):
            raise ConfigError(
                f"{name} is given twice: directly and in {type(group).__name__}(...)."
            )
    return replace(group, **given) if given else group  # type: ignore[type-var]


def grouped(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their own names, as arguments of `SemanticCache`.

    Raises:
        ConfigError: there is no such option, or a value is wrong.
    """
    arguments: dict[str, Any] = {}
    by_group: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if name in DIRECT:
            arguments[name] = value
            continue
        keyword = next((k for k, group in GROUPS.items() if name in _names(group)), None)
        if keyword is None:
            raise ConfigError(f"There is no option {name!r}.")
        by_group.setdefault(keyword, {})[name] = value
    made = {keyword: GROUPS[keyword](**fields) for keyword, fields in by_group.items()}
    return {**arguments, **made}


def _names(group: type[Any]) -> set[str]:
    return {option.name for option in fields(group)}


def _default(group: type[Any], name: str) -> Any:
    found = next(option for option in fields(group) if option.name == name)
    return found.default if found.default_factory is MISSING else found.default_factory()


def descriptions(group: type[Any]) -> dict[str, str]:
    """What the docstring of a group says of each of its options, in one line each."""
    text = (group.__doc__ or "").partition("Attributes:")[2].partition("Raises:")[0]
    found: dict[str, str] = {}
    for part in re.split(r"\n {8}(?=\w+: )", text):
        name, colon, described = part.strip().partition(": ")
        if colon:
            found[name] = " ".join(described.split())
    return found


def description(group: type[Any], name: str, *, default: bool = False) -> str:
    """What an option is, as a sentence for help texts.

    Args:
        default: say the default, too.
    """
    said = descriptions(group)[name]
    sentence = said[0].upper() + said[1:]
    return f"{sentence} (default: {_default(group, name)!r})" if default else sentence
