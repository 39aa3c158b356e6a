"""Batches are bounded, keep either order, and can be resumed: no line twice, none missing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.batch import BatchProcessor, Progress
from semcache.batch.journal import Done
from semcache.errors import ConfigError, RejectedError, RouteExhaustedError
from semcache.types import AttemptReport, Completion, Request, TextPart, Usage
from tests import llama
from tests.faults import Exchange, FaultServer, completion
from tests.helpers import open_cache


def words(request: Request) -> str:
    part = request.messages[-1].parts[0]
    assert isinstance(part, TextPart)
    return part.text


async def echo(request: Request) -> Completion:
    await asyncio.sleep(random.random() * 0.002)
    return Completion(f"re: {words(request)}", "stop", Usage(10, 5, 0.001), "p", "m")


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(processor: BatchProcessor, *args: Any, **options: Any) -> Any:
    return asyncio.run(processor.run(*args, **options))


@pytest.mark.parametrize("order", ["finished", "input"])
def test_every_line_is_answered_once(tmp_path: Path, order: Any) -> None:
    """Answers come as they finish or in the order of the input, with the caller's ids."""
    source = write(tmp_path / "in.jsonl", [{"prompt": f"q{i}", "id": f"n{i}"} for i in range(200)])
    seen: list[Progress] = []
    report = run(
        BatchProcessor(echo, concurrency=8, order=order),
        source,
        tmp_path / "out.jsonl",
        progress=seen.append,
    )
    rows = read(tmp_path / "out.jsonl")
    assert Counter(row["custom_id"] for row in rows) == Counter(f"n{i}" for i in range(200))
    assert all(row["answer"] == f"re: q{row['line'] - 1}" for row in rows)
    numbers = [row["line"] for row in rows]
    assert (numbers == sorted(numbers)) == (order == "input")
    assert report.progress.done == 200
    assert report.progress.cost_usd == pytest.approx(0.2)
    assert report.failures is None
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].share == 1.0
    assert seen[-1].seconds_left == 0.0


def test_openai_s_format(tmp_path: Path) -> None:
    """A line of OpenAI's batch format is answered in the format of its results."""
    source = write(
        tmp_path / "in.jsonl",
        [
            {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "gpt-4o-mini",
                    "messages": [{"role": "user", "content": "hello"}],
                    "temperature": 0.5,
                    "max_tokens": 7,
                },
            }
        ],
    )
    asked: list[Request] = []

    async def ask(request: Request) -> Completion:
        asked.append(request)
        return await echo(request)

    run(BatchProcessor(ask), source, tmp_path / "out.jsonl")
    assert asked[0].model == "gpt-4o-mini"
    assert asked[0].params == {"temperature": 0.5, "max_tokens": 7}
    [row] = read(tmp_path / "out.jsonl")
    assert row["custom_id"] == "a"
    assert row["error"] is None
    assert row["response"]["status_code"] == 200
    chat = pytest.importorskip("openai.types.chat", reason="needs the openai package")
    found = chat.ChatCompletion.model_validate(row["response"]["body"], strict=True)
    assert found.choices[0].message.content == "re: hello"


def test_failures_have_a_file_of_their_own(tmp_path: Path) -> None:
    """It holds the reason and the line; the other lines are answered nevertheless."""
    source = write(
        tmp_path / "in.jsonl",
        [
            {"prompt": "fine"},
            "{not json",
            "[1]",
            {"promt": "typo"},
            {"prompt": ""},
            {"prompt": "reject"},
            {"prompt": "bug"},
            "",
            {"prompt": "fine too", "temperature": 1},
            {"prompt": "fine three"},
        ],
    )

    async def ask(request: Request) -> Completion:
        if words(request) == "reject":
            raise RejectedError("no", provider="p", model="m", status=400)
        if words(request) == "bug":
            raise KeyError("bug")
        return await echo(request)

    report = run(BatchProcessor(ask), source, tmp_path / "out.jsonl")
    assert sorted(row["line"] for row in read(tmp_path / "out.jsonl")) == [1, 10]
    assert report.failures is not None
    failed = {row["line"]: row["error"] for row in read(report.failures)}
    assert sorted(failed) == [2, 3, 4, 5, 6, 7, 9]
    assert "not JSON" in failed[2]["message"]
    assert "promt" in failed[4]["message"]
    assert (failed[6]["provider"], failed[6]["status"]) == ("p", 400)
    assert failed[7]["type"] == "KeyError"
    assert "temperature" in failed[9]["message"]
    again = run(
        BatchProcessor(echo), source, tmp_path / "out.jsonl", resume=True, retry_failed=True
    )
    assert again.progress.before == 2
    assert again.progress.done == 7
    assert sorted(row["line"] for row in read(tmp_path / "out.jsonl")) == [1, 6, 7, 10]


