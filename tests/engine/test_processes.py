"""Several processes over one directory: one call for one request, fork and spawn, threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semcache import Completion, Matching, SemanticCache, StoreError
from semcache.telemetry.events import FaultEvent
from tests.helpers import Heard, open_cache, started

WORDS = "one two three four five six seven eight nine ten"

ASK = """
    import sys, time
    from pathlib import Path
    from semcache import Completion
    from tests.helpers import open_cache

    path, calls, prompt, seconds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    cache = open_cache(path, coalesce=sys.argv[5])

    def send(request):
        with open(calls, "a") as log:
            log.write("asked\\n")
        time.sleep(seconds)
        return Completion(f"answer to {request.question if hasattr(request, 'question') else ''}")

    print("ready", flush=True)
    sys.stdin.readline()
    print(cache.answer(prompt, send).served_from, flush=True)
    cache.close()
"""


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(processes: Sequence[subprocess.Popen[str]]) -> None:
    assert [line(process) for process in processes] == ["ready"] * len(processes)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


def test_one_request_in_many_processes_is_one_call(tmp_path: Path) -> None:
    """One asks the model, the others get its answer."""
    calls = tmp_path / "calls"
    args = (str(tmp_path / "cache"), str(calls), WORDS, "0.5", "exact")
    processes = [started(ASK, *args) for _ in range(5)]
    go(processes)
    assert sorted(ended(processes)) == ["None", *["shared"] * 4]
    assert calls.read_text().count("asked") == 1


def test_off_means_everybody_asks(tmp_path: Path) -> None:
    """No lease is taken, no file made."""
    calls = tmp_path / "calls"
    args = (str(tmp_path / "cache"), str(calls), WORDS, "0.5", "off")
    processes = [started(ASK, *args) for _ in range(3)]
    go(processes)
    ended(processes)
    assert calls.read_text().count("asked") == 3
    assert not list((tmp_path / "cache").glob("*leases*"))


def test_near_questions_in_many_processes_are_one_call(tmp_path: Path) -> None:
    """If the policy then serves the answer."""
    calls = tmp_path / "calls"
    where = str(tmp_path / "cache"), str(calls)
    first = started(ASK, *where, WORDS, "1.0", "semantic")
    second = started(ASK, *where, f"{WORDS} please", "1.0", "semantic")
    assert line(second) == "ready"
    go([first])
    while not calls.exists():
        time.sleep(0.01)
    assert second.stdin is not None
    second.stdin.write("go\n")
    second.stdin.flush()
    assert ended([second]) == ["shared"]
    assert ended([first]) == ["None"]
    assert calls.read_text().count("asked") == 1


def test_a_dead_leader_is_taken_over(tmp_path: Path) -> None:
    """Killed while it asked: another asks in its place, within seconds, and once."""
    calls = tmp_path / "calls"
    where = str(tmp_path / "cache"), str(calls), WORDS
    leader = started(ASK, *where, "600", "exact")
    followers = [started(ASK, *where, "0.2", "exact") for _ in range(2)]
    go([leader])
    while not calls.exists():
        time.sleep(0.01)
    go(followers)
    time.sleep(0.3)
    leader.send_signal(signal.SIGKILL)
    leader.communicate()
    start = time.monotonic()
    assert sorted(ended(followers)) == ["None", "shared"]
    assert time.monotonic() - start < 30
    assert calls.read_text().count("asked") == 2


def test_a_call_that_fails_is_each_process_s_own(tmp_path: Path) -> None:
    """Errors do not travel between processes: the next one asks for itself."""
    heard = Heard()
    with open_cache(tmp_path, hooks=[heard]) as ours, open_cache(tmp_path) as theirs:
        begun = threading.Event()

        def failing(_: Any) -> Completion:
            begun.set()
            time.sleep(0.2)
            raise ConnectionError("no model")

        failed: list[BaseException] = []

        def ask() -> None:
            try:
                theirs.answer(WORDS, failing)
            except ConnectionError as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        begun.wait(10)
        assert ours.answer(WORDS, lambda _: Completion("mine")).text == "mine"
        thread.join()
        assert len(failed) == 1
        assert not heard.of(FaultEvent)


def test_answers_that_are_not_kept_are_not_waited_for_in_turn(tmp_path: Path) -> None:
    """Each then asks for itself, side by side."""
    with open_cache(tmp_path) as ours, open_cache(tmp_path) as theirs:

        def cut_off(_: Any) -> Completion:
            time.sleep(0.3)
            return Completion("half an", finish_reason="length")

        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda c=c: answers.append(c.answer(WORDS, cut_off).text))
            for c in (ours, theirs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert answers == ["half an"] * 2
        assert ours.answer(WORDS, lambda _: Completion("whole")).text == "whole"


def test_leases_that_cannot_be_used_cost_calls_and_nothing_else(tmp_path: Path) -> None:
    """A fault is told; everybody asks for himself."""
    heard = Heard()
    (tmp_path / "semcache-leases.db").mkdir()
    with open_cache(tmp_path, hooks=[heard]) as cache:
        assert cache.answer(WORDS, lambda _: Completion("a")).text == "a"
        assert str(cache.get(WORDS)) == "a"
    assert {event.where for event in heard.of(FaultEvent)} == {"lease"}


# ------------------------------------------------------------------------ fork and spawn


def _in_child(path: str, pipe: Any) -> None:
    cache = open_cache(path)
    pipe.send((str(cache.get(WORDS)), cache.lookup(f"{WORDS} please").tier))
    cache.put("from the child", "theirs")
    cache.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_of_processes_shares_the_directory(tmp_path: Path, method: str) -> None:
    """Each opens it for itself and sees what the parent has stored."""
    context = multiprocessing.get_context(method)
    with open_cache(tmp_path) as cache:
        cache.put(WORDS, "ours")
        ours, theirs = context.Pipe()
        process = context.Process(target=_in_child, args=(str(tmp_path), theirs))
        process.start()
        assert ours.poll(60)
        assert ours.recv() == ("ours", "semantic")
        process.join(60)
        assert str(cache.get("from the child")) == "theirs"


FORKED = """
    import os, sys, threading
    from semcache import SemanticCache, Completion

    cache = SemanticCache(sys.argv[1], max_false_hit_rate=0.1)
    cache.put("how do I reset my password", "by the link", model="m")
    cache.lookup("how can I reset my password?", model="m")
    cache.answer("something else", lambda _: Completion("b"))
    sure = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            # The session, the connections and the threads of the parent are not used here.
            ok = str(cache.get("how do I reset my password", model="m")) == "by the link"
            ok &= cache.lookup("how can I reset my password?", model="m").similarity > 0.8
            done = []
            worker = threading.Thread(target=lambda: done.append(
                cache.answer(f"child {number}", lambda _: Completion(f"of {number}")).text))
            worker.start()
            worker.join(30)
            cache.flush()
            os._exit(0 if ok and done == [f"of {number}"] else 1)
        sure.append(os.waitpid(pid, 0)[1])
    assert cache.lookup("how may I reset my password", model="m").similarity > 0.8
    print(sure, [str(cache.get(f"child {number}")) for number in range(3)])
