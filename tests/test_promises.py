"""The promises of the design, each by name."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pairs import FILES, counted, served
from benchmarks.streams import SUPPORT, read
from semcache import FaultEvent, SemanticCache, Trust
from semcache.backends.local.opening import DATABASE, SNAPSHOT
from semcache.embedders.default import DefaultEmbedder
from semcache.embedders.function import FunctionEmbedder
from semcache.options import MAX_FALSE_HIT_RATE, Calls
from tests.helpers import DIMENSION, ROOT, Heard, hashed, hashing_embedder, open_cache, started

WORDS = "how do I change the colour of my house door"


@pytest.fixture(params=["directory", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each backend in turn, for the promises that need no second process and no file."""
    return ":memory:" if request.param == "memory" else str(tmp_path / "cache")


@pytest.fixture
def cache(where: str) -> Iterator[SemanticCache]:
    """An empty cache with the hashing embedder, on each backend."""
    with open_cache(where) as opened:
        yield opened


@contextmanager
def child(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python process that can import the tests' helpers; it ends with the block."""
    with started(code, *args) as process:
        try:
            yield process
        finally:
            process.kill()


# ------------------------------------------------------------------- 1. it fails open


def raising(texts: list[str]) -> Any:
    raise RuntimeError("the model is broken")


def hanging(texts: list[str]) -> Any:
    time.sleep(60)


@pytest.mark.parametrize(
    "function",
    [raising, hanging, lambda texts: [[float("nan")] * DIMENSION for _ in texts]],
    ids=["raises", "hangs", "gives NaN"],
)
def test_1_fails_open_when_the_embedder_fails(where: str, function: Any) -> None:
    """A miss and a fault event; the answer is still stored for the exact tier."""
    heard = Heard()
    broken = FunctionEmbedder(function, name="hashed", dimension=DIMENSION)
    with open_cache(where, embedder=broken, hooks=[heard], embed_timeout=0.2) as cache:
        calls: list[str] = []

        @cache.cached()
        def ask(prompt: str) -> str:
            calls.append(prompt)
            return "answer"

        assert ask("hello") == "answer"
        assert ask("hello") == "answer"
        assert calls == ["hello"], "the exact tier works without an embedder"
    assert heard.of(FaultEvent)[0].where == "embed"


def test_1_fails_open_when_the_database_is_locked(tmp_path: Path) -> None:
    """The answer is passed on though it cannot be stored; lookups go on."""
    heard = Heard()
    with open_cache(tmp_path, hooks=[heard], busy_timeout=0.1) as cache:
        cache.put("hello", "Hi")
        blocker = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        assert (
            cache.answer("new", lambda request: __import__("semcache").Completion("N")).text == "N"
        )
        assert str(cache.get("hello")) == "Hi"
        blocker.execute("ROLLBACK")
        blocker.close()
        assert cache.get("new") is None
    assert [event.where for event in heard.of(FaultEvent)][:1] == ["record"]


def test_1_fails_open_when_the_disk_is_full(tmp_path: Path) -> None:
    """A process that may write no more bytes gets its answers, and the cache stays sound."""
    code = """
        import resource, signal, sys
        from tests.helpers import open_cache
        cache = open_cache(sys.argv[1])
        cache.put("hello", "Hi")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = 200_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        done = 0
        @cache.cached()
        def ask(prompt):
            return "x" * 5000
        for number in range(100):
            done += len(ask(f"question number {number}")) == 5000
        print(done, str(cache.get("hello")), cache.stats().faults.get("record", 0) > 0)
        import os; sys.stdout.flush(); os._exit(0)
    """
    with child(code, str(tmp_path)) as process:
        out, _ = process.communicate(timeout=60)
    done, answer = out.split()[:2]
    assert (done, answer) == ("100", "Hi")
    with open_cache(tmp_path) as cache:
        assert str(cache.get("hello")) == "Hi"


@pytest.mark.parametrize("damage", ["cut", "flip", "rubbish", "directory"])
def test_1_fails_open_when_the_index_file_is_damaged(tmp_path: Path, damage: str) -> None:
    """A snapshot that cannot be used is rebuilt from the database."""
    with open_cache(tmp_path) as cache:
        cache.put(WORDS, "a")
        assert cache.get(WORDS + " please") is not None
    path = tmp_path / SNAPSHOT
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        raw[-9] ^= 4
        path.write_bytes(raw)
    elif damage == "rubbish":
        path.write_bytes(os.urandom(5000))
    else:
        path.unlink()
        path.mkdir()
    with open_cache(tmp_path) as cache:
        assert cache.lookup(WORDS + " please").tier == "semantic"


def test_1_the_callers_own_errors_pass_unchanged(cache: SemanticCache) -> None:
    """The very exception of the function, and nothing stored."""
    error = KeyError("mine")

    @cache.cached()
    def ask(prompt: str) -> str:
        raise error

    with pytest.raises(KeyError) as caught:
        ask("hello")
    assert caught.value is error
    assert len(cache) == 0


def test_1_a_closed_cache_calls_the_function(where: str) -> None:
    """Even after close a decorated function works."""
    cache = open_cache(where)

    @cache.cached()
    def ask(prompt: str) -> str:
        return "answer"

    cache.close()
    assert ask("hello") == "answer"


# -------------------------------------------------------------- 2. never across scopes


@pytest.mark.parametrize(
    "other",
    [
        {"namespace": "b"},
        {"model": "other"},
        {"params": {"temperature": 1}},
        {"system": "You are a pirate."},
        {"tools": [{"name": "search"}]},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": "earlier"}, {"role": "user", "content": WORDS}]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_2_never_across_scopes(cache: SemanticCache, other: dict[str, Any]) -> None:
    """The same words in another scope are no candidate, in either tier."""
    call: dict[str, Any] = {"namespace": "a", "model": "m"}
    cache.put(WORDS, "a", **call)
    prompt = None if "messages" in other else WORDS
    lookup = cache.lookup(prompt, **{**call, **other})
    assert lookup.completion is None
    assert lookup.similarity is None, "it was not even looked at"
    assert not cache.explain(prompt, **{**call, **other}).neighbours


# ------------------------------------------------- 3. nothing acknowledged is lost


def test_3_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    """Killed in the middle of its writes, a process leaves every entry it had confirmed."""
    code = """
        import sys
        from tests.helpers import open_cache
        cache = open_cache(sys.argv[1])
        for number in range(10_000):
            cache.put(f"question number {number}", f"answer {number}")
            print(number, flush=True)
    """
    for round_ in range(3):
        path = tmp_path / str(round_)
        with child(code, str(path)) as process:
            assert process.stdout is not None
            seen = [process.stdout.readline() for _ in range(40 + 30 * round_)]
            process.send_signal(signal.SIGKILL)
            seen += process.stdout.readlines()
        acknowledged = [int(line) for line in seen if line.endswith("\n")]
        with open_cache(path) as cache:
            for number in acknowledged:
                assert str(cache.get(f"question number {number}")) == f"answer {number}"
                assert cache.lookup(f"number question {number}").tier == "semantic"


# -------------------------------------------- 4. several processes, one directory


def test_4_processes_see_each_others_entries_deletes_and_expiries(tmp_path: Path) -> None:
    """At the next lookup, in the exact and in the semantic tier."""
    code = """
        import sys
        from tests.helpers import open_cache
        cache = open_cache(sys.argv[1])
        for line in sys.stdin:
            what, words = line.strip().split(":")
            if what == "put":
                cache.put(words, "theirs")
            elif what == "delete":
                cache.invalidate(ids=[e.id for e in cache.entries() if e.question == words])
            elif what == "expire":
                cache.put(words, "theirs", ttl=0)
            print(cache.get(words + " please"), flush=True)
    """
    with open_cache(tmp_path) as cache, child(code, str(tmp_path)) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def say(line: str) -> str:
            print(line, file=process.stdin, flush=True)
            assert process.stdout is not None
            return process.stdout.readline().strip()

        assert cache.get(WORDS + " please") is None
        assert say(f"put:{WORDS}") == "theirs"
        assert str(cache.get(WORDS)) == "theirs"
        assert cache.lookup(WORDS + " please").tier == "semantic"
        assert say(f"delete:{WORDS}") == "None"
        assert cache.get(WORDS) is None
        assert cache.get(WORDS + " please") is None
        cache.put("one two three four five six seven", "ours")
        assert say("look:one two three four five six seven") == "ours"
        cache.clear()
        assert say("look:one two three four five six seven") == "None"
        assert say("expire:a b c d e f g h i j") == "None"
        assert cache.get("a b c d e f g h i j") is None


def test_4_a_forked_process_goes_on(tmp_path: Path) -> None:
    """After fork both sides read and write, each on its own connections."""
    code = """
        import os, sys
        from tests.helpers import open_cache
        cache = open_cache(sys.argv[1])
        cache.put("one two three four five six", "before")
        cache.get("one two three four five six please")
        pid = os.fork()
        if pid == 0:
            ok = str(cache.get("one two three four five six please")) == "before"
            cache.put("from the child", "child")
            os._exit(0 if ok else 1)
        _, status = os.waitpid(pid, 0)
        print(status, cache.get("from the child"))
    """
    with child(code, str(tmp_path)) as process:
        out, _ = process.communicate(timeout=60)
    assert out.split() == ["0", "child"]


# ---------------------------------------------------- 5. only whole answers are stored


def test_5_only_whole_answers_are_stored(cache: SemanticCache) -> None:
    """No error, no cut answer, no tool call, no stream that was broken off."""

    def answer(reason: str, calls: Any = None) -> dict[str, Any]:
        message = {"role": "assistant", "content": "text", "tool_calls": calls}
        return {"choices": [{"message": message, "finish_reason": reason}]}

    answers = {
        "cut off": answer("length"),
        "with tools": answer("tool_calls", [{"id": "1"}]),
        "filtered": answer("content_filter"),
        "nothing": None,
    }

    @cache.cached()
    def ask(prompt: str) -> Any:
        if prompt == "error":
            raise ValueError
        return answers[prompt]

    @cache.cached()
    def stream(prompt: str) -> Any:
        yield "one"
        yield "two"

    for prompt in answers:
        ask(prompt)
    with pytest.raises(ValueError):
        ask("error")
    broken = stream("half")
    assert next(broken) == "one"
    broken.close()
    assert len(cache) == 0
    assert list(stream("half")) == ["one", "two"]
    assert len(cache) == 1


# ---------------------------------------------------------------- 6. no code in data


def test_6_no_code_in_data(tmp_path: Path) -> None:
    """Stored are JSON, numbers and floats; a stored class name runs and imports nothing."""
    cache = open_cache(tmp_path)

    @cache.cached()
    def ask(prompt: str) -> Any:
        return {"a": [1, 2.5, None]}

    ask("hello")
    cache.flush()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db, db:
        extra, vector = db.execute(
            "SELECT extra, vector FROM entries JOIN embeddings ON id = entry_id"
        ).fetchone()
        assert json.loads(extra) == {"payload": {"a": [1, 2.5, None]}, "payload_kind": "json"}
        assert len(vector) == 4 * DIMENSION
        evil = {"payload": {}, "payload_kind": "class:antigravity:Evil"}
        db.execute("UPDATE entries SET extra = ?", (json.dumps(evil),))
    assert ask("hello") == {"a": [1, 2.5, None]}, "unreadable, so asked again"
    assert "antigravity" not in sys.modules
    cache.close()


def test_6_no_module_can_unpickle() -> None:
    """Nothing in the package names pickle, marshal, eval or exec."""
    for path in (ROOT / "semcache").rglob("*.py"):
        source = path.read_text()
        for word in ("import pickle", "marshal", "eval(", "exec(", "allow_pickle=True"):
            assert word not in source, f"{path} holds {word}"


# --------------------------------------------------------------------- 7. explainable


def test_7_explainable(cache: SemanticCache) -> None:
    """Every lookup carries what was decided and why, in words."""
    cache.put(WORDS, "a")
    reasons = {
        WORDS: "same request",
        WORDS + " please": "similarity 0.9",
        "capital of Peru": "similarity",
    }
    for prompt, reason in reasons.items():
        found = cache.explain(prompt)
        said = getattr(found.decision, "detail", "") or found.decision.reason
        assert reason in said
        assert found.query.scope.parts["namespace"] == "default"
        assert found.neighbours[0].entry.question == WORDS
    assert type(cache.lookup("capital of Peru").decision) is type(found.decision)


def test_2_what_one_namespace_teaches_never_makes_another_less_careful() -> None:
    """Hundreds of refusals, all alike, teach a namespace that every candidate is right.

    In other namespaces nothing is served that a new cache would not serve.
    """
    pairs = [json.loads(line) for file in FILES for line in file.read_text().splitlines()]

    def hits(cache: SemanticCache) -> list[bool]:
        outcomes = []
        for number, pair in enumerate(pairs):
            scope = {"namespace": f"other {number}", "model": "m"}
            cache.put(pair["a"], "an answer", **scope)
            outcomes.append(cache.explain(pair["b"], **scope).tier is not None)
        return outcomes

    options: dict[str, Any] = {"hooks": (), "trust": Trust(judge_in_background=False)}
    with SemanticCache(":memory:", **options) as new, SemanticCache(":memory:", **options) as cache:
        for row in read(SUPPORT)[:400]:
            lookup = cache.lookup(row.prompt, namespace="flooded", model="m")
            if lookup.completion is None:
                cache.record(lookup, "Sorry, I cannot help with that right now.")
        assert cache.stats().semantic_hits > new.stats().semantic_hits, "it has learned"
        less_careful = zip(hits(cache), hits(new), pairs, strict=True)
        assert [pair for after, before, pair in less_careful if after and not before] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_8_useful_from_the_first_call(file: Path) -> None:
    """A new cache serves at least half of the honest paraphrases, and hardly a trap."""
    pairs = [json.loads(line) for line in file.read_text().splitlines()]
    found = counted(pairs, served(pairs, MAX_FALSE_HIT_RATE))
    assert found["served_same"] >= found["same"] / 2
    assert found["served_different"] <= 0.02 * (found["served_same"] + found["served_different"])


def test_8_what_was_served_is_served_again(tmp_path: Path, embedder: DefaultEmbedder) -> None:
    """A short program that runs again and again gets the same hit each time."""
    explores_nothing = Calls(draw=lambda: 0.5)
    for run in range(6):
        with SemanticCache(tmp_path, embedder=embedder, calls=explores_nothing) as cache:
            if run == 0:
                cache.put("How do I reset my password?", "Use the link in the mail.")
            assert cache.lookup("how can i reset my password").tier == "semantic", run


def test_the_helpers_embedder_is_no_fallback(tmp_path: Path) -> None:
    """Without an embedder given, the default is the real model, never a hashing one."""
    assert hashed(["a"]).shape == (1, DIMENSION)
    assert hashing_embedder().fingerprint.startswith("function/")
    with SemanticCache(tmp_path) as cache:
        assert type(cache.embedder).__name__ == "DefaultEmbedder"


# ------------------------------------------------------- found by trying to break it


def test_2_a_snapshot_with_a_flipped_count_crosses_no_scope(tmp_path: Path) -> None:
    """Where the index were wrong about a scope, the store's word counts."""
    with open_cache(tmp_path) as cache:
        for number in range(2):
            cache.put(f"alpha beta {number}", "of A", namespace="A")
        for number in range(3):
            cache.put(f"unlock door {number}", "SECRET of B", namespace="B")
        cache.get("alpha", namespace="A")
    path = tmp_path / SNAPSHOT
    path.write_bytes(path.read_bytes().replace(b'"counts": [2, 3]', b'"counts": [3, 3]'))
    with open_cache(tmp_path, threshold=0.5) as cache:
        assert cache.get("unlock door", namespace="A") is None
        index = cache._engine.entries.refresh_index()
        scope = cache.query("x", namespace="A").scope.digest
        (stray,) = [e for e in cache.entries() if e.question == "unlock door 1"]
        index.remove([stray.id])
        index.add(stray.id, scope, hashing_embedder().embed(["unlock door 1"])[0])
        assert cache.get("unlock door 1 x", namespace="A") is None


def test_4_many_processes_make_one_directory(tmp_path: Path) -> None:
    """Whoever comes first makes the tables; nobody fails."""
    code = """
        import sys
        from tests.helpers import open_cache
        sys.stdin.readline()
        cache = open_cache(sys.argv[1])
        cache.put(f"from {sys.argv[2]}", "x")
        print(len(cache) > 0)
    """
    with ExitStack() as stack:
        processes = [
            stack.enter_context(child(code, str(tmp_path / "new"), str(i))) for i in range(5)
        ]
        outs = [process.communicate("\n", timeout=60)[0].strip() for process in processes]
    assert outs == ["True"] * 5
    with open_cache(tmp_path / "new") as cache:
        assert len(cache) == 5


def test_1_waiting_for_a_locked_database_does_not_add_up(tmp_path: Path) -> None:
    """Six callers wait together, not one after the other."""
    with open_cache(tmp_path, busy_timeout=0.5) as cache:
        cache.put("hello", "Hi")
        blocker = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        threads = [threading.Thread(target=cache.put, args=(f"q {i}", "a")) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert time.monotonic() - start < 3
        blocker.execute("ROLLBACK")
        blocker.close()


def test_vectors_embedded_anew_are_found_at_once(tmp_path: Path) -> None:
    """An entry stored while the embedder was down is found after a reembed, everywhere."""
    broken = FunctionEmbedder(raising, name="hashed", dimension=DIMENSION)
    with open_cache(tmp_path) as cache:
        cache.put("something else entirely here", "b")
        assert cache.get("something") is None
        with open_cache(tmp_path, embedder=broken, hooks=[]) as other:
            other.put(WORDS, "a")
        assert cache.get(WORDS + " please") is None
        maintenance = cache._engine.backend.maintenance
        assert maintenance.reembed(hashing_embedder(), lambda *_: None) == 2
        assert str(cache.get(WORDS + " please")) == "a"
    with open_cache(tmp_path) as cache:
        assert str(cache.get(WORDS + " please")) == "a"


def test_counters_are_written_when_the_program_ends(tmp_path: Path) -> None:
    """Without close(), too."""
    code = """
        import sys
        from tests.helpers import open_cache
        cache = open_cache(sys.argv[1])
        cache.put("hello", "Hi")
        for _ in range(5):
            cache.get("hello")
    """
    with child(code, str(tmp_path)) as process:
        process.communicate(timeout=60)
    with open_cache(tmp_path) as cache:
        assert cache.stats().exact_hits == 5
