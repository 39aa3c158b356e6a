"""Killed at any moment: what was acknowledged is there, what was deleted stays gone.

    python -m benchmarks.durability [--rounds 500] [--seed 1] [--json OUT]

In each round a real process works on a cache in one of the ways of `KINDS` and says, over a
pipe, what has been acknowledged to it; at a random moment it is killed with SIGKILL. Another
process then opens the directory, without hand-work, and counts:

- lost: entries that were acknowledged and are not found, by key or by their vector;
- resurrected: entries whose deletion was acknowledged and that are found;
- wrong_answers: answers that belong to another question;
- failed_opens, and problems: what `semcache check` says.

In every third round of `records` the tail of the write-ahead log is cut off afterwards, as a
loss of power would: then the newest entries may be gone, and the others must be whole
(`cut` counts these rounds; SQLite's WAL mode with synchronous=NORMAL promises no more).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, backend_of, environment, repository_of, say, write_json
from semcache import Matching, SemanticCache
from semcache.backends.local.opening import DATABASE
from semcache.embedders.function import FunctionEmbedder
from semcache.options import grouped

DIMENSION = 64
SCHEMAS = Path(__file__).parents[1] / "tests" / "data"
COUNTED = ("lost", "resurrected", "wrong_answers", "failed_opens", "problems")
LONGEST = 0.4
"""Seconds after which a process is killed at the latest."""


def vectors(texts: Sequence[str]) -> Any:
    """A direction for every text: nothing is claimed here about meaning."""
    seeds = [int.from_bytes(sha256(text.encode()).digest()[:8], "big") for text in texts]
    return np.stack([np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds])


def opened(path: Path, name: str = "a", **options: Any) -> SemanticCache:
    embedder = FunctionEmbedder(vectors, name=name, dimension=DIMENSION)
    return SemanticCache(path, embedder=embedder, threshold=0.9, **grouped(options))


def answer(question: str) -> str:
    return f"the answer to {question} " * 20


def put(cache: SemanticCache, question: str, **call: Any) -> int:
    lookup = cache.lookup(question)
    entry = cache.record(lookup, answer(question), **call)
    assert entry is not None
    return entry.id


# ------------------------------------------------------------------- what is killed
#
# Each writes lines to its pipe: ("put", question), ("gone", question).


def putting(
    cache: SemanticCache, told: Connection, rng: random.Random, again: int = 10**9
) -> Iterator[tuple[int, str, int]]:
    """(number, question, entry id) of entries, one after another, each told when it is in.

    again: one in so many takes the place of the one before it.
    """
    start = rng.randrange(10**9)
    for number in range(10**6):
        question = f"question {start + number - (number % again == again - 1)}"
        entry_id = put(cache, question)
        told.send(("put", question))
        yield number, question, entry_id


def records(path: Path, told: Connection, rng: random.Random) -> None:
    """Entries, one after another; some in place of older ones."""
    for _ in putting(opened(path), told, rng, again=7):
        pass


def evictions(path: Path, told: Connection, rng: random.Random) -> None:
    """A full cache: each record makes room by evicting others."""
    cache = opened(path, max_entries=60)
    start, there = rng.randrange(10**9), {e.question for e in cache.entries()}
    for number in range(10**6):
        question = f"question {start + number}"
        told.send(("trying", question))
        put(cache, question)
        now = {e.question for e in cache.entries()}
        for gone in there - now:
            told.send(("gone", gone))
        told.send(("put", question))
        there = now


def invalidations(path: Path, told: Connection, rng: random.Random) -> None:
    """Entries with a tag, and then the tag is invalidated."""
    cache = opened(path)
    for _ in range(10**6):
        tag = f"tag{rng.randrange(10**9)}"
        questions = [f"question {tag} {number}" for number in range(rng.randrange(1, 600))]
        for question in questions[:20]:
            put(cache, question, tags=(tag,))
            told.send(("put", question))
        told.send(("trying", *questions[:20]))
        cache.invalidate(tag=tag)
        for question in questions[:20]:
            told.send(("gone", question))


def reembeddings(path: Path, told: Connection, _rng: random.Random) -> None:
    """Everything is embedded anew, with one embedder and the other."""
    from semcache.backends.local import LocalBackend

    backend = LocalBackend(path)
    while True:
        name = "b" if "/a" in (backend.embedder or "") else "a"
        embedder = FunctionEmbedder(vectors, name=name, dimension=DIMENSION)
        backend.maintenance.reembed(embedder, lambda *_: None)
        told.send(("reembedded", name))


def snapshots(path: Path, told: Connection, rng: random.Random) -> None:
    """Entries, deletions, and an index that is merged and written again and again."""
    from semcache.backends.local.faiss import index as faiss

    faiss._MEM_TABLE_ROWS = 40
    cache = opened(path)
    for number, question, entry_id in putting(cache, told, rng):
        if number % 5 == 4:
            told.send(("trying", question))
            cache.invalidate(ids=[entry_id])
            told.send(("gone", question))
        if number % 16 == 15:
            repository_of(cache).save_snapshot()


def imports(path: Path, told: Connection, rng: random.Random) -> None:
    """Exports of other caches come in."""
    from semcache.tools.transfer import ImportOptions, export_lines, import_lines

    with tempfile.TemporaryDirectory(dir=path.parent) as other, opened(Path(other)) as source:
        start = rng.randrange(10**9)
        questions = [f"question {start + number}" for number in range(200)]
        for question in questions:
            put(source, question)
        lines = list(export_lines(backend_of(source)))
    told.send(("ready",))
    target = opened(path)
    repository, metadata = repository_of(target), backend_of(target).metadata
    embedder = FunctionEmbedder(vectors, name="a", dimension=DIMENSION)
    import_lines(
        lambda: lines,
        repository,
        lambda: embedder,
        metadata,
        fingerprint=embedder.fingerprint,
        options=ImportOptions(trust=True),
        progress=lambda done, _: told.send(("put", questions[done - 1])),
    )
    time.sleep(60)


def migrations(path: Path, told: Connection, rng: random.Random) -> None:
    """Files of earlier versions are opened, one after another."""
    for number in range(10**6):
        name = f"{path.name}-{number}"
        version = rng.choice((1, 2))
        where = path / name
        where.mkdir()
        with closing(sqlite3.connect(where / DATABASE)) as db, db:
            db.executescript((SCHEMAS / f"schema-{version}.sql").read_text())
        told.send(("migrating", name))
        SemanticCache(where, matching=Matching(semantic=False)).close()


def vacuums(path: Path, told: Connection, rng: random.Random) -> None:
    """Entries come and go, and the file is made small."""
    cache = opened(path)
    for number, _, _ in putting(cache, told, rng):
        if number % 20 == 19:
            backend_of(cache).store.vacuum()


KINDS: dict[str, Callable[[Path, Connection, random.Random], None]] = {
    kind.__name__: kind
    for kind in (
        records, evictions, invalidations, reembeddings, snapshots, imports, migrations, vacuums,
    )
}  # fmt: skip


# ------------------------------------------------------------------ what is looked at


class Expected:
    """What must be there, must not, and may."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.gone: set[str] = set()
        self.trying: set[str] = set()
        self.migrated: list[str] = []

    def hear(self, said: tuple[str, ...]) -> None:
        what, *names = said
        if what == "put":
            self.there.update(names)
            self.gone.difference_update(names)
            self.trying.difference_update(names)
        elif what == "gone":
            self.gone.update(names)
            self.there.difference_update(names)
            self.trying.difference_update(names)
        elif what == "trying":
            self.trying.update(names)
        elif what == "migrating":
            self.migrated += names

    def settle(self, kind: str, there: set[str]) -> None:
        """What was under way when the process died may have happened or not."""
        for name in self.trying:
            self.gone.discard(name)
            self.there.discard(name)
        if kind == "evictions" and self.trying:  # an eviction that was not told of
            self.there &= there
        self.trying.clear()


