"""The values that flow through semcache. All are frozen; a change makes a new one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[float32]
    """One embedding: float32[d], of length 1."""

JSON: TypeAlias = Any
"""None, bool, int, float, str, list or dict of the same."""

Tier: TypeAlias = Literal["exact", "semantic"]
Source: TypeAlias = Literal["exact", "semantic", "shared"]
"""A tier, or another caller's call for the same that was under way."""


# --------------------------------------------------------------------------- requests


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, a file or a sound: bytes, or a reference (a URL, a provider's file id)."""

    kind: str
    media_type: str | None = None
    data: bytes | None = None
    reference: str | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """The model asks for a tool. `arguments` is parsed JSON, or the text that would not parse."""

    id: str
    name: str
    arguments: JSON


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered to the call with the same id."""

    call_id: str
    parts: tuple[Part, ...]
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A content block of a kind that semcache does not know; kept and compared as JSON."""

    value: JSON


Part: TypeAlias = TextPart | MediaPart | ToolCallPart | ToolResultPart | OpaquePart


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, whatever provider's form it came in."""

    role: str
    parts: tuple[Part, ...]
    name: str | None = None
    extra: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model.

    Made by `core.requests.request` from a plain string or from chat messages.

    Attributes:
        messages: the conversation, oldest first; system prompts are messages with role
            "system".
        model: the model asked for, or "" where the caller names none.
        namespace: the caller's partition (a tenant, an application).
        params: sampling parameters and whatever else changes the answer, by name.
        tools: tool definitions, as the provider takes them.
        response_format: the wanted form of the answer, as the provider takes it.
        tags: labels for `invalidate`; they change no key.
        task_type: what kind of work it is, for a router to choose by ("bulk_processing").
    """

    messages: tuple[Message, ...]
    model: str = ""
    namespace: str = "default"
    params: Mapping[str, JSON] = field(default_factory=dict)
    tools: JSON = None
    response_format: JSON = None
    tags: tuple[str, ...] = ()
    task_type: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What must be equal for a stored answer to be a candidate at all.

    Attributes:
        digest: SHA-256 (32 bytes) over everything but the question.
        parts: what went into the digest, as JSON, for people to read.
    """

    digest: bytes
    parts: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Query:
    """A request as the cache sees it.

    Attributes:
        exact_key: SHA-256 (32 bytes) over scope and question.
        scope: the partition in which candidates are looked for.
        question: the text that is embedded; None where there is none (the exact tier only).
    """

    request: Request
    exact_key: bytes
    scope: Scope
    question: str | None


# ------------------------------------------------------------------------ completions


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money that one answer cost. None: not known (never 0 for unknown).

    Attributes:
        prompt_tokens: all that the model read, those from the provider's prompt cache included.
        completion_tokens: all that it wrote, its reasoning included.
        cost_usd: in USD.
        cached_tokens: of the prompt, read from the provider's prompt cache; not stored.
        cache_write_tokens: of the prompt, written to the provider's prompt cache; not stored.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


NO_USAGE = Usage()


AttemptResult: TypeAlias = Literal[
    "answered",
    "rate_limited",
    "unavailable",
    "rejected",
    "held_back",
    "breaker_open",
    "abandoned",
    "failed",
]


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """One call to one provider, made or refused by the router itself.

    Attributes:
        provider, model: who was asked.
        result: how it ended. "held_back" (by a limit or the retry budget set here) and
            "breaker_open": nothing was sent. "abandoned": by the caller, who was cancelled or
            has read enough.
        status: the HTTP status, where there was one.
        seconds: how long the call took. waited: how long it was held back before.
        detail: what went wrong, in words; "" for an answer.
    """

    provider: str
    model: str
    result: AttemptResult
    status: int | None = None
    seconds: float = 0.0
    waited: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer of a model.

    Attributes:
        text: the words of the answer; "" where there are none.
        finish_reason: why the model stopped, in OpenAI's words ("stop", "length",
            "tool_calls", "content_filter"), or None where nobody said.
        usage: tokens and cost.
        provider: who answered.
        model: which model answered.
        has_tool_calls: the answer asks for tools.
        payload: the caller's own value as JSON, where text alone does not hold it.
        payload_kind: how `payload` is turned back into the value (see `codec`).
        tool_calls: the tools that the answer asks for.
        attempts: the calls that a router made for this answer; empty for a stored one.
        served_from: where a cache took it from; None: the model was asked.
    """

    text: str
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    provider: str | None = None
    model: str | None = None
    has_tool_calls: bool = False
    payload: JSON = None
    payload_kind: str | None = None
    tool_calls: tuple[ToolCallPart, ...] = ()
    # How it came, and not what it says: two equal answers are equal.
    attempts: tuple[AttemptReport, ...] = field(default=(), compare=False)
    served_from: Source | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer that is still being written.

    Attributes:
        text: the words that it adds; "" for the last one.
        completion: the whole answer, with the last chunk only.
    """

    text: str
    completion: Completion | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. Times are seconds since the epoch.

    Attributes:
        expires_at: it is not served from then on. None: never.
        stale_at: from then on it is served while it is made anew in the background.
        sliding: seconds for which it is good after each time that it is served; None: the
            times above stand.
    """

    id: int
    exact_key: bytes
    scope: bytes
    namespace: str
    model: str
    question: str | None
    completion: Completion
    created_at: float
    expires_at: float | None
    last_hit_at: float | None = None
    hits: int = 0
    stale_at: float | None = None
    sliding: float | None = None

    def fresh(self, now: float) -> bool:
        """Whether the entry may still be served at `now` (seconds since the epoch)."""
        return self.expires_at is None or now < self.expires_at

    def stale(self, now: float) -> bool:
        """Whether it is to be made anew, though it may still be served."""
        return self.stale_at is not None and now >= self.stale_at


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An answer about to be stored: an `Entry` before the store has given it an id.

    Attributes:
        summary: what a person needs to see of the request, as JSON.
        key_version: the canonical form that `exact_key` and `scope` were made in.
    """

    exact_key: bytes
    scope: bytes
    namespace: str
    model: str
    question: str | None
    summary: JSON
    completion: Completion
    key_version: int
    created_at: float
    expires_at: float | None
    tags: tuple[str, ...] = ()
    hits: int = 0
    last_hit_at: float | None = None
    stale_at: float | None = None
    sliding: float | None = None


