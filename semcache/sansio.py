"""Write a procedure once, run it blocking or async.

A procedure is a generator of steps: it yields a step, which a driver performs, and is sent the
result; an error of the step is thrown in at the `yield`. The two drivers differ only in an `await`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any


class Turn:
    """Runs a generator of steps: takes the outcome of one step and gives the next.

    Attributes:
        result, error: the outcome of the last step, to be passed to the generator.
        value: the generator's return value, once it has ended.
    """

    def __init__(self, steps: Generator[Any, Any, Any]) -> None:
        self._steps = steps
        self.result: Any = None
        self.error: BaseException | None = None
        self.value: Any = None

    def next(self) -> Any:
        """Resume the generator and return its next step; None if it has ended."""
        result, error, self.result, self.error = self.result, self.error, None, None
        try:
            return self._steps.send(result) if error is None else self._steps.throw(error)
        except StopIteration as stop:
            self.value = stop.value
            return None


def drive(steps: Generator[Any, Any, Any], perform: Callable[[Any], Any]) -> Any:
    """Perform the steps, blocking; return the generator's value."""
    turn = Turn(steps)
    while (step := turn.next()) is not None:
        try:
            turn.result = perform(step)
        except BaseException as error:
            turn.error = error
    return turn.value


async def adrive(steps: Generator[Any, Any, Any], perform: Callable[[Any], Awaitable[Any]]) -> Any:
    """`drive` with an async `perform`."""
    turn = Turn(steps)
    while (step := turn.next()) is not None:
        try:
            turn.result = await perform(step)
        except BaseException as error:
            turn.error = error
    return turn.value
