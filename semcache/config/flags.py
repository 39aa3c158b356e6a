"""Feature flags: read when they matter, not when the program starts.

Where a flag's value comes from, the first that knows it:

1. `with flags.override(name=value):`, in this thread or task alone;
2. an OpenFeature client, if one is given;
3. the settings, as they are now (`flags.values` may be exchanged);
4. the default.

A client that fails is passed over with a warning: a flag must not take a call down.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from semcache.errors import ConfigError

logger = logging.getLogger("semcache")

DEFAULTS: Mapping[str, bool] = {
    "caching_enabled": True,
    "semantic_enabled": True,
    "streaming_enabled": True,
    "use_deepseek_for_bulk": False,
}
"""The flags that semcache itself looks at.

- caching_enabled: look answers up, and store them.
- semantic_enabled: look for paraphrases too, not only for exact repeats.
- streaming_enabled: ask providers for streams; otherwise a stream is one piece.
- use_deepseek_for_bulk: bulk_processing goes to DeepSeek through OpenRouter first.
"""


_NONE: Mapping[str, bool] = {}


class Client(Protocol):
    """What is needed of an OpenFeature client."""

    def get_boolean_value(self, flag_key: str, default_value: bool, /) -> bool: ...


class Flags:
    """The flags of one program.

    Args:
        values: by name; see `DEFAULTS`, and whatever the user adds.
        client: an OpenFeature client, asked first.
    """

    def __init__(
        self, values: Mapping[str, bool] | None = None, *, client: Client | None = None
    ) -> None:
        self.values: Mapping[str, bool] = dict(values or {})
        self._client = client
        self._overrides: ContextVar[Mapping[str, bool]] = ContextVar("semcache_flags")

    def enabled(self, name: str, default: bool | None = None) -> bool:
        """Whether a flag is on, now.

        Raises:
            ConfigError: nobody knows the flag and no default is given.
        """
        overrides = self._overrides.get(_NONE)
        if name in overrides:
            return overrides[name]
        known = self.values.get(name, DEFAULTS.get(name, default))
        if known is None:
            raise ConfigError(
                f"No flag {name!r} is set; known are {', '.join(sorted(self.all()))}. "
                "Set it, or give a default."
            )
        if self._client is None:
            return known
        try:
            return bool(self._client.get_boolean_value(name, known))
        except Exception as error:
            logger.warning("the flag client failed on %r, %s is used: %s", name, known, error)
            return known

    @contextmanager
    def override(self, **values: bool) -> Iterator[None]:
        """Set flags for what runs inside, in this thread or task."""
        wrong = [name for name, value in values.items() if not isinstance(value, bool)]
        if wrong:
            raise ConfigError(f"flags are True or False: {', '.join(wrong)}")
        token = self._overrides.set({**self._overrides.get(_NONE), **values})
        try:
            yield
        finally:
            self._overrides.reset(token)

    def all(self) -> dict[str, bool]:
        """Every known flag as it is now, the client apart."""
        return {**DEFAULTS, **self.values, **self._overrides.get(_NONE)}

    def __repr__(self) -> str:
        return f"Flags({self.all()})"