def looked(path: Path, expected: Expected, kind: str, *, cut: bool) -> dict[str, Any]:
    """Open what the killed process has left, and count."""
    found: dict[str, Any] = dict.fromkeys(COUNTED, 0)
    found["examples"] = []
    try:
        for name in expected.migrated:
            with SemanticCache(path / name, matching=Matching(semantic=False)) as cache:
                texts = {e.completion.text for e in cache.entries()}
                found["lost"] += len({"answer 1", "answer 2", "answer 3", "answer 4"} - texts)
                found["problems"] += len(backend_of(cache).store.problems())
        if (path / DATABASE).exists():
            with closing(sqlite3.connect(path / DATABASE)) as db, db:
                rows = db.execute("SELECT value FROM meta WHERE name = 'fingerprint'").fetchall()
            name = "b" if rows and "/b" in rows[0][0] else "a"
            with opened(path, name) as cache:
                _look(cache, expected, found, kind, cut=cut)
    except Exception as error:
        found["failed_opens"] += 1
        found["examples"].append(f"{type(error).__name__}: {error}")
    return found


def _look(
    cache: SemanticCache, expected: Expected, found: dict[str, Any], kind: str, *, cut: bool
) -> None:
    entries = {e.question: e for e in cache.entries() if e.question is not None}
    expected.settle(kind, set(entries))
    if cut:  # what the log had lost is no loss; nothing else may be missing
        expected.there &= set(entries)
        expected.gone -= set(entries)
    for question in expected.there:
        if cache.get(question) is None or question not in entries:
            found["lost"] += 1
            found["examples"].append(f"lost: {question}")
    for question in expected.gone:
        if question in entries or cache.lookup(question).tier is not None:
            found["resurrected"] += 1
            found["examples"].append(f"resurrected: {question}")
    index = repository_of(cache).refresh_index()
    for question, entry in entries.items():
        if entry.completion.text != answer(question):
            found["wrong_answers"] += 1
        near = index.search(entry.scope, np.asarray(_unit(question)), 1)
        if not near or near[0].id != entry.id:
            found["lost"] += 1
            found["examples"].append(f"not near itself: {question}")
    problems = backend_of(cache).store.problems()
    if set(index.ids().tolist()) != set(backend_of(cache).store.embedded_ids().tolist()):
        problems.append("the index and the store differ")
    found["problems"] += len(problems)
    found["examples"] += problems
    found["entries"] = len(entries)


