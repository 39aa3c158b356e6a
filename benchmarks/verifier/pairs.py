"""Pairs of prompts to learn from: labelled ones, neighbours of one set, and pairs made by rule.

No pair holds a text of a replay stream, nor one that people have called the same as such a
text, and of the two intent sets half of the intents are left out whole: what is measured on
the streams was never learned.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import say
from benchmarks.verifier import rules

if TYPE_CHECKING:
    from semcache.types import Vector

STREAMS = ("s1_qqp", "s2_tenants", "s3_zipf", "s4_near_miss", "s5_multiturn", "s6_multilingual")
LATIN = ("en", "de", "fr", "es")
LONGEST = 600
"""Characters of a text; longer ones are left out."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts.

    Attributes:
        same: 1: one stored answer may serve both; 0: not; None: nobody has said.
        source: which set or rule it comes from.
        weight: how much the label counts.
    """

    a: str
    b: str
    same: int | None
    source: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """A set as texts with the answer of each: same answer, same label.

    Attributes:
        answers: of each text; None: nobody has said.
        different: two texts with different answers that are less similar than this surely
            ask for different things; nearer ones may not, in a set that people quarrel over.
        share: how many neighbours of each text are taken.
    """

    name: str
    texts: Sequence[str]
    answers: Sequence[str | None]
    different: float = 1.01
    weight: float = 1.0
    share: int = 2


def build(data: Path, embed: Callable[[Sequence[str]], Vector], seed: int = 7) -> list[Pair]:
    """All pairs, in an order drawn by `seed`.

    Args:
        data: the folder of the labelled sets.
        embed: unit vectors, float32[n, d], to find neighbours with.
    """
    rng = random.Random(seed)
    held = _held_back(data)
    pairs: list[Pair] = []
    for found in (_people(data, rng), _sets(data, held, embed, rng), _ruled(data, held, rng)):
        pairs += found
        say(f"  {len(pairs):,} pairs")
    unique: dict[tuple[str, str], Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.same is None):  # a label beats none
        if _usable(pair, held):
            unique.setdefault(_key(pair), pair)
    kept = list(unique.values())
    rng.shuffle(kept)
    return kept


def _key(pair: Pair) -> tuple[str, str]:
    first, second = sorted((pair.a, pair.b))
    return first, second


def _usable(pair: Pair, held: frozenset[str]) -> bool:
    if max(len(pair.a), len(pair.b)) > LONGEST or not pair.a.strip() or not pair.b.strip():
        return False
    return pair.a != pair.b and _plain(pair.a) not in held and _plain(pair.b) not in held


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a set."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _held_back(data: Path) -> frozenset[str]:
    """Texts of the streams, and texts that people have called the same as one of these."""
    texts = {
        _plain(row["prompt"]) for name in STREAMS for row in read(data / f"streams/{name}.jsonl.gz")
    }
    for row in read(data / "qqp.jsonl.gz"):
        a, b = _plain(row["a"]), _plain(row["b"])
        if row["same"] == 1 and (a in texts) != (b in texts):
            texts |= {a, b}
    return frozenset(texts)


# --------------------------------------------------------------------- labelled by people

_PAIR_SETS: dict[str, tuple[int, float]] = {
    # at most so many pairs, and what a label is worth (INDEX.md says how noisy each is)
    "qqp": (10**6, 1.0),
    "paws_qqp": (10**6, 2.0),
    "pawsx": (10**6, 1.0),
    "checklist_qqp": (9000, 0.7),
    "disfl_qa": (10**6, 0.7),
    "mqr": (10**6, 0.8),
    "query_variations": (10**6, 1.0),
    "squad_para": (10**6, 0.7),
    "spider_syn": (10**6, 1.0),
    "sts16_qq": (10**6, 1.0),
    "mrpc": (10**6, 0.2),
    "stsb_multi": (10**6, 0.4),
    "recode_prompts": (800, 0.5),
}


def _people(data: Path, rng: random.Random) -> Iterator[Pair]:
    for name, (most, weight) in _PAIR_SETS.items():
        rows = [row for row in read(data / f"{name}.jsonl.gz") if row["same"] in (0, 1)]
        rows = [row for row in rows if row.get("lang", "en") in LATIN]
        rows = [row for row in rows if not (name == "qqp" and row.get("flag") and row["same"] == 0)]
        rng.shuffle(rows)
        for row in rows[:most]:
            yield Pair(row["a"], row["b"], row["same"], name, weight)
    for row in read(data / "cqr_kvret.jsonl.gz"):
        for a, b in list(combinations(row["rewrites"], 2))[:4]:
            yield Pair(a, b, 1, "cqr_kvret", 0.5)


# ------------------------------------------------------------------------------- clusters


def _sets(
    data: Path, held: frozenset[str], embed: Callable[[Sequence[str]], Vector], rng: random.Random
) -> Iterator[Pair]:
    for found in _labelled_sets(data):
        texts = {
            text: answer
            for text, answer in zip(found.texts, found.answers, strict=True)
            if _plain(text) not in held and len(text) <= LONGEST
        }
        yield from _of_set(
            replace(found, texts=list(texts), answers=list(texts.values())),
            embed,
            rng,
        )


def _labelled_sets(data: Path) -> Iterator[Labelled]:
    # A set whose clusters hold many wordings must bring as many pairs of two clusters, or
    # "a question of this bank" is learned to be all that two questions need to share.
    yield _by("cluster_id", data, "clinc150", keep=_half, different=0.85, weight=0.6, share=6)
    yield _by("cluster_id", data, "banking77", keep=_half, different=0.8, weight=0.6, share=6)
    yield _by("cluster_id", data, "snips", weight=0.8)
    yield _by("cluster_id", data, "atis", weight=0.6, share=3)
    yield _by("cluster_id", data, "slurp", keep=lambda row: "=" in row["cluster_id"], weight=0.6)
    yield _by("cluster_id", data, "situatedqa", weight=0.6)
    yield _by("cluster_id", data, "nl2bash", different=0.75, weight=0.5)
    yield _by("cluster_id", data, "lcquad1", weight=0.8)
    yield _by("cluster_id", data, "background_prompts", weight=0.8, share=4)
    yield _by("cluster_id", data, "xquad", keep=lambda row: row["lang"] in ("en", "de", "es"))
    yield _by("cluster_id", data, "text2sql", weight=1.0, share=3)
    yield _by("cluster_id", data, "hwu64", different=0.8, weight=0.4, share=3)
    yield _by("cluster_id", data, "gsm_plus")
    questions = [row[side] for row in read(data / "qqp.jsonl.gz") for side in "ab"]
    yield Labelled("qqp_near", questions, [None] * len(questions), share=3)
    spider = read(data / "spider_syn.jsonl.gz")
    yield Labelled(
        "spider_near",
        [row[side] for row in spider for side in "ab"],
        [row["db"] + row["sql"] for row in spider for _ in "ab"],
    )
    disfluent = read(data / "disfl_qa.jsonl.gz")
    yield Labelled(
        "disfl_near",
        [row[side] for row in disfluent for side in "ab"],
        [row["id"] for row in disfluent for _ in "ab"],
        share=1,
    )
    for name in ("canard_dev", "mtrag", "cast19_22", "ikat23_25"):
        rows = read(data / f"{name}.jsonl.gz")
        rewrites = [(text, row["id"]) for row in rows for text in (row.get("rewrites") or ())[:1]]
        yield Labelled(f"{name}_near", [t for t, _ in rewrites], [None for _ in rewrites])


def _by(
    field: str,
    data: Path,
    name: str,
    *,
    keep: Callable[[dict[str, Any]], bool] = lambda _: True,
    **more: Any,
) -> Labelled:
    rows = [row for row in read(data / f"{name}.jsonl.gz") if keep(row)]
    answers = [row[field] + "#" + str(row.get("lang", "")) for row in rows]
    return Labelled(name, [row["text"] for row in rows], answers, **more)


def learned_intent(cluster: str) -> bool:
    """Whether an intent is among those that the verifier may learn from."""
    return sha256(cluster.encode()).digest()[0] % 2 == 0


def _half(row: dict[str, Any]) -> bool:
    return learned_intent(row["cluster_id"]) and _one_answer(row)


_SLOTS = frozenset(
    "translate book_flight exchange_rate book_hotel calculator definition spelling weather timer "
    "alarm distance directions measurement_conversion calories recipe transfer reminder_update "
    "todo_list_update shopping_list_update play_music text calendar_update restaurant_suggestion "
    "timezone time nutrition_info oos".split()
)


def _one_answer(row: dict[str, Any]) -> bool:
    """Whether all prompts of the intent have one answer: none of the slots of CLINC's."""
    return row["intent"] not in _SLOTS


