"""`BatchProcessor`: answers many requests, a bounded number of them at once.

A reader fills a queue of bounded length, and workers take lines from it, answer them and write
the answers, so memory does not grow with the file. Answers are written as they finish or in the
order of the input; in the second case a bounded number of them waits for the slowest.
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
"""The most lines per worker that may be read ahead or wait to be written."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a batch.

    Attributes:
        done: lines answered or failed in this run.
        before: lines answered or failed in earlier runs.
        share: the share of the input's bytes that has been read, in [0, 1].
        hits: lines answered from the cache, without a call to a provider.
        failed: lines that failed, included in `done`.
        tokens: tokens of the calls to providers, prompts and completions.
        cost_usd: the cost of these calls, in USD, as far as prices are known.
        saved_usd: what the hits would have cost, in USD, as far as prices are known.
        seconds: seconds since the run began.
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
        """Lines per second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate of the remaining time, in seconds; None before the first line is done."""
        if not self.done or not self.share:
            return None
        return self.seconds * max(0.0, 1.0 - self.share) / self.share


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a run of a batch ended.

    Attributes:
        progress: the progress at the end.
        stopped: whether the run was stopped before the end of the input.
        failures: the file of failures; None if there are none.
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
    """The state of one run.

    Attributes:
        journal: the files that are written.
        order: the order in which answers are written.
        size, read: bytes of the input, in all and read so far.
        started: when the run began, in seconds of the clock.
        stopping: no more lines are to be started.
        next: in the order of the input, the number of the line to be written next.
        held: finished lines that wait for earlier ones: (number, answered, output line).
        unanswerable: lines that no provider can answer, not written yet: (number, output line).
        error: the error of the latest of these; None once another line is finished.
    """

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
        ask: returns the answer to a request, such as `cache.aanswer` or `router.acomplete`.
        concurrency: the most calls in flight at once.
        order: write answers as they finish ("finished") or in the order of the "input".
        defaults: fields of the request (model, task_type, ...) for lines that lack them.
        patience: seconds for which a line waits for an outage to end (rate limits, open
            breakers, providers that are down) before it counts as a failure.
        max_failures: stop after this many failures; None means never.
        clock: returns seconds since some fixed moment.
        asleep: waits for a number of seconds.

    Raises:
        ConfigError: an argument is wrong.
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
                f"concurrency={concurrency!r}, order={order!r}, patience={patience!r}: concurrency "
                "must be at least 1, order 'finished' or 'input', and patience not negative."
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
        """Answer all lines of `source`, and write the answers to `target`.

        Lines that fail go to `TARGET.failures.jsonl`, with the reason.

        Args:
            resume: continue where an earlier run ended, however it ended.
            overwrite: start again and replace the output of an earlier run.
            retry_failed: with `resume`, retry the lines that failed.
            progress: called after each line.

        Raises:
            ConfigError: `target` exists already, or no provider can answer any line.
            OSError: a file cannot be read or written.
        """
        path = Path(source)
        journal = Journal(
            path, Path(target), resume=resume, overwrite=overwrite, retry_failed=retry_failed
        )
        run = self._run = _Run(journal, self._order, journal.size, self._clock())
        before = journal.done.count
        slots = asyncio.Semaphore(self._concurrency * _READ_AHEAD)
        queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(self._concurrency)

        def snapshot() -> Progress:
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
            while (numbered := await queue.get()) is not None:
                await self._process(run, *numbered, slots)
                if progress is not None:
                    progress(snapshot())

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work())
                async with aclosing(_lines(path, run, slots)) as lines:
                    async for numbered in lines:
                        await queue.put(numbered)
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
        return BatchReport(snapshot(), run.stopping, failures if failures.exists() else None)

    def stop(self) -> None:
        """Start no more lines; calls in flight are finished and their answers written."""
        if self._run is not None:
            self._run.stopping = True

    async def _process(self, run: _Run, number: int, text: bytes, slots: asyncio.Semaphore) -> None:
        """Answer one line, and write the answer or the failure."""
        if run.stopping:
            return
        ok, line = True, b""
        try:
            item = read_line(text, number, self._defaults)
            completion = await self._answer(run, item)
            line = answer_line(item, completion)
            _count(run.counts, completion)
        except _Stopped:
            return  # the line is left to the next run
        except ConfigError as error:
            ok, line = False, failure_line(number, text, error)
            if run.counts.done == run.counts.failed:
                self._hold_unanswerable(run, number, line, error)
                return
        except Exception as error:
            ok, line = False, failure_line(number, text, error)
        self._finish(run, number, ok, line, slots)
        while run.unanswerable:
            number, line = run.unanswerable.pop(0)
            self._finish(run, number, False, line, slots)
        run.error = None

    def _finish(
        self, run: _Run, number: int, ok: bool, line: bytes, slots: asyncio.Semaphore
    ) -> None:
        run.counts.done += 1
        run.counts.failed += not ok
        if self._max_failures is not None and run.counts.failed >= self._max_failures:
            run.stopping = True
        for _ in range(_write(run, number, ok, line)):
            slots.release()

    def _hold_unanswerable(self, run: _Run, number: int, line: bytes, error: ConfigError) -> None:
        """Hold back the failure of a line that no provider can answer.

        Until a line is answered, the settings may be wrong for every line. The failures are
        therefore not written yet, so that a later run can answer these lines, and after a number
        of them the batch ends with the error.
        """
        run.unanswerable.append((number, line))
        run.error = error
        if len(run.unanswerable) >= min(20, self._concurrency * _READ_AHEAD):
            raise error

    async def _answer(self, run: _Run, item: Item) -> Completion:
        """The answer to one line; waits and asks again while an outage may end by itself."""
        start, pause = self._clock(), 1.0
        while True:
            try:
                return await self._ask(item.request)
            except RouteExhaustedError as error:
                wait = min(max(error.retry_after or 0.0, pause), _LONGEST_PAUSE)
                if self._clock() + wait - start > self._patience or not _is_transient(error):
                    raise
            await self._pause(run, wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _pause(self, run: _Run, seconds: float) -> None:
        """Wait, unless the batch is being stopped.

        Raises:
            _Stopped: the batch is being stopped.
        """
        while seconds > 0:
            if run.stopping:
                raise _Stopped
            slice_ = min(seconds, 1.0)
            await self._asleep(slice_)
            seconds -= slice_


class _Stopped(Exception):
    """The batch is being stopped before this line has an answer."""


async def _lines(
    path: Path, run: _Run, slots: asyncio.Semaphore
) -> AsyncGenerator[tuple[int, bytes], None]:
    """(number, text) of each line that is not done yet, as slots become free."""
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if run.stopping:
                return
            if number in run.journal.done or not text.strip():
                run.read += len(text)
                for _ in range(_skip(run, number)):
                    slots.release()
                continue
            await slots.acquire()
            run.read += len(text)
            yield number, text


def _is_transient(error: RouteExhaustedError) -> bool:
    """Whether every attempt failed for a reason that may go away by itself."""
    transient = ("rate_limited", "unavailable", "breaker_open", "held_back")
    return all(attempt.result in transient for attempt in error.attempts)


def _count(counts: _Counts, completion: Completion) -> None:
    usage = completion.usage
    if completion.served_from is not None:
        counts.hits += 1
        counts.saved_usd += usage.cost_usd or 0.0
        return
    counts.tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    counts.cost_usd += usage.cost_usd or 0.0


def _write(run: _Run, number: int, ok: bool, line: bytes) -> int:
    """Write an output line, or hold it until its turn; return how many lines were written."""
    if run.order == "finished":
        _append(run.journal, number, ok, line)
        return 1
    heapq.heappush(run.held, (number, ok, line))
    return _write_held(run)


def _skip(run: _Run, number: int) -> int:
    """Pass over a line that has no output; return how many held lines were written after it."""
    if run.order == "finished":
        return 0
    heapq.heappush(run.held, (number, True, b""))
    return _write_held(run)


def _write_held(run: _Run) -> int:
    written = 0
    while run.held and run.held[0][0] == run.next:
        number, ok, line = heapq.heappop(run.held)
        if line:
            _append(run.journal, number, ok, line)
            written += 1
        run.next += 1
    return written


def _append(journal: Journal, number: int, ok: bool, line: bytes) -> None:
    if ok:
        journal.answered(number, line)
    else:
        journal.failed(number, line)