def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    """A line does not fail because a rate limit is exhausted for a minute."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "q"}])
    waits: list[float] = []
    limited = AttemptReport("p", "m", "rate_limited", 429)

    async def ask(request: Request) -> Completion:
        if sum(waits) < 4 * 12.0:
            raise RouteExhaustedError("Nobody.", attempts=[limited], retry_after=12.0)
        return await echo(request)

    async def asleep(seconds: float) -> None:
        waits.append(seconds)

    report = run(BatchProcessor(ask, asleep=asleep), source, tmp_path / "out.jsonl")
    assert (report.progress.done, report.progress.failed) == (1, 0)
    assert sum(waits) == 4 * 12.0

    async def rejected(request: Request) -> Completion:
        attempts = [AttemptReport("p", "m", "rejected", 401)]
        raise RouteExhaustedError("Nobody.", attempts=attempts)

    report = run(BatchProcessor(rejected, asleep=asleep), source, tmp_path / "two.jsonl")
    assert report.progress.failed == 1
    assert sum(waits) == 4 * 12.0, "a wrong key is not waited for"


def test_a_batch_without_a_provider_ends(tmp_path: Path) -> None:
    """A wrong setting does not make a million lines fail one by one."""
    source = write(tmp_path / "in.jsonl", [{"prompt": f"q{i}"} for i in range(50)])

    async def ask(request: Request) -> Completion:
        raise ConfigError("no provider")

    with pytest.raises(ConfigError, match="no provider"):
        run(BatchProcessor(ask), source, tmp_path / "out.jsonl")
    report = run(BatchProcessor(echo), source, tmp_path / "out.jsonl", resume=True)
    assert report.progress.done == 50


def test_max_failures_stops(tmp_path: Path) -> None:
    """The batch ends after this number of failures."""
    source = write(tmp_path / "in.jsonl", ["bad"] * 1000)
    processor = BatchProcessor(echo, concurrency=2, max_failures=5)
    report = run(processor, source, tmp_path / "out.jsonl")
    assert report.stopped
    assert 5 <= report.progress.failed < 50


def test_existing_output_is_not_overwritten(tmp_path: Path) -> None:
    """It takes `overwrite` to replace it, and the same input to resume it."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "q"}])
    out = tmp_path / "out.jsonl"
    run(BatchProcessor(echo), source, out)
    with pytest.raises(ConfigError, match="exists already"):
        run(BatchProcessor(echo), source, out)
    other = write(tmp_path / "other.jsonl", [{"prompt": "another"}])
    with pytest.raises(ConfigError, match="another input"):
        run(BatchProcessor(echo), other, out, resume=True)
    write(source, [{"prompt": "q"}, {"prompt": "one more"}])
    report = run(BatchProcessor(echo), source, out, resume=True)
    assert (report.progress.before, report.progress.done) == (1, 1)
    run(BatchProcessor(echo), other, out, overwrite=True)
    assert read(out)[0]["answer"] == "re: another"
    write(out, [{"hello": 1}])
    with pytest.raises(ConfigError, match="not written by a batch"):
        run(BatchProcessor(echo), other, out, resume=True)


@given(st.data())
@settings(max_examples=40)
def test_a_file_cut_anywhere_is_resumed(tmp_path_factory: Any, data: Any) -> None:
    """Whatever a killed process left of its last line, no line is there twice or missing."""
    path = tmp_path_factory.mktemp("cut")
    source = write(path / "in.jsonl", [{"prompt": f"ü{i}"} for i in range(20)])
    out = path / "out.jsonl"
    order: Any = data.draw(st.sampled_from(["finished", "input"]))
    run(BatchProcessor(echo, concurrency=4, order=order), source, out)
    whole = out.read_bytes()
    out.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    run(BatchProcessor(echo, concurrency=4, order=order), source, out, resume=True)
    assert sorted(row["line"] for row in read(out)) == list(range(1, 21))