def _unit(question: str) -> Any:
    vector = vectors([question])[0]
    return (vector / np.linalg.norm(vector)).astype(np.float32)


# ------------------------------------------------------------------------- the rounds


def _work(kind: str, path: Path, told: Connection, seed: int) -> None:
    os.setpgrp()
    KINDS[kind](path, told, random.Random(seed))


def _report(path: Path, expected: Expected, kind: str, cut: bool, told: Connection) -> None:
    told.send(looked(path, expected, kind, cut=cut))


def one_round(
    context: Any, kind: str, path: Path, expected: Expected, rng: random.Random
) -> dict[str, Any]:
    """Work, kill, look."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(kind, path, theirs, rng.randrange(2**32)))
    process.start()
    theirs.close()
    heard = 0
    if ours.poll(60):  # it has begun
        first = ours.recv()
        expected.hear(first)
        heard += 1
    end = time.monotonic() + rng.random() * LONGEST
    while (left := end - time.monotonic()) > 0:
        if ours.poll(left):
            expected.hear(ours.recv())
            heard += 1
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    while ours.poll():
        try:
            expected.hear(ours.recv())
        except EOFError:
            break
        heard += 1
    ours.close()
    cut = kind == "records" and rng.random() < 1 / 3 and _cut(path, rng)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(path, expected, kind, cut, theirs))
    process.start()
    theirs.close()
    found: dict[str, Any] = ours.recv() if ours.poll(120) else {"failed_opens": 1}
    process.join(60)
    if cut:
        found["cut"] = 1
    return {**found, "acknowledged": heard}


def _cut(path: Path, rng: random.Random) -> bool:
    """Take the tail of the write-ahead log away."""
    log = path / f"{DATABASE}-wal"
    if not log.exists() or not log.stat().st_size:
        return False
    with log.open("r+b") as file:
        file.truncate(int(log.stat().st_size * rng.random()))
    (path / f"{DATABASE}-shm").unlink(missing_ok=True)
    return True


def prepared(path: Path, kind: str, expected: Expected) -> None:
    """What a kind begins with."""
    path.mkdir()
    if kind == "reembeddings":
        with opened(path) as cache:
            for number in range(120):
                put(cache, f"question {number}")
                expected.hear(("put", f"question {number}"))


def rounds(count: int, *, seed: int, folder: Path) -> dict[str, Any]:
    """So many rounds, each kind in its turn, several of a kind on one directory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["semcache.semantic_cache", "semcache.backends.local.faiss.index"]
    )
    rng = random.Random(seed)
    by_kind: dict[str, dict[str, int]] = {}
    examples: list[str] = []
    state: dict[str, tuple[Path, Expected]] = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        if kind not in state or rng.random() < 0.2:  # now and then a new directory
            if kind in state:
                shutil.rmtree(state[kind][0])
            path, expected = folder / f"{kind}-{number}", Expected()
            prepared(path, kind, expected)
            state[kind] = (path, expected)
        found = one_round(context, kind, *state[kind], rng)
        mine = by_kind.setdefault(kind, {"rounds": 0, "acknowledged": 0, "cut": 0, "entries": 0})
        mine["rounds"] += 1
        for name in ("acknowledged", "cut", "entries", *COUNTED):
            mine[name] = mine.get(name, 0) + found.get(name, 0)
        examples += [f"round {number} ({kind}): {text}" for text in found.get("examples", ())]
        if any(found.get(name) for name in COUNTED) or found.get("cut") or kind == "migrations":
            del state[kind]  # what one round has broken is not counted again
        if number % 25 == 24:
            say(f"  {number + 1} of {count} rounds; {len(examples)} faults")
    totals = {
        name: sum(kind.get(name, 0) for kind in by_kind.values())
        for name in ("rounds", "acknowledged", "cut", "entries", *COUNTED)
    }
    return {**totals, "by_kind": by_kind, "examples": examples[:50]}


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    names = ("rounds", "acknowledged", "cut", *COUNTED)
    titles = [name.replace("_", " ") for name in names]
    rows = [f"| what was killed | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(names)]
    for kind, counts in {**result["by_kind"], "**all**": result}.items():
        rows.append(f"| {kind} | {' | '.join(f'{counts.get(n, 0):,}' for n in names)} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS / "durability.json")
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = rounds(args.rounds, seed=args.seed, folder=Path(folder))
    result = {"environment": environment(), "seed": args.seed, **found}
    result["seconds"] = round(time.perf_counter() - start, 1)
    write_json(args.json, result)
    say(table(result))
    say(json.dumps(found["examples"], indent=2))
    sys.exit(any(found[name] for name in COUNTED))


if __name__ == "__main__":
    main()