class Neighbour(NamedTuple):
    """What an index finds: an entry's id and the cosine similarity of its vector."""

    id: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a stored question and a new one visibly differ in.

    Attributes:
        kind: "number", "unit", "date", "language", "place", "product", "name", "identifier",
            "negation", "opposite", "order", "script", "time", "age" or "reported".
        stored: the words on the stored question's side; "" where it says nothing of the kind.
        asked: the same of the new question.
    """

    kind: str
    stored: str
    asked: str

    @property
    def decisive(self) -> bool:
        """Both say something, and not the same. A "not" on one side counts as said."""
        return bool(self.stored and self.asked) or self.kind == "negation"

    def __str__(self) -> str:
        return f"{self.kind}: {self.stored or 'none'} / {self.asked or 'none'}"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a candidate stands among its neighbours and in what was learned.

    Attributes:
        agree: share of the other neighbours that are known to have the same answer.
        margin: how much nearer its answer's nearest question is than the next answer's.
        surprise: the sum of (right - expected) over its labels, within [-2, 2].
    """

    agree: float = 0.0
    margin: float = 0.0
    surprise: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a candidate for a question.

    Attributes:
        similarity: cosine of the two questions.
        findings: what they visibly differ in.
        logit: log-odds of the pair model; None: it was not asked.
        by: who looked: "same words", "guards", "model", or "cosine" where there is no model.
        standing: see there.
        features: the numbers that the weights go with; () where a guard refused, or where
            the words are the same.
        chance: probability that the stored answer is right; None where a guard refused.
    """

    similarity: float
    findings: tuple[Finding, ...] = ()
    logit: float | None = None
    by: str = "cosine"
    standing: Standing = Standing()
    features: tuple[float, ...] = ()
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored neighbour within the scope, with how alike its question is (cosine, -1..1).

    Attributes:
        evidence: what else is known of it, where the policy wants to know.
    """

    entry: Entry
    similarity: float
    evidence: Evidence | None = None


