"""The command `semcache batch`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semcache.cli.ask import ModelName, NoCache, TaskType, router_of
from semcache.cli.common import NOTHING_FOUND, AsJson, CachePath, console, location, print_json
from semcache.cli.terminal import echo

if TYPE_CHECKING:
    from semcache.batch import BatchProcessor, BatchReport, Progress

INTERRUPTED = 130


def batch(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN.jsonl", exists=True, dir_okay=False, help="The requests."),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT.jsonl", dir_okay=False, help="Where the answers go.")
    ],
    cache: CachePath = None,
    no_cache: NoCache = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where an earlier run stopped.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: retry the lines that failed.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again and replace the earlier output.")
    ] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="The most calls in flight at once.")
    ] = 16,
    order: Annotated[
        Literal["finished", "input"],
        typer.Option("--order", help="Write answers as they finish, or in the input's order."),
    ] = "finished",
    max_failures: Annotated[
        int | None, typer.Option("--max-failures", min=1, help="Stop after this many failures.")
    ] = None,
    model: ModelName = None,
    task_type: TaskType = None,
    as_json: AsJson = False,
) -> None:
    """Answer a file of requests, one per line: OpenAI's batch format, or {"prompt": ...}.

    With the cache, equal and nearly equal prompts go to the model only once. Failures go to
    OUT.jsonl.failures.jsonl with their reasons. Ctrl-C waits for the calls in flight;
    --resume continues from there, and also after a crash.
    """
    from semcache.batch import BatchProcessor
    from semcache.config.settings import load
    from semcache.options import Calls
    from semcache.semantic_cache import SemanticCache

    settings = load()
    defaults: dict[str, Any] = {"task_type": task_type or "bulk_processing"}
    if model is not None:
        defaults["model"] = model
    router = router_of(settings)
    opening: Any = nullcontext()
    if not no_cache:
        path = location(cache, create=True)
        opening = SemanticCache.from_settings(
            settings, path=path, router=router, calls=Calls(coalesce="semantic")
        )
    with opening as cached:
        processor = BatchProcessor(
            router.acomplete if cached is None else cached.aanswer,
            concurrency=concurrency,
            order=order,
            defaults=defaults,
            max_failures=max_failures,
        )

        async def main() -> BatchReport:
            with _stopped_by_ctrl_c(processor), _progress_line() as show:
                try:
                    return await processor.run(
                        source,
                        target,
                        resume=resume,
                        overwrite=overwrite,
                        retry_failed=retry_failed,
                        progress=show,
                    )
                finally:
                    await router.aclose()

        report = asyncio.run(main())
    _print_report(report, target, as_json=as_json)


def _print_report(report: BatchReport, target: Path, *, as_json: bool) -> None:
    done = report.progress
    if as_json:
        print_json(
            {
                "done": done.done,
                "before": done.before,
                "hits": done.hits,
                "failed": done.failed,
                "tokens": done.tokens,
                "cost_usd": done.cost_usd,
                "saved_usd": done.saved_usd,
                "seconds": done.seconds,
                "stopped": report.stopped,
                "failures": None if report.failures is None else str(report.failures),
            }
        )
    else:
        echo(
            f"{done.done:,} lines in {done.seconds:.1f} s ({done.rate:,.1f}/s), "
            f"{done.before:,} in earlier runs; {done.hits:,} from the cache, "
            f"{done.failed:,} failed{_money(done)}"
        )
        echo(f"answers: {target}")
        if report.failures is not None:
            echo(f"failures: {report.failures}")
    if report.stopped:
        console(stderr=True).print("stopped; continue from here with --resume")
        raise typer.Exit(INTERRUPTED)
    if done.failed:
        raise typer.Exit(NOTHING_FOUND)


def _money(progress: Progress) -> str:
    """What was spent and saved, where prices are known."""
    amounts = (("spent", progress.cost_usd), ("saved", progress.saved_usd))
    known = [f"${amount:.4f} {verb}" for verb, amount in amounts if amount]
    return f"; {', '.join(known)}" if known else ""


@contextmanager
def _stopped_by_ctrl_c(processor: BatchProcessor) -> Iterator[None]:
    """The first Ctrl-C waits for the calls in flight; the second cancels them."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    presses = 0

    def interrupted() -> None:
        nonlocal presses
        presses += 1
        processor.stop()
        if presses == 1:
            notice = "waiting for the calls in flight; press Ctrl-C again to cancel them"
            console(stderr=True).print(notice)
        elif task is not None:
            task.cancel()

    with suppress(NotImplementedError):  # event loops on Windows have no signal handlers
        loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _progress_line() -> Iterator[Callable[[Progress], None] | None]:
    """Shows progress on standard error; yields None if that is not a terminal."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(), TextColumn("{task.description}"), console=out, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(now: Progress) -> None:
            left = now.seconds_left
            text = (
                f"{now.done:,} lines · {now.rate:,.1f}/s · {now.hits:,} hits · "
                f"{now.failed:,} failed{_money(now)} · "
                + ("" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left")
            )
            bar.update(task, completed=now.share, description=text)

        yield show


COMMANDS = (batch,)