"""


def test_a_server_that_forks_after_opening_goes_on(tmp_path: Path) -> None:
    """With the real embedder: children embed, search, ask and store; the parent goes on."""
    process = started(FORKED, str(tmp_path))
    out, _ = process.communicate(timeout=120)
    assert out.strip() == "[0, 0, 0] ['of 0', 'of 1', 'of 2']"


HELD = """
    import os, sys, threading, time
    from semcache import SemanticCache, Completion
    from tests.helpers import hashing_embedder

    cache = SemanticCache(sys.argv[1], embedder=hashing_embedder(), threshold=0.9)
    cache.answer("a question", lambda _: Completion("a"))
    leases, store = cache._engine.leases, cache._engine.backend.store
    inside = threading.Event()
    busy = [True, True]

    def writing(number, lock):
        with lock:
            inside.set()
            time.sleep(float(sys.argv[2]))
            busy[number] = False

    for number, lock in enumerate((leases._lock, store._write_lock)):
        inside.clear()
        threading.Thread(target=writing, args=(number, lock), daemon=True).start()
        inside.wait(10)
    pid = os.fork()
    if pid == 0:
        done = str(cache.answer("another", lambda _: Completion("b")).text)
        cache.flush()
        os._exit(0 if done == "b" and busy == [sys.argv[3] == "busy"] * 2 else 1)
    print(os.waitpid(pid, 0)[1], cache.answer("a third", lambda _: Completion("c")).text)
