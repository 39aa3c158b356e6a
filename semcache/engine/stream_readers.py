"""Readers of a shared stream: each reads it from its start and has a generator's methods."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from semcache.engine.kept_chunks import RestartError


class View:
    """One caller's view of a shared stream.

    Args:
        stream: a stream of which the caller has become a reader.
        patience: seconds to wait for the first chunk before raising `RestartError`.
        anew: opens a stream of the caller's own, for a follower that sends a value; None if
            that is not possible.
        restart: returns the stream to read instead of raising `RestartError`.
    """

    def __init__(
        self,
        stream: Any,
        *,
        leads: bool = False,
        patience: float | None = None,
        anew: Callable[[], Any] | None = None,
        restart: Callable[[], Any] | None = None,
    ) -> None:
        self._stream = stream
        self._leads = leads
        self._patience = patience
        self._anew = anew
        self._restart = restart
        self._position = 0
        self._own: Any = None
        self._left = False

    @property
    def _is_alone(self) -> bool:
        """Whether what this caller sends or throws into the stream concerns nobody else."""
        return self._leads and bool(self._stream.leads_alone(self._position))


class Reader(View, Generator[Any, Any, Any]):
    """A view with all the methods of a generator."""

    def send(self, value: Any, /) -> Any:
        """Return the next chunk; the generator's `yield` evaluates to `value`."""
        if self._own is not None:
            return resume(self._own, ("send", value), next)
        if value is None or self._left:
            return self._next(None)
        if not self._is_alone:
            self._own = diverted(self._anew, self._position)
            self.close()
            return resume(self._own, ("send", value), next)
        return self._next(("send", value))

    def throw(self, *error: Any) -> Any:
        """Raise an error where the generator is paused; return its next chunk."""
        raised = as_raised(error)
        if self._own is not None:
            return resume(self._own, ("throw", raised), next)
        if self._left or not self._is_alone:
            self.close()
            raise raised
        return self._next(("throw", raised))

    def close(self) -> None:
        """Stop reading."""
        if not self._left:
            self._left = True
            self._stream.leave(leads=self._leads)
        elif self._own is not None and (close := getattr(self._own, "close", None)) is not None:
            close()

    def __del__(self) -> None:
        self.close()

    def _next(self, command: tuple[str, Any] | None) -> Any:
        if self._left:
            raise StopIteration
        kept = self._stream.kept
        try:
            if command is not None:
                self._stream.make_private()
            if not (self._position or self._leads or self._stream.is_read()):
                raise RestartError
            while command is not None or self._position == len(kept):
                if kept.over:
                    kept.raise_error(self._position)
                    raise StopIteration(kept.returned)
                patience = None if self._position else self._patience
                self._stream.take(self._position, command, patience, leads=self._leads)
                command = None
            chunk = kept.chunk(self._position)
        except RestartError:
            self.close()
            if self._restart is None:
                raise
            self._own = iter(self._restart())
            return next(self._own)
        except BaseException:
            self.close()
            raise
        self._position += 1
        return chunk


def as_raised(error: tuple[Any, ...]) -> BaseException:
    """The error in the arguments of a generator's `throw`: an instance, or (type, value, ...)."""
    raised = error[0] if len(error) == 1 else error[1] or error[0]
    made: BaseException = raised() if isinstance(raised, type) else raised
    return made


def diverted(anew: Callable[[], Any] | None, position: int) -> Any:
    """A stream of the caller's own, advanced to the position reached in the shared one.

    Raises:
        TypeError: nothing can be sent into this stream.
    """
    if anew is None:
        raise TypeError("a value cannot be sent into a stream that other callers read too")
    own = iter(anew())
    for _ in range(position):
        next(own)
    return own


def resume(source: Any, command: tuple[str, Any] | None, advance: Callable[[Any], Any]) -> Any:
    """Take the next chunk, or call a method of the generator for a reader.

    Args:
        command: the name of a generator's method, and its argument. If the source lacks the method,
            an argument that is an error is raised here; any other is dropped, and the source is
            advanced.
        advance: `next` or `anext`.
    """
    if command is None:
        return advance(source)
    name, value = command
    method = getattr(source, name, None)
    if method is not None:
        return method(value)
    if isinstance(value, BaseException) and name in ("throw", "athrow"):
        raise value
    return advance(source)