@given(st.lists(st.integers(1, 100_000), max_size=50))
def test_done_is_a_set(numbers: list[int]) -> None:
    """It behaves like a set of line numbers."""
    done, model = Done(), set[int]()
    for number in numbers:
        assert done.add(number) == (number not in model)
        model.add(number)
    assert all(number in done for number in model)
    assert done.count == len(model)
    assert 100_001 not in done


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A bounded number of lines is read ahead, however slow the first one is."""
    source = write(tmp_path / "in.jsonl", [{"prompt": f"q{i}"} for i in range(5000)])
    gate = asyncio.Event()
    in_flight, most, asked = 0, 0, 0

    async def ask(request: Request) -> Completion:
        nonlocal in_flight, most, asked
        asked += 1
        in_flight += 1
        most = max(most, in_flight)
        if words(request) == "q0":
            await gate.wait()
        elif asked == 15:
            asyncio.get_running_loop().call_later(0.2, gate.set)
        await asyncio.sleep(0)
        in_flight -= 1
        return Completion("a")

    processor = BatchProcessor(ask, concurrency=4, order="input")

    async def main() -> int:
        running = asyncio.create_task(processor.run(source, tmp_path / "out.jsonl"))
        await gate.wait()
        while_waiting = asked
        await running
        return while_waiting

    assert asyncio.run(main()) <= 4 * 4
    assert most == 4


def test_equal_and_nearly_equal_lines_are_asked_once(tmp_path: Path) -> None:
    """This holds through the cache, even while the first call is still in flight."""
    prompts = ["how do I reset my password", "how do I reset my own password", "where is my parcel"]
    source = write(tmp_path / "in.jsonl", [{"prompt": prompts[i % 3]} for i in range(60)])
    asked: list[str] = []

    async def slow(request: Request) -> Completion:
        asked.append(words(request))
        await asyncio.sleep(0.1)
        return Completion(words(request), "stop", Usage(10, 5, 0.001))

    with open_cache(tmp_path / "cache", threshold=0.8, coalesce="semantic") as cache:

        async def ask(request: Request) -> Completion:
            return await cache.aanswer(request, slow)

        # Which of two equal lines gets to the cache first is up to chance.
        report = run(BatchProcessor(ask, concurrency=16), source, tmp_path / "out.jsonl")
    rows = read(tmp_path / "out.jsonl")
    assert len(rows) == 60
    assert 2 <= len(asked) <= 3
    assert report.progress.hits == 60 - len(asked)
    assert report.progress.saved_usd == pytest.approx(report.progress.hits * 0.001)
    assert {row["served_from"] for row in rows} >= {None, "shared"}


# ----------------------------------------------------------------- as processes that are killed


@pytest.fixture
def server() -> Iterator[FaultServer]:
    started = FaultServer()
    yield started
    started.close()


def command(tmp_path: Path, url: str, *options: str, model: str = "m") -> list[str]:
    (tmp_path / "semcache.toml").write_text(
        f'path = "cache"\n[providers.local]\nkind = "openai"\nbase_url = "{url}"\n'
        f'model = "{model}"\n'
    )
    base = [sys.executable, "-m", "semcache", "batch", "in.jsonl", "out.jsonl"]
    return [*base, "--concurrency", "4", *options]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}


def started(tmp_path: Path, args: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        args,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while len(read_whole(path)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def read_whole(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


async def slow_echo(exchange: Exchange) -> None:
    await asyncio.sleep(0.03)
    prompt = exchange.json["messages"][-1]["content"]
    await exchange.send(200, json.dumps(completion(f"re: {prompt}")).encode())


@pytest.mark.parametrize("how", ["kill -9", "Ctrl-C"])
def test_resume_continues_exactly(tmp_path: Path, server: FaultServer, how: str) -> None:
    """After being killed or interrupted twice, the batch ends with each line there once."""
    prompts = [f"question number {i}" for i in range(120)]
    write(tmp_path / "in.jsonl", [{"prompt": p} for p in prompts])
    url = server.case("up", [slow_echo])
    for count in (20, 60):
        options = ["--no-cache"] if count == 20 else ["--no-cache", "--resume"]
        process = started(tmp_path, command(tmp_path, url, *options))
        wait_for_lines(tmp_path / "out.jsonl", count, process)
        process.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if how == "Ctrl-C":
            assert process.returncode == 130, err
            assert "--resume" in err
    sent_before = len(server.seen["up"])
    done_before = len(read_whole(tmp_path / "out.jsonl"))
    process = started(tmp_path, command(tmp_path, url, "--no-cache", "--resume"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows = read(tmp_path / "out.jsonl")
    assert Counter(row["line"] for row in rows) == Counter(range(1, 121))
    assert all(row["answer"] == f"re: {prompts[row['line'] - 1]}" for row in rows)
    assert len(server.seen["up"]) - sent_before == 120 - done_before
    if how == "Ctrl-C":
        assert len(server.seen["up"]) == 120, "calls in flight finished, and none was made twice"


@pytest.mark.skipif(llama.missing() is not None, reason=str(llama.missing()))
def test_a_real_model_killed_and_resumed(tmp_path: Path) -> None:
    """A batch of fifty lines to llama.cpp's server is killed half-way, and then resumed."""
    process, address = llama.start()
    try:
        questions = [f"Write one word about the number {i}." for i in range(40)]
        lines = [{"prompt": q, "params": {"max_tokens": 6}} for q in [*questions, *questions[:10]]]
        write(tmp_path / "in.jsonl", lines)
        args = command(tmp_path, f"{address}/v1", model="smollm2")
        first = started(tmp_path, args)
        wait_for_lines(tmp_path / "out.jsonl", 12, first)
        first.kill()
        first.communicate()
        second = started(tmp_path, [*args, "--resume", "--json"])
        out, err = second.communicate(timeout=240)
        assert second.returncode == 0, err
        report = json.loads(out)
        assert report["done"] + report["before"] == 50
        assert report["before"] >= 12
        rows = read(tmp_path / "out.jsonl")
        assert Counter(row["line"] for row in rows) == Counter(range(1, 51))
        assert all(row["answer"].strip() for row in rows)
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    """The second run is refused until the first has ended."""
    source = write(tmp_path / "in.jsonl", [{"prompt": f"q{i}"} for i in range(20)])

    async def main() -> None:
        first = asyncio.create_task(BatchProcessor(echo).run(source, tmp_path / "out.jsonl"))
        await asyncio.sleep(0)
        with pytest.raises(ConfigError, match="Another run is writing"):
            await BatchProcessor(echo).run(source, tmp_path / "out.jsonl", resume=True)
        await first

    asyncio.run(main())
    run(BatchProcessor(echo), source, tmp_path / "out.jsonl", resume=True)
    assert len(read(tmp_path / "out.jsonl")) == 20


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    """Not even `overwrite` allows it."""
    source = write(tmp_path / "in.jsonl", [{"prompt": "q"}])
    with pytest.raises(ConfigError, match="the input itself"):
        run(BatchProcessor(echo), source, source, overwrite=True)
    assert read(source) == [{"prompt": "q"}]