"""


@pytest.mark.parametrize(("seconds", "then"), [("0.3", "done"), ("4", "busy")])
def test_a_fork_waits_for_a_write_under_way(tmp_path: Path, seconds: str, then: str) -> None:
    """What SQLite locks meanwhile would be locked in the child for ever; but not for long."""
    process = started(HELD, str(tmp_path), seconds, then)
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "0 c"


# ------------------------------------------------------------------------------- threads


def test_lookups_do_not_wait_for_a_large_write(tmp_path: Path) -> None:
    """While another transaction is open for long, exact and semantic hits are served."""
    with open_cache(tmp_path, busy_timeout=20) as cache:
        cache.put(WORDS, "a")
        cache.lookup(f"{WORDS} please")
        with cache._engine.backend.store._transaction("hold"):
            writer = threading.Thread(target=cache.put, args=("another", "b"))
            writer.start()
            start = time.monotonic()
            for _ in range(50):
                assert cache.lookup(WORDS).tier == "exact"
                assert cache.lookup(f"{WORDS} please").tier == "semantic"
            assert time.monotonic() - start < 10, "they waited for the writer"
            assert writer.is_alive()
        writer.join(20)
        assert str(cache.get("another")) == "b"


def test_no_lock_is_held_while_embedding_or_asking(tmp_path: Path) -> None:
    """One caller that hangs in the embedder, one in the model: a third is served."""
    from semcache.embedders.function import FunctionEmbedder
    from tests.helpers import DIMENSION, hashed

    embedding, asking, go_on = threading.Event(), threading.Event(), threading.Event()

    def embed(texts: Sequence[str]) -> Any:
        if "hang" in texts[0]:
            embedding.set()
            go_on.wait(20)
        return hashed(texts)

    def send(_: Any) -> Completion:
        asking.set()
        go_on.wait(20)
        return Completion("late")

    slow = FunctionEmbedder(embed, name="slow", dimension=DIMENSION)
    with SemanticCache(
        tmp_path, embedder=slow, threshold=0.9, matching=Matching(embed_timeout=None)
    ) as cache:
        cache.put(WORDS, "a")
        threads = [
            threading.Thread(target=cache.lookup, args=("please hang",)),
            threading.Thread(target=cache.answer, args=("ask", send)),
        ]
        for thread in threads:
            thread.start()
        assert embedding.wait(10)
        assert asking.wait(10)
        assert cache.lookup(WORDS).tier == "exact"
        assert cache.put("third", "b") is not None
        assert cache.invalidate(ids=[1]) == 1
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert str(cache.get("ask")) == "late"


def test_the_parent_s_leases_are_not_the_child_s(tmp_path: Path) -> None:
    """A fork in the middle of a call: the child waits for the parent like any other process."""
    with open_cache(tmp_path) as cache:
        status: list[int] = []

        def send(_: Any) -> Completion:
            pid = os.fork()
            if pid == 0:
                held = cache._engine.leases
                assert held is not None
                os._exit(0 if not held._held else 1)
            status.append(os.waitpid(pid, 0)[1])
            return Completion("a")

        cache.answer(WORDS, send)
        assert status == [0]


# ------------------------------------------------------------------------ found in review


ORPHAN = """
    import os, sys, time
    from tests.helpers import open_cache
    cache = open_cache(sys.argv[1])
    cache.put("before", "x")
    if os.fork():
        os._exit(0)  # the parent is gone, as when a program goes into the background
    while not os.path.exists(sys.argv[1] + "/go"):
        time.sleep(0.01)
    assert cache.put("one two three four five six seven eight nine ten", "kept") is not None
    open(sys.argv[1] + "/done", "w").close()
    time.sleep(60)
