"""Splits a request into scope and question, and computes its exact key.

The question is the text of the last user turn, which is the part that people rephrase. The scope is
a digest of everything else that can change the answer: namespace, model, sampling parameters,
system prompt, tools, response format, the conversation before the question, and attachments of the
question (images, files)::

    scope     = SHA-256(canonical({"v": SCOPE_VERSION, "namespace": ..., "model": ..., ...}))
    exact key = SHA-256("semcache/" KEY_VERSION "/" scope in hex "\\n" question)

The question is hashed as it is sent, character by character. The rest is hashed in canonical form
(see `canonical`), with messages stripped of surrounding white space, since frameworks add and
remove it.

Two requests have the same exact key only if they have the same scope and question. Whoever changes
how a scope or a key is computed must increase its version, so that digests of different versions
are never compared; `KEY_VERSION` is stored with each entry. Version 1 stripped the question and
normalised it to NFC; its entries get new keys when a newer version opens or imports them.
"""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from semcache.errors import ConfigError, RequestError
from semcache.keys.canonical import canonical_json, plain, valid_text
from semcache.keys.digests import sha256
from semcache.types import (
    JSON,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Query,
    Request,
    Scope,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

KEY_VERSION = 2
SCOPE_VERSION = 1

MAX_SCOPE_CHARS = 16_000_000
"""Longest canonical form of a scope, in characters: twice the limit for a request."""
SYSTEM = frozenset({"system", "developer"})
"""Roles whose messages instruct the model and are not turns of the conversation."""

Context = Literal["full", "none"]


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What to leave out of the scope, because the caller says that no answer depends on it.

    Attributes:
        ignore: names of parameters to leave out, or "model", "system", "tools",
            "response_format", "task_type".
        context: "full" makes every earlier turn part of the scope; "none" leaves earlier turns
            out, so that an answer may be served in another conversation.

    Raises:
        ConfigError: `ignore` contains "namespace", or `context` is unknown.
    """

    ignore: frozenset[str] = frozenset()
    context: Context = "full"

    def __post_init__(self) -> None:
        if "namespace" in self.ignore:
            raise ConfigError(
                "ignore={'namespace'} would serve one tenant's answers to another. "
                "If callers may share answers, give them the same namespace."
            )
        if self.context not in ("full", "none"):
            raise ConfigError(f"context is {self.context!r}; it must be 'full' or 'none'.")


STRICT = KeyRules()


def key_rules(ignore: Iterable[str] = (), context: Context = "full") -> KeyRules:
    """`KeyRules` from the arguments of a caller. Raises `ConfigError`."""
    if isinstance(ignore, str):
        raise ConfigError(f"ignore is the string {ignore!r}; pass a set, {{{ignore!r}}}.")
    try:
        names = frozenset(ignore)
        valid = all(isinstance(name, str) for name in names)
    except TypeError:  # not iterable, or with items that cannot be hashed
        valid = False
    if not valid:
        raise ConfigError(f"ignore is {reprlib.repr(ignore)}; pass a set of parameters' names.")
    return KeyRules(names, context)


def query(request: Request, rules: KeyRules = STRICT) -> Query:
    """Split a request into scope and question, and hash both.

    Raises:
        RequestError: a parameter or a message has no canonical form.
    """
    scope: Scope
    question: str | None
    if _is_plain_question(request):
        part = request.messages[0].parts[0]
        assert isinstance(part, TextPart)
        scope, question = _plain_scope(request, rules), valid_text(part.text)
    else:
        scope, question = _full_scope(request, rules)
    return Query(request, exact_key(scope.digest, question), scope, question)


def exact_key(scope: bytes, question: str | None) -> bytes:
    """SHA-256 of scope and question; None and an empty question give different keys."""
    head = f"semcache/{KEY_VERSION}/{scope.hex()}"
    text = head if question is None else f"{head}\n{question}"
    return sha256(text.encode())


def _is_plain_question(request: Request) -> bool:
    messages = request.messages
    return (
        len(messages) == 1
        and messages[0].role == "user"
        and messages[0].name is None
        and messages[0].extra is None
        and len(messages[0].parts) == 1
        and type(messages[0].parts[0]) is TextPart
        and messages[0].parts[0].extra is None
    )


# ------------------------------------------------------------------------------ scope

_memo: dict[tuple[object, ...], Scope] = {}
_MEMO_SIZE = 4096
_SIMPLE_TYPES = frozenset({str, int, float, bool})


def _plain_scope(request: Request, rules: KeyRules) -> Scope:
    """The scope of a lone question, memoized for requests whose parameters are simple values.

    Such a scope depends on few values, which recur, and canonical JSON and hashing take longer
    than the rest of an exact hit. The memo only saves work, so a full one is simply cleared.
    """
    if request.tools is not None or request.response_format is not None:
        return _scope(request, rules, {})
    params = request.params
    if not params:
        memo_key: tuple[object, ...] = (request.namespace, request.model, request.task_type, rules)
    elif all(map(_is_memoizable, params.values())):
        # With their types, because 1 and True are equal in Python but differ in JSON.
        typed = [(name, type(value), value) for name, value in params.items()]
        memo_key = (request.namespace, request.model, request.task_type, rules, *typed)
    else:
        return _scope(request, rules, {})
    scope = _memo.get(memo_key)
    if scope is None:
        if len(_memo) >= _MEMO_SIZE:
            _memo.clear()
        scope = _memo[memo_key] = _scope(request, rules, {})
    return scope


def _is_memoizable(value: object) -> bool:
    """Whether a value is simple and short; a document in a memo key would waste memory."""
    return type(value) in _SIMPLE_TYPES and (type(value) is not str or len(value) < 200)


def _full_scope(request: Request, rules: KeyRules) -> tuple[Scope, str | None]:
    turn = _last_user_turn(request.messages)
    labels = _CallLabels()
    conversation = [_message_json(m, labels) for m in request.messages]
    system = [c for m, c in zip(request.messages, conversation, strict=True) if m.role in SYSTEM]
    context: dict[str, JSON] = {}
    if system and "system" not in rules.ignore:
        context["system"] = system
    if turn is None:
        context["before"] = [c for c in conversation if c["role"] not in SYSTEM]
        return _scope(request, rules, context), None
    before = [c for c in conversation[:turn] if c["role"] not in SYSTEM]
    after = [c for c in conversation[turn + 1 :] if c["role"] not in SYSTEM]
    if before and rules.context == "full":
        context["before"] = before
    if after:
        context["after"] = after
    question, attached = _question(request.messages[turn], conversation[turn])
    if attached:
        context["attached"] = attached
    return _scope(request, rules, context), question


_SAME_PARAMS = {"max_completion_tokens": "max_tokens", "max_output_tokens": "max_tokens"}
"""Providers' names for one parameter, and the name that they have in the scope."""


def _params(params: Mapping[str, JSON], ignore: frozenset[str]) -> dict[str, JSON]:
    """The parameters that count, with one name for each."""
    kept = {name: value for name, value in params.items() if name not in ignore}
    for name, common in _SAME_PARAMS.items():
        if name in kept and kept.get(common, kept[name]) == kept[name]:
            kept[common] = kept.pop(name)
    return kept


def _scope(request: Request, rules: KeyRules, context: Mapping[str, JSON]) -> Scope:
    ignore = rules.ignore
    parts: dict[str, JSON] = {"v": SCOPE_VERSION, "namespace": request.namespace}
    if request.model and "model" not in ignore:
        parts["model"] = request.model
    if request.task_type and "task_type" not in ignore:
        parts["task_type"] = request.task_type
    params = _params(request.params, ignore)
    if params:
        parts["params"] = plain(params, "params")
    if request.tools is not None and "tools" not in ignore:
        parts["tools"] = plain(request.tools, "tools")
    if request.response_format is not None and "response_format" not in ignore:
        parts["response_format"] = plain(request.response_format, "response_format")
    parts.update(context)
    if rules != STRICT:
        parts["rules"] = {"ignore": sorted(ignore), "context": rules.context}
    text = canonical_json(parts)
    if len(text) > MAX_SCOPE_CHARS:
        raise RequestError(
            f"The parameters, tools and earlier messages are {len(text):,} characters of JSON; the "
            f"limit is {MAX_SCOPE_CHARS:,}. Pass a large value by a name or a digest of its own, "
            "or name it in ignore={...} if it cannot change the answer."
        )
    return Scope(hashlib.sha256(text.encode()).digest(), parts)


# -------------------------------------------------------------------- the conversation


def _last_user_turn(messages: tuple[Message, ...]) -> int | None:
    """Index of the last user message with text; tool results alone do not count."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role == "user" and any(isinstance(p, TextPart) for p in message.parts):
            return index
    return None


def _question(message: Message, canonical: Mapping[str, JSON]) -> tuple[str, JSON]:
    """The text of a turn, and its attachments with their position among the parts."""
    text = "\n".join(valid_text(part.text) for part in message.parts if isinstance(part, TextPart))
    attached = [
        [index, {"extra": part["extra"]} if isinstance(message.parts[index], TextPart) else part]
        for index, part in enumerate(canonical["parts"])
        if not isinstance(part, str)
    ]
    rest = {k: v for k, v in canonical.items() if k not in ("role", "parts")}
    return text, [*attached, rest] if rest else attached


class _CallLabels:
    """Numbers tool calls in order, because their ids are random and do not affect the answer."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, call_id: str) -> int:
        return self._numbers.setdefault(call_id, len(self._numbers))


def _message_json(message: Message, labels: _CallLabels) -> dict[str, JSON]:
    result: dict[str, JSON] = {
        "role": message.role,
        "parts": [_part_json(part, labels) for part in message.parts],
    }
    if message.name is not None:
        result["name"] = message.name
    if message.extra is not None:
        result["extra"] = plain(message.extra, "message")
    return result


def _part_json(part: Part, labels: _CallLabels) -> JSON:
    match part:
        case TextPart(text, None):
            return valid_text(text).strip()
        case TextPart(text, extra):
            return {"text": valid_text(text).strip(), "extra": plain(extra, "message")}
        case MediaPart():
            return _media_json(part)
        case ToolCallPart(call_id, name, arguments, extra):
            call = {"call": labels(call_id), "name": name, "arguments": arguments}
            return call if extra is None else {**call, "extra": plain(extra, "message")}
        case ToolResultPart(call_id, parts, is_error, extra):
            inner = [_part_json(p, labels) for p in parts]
            result = {"result_of": labels(call_id), "parts": inner, "error": is_error}
            return result if extra is None else {**result, "extra": plain(extra, "message")}
        case OpaquePart(value):
            return {"block": value}


def _media_json(part: MediaPart) -> JSON:
    result: dict[str, JSON] = {"media": part.kind}
    if part.data is not None:
        result["sha256"] = hashlib.sha256(part.data).hexdigest()
    if part.reference is not None:
        result["reference"] = part.reference
    if part.detail:
        result["detail"] = plain(part.detail, "media")
    return result
