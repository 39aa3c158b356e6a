"""`BatchProcessor`: many requests, a bounded number of them at once.

A reader fills a queue of bounded length, workers take from it, ask, and write; so memory
does not grow with the file. Answers are written as they finish, or in the order of the
input, for which a bounded number of them waits for the slowest.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from semcache.batch.journal import Journal
from semcache.batch.lines import Item, answer_line, failure_line, read_line
from semcache.errors import ConfigError, RouteExhaustedError
from semcache.types import Completion, Request

Order = Literal["finished", "input"]

_LONGEST_PAUSE = 30.0
_READ_AHEAD = 4
"""Lines that are read ahead, or wait to be written, for each worker."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch has come.

    Attributes:
        done: lines answered or failed in this run; before: in earlier ones.
        share: of the input's bytes that have been read, in [0, 1].
        hits: answered without asking anybody. failed: of `done`.
        tokens: of the answers that were asked for. cost_usd: of these, as far as it is known.
        saved_usd: what hits would have cost.
        seconds: since the run began.
    """

    done: int
    before: int
    share: float
    hits: int
    failed: int
    tokens: int
    cost_usd: float
    saved_usd: float
    seconds: float

    @property
    def rate(self) -> float:
        """Lines a second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """As far as can be told; None before the first line."""
        if not self.done or not self.share:
            return None
        return self.seconds * max(0.0, 1.0 - self.share) / self.share


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a batch has ended.

    Attributes:
        progress: at the end.
        stopped: it was stopped before the end of the input.
        failures: the file with the failures, if there are any.
    """

    progress: Progress
    stopped: bool
    failures: Path | None


@dataclass(slots=True)
class _Counts:
    done: int = 0
    hits: int = 0
    failed: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    saved_usd: float = 0.0


@dataclass(slots=True)
class _Run:
    """One run: its files, its counts, and the answers that wait for their turn."""

    journal: Journal
    order: Order
    size: int
    started: float
    counts: _Counts = field(default_factory=_Counts)
    read: int = 0
    stopping: bool = False
    next: int = 1
    held: list[tuple[int, bool, bytes]] = field(default_factory=list)
    unanswerable: list[tuple[int, bytes]] = field(default_factory=list)
    error: ConfigError | None = None


class BatchProcessor:
    """Answers the lines of a file.

    Args:
        ask: gives the answer to a request, such as `cache.aanswer` or `router.acomplete`.
        concurrency: calls at once.
        order: answers are written as they finish ("finished"), or as the "input" has them.
        defaults: fields of the request (model, task_type, ...) for lines without them.
        patience: seconds that a line waits out an outage (limits, open breakers, providers
            that are down) before it is a failure.
        max_failures: the batch stops after so many; None: it goes on.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        ask: Callable[[Request], Awaitable[Completion]],
        *,
        concurrency: int = 16,
        order: Order = "finished",
        defaults: Mapping[str, Any] | None = None,
        patience: float = 300.0,
        max_failures: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        asleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if concurrency < 1 or order not in ("finished", "input") or not patience >= 0:
            raise ConfigError(
                f"concurrency={concurrency!r}, order={order!r}, patience={patience!r}: at least 1, "
                "'finished' or 'input', and not below 0."
            )
        self._ask = ask
        self._concurrency = concurrency
        self._order: Order = order
        self._defaults = dict(defaults or {})
        self._patience = patience
        self._max_failures = max_failures
        self._clock = clock
        self._asleep = asleep
        self._run: _Run | None = None

    async def run(
        self,
        source: str | Path,
        target: str | Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        retry_failed: bool = False,
        progress: Callable[[Progress], object] | None = None,
    ) -> BatchReport:
        """Answer all lines of `source` into `target`.

        Lines that fail go to `TARGET.failures.jsonl`, with the reason.

        Args:
            resume: go on where an earlier run ended, however it ended. retry_failed: and try
                its failures again. overwrite: begin anew.
            progress: called after each line.

        Raises:
            ConfigError: `target` is there already, or nobody could ever answer.
            OSError: a file cannot be read or written.
        """
        path = Path(source)
        journal = Journal(
            path, Path(target), resume=resume, overwrite=overwrite, retry_failed=retry_failed
        )
        run = self._run = _Run(journal, self._order, journal.size, self._clock())
        before = journal.done.count
        room = asyncio.Semaphore(self._concurrency * _READ_AHEAD)
        queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(self._concurrency)

        def told() -> Progress:
            share = run.read / run.size if run.size else 1.0
            counts = run.counts
            return Progress(
                counts.done,
                before,
                share,
                counts.hits,
                counts.failed,
                counts.tokens,
                counts.cost_usd,
                counts.saved_usd,
                self._clock() - run.started,
            )

        async def work() -> None:
            while (taken := await queue.get()) is not None:
                await self._line(run, *taken, room)
                if progress is not None:
                    progress(told())

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work())
                async with aclosing(_lines(path, run, room)) as lines:
                    async for taken in lines:
                        await queue.put(taken)
                for _ in range(self._concurrency):
                    await queue.put(None)
            if run.error is not None and not run.stopping:
                raise run.error
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._run = None
            failures = journal.failures
            journal.close()
        return BatchReport(told(), run.stopping, failures if failures.exists() else None)

    def stop(self) -> None:
        """Read no more lines; what is under way is answered and written."""
        if self._run is not None:
            self._run.stopping = True

    async def _line(self, run: _Run, number: int, text: bytes, room: asyncio.Semaphore) -> None:
        """Answer one line and write what it came to."""
        if run.stopping:
            return
        ok, line = True, b""
        try:
            item = read_line(text, number, self._defaults)
            completion = await self._patient(run, item)
            line = answer_line(item, completion)
            _count(run.counts, completion)
        except _Stopped:
            return  # it stays undone, for the next run
        except ConfigError as error:
            ok, line = False, failure_line(number, text, error)
            if run.counts.done == run.counts.failed:
                self._unanswerable(run, number, line, error)
                return
        except Exception as error:
            ok, line = False, failure_line(number, text, error)
        self._done(run, number, ok, line, room)
        while run.unanswerable:
            self._done(run, run.unanswerable[0][0], False, run.unanswerable.pop(0)[1], room)
        run.error = None

    def _done(self, run: _Run, number: int, ok: bool, line: bytes, room: asyncio.Semaphore) -> None:
        run.counts.done += 1
        run.counts.failed += not ok
        if self._max_failures is not None and run.counts.failed >= self._max_failures:
            run.stopping = True
        for _ in range(_write(run, number, ok, line)):
            room.release()

    def _unanswerable(self, run: _Run, number: int, line: bytes, error: ConfigError) -> None:
        """Nobody is there for this line. Is nobody there for any? As long as none was answered,
        such lines are not written; after some of them the batch ends with their error."""
        run.unanswerable.append((number, line))
        run.error = error
        if len(run.unanswerable) >= min(20, self._concurrency * _READ_AHEAD):
            raise error

    async def _patient(self, run: _Run, item: Item) -> Completion:
        """The answer, waiting out what passes by itself."""
        start, pause = self._clock(), 1.0
        while True:
            try:
                return await self._ask(item.request)
            except RouteExhaustedError as error:
                wait = min(max(error.retry_after or 0.0, pause), _LONGEST_PAUSE)
                if self._clock() + wait - start > self._patience or not _passing(error):
                    raise
            await self._pause(run, wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _pause(self, run: _Run, seconds: float) -> None:
        """Wait, but not for a batch that is being stopped."""
        while seconds > 0:
            if run.stopping:
                raise _Stopped
            slice_ = min(seconds, 1.0)
            await self._asleep(slice_)
            seconds -= slice_


class _Stopped(Exception):
    """The batch is being stopped, and this line has no answer yet."""


async def _lines(
    path: Path, run: _Run, room: asyncio.Semaphore
) -> AsyncGenerator[tuple[int, bytes], None]:
    """(number, text) of the lines that are still to be done, no faster than there is room."""
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if run.stopping:
                return
            if number in run.journal.done or not text.strip():
                run.read += len(text)
                for _ in range(_skip(run, number)):
                    room.release()
                continue
            await room.acquire()
            run.read += len(text)
            yield number, text


def _passing(error: RouteExhaustedError) -> bool:
    """Whether every attempt failed for a reason that may pass by itself."""
    passing = ("rate_limited", "unavailable", "breaker_open", "held_back")
    return all(attempt.result in passing for attempt in error.attempts)


def _count(counts: _Counts, completion: Completion) -> None:
    usage = completion.usage
    if completion.served_from is not None:
        counts.hits += 1
        counts.saved_usd += usage.cost_usd or 0.0
        return
    counts.tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    counts.cost_usd += usage.cost_usd or 0.0


def _write(run: _Run, number: int, ok: bool, line: bytes) -> int:
    """Write a line, or hold it until it is its turn; return how many were written."""
    if run.order == "finished":
        _put(run.journal, number, ok, line)
        return 1
    heapq.heappush(run.held, (number, ok, line))
    return _write_held(run)


def _skip(run: _Run, number: int) -> int:
    """A line that needs no writing is not waited for."""
    if run.order == "finished":
        return 0
    heapq.heappush(run.held, (number, True, b""))
    return _write_held(run)


def _write_held(run: _Run) -> int:
    written = 0
    while run.held and run.held[0][0] == run.next:
        number, ok, line = heapq.heappop(run.held)
        if line:
            _put(run.journal, number, ok, line)
            written += 1
        run.next += 1
    return written


def _put(journal: Journal, number: int, ok: bool, line: bytes) -> None:
    if ok:
        journal.answered(number, line)
    else:
        journal.failed(number, line)