"""


def test_a_child_whose_parent_has_gone_holds_its_own_locks(tmp_path: Path) -> None:
    """Another program that opens and closes the cache takes no log away under it."""
    path = tmp_path / "cache"
    parent = started(ORPHAN, str(path))
    parent.wait(60)
    with open_cache(path) as tool:
        assert str(tool.get("before")) == "x"
    (path / "go").touch()
    end = time.monotonic() + 30
    while not (path / "done").exists() and time.monotonic() < end:
        time.sleep(0.01)
    with open_cache(path) as cache:
        assert str(cache.get(WORDS)) == "kept"
    assert parent.stdout is not None
    parent.stdout.close()
    if parent.stdin is not None:
        parent.stdin.close()


FORKED_LISTS = """
    import os, sys
    import numpy as np
    from semcache.backends.local.faiss.index import FaissIndex
    from semcache.backends.local.faiss.lifecycle import IndexLifecycle
    rows = np.random.default_rng(1).normal(size=(3000, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = FaissIndex(64, exact_below=500, background=False)
    index.add_many(list(range(2900)), [b"s" * 32] * 2900, rows[:2900])
    pid = os.fork()
    if pid == 0:
        from pathlib import Path
        IndexLifecycle(Path("x")).after_fork()
        index.add_many(list(range(2900, 3000)), [b"s" * 32] * 100, rows[2900:])
        os._exit(0 if index.search(b"s" * 32, rows[2950], 1)[0].id == 2950 else 1)
    print(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_adds_to_inverted_lists(tmp_path: Path) -> None:
    """FAISS's threads do not survive a fork; the child does without them."""
    process = started(FORKED_LISTS, str(tmp_path))
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "0"


def test_an_interrupted_begin_leaves_no_transaction_open(tmp_path: Path) -> None:
    """Ctrl-C just when the write lock was had: others can write, and so can we."""
    with open_cache(tmp_path) as ours, open_cache(tmp_path, busy_timeout=0.5) as theirs:
        store = ours._engine.backend.store
        writer: Any = store._writer

        class Interrupted:
            def __getattr__(self, name: str) -> Any:
                return getattr(writer, name)

            def execute(self, sql: str, *args: Any) -> Any:
                found = writer.execute(sql, *args)
                if sql.startswith("BEGIN"):
                    raise KeyboardInterrupt
                return found

        store._writer = Interrupted()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            ours.put(WORDS, "a")
        store._writer = writer
        assert theirs.put(WORDS, "b") is not None
        assert ours.put("another", "c") is not None


def test_no_thread_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, calls are answered and stored all the same."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with open_cache(tmp_path, ttl=100, stale_while_revalidate=50) as cache:
        monkeypatch.setattr(threading.Thread, "start", start)
        for number in range(3):
            text = f"{WORDS} {number}"
            assert cache.answer(text, lambda _: Completion("a")).text == "a"
            assert cache.lookup(text).tier == "exact"
        monkeypatch.undo()
        assert cache.stats().records == 3


def test_a_lease_that_could_not_be_released_lapses(tmp_path: Path) -> None:
    """It beats no more, whatever else the process holds."""
    from semcache.backends.local.sqlite import leases as module
    from semcache.backends.local.sqlite.leases import SQLiteLeases
    from semcache.types import LeaseHolder

    table = SQLiteLeases(tmp_path / "l.db", lambda _: None)
    first = table.take(b"1" * 32, b"s" * 32, None)
    table.take(b"2" * 32, b"s" * 32, None)
    assert not isinstance(first, LeaseHolder)
    write = table._write
    table._write = lambda *_: (_ for _ in ()).throw(StoreError("locked"))  # type: ignore[assignment,method-assign]
    table._held.discard(b"1" * 32)
    table._releases.append((b"1" * 32, True))
    table._release_all()
    table._write = write  # type: ignore[method-assign]
    before = table.look(b"1" * 32), table.look(b"2" * 32)
    time.sleep(2.5 * module.BEAT)
    after = table.look(b"1" * 32), table.look(b"2" * 32)
    assert after[0] == before[0]
    assert after[1] != before[1]
    table.close()


def test_a_renewal_of_a_closed_loop_holds_nobody_up(tmp_path: Path) -> None:
    """The loop ended before the model came back: the next one asks."""
    import asyncio

    from tests.helpers import Clock

    clock = Clock()
    with open_cache(tmp_path, ttl=100, stale_while_revalidate=50, clock=clock) as cache:
        cache.put(WORDS, "old")
        clock.now += 120

        async def never(_: Any) -> Completion:
            await asyncio.sleep(600)
            return Completion("never")

        async def at_once(_: Any) -> Completion:
            return Completion("new")

        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(cache.aanswer(WORDS, never)).text == "old"
        loop.run_until_complete(asyncio.sleep(0.3))
        loop.close()

        async def main() -> str:
            await cache.aanswer(WORDS, at_once)
            await asyncio.sleep(0.5)
            return (await cache.aanswer(WORDS, at_once)).text

        assert asyncio.run(main()) == "new"