def test_a_changed_input_is_another(tmp_path: Path) -> None:
    """A line removed from the middle is noticed."""
    rows = [{"prompt": f"question {i} " + "x" * 100} for i in range(2000)]
    source = write(tmp_path / "in.jsonl", rows)
    run(BatchProcessor(echo), source, tmp_path / "out.jsonl")
    write(source, rows[:1500] + rows[1501:])
    with pytest.raises(ConfigError, match="another input"):
        run(BatchProcessor(echo), source, tmp_path / "out.jsonl", resume=True)


def test_one_line_that_cannot_be_answered_fails_alone(tmp_path: Path) -> None:
    """Examples: a model that no provider has, half an emoji, endless nesting."""
    nested = '{"prompt": ' + "[" * 100_000
    lines = [
        {"prompt": "a"},
        {"prompt": "wrong"},
        '{"prompt":"b","\\ud800":1}',
        nested,
        {"prompt": "c"},
    ]
    source = write(tmp_path / "in.jsonl", lines)

    async def ask(request: Request) -> Completion:
        if words(request) == "wrong":
            raise ConfigError("no provider is for the model")
        return Completion("half an emoji: \ud83d")

    for order in ("finished", "input"):
        out = tmp_path / f"{order}.jsonl"
        report = run(BatchProcessor(ask, concurrency=1, order=order), source, out)  # type: ignore[arg-type]
        assert (report.progress.done, report.progress.failed) == (5, 3)
        assert [row["answer"] for row in read(out)] == ["half an emoji: ?"] * 2


def test_stopping_does_not_wait_for_an_outage(tmp_path: Path) -> None:
    """Lines that wait for the outage to end are left to the next run."""
    source = write(tmp_path / "in.jsonl", [{"prompt": f"q{i}"} for i in range(50)])
    down = AttemptReport("p", "m", "unavailable", 503)

    async def ask(request: Request) -> Completion:
        raise RouteExhaustedError("Nobody.", attempts=[down])

    async def main() -> Any:
        processor = BatchProcessor(ask, concurrency=4)
        running = asyncio.create_task(processor.run(source, tmp_path / "out.jsonl"))
        await asyncio.sleep(0.1)
        processor.stop()
        return await asyncio.wait_for(running, 5)

    report = asyncio.run(main())
    assert report.stopped
    assert report.progress.done == 0
