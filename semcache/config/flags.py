"""Feature flags, read on every use rather than once when the program starts.

The value of a flag comes from the first of these that has it:

1. `with flags.override(name=value):`, for the current thread or task only;
2. an OpenFeature client, if one is given;
3. the settings, as they are now (`flags.values` may be replaced at any time);
4. the default.

If the client fails, a warning is logged and the next source decides: a flag must not make a call
fail.
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
"""The flags that semcache itself uses.

- caching_enabled: look up answers and store them.
- semantic_enabled: use the semantic tier, not only the exact one.
- streaming_enabled: ask providers for streams; if off, a stream has a single chunk.
- use_deepseek_for_bulk: try DeepSeek through OpenRouter first for bulk_processing.
"""


_NO_OVERRIDES: Mapping[str, bool] = {}


class Client(Protocol):
    """The part of an OpenFeature client that is used here."""

    def get_boolean_value(self, flag_key: str, default_value: bool, /) -> bool: ...


class Flags:
    """The flags of one program.

    Args:
        values: flags by name: those in `DEFAULTS`, and any of your own.
        client: an OpenFeature client, which takes precedence over `values`.
    """

    def __init__(
        self, values: Mapping[str, bool] | None = None, *, client: Client | None = None
    ) -> None:
        self.values: Mapping[str, bool] = dict(values or {})
        self._client = client
        self._overrides: ContextVar[Mapping[str, bool]] = ContextVar("semcache_flags")

    def enabled(self, name: str, default: bool | None = None) -> bool:
        """Whether a flag is on now.

        Args:
            default: the value if the flag is neither set nor one of `DEFAULTS`.

        Raises:
            ConfigError: the flag is neither set nor one of `DEFAULTS`, and no default is given.
        """
        overrides = self._overrides.get(_NO_OVERRIDES)
        if name in overrides:
            return overrides[name]
        fallback = self.values.get(name, DEFAULTS.get(name, default))
        if fallback is None:
            raise ConfigError(
                f"No flag {name!r} is set; known flags: {', '.join(sorted(self.all()))}. "
                "Set it, or give a default."
            )
        if self._client is None:
            return fallback
        try:
            return bool(self._client.get_boolean_value(name, fallback))
        except Exception as error:
            logger.warning("the flag client failed for %r; using %s: %s", name, fallback, error)
            return fallback

    @contextmanager
    def override(self, **values: bool) -> Iterator[None]:
        """Set flags inside the `with` block, for the current thread or task only.

        Raises:
            ConfigError: a value is not True or False.
        """
        wrong = [name for name, value in values.items() if not isinstance(value, bool)]
        if wrong:
            raise ConfigError(f"These flags must be True or False: {', '.join(wrong)}.")
        token = self._overrides.set({**self._overrides.get(_NO_OVERRIDES), **values})
        try:
            yield
        finally:
            self._overrides.reset(token)

    def all(self) -> dict[str, bool]:
        """Every known flag and its present value, without asking the client."""
        return {**DEFAULTS, **self.values, **self._overrides.get(_NO_OVERRIDES)}

    def __repr__(self) -> str:
        return f"Flags({self.all()})"