_NO_POSITIVES = frozenset(
    # Intents without their slots; dates that happen to have one answer.
    ("hwu64", "situatedqa")
)


def _of_set(
    found: Labelled, embed: Callable[[Sequence[str]], Vector], rng: random.Random
) -> Iterator[Pair]:
    members: dict[str, list[str]] = defaultdict(list)
    for text, answer in zip(found.texts, found.answers, strict=True):
        if answer is not None:
            members[answer].append(text)
    if found.name not in _NO_POSITIVES:
        for texts in members.values():
            yield from _positives(texts, found, rng)
    if len(found.texts) > 1:
        yield from _neighbours(found, embed, rng)


def _positives(texts: Sequence[str], found: Labelled, rng: random.Random) -> Iterator[Pair]:
    """Pairs of one cluster: all of a small one, as many again as it has texts of a large one."""
    pairs = list(combinations(texts, 2)) if len(texts) <= 5 else []
    if not pairs and len(texts) > 1:
        pairs = [tuple(rng.sample(texts, 2)) for _ in range(2 * len(texts))]  # type: ignore[misc]
    for a, b in pairs:
        yield Pair(a, b, 1, found.name, found.weight)


def _neighbours(
    found: Labelled, embed: Callable[[Sequence[str]], Vector], rng: random.Random
) -> Iterator[Pair]:
    """Each text with texts of another answer: some of the nearest, some less near."""
    import faiss

    vectors = np.ascontiguousarray(embed(found.texts), dtype=np.float32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    wide = 60 if found.different < 1 else 9
    for start in range(0, len(vectors), 4096):
        similarities, ids = index.search(vectors[start : start + 4096], wide)
        for row, (scores, others) in enumerate(zip(similarities, ids, strict=True), start):
            yield from _near_pairs(found, row, scores, others, rng)


def _near_pairs(
    found: Labelled,
    row: int,
    scores: Iterable[float],
    others: Iterable[int],
    rng: random.Random,
) -> Iterator[Pair]:
    answer = found.answers[row]
    choice = [
        (int(other), float(score))
        for score, other in zip(scores, others, strict=True)
        if other != row
        and score >= 0.4
        and (answer is None or found.answers[other] is None or found.answers[other] != answer)
    ]
    half = found.share // 2
    wanted = choice[:half]
    rest = choice[half:]
    wanted += rng.sample(rest, min(found.share - half, len(rest)))
    for other, score in wanted:
        said = answer is not None and found.answers[other] is not None
        same = 0 if said and score < found.different else None
        yield Pair(found.texts[row], found.texts[other], same, f"{found.name}*", found.weight)


# ------------------------------------------------------------------------------- by rule


def _ruled(data: Path, held: frozenset[str], rng: random.Random) -> Iterator[Pair]:
    texts = [row[side] for row in read(data / "qqp.jsonl.gz") for side in "ab"]
    texts = rng.sample(texts, 30_000)
    for name in (
        "background_prompts",
        "banking77",
        "clinc150",
        "situatedqa",
        "text2sql",
        "lcquad1",
    ):
        rows = read(data / f"{name}.jsonl.gz")
        if name in ("banking77", "clinc150"):
            rows = [row for row in rows if _half(row)]
        texts += [row["text"] for row in rng.sample(rows, min(2500, len(rows)))]
    for text in dict.fromkeys(texts):
        if _plain(text) in held or len(text) > 300:
            continue
        yield Pair(text, rules.same(text, rng), 1, "rule_same", 0.6)
        changed = rules.opposite(text, rng)
        if changed is None:
            continue
        if rng.random() < 0.4:  # with other words around the change
            changed = rules.same(changed, rng)
        yield Pair(text, changed, 0, "rule_other", 0.8)
