"""What every part of a cache reports to: events for hooks, counters for the store.

It is created right after the backend, and passed to every part that reports something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcache.errors import ReadOnlyError
from semcache.telemetry.counters import Counters, Labelled
from semcache.telemetry.events import Event, FaultEvent, Hook, Hooks

if TYPE_CHECKING:
    from semcache.backends.base import CounterStore


class Telemetry:
    """Events and counters of one cache.

    Args:
        store: receives the counters.
        hooks: called with every event.
    """

    def __init__(self, store: CounterStore, hooks: Sequence[Hook]) -> None:
        self._hooks = Hooks(hooks)
        self.counters = Counters(store, self.fault)

    @property
    def wants_lookups(self) -> bool:
        """Whether any hook would use an event for every lookup."""
        return self._hooks.wants_lookups

    def emit(self, event: Event) -> None:
        """Pass an event to every hook; one that raises does not affect the others."""
        self._hooks.emit(event)

    def fault(
        self,
        where: str,
        error: BaseException,
        *,
        function: str | None = None,
        repeated: bool = False,
    ) -> None:
        """Report that a part failed and the call continues without it.

        A read-only cache is not a fault: a warning was logged when it was opened.

        Args:
            function: the decorated function that was called; None if it was another call.
            repeated: whether this function has reported such a fault before.
        """
        if isinstance(error, ReadOnlyError):
            return
        if where != "counters":
            self.counters.increment_labelled(Labelled.FAULT, where)
        self.emit(FaultEvent(where, error, function, repeated))
