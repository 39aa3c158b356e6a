"""What happens to requests and answers that hold personal data.

A cache that several people share may answer one of them with what was said to another. What is
found, and how, is up to `Privacy`; the engine asks `PersonalData` about every request and answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from semcache.errors import ConfigError
from semcache.privacy.rules import MAX_SEARCHED, found_by_rules
from semcache.types import (
    Completion,
    Handling,
    OpaquePart,
    Personal,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from semcache.types import JSON, Part

Detector = Callable[[str], Iterable[str]]
"""Takes a text, and returns the kinds of personal data in it."""

LONGEST_DELAY = 3600
"""The longest delay of a hit, in seconds."""
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{1000}")
"""The start of encoded data, such as an image, which is not searched."""
_OF_THE_QUESTION = "about_asker"


@dataclass(frozen=True, slots=True)
class Privacy:
    """What happens to personal data in requests and answers, and how long a hit takes.

    Attributes:
        detect: how personal data is found: "rules" (e-mail addresses, phone, card, account and
            social security numbers, credentials, and questions about the asker), "presidio"
            (Microsoft Presidio, which also finds names; extra `privacy`), or a function that takes
            a text and returns the kinds it holds. None looks for nothing.
        handling: "exact" serves and stores such requests in the exact tier only; "skip" neither
            serves nor stores them; "user" does both in a namespace of the user.
        user: returns the current user's id, for `handling="user"`; without an id (None), a request
            is skipped.
        public: texts that are not personal data, such as the e-mail addresses and phone numbers of
            your own company.
        hit_delay: seconds that a hit waits before it is returned, so that the response time does
            not tell whether somebody asked before; or a function that returns them.

    Raises:
        ConfigError: a value is wrong, or `handling="user"` has no `user`.
    """

    detect: Literal["rules", "presidio"] | Detector | None = None
    handling: Handling = "exact"
    user: Callable[[], str | None] | None = None
    public: Iterable[str] = ()
    hit_delay: float | Callable[[], float] = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.public, str):  # an iterator can be read only once
            object.__setattr__(self, "public", tuple(self.public))
        if self.detect not in (None, "rules", "presidio") and not callable(self.detect):
            raise ConfigError(
                f"detect is {self.detect!r}; it must be 'rules', 'presidio', a function, or None."
            )
        if self.handling not in ("exact", "skip", "user"):
            raise ConfigError(
                f"handling is {self.handling!r}; it must be 'exact', 'skip' or 'user'."
            )
        if (self.handling == "user") != (self.user is not None):
            raise ConfigError(
                "handling='user' and user=function belong together: the function returns the id of "
                "the current user, for example from a context variable."
            )
        if self.detect is None and (self.handling != "exact" or self.user or self.public):
            raise ConfigError("Nothing is looked for: give detect='rules', or a function, too.")
        if isinstance(self.public, str) or not all(
            isinstance(text, str) and text.strip() for text in self.public
        ):
            raise ConfigError(f"public is {self.public!r:.80}; pass a list of texts.")
        if not callable(self.hit_delay) and not is_delay(self.hit_delay):
            raise ConfigError(
                f"hit_delay is {self.hit_delay!r}; it must be seconds, from 0 to {LONGEST_DELAY}, "
                "or a function that returns them."
            )


def is_delay(seconds: object) -> bool:
    """Whether a hit can wait this long: a number of seconds, from 0 to `LONGEST_DELAY`."""
    return isinstance(seconds, int | float) and 0 <= seconds <= LONGEST_DELAY


class PersonalData:
    """Finds personal data in requests and answers, as `Privacy` says.

    Raises:
        ConfigError: Presidio is not installed.
    """

    def __init__(self, privacy: Privacy) -> None:
        detect = privacy.detect
        self._handling: Handling = privacy.handling
        self._user = privacy.user
        self._public = sorted(privacy.public, key=len, reverse=True)
        self._find: Detector
        if callable(detect):
            self._find = detect
        else:
            self._find = _presidio() if detect == "presidio" else found_by_rules

    def handled(self, request: Request) -> tuple[Request, Personal | None]:
        """The request as it is to be looked up, and what was found in it.

        The system prompt is not searched: it is the application's own text.

        Raises:
            Exception: the detector or the function `user` failed.
        """
        kinds = self._kinds(_texts_of(request))
        if not kinds:
            return request, None
        if self._handling != "user":
            return request, Personal(kinds, self._handling)
        user = None if self._user is None else self._user()
        if user is None or user == "":
            return request, Personal(kinds, "skip")
        if not isinstance(user, str) or "/" in user:
            raise TypeError(f"user() returned {user!r:.50}, which is not a text without a slash")
        own = replace(request, namespace=f"{request.namespace}/{user}")
        return own, Personal(kinds, "user")

    def allowed(self, personal: Personal | None, completion: Completion) -> Handling | None:
        """How an answer is stored: as usual (None), only for the exact request, or not at all.

        Args:
            personal: what was found in the request.

        Raises:
            Exception: the detector failed.
        """
        if personal is not None:
            return None if personal.handling == "user" else personal.handling
        texts = [completion.text, *_texts(completion.payload)]
        kinds = [kind for kind in self._kinds(texts) if kind != _OF_THE_QUESTION]
        if not kinds:
            return None
        return "exact" if self._handling == "exact" else "skip"

    def _kinds(self, texts: Iterable[str]) -> tuple[str, ...]:
        """The kinds in any of the texts."""
        kinds: dict[str, None] = {}
        for text in texts:
            for own in self._public:
                text = text.replace(own, " ")
            found = self._find(text)
            if isinstance(found, str) or not all(isinstance(kind, str) for kind in found):
                raise TypeError(f"detect() returned {found!r:.50}, which is not a list of texts")
            kinds |= dict.fromkeys(found)
            if len(text) > MAX_SEARCHED and self._find is found_by_rules:
                kinds["too_long_to_search"] = None
        return tuple(kinds)


def _texts_of(request: Request) -> Iterator[str]:
    """The texts of a request, without its system prompt."""
    for message in request.messages:
        if message.role not in ("system", "developer"):
            yield from _texts(message.name)
            yield from _texts_in(message.parts)
    yield from _texts(dict(request.params))


def _texts_in(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        match part:
            case TextPart(text):
                yield text
            case ToolCallPart():
                yield from _texts(part.arguments)
            case ToolResultPart():
                yield from _texts_in(part.parts)
            case OpaquePart(value):
                yield from _texts(value)


def _texts(value: JSON) -> Iterator[str]:
    """The texts and whole numbers in a value, without encoded data such as images."""
    if isinstance(value, str):
        if not _ENCODED.match(value):
            yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


@lru_cache(maxsize=1)
def _presidio() -> Detector:
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError:
        raise ConfigError(
            'detect="presidio" needs Microsoft Presidio: pip install "semcache-llm[privacy]", and '
            "a language model for it (python -m spacy download en_core_web_lg)."
        ) from None
    engine: Any = AnalyzerEngine()

    def find(text: str) -> tuple[str, ...]:
        results = engine.analyze(text=text, language="en")
        return tuple(dict.fromkeys(str(one.entity_type).lower() for one in results))

    return find