# -------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class Hit:
    """Serve this entry. `candidate`: what it was as a candidate, for a policy that learns."""

    entry: Entry
    similarity: float
    reason: str
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """Ask the model. `reason` is one of `MissReason`; `detail` says it in words.

    `candidate` was the best there was; the model's answer will tell what it was worth.
    """

    reason: MissReason
    detail: str = ""
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Explore:
    """Ask the model although this candidate looked good, to learn whether it was."""

    candidate: Candidate
    reason: str


Decision: TypeAlias = Hit | Miss | Explore

MissReason: TypeAlias = Literal[
    "empty_scope",
    "below_threshold",
    "refused",
    "doubtful",
    "expired",
    "no_question",
    "question_too_long",
    "semantic_off",
    "fault",
    "bypassed",
    "caching_off",
    "index_building",
]


def _lookup_id() -> str:
    return os.urandom(8).hex()


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a lookup found, and all that `record` needs to store the answer afterwards.

    Attributes:
        completion: the answer to serve, or None on a miss.
        tier: "exact", "semantic" or None.
        similarity: cosine similarity of the served or of the nearest stored question;
            1.0 for an exact hit; None where no neighbour was looked at.
        entry: the entry served, or None.
        decision: Hit, Miss or Explore, with its reason.
        query: the request as the cache sees it.
        vector: float32[d], the embedded question, or None where nothing was embedded.
        id: names this lookup, for `feedback`.
        stale: the entry is past its time and should be made anew (`put`, `record`).
    """

    query: Query
    decision: Decision
    tier: Tier | None = None
    similarity: float | None = None
    entry: Entry | None = None
    vector: Vector | None = None
    id: str = field(default_factory=_lookup_id, compare=False)
    stale: bool = False

    @property
    def completion(self) -> Completion | None:
        return None if self.entry is None else self.entry.completion

    @property
    def hit(self) -> bool:
        return self.entry is not None

    @property
    def candidate(self) -> Candidate | None:
        """What the decision was about, for a policy that learns."""
        return self.decision.candidate


ObservationKind: TypeAlias = Literal["miss", "explore", "audit", "review", "feedback"]
"""How a label came about; all but "feedback" are random samples of what they are labels of."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A label: whether a stored answer was right for a question.

    Attributes:
        at: seconds since the epoch. writer: the process that noted it.
        kind: how it came about.
        namespace: of the lookup.
        entry_id: whose answer it is about. other_id: the entry that holds the fresh answer.
        right: the label. expected: the chance that was believed before.
        features: what was known, see `core.verifier.FEATURES`.
    """

    at: float
    writer: str
    kind: ObservationKind
    namespace: str
    entry_id: int
    other_id: int | None
    right: bool
    expected: float
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Serve:
    """A semantic hit, remembered for whoever reports on it.

    `id` is its lookup's; `verdict` what was said of it last, None: nothing.
    """

    id: str
    at: float
    namespace: str
    entry_id: int
    question: str
    similarity: float
    chance: float
    features: tuple[float, ...]
    verdict: bool | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Another's lease, as it stands now.

    Attributes:
        owner: whose it is; "": nobody's any more, and its answer was not one to keep.
        beat: grows while the owner lives.
    """

    owner: str
    beat: int

    @property
    def void(self) -> bool:
        return not self.owner


@dataclass(frozen=True, slots=True)
class Position:
    """How far a store has come: what an index that follows it must hold.

    Attributes:
        store_id: the store's own random id; another one after everything was embedded anew.
        fingerprint: the embedder of its vectors; None while there is none.
        dimension: length of a vector; 0 while there is none.
        last_id: the largest id ever given.
        last_deletion: the newest sequence in the log of deletions.
    """

    store_id: str
    fingerprint: str | None
    dimension: int
    last_id: int
    last_deletion: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries a listing or a deletion means; all the given conditions must hold.

    Attributes:
        namespace, model, tag: equal to this.
        ids: one of these.
        created_before: seconds since the epoch.
        expired_at: expired at this time (seconds since the epoch).
    """

    namespace: str | None = None
    model: str | None = None
    tag: str | None = None
    ids: tuple[int, ...] | None = None
    created_before: float | None = None
    expired_at: float | None = None

    @property
    def everything(self) -> bool:
        return self == Selection()
