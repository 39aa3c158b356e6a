"""One generator, two drivers: what a walk asks for is done blocking, or without.

A walk yields steps and is sent their results; an error of a step is thrown into it, where
it was asked for. So the walk is written once, and its drivers differ in an `await`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any


class Turn:
    """Whose turn it is: takes a step's result or error, and gives the next step.

    Attributes:
        result, error: of the last step, to be told to the walk.
        value: what the walk came to, at its end.
    """

    def __init__(self, walk: Generator[Any, Any, Any]) -> None:
        self._walk = walk
        self.result: Any = None
        self.error: BaseException | None = None
        self.value: Any = None

    def next(self) -> Any:
        """The next step; None at the end."""
        result, error, self.result, self.error = self.result, self.error, None, None
        try:
            return self._walk.send(result) if error is None else self._walk.throw(error)
        except StopIteration as stop:
            self.value = stop.value
            return None


def drive(walk: Generator[Any, Any, Any], perform: Callable[[Any], Any]) -> Any:
    """Do what a walk asks for, blocking."""
    turn = Turn(walk)
    while (step := turn.next()) is not None:
        try:
            turn.result = perform(step)
        except BaseException as error:
            turn.error = error
    return turn.value


async def adrive(walk: Generator[Any, Any, Any], perform: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do what a walk asks for, without blocking."""
    turn = Turn(walk)
    while (step := turn.next()) is not None:
        try:
            turn.result = await perform(step)
        except BaseException as error:
            turn.error = error
    return turn.value
