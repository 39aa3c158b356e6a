"""Where everything in a cache reports to: events for listeners, counters for the store.

It is made first and handed to every other part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcache.telemetry.counters import Counters, Labelled
from semcache.telemetry.events import Event, FaultEvent, Hook, Hooks

if TYPE_CHECKING:
    from semcache.backends.base import CounterStore


class Telemetry:
    """Events and counters of one cache.

    Args:
        store: where counters are added up.
        hooks: called with every event.
    """

    def __init__(self, store: CounterStore, hooks: Sequence[Hook]) -> None:
        self._hooks = Hooks(hooks)
        self.counters = Counters(store, self.fault)

    @property
    def wants_lookups(self) -> bool:
        """Whether anybody listens to the event of every lookup."""
        return self._hooks.wants_lookups

    def emit(self, event: Event) -> None:
        """Tell the listeners. A listener that fails disturbs nobody."""
        self._hooks.emit(event)

    def fault(self, where: str, error: BaseException) -> None:
        """A part failed, and the call goes on without it."""
        if where != "counters":
            self.counters.increment_labelled(Labelled.FAULT, where)
        self.emit(FaultEvent(where, error))
