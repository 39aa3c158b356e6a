"""The results in one page: python -m benchmarks.report writes benchmarks/results/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import (
    durability,
    large,
    latency,
    peers,
    poisoning,
    processes,
    routing,
    side_channel,
    soak,
    throughput,
    verifying,
)
from benchmarks.common import RESULTS, say


def load(name: str) -> dict[str, Any] | None:
    """A committed result, if it is there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def page() -> str:
    """The page, from whatever results there are."""
    parts = [
        "# Results",
        "Written by `python -m benchmarks.report` from the JSON files beside it. Figures are of "
        "one machine with two shared cores; what counts are ratios within one run.",
    ]
    hit_rate, vcache = load("hit_rate"), load("hit_rate_vcache")
    if hit_rate is not None:
        parts += ["## Hit rate and false hits", _about(hit_rate), *_streams(hit_rate, vcache)]
    if (found := load("bound")) is not None:
        parts += ["## The bound", _about(found), bound(found)]
        parts.append("![frontiers](../../docs/frontiers.png)")
    if (found := load("demo")) is not None:
        parts += ["## A day at two support desks", _about(found), demo(found)]
    if (found := load("pairs")) is not None:
        parts += ["## Single pairs, nothing learned", _about(found), pairs(found)]
    if (found := load("frontier")) is not None:
        parts += ["## Ranking, with a threshold chosen with hindsight", _about(found)]
        parts.append(frontier(found))
    if (found := load("verifying")) is not None:
        parts += ["## What looking costs", _about(found), verifying.table(found)]
    if (found := load("poisoning")) is not None:
        parts += ["## Answers of an attacker", _about(found), poisoning.table(found)]
    if (found := load("side_channel")) is not None:
        parts += ["## What the time of an answer tells", _about(found), side_channel.table(found)]
    if (found := load("hit_rate_sanity")) is not None:
        parts += ["## Beside another program's replay", _about(found), _beside(found)]
    if (found := load("peers")) is not None:
        parts += [
            "## Rivals",
            _about(found),
            f"Lookups without the embedding ({found['embedding']['p50_ms']:.2f} ms, the same for "
            f"all), at {found['entries']:,} entries; served and wrong on `support` without its "
            "conversations. A tenant's answer is offered to its own alone.",
            peers.table(found),
            "![rivals](peers.png)",
            "Not here: " + "; ".join(f"**{n}**: {why}" for n, why in found["absent"].items()) + ".",
        ]
    if (found := load("latency")) is not None:
        parts += ["## Latency", _about(found), latency.table(found), "![latency](latency.png)"]
    if (found := load("latency_large")) is not None:
        parts += ["## A million entries", _about(found), large.table(found)]
        parts.append("![cost against size](latency_large.png)")
    if (found := load("durability")) is not None:
        parts += ["## Killed at any moment", _about(found), durability.table(found)]
    if (found := load("processes")) is not None:
        parts += ["## Processes", _about(found), processes.table(found)]
    if (found := load("soak")) is not None:
        parts += ["## Ten minutes of everything", _about(found), soak.table(found)]
        parts.append("![memory and file size](soak.png)")
    if (found := load("throughput")) is not None:
        parts += ["## Throughput", _about(found), throughput.table(found)]
    routes, batch = load("routing"), load("batch")
    if routes is not None and batch is not None:
        parts += ["## Router and batches", _about(routes), routing.table(routes, batch)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _about(found: dict[str, Any]) -> str:
    where = found["environment"]
    return f"`{where['command']}` at commit {where['commit']}, {where['when']}, {where['machine']}."


ELSEWHERE = {
    "s1_qqp": (0.200, 0.0568),
    "s2_tenants": (0.192, 0.0085),
    "s3_zipf": (0.428, 0.0041),
    "s4_near_miss": (0.367, 0.2173),
    "s5_multiturn": (0.266, 0.0568),
}
"""Served, and served wrongly, of all prompts at 0.90, as the streams' makers replayed them."""


def _beside(result: dict[str, Any]) -> str:
    """Our replay and theirs at 0.90, and why scopes make another figure of s5."""
    lines = [
        "At 0.90, with the last message only, exact search, and texts cut at 128 tokens as the "
        "model's own tokenizer does by default:",
        "",
        "| stream | served, here | there | wrong, here | there |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, (hit, wrong) in ELSEWHERE.items():
        rows = {row["policy"]: row for row in result["streams"][name]}
        ours = rows["fixed 0.9"]
        lines.append(
            f"| {name} | {ours['hit_rate']:.1%} | {hit:.1%} | {ours['error_rate']:.2%} | "
            f"{wrong:.2%} |"
        )
    scoped = load("hit_rate")
    if scoped is not None:
        rows = {row["policy"]: row for row in scoped["streams"]["s5_multiturn"]}
        said = rows["fixed 0.9"]
        lines += [
            "",
            "With its scopes semcache serves "
            f"{said['hit_rate']:.1%} of s5 at 0.90 and {said['error_rate']:.2%} wrongly: the "
            "conversation before a question belongs to its scope, so the same last words in "
            "another conversation find nothing. What is lost with them are standalone rewrites, "
            "asked without the conversation that they sum up.",
        ]
    return "\n".join(lines)


def _streams(result: dict[str, Any], vcache: dict[str, Any] | None) -> list[str]:
    parts = []
    for name, rows in result["streams"].items():
        more = [] if vcache is None else vcache["streams"].get(name, [])
        parts += [f"### {name}", hit_rates([*rows, *more])]
        if (RESULTS / f"{name}.png").exists():
            parts.append(f"![{name}]({name}.png)")
    return parts


def hit_rates(rows: list[dict[str, Any]]) -> str:
    """Policies over one stream, in Markdown."""
    first = rows[0]
    lines = [
        f"{first['prompts']:,} prompts; an oracle would serve {first['oracle_hit_rate']:.1%}; "
        f"{first['exact_hits']:,} word-for-word hits at the first policy.",
        "",
        "| policy | hit rate | semantic hits | false hits | false hit rate (95%) | error rate | "
        "calls saved | labels |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        rate, interval = row["false_hit_rate"], row["false_hit_interval"]
        told = "-" if rate is None else f"{rate:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"
        lines.append(
            f"| {row['policy']} | {row['hit_rate']:.1%} | {row['semantic_hits']:,} | "
            f"{row['false_hits']:,} | {told} | {row['error_rate']:.2%} | {row['calls_saved']:,} | "
            f"{row['labels_bought']:,} |"
        )
    return "\n".join(lines)


def overview(result: dict[str, Any]) -> str:
    """The table of docs/explanation/thresholds.md: streams at three thresholds."""
    shown = ("fixed 0.85", "fixed 0.9", "fixed 0.95")
    lines = [
        "| stream | prompts | an oracle | "
        + " | ".join(n.replace("fixed ", "") for n in shown)
        + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(shown),
    ]
    for name, rows in result["streams"].items():
        by_name = {row["policy"]: row for row in rows}
        cells = []
        for policy in shown:
            row = by_name[policy]
            rate = row["false_hit_rate"]
            told = "nothing served" if rate is None else f"{rate:.0%} of semantic hits wrong"
            cells.append(f"{row['hit_rate']:.1%}, {told}")
        first = rows[0]
        lines.append(
            f"| {name} | {first['prompts']:,} | {first['oracle_hit_rate']:.1%} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def bound(result: dict[str, Any]) -> str:
    """Every stream at every bound: saved, wrong, beside the best of the others, and kept."""
    ways = ("cold", "reversed", "warm", "measured judge")
    lines = [
        "| stream | bound | saved | wrong | 2nd half | explored | best fixed | ratio | vCache | "
        + " | ".join(f"kept, {way}" for way in ways)
        + " |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |" + " --- |" * len(ways),
    ]
    for name, found in result["streams"].items():
        for place, row in enumerate(found["table"]):
            cold = found["cold"][place]
            ratio = "-" if row["ratio_to_fixed"] is None else f"{row['ratio_to_fixed']:.1f} ×"
            cells = [_kept(found, way, place, row) for way in ways]
            lines.append(
                f"| {name} | {row['rate']:.0%} | {row['saved']:,} | {_rate(cold)} | "
                f"{_rate(cold['halves'][1])} | {cold['labels_bought']:,} | "
                f"{row['best_fixed']:,} | {ratio} | {row['vcache']:,} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _rate(said: dict[str, Any]) -> str:
    rate = said["false_hit_rate"]
    return "-" if rate is None else f"{rate:.1%}"


def _kept(found: dict[str, Any], way: str, place: int, row: dict[str, Any]) -> str:
    if way not in found:
        return ""
    said = found[way][place]
    verdict = "yes" if row["kept"][way] else "**no**"
    return f"{verdict} ({said['semantic_hits']:,}, {_rate(said)})"


def bound_in_short(result: dict[str, Any]) -> str:
    """The table of docs/results.md: what is served at each bound, beside fixed thresholds."""
    rates = [row["rate"] for row in next(iter(result["streams"].values()))["table"]]
    lines = [
        "| stream | prompts | "
        + " | ".join(f"at most {rate:.0%} wrong" for rate in rates)
        + " | best fixed at 5% | threshold 0.9 |",
        "| --- | ---: |" + " ---: |" * (len(rates) + 2),
    ]
    for name, found in result["streams"].items():
        cells = []
        for place in range(len(rates)):
            measured, known = found["measured judge"][place], found["cold"][place]
            cells.append(
                f"{measured['semantic_hits']:,} hits, {_rate(measured)} wrong "
                f"({known['semantic_hits']:,}, {_rate(known)})"
            )
        cells.append(f"{found['table'][1]['best_fixed']:,} hits")
        fixed = next(r for r in found["fixed"] if r["policy"] == "fixed 0.9")
        cells.append(f"{fixed['semantic_hits']:,} hits, {_rate(fixed)} wrong")
        lines.append(f"| {name} | {found['prompts']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def demo(result: dict[str, Any]) -> str:
    """Hits and wrong ones on the demo's stream, and on the one full of near-misses."""
    lines = [
        "| policy | day: semantic hits, of "
        f"{result['streams']['day'][0]['oracle_semantic_hits']} | wrong | near-misses: semantic "
        f"hits, of {result['streams']['near_misses'][0]['oracle_semantic_hits']} | wrong |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for day, hard in zip(*result["streams"].values(), strict=True):
        if "threshold" in day:
            name = f"threshold {day['threshold']:.2f}"
        else:
            name = f"at most {day['max_false_hit_rate']:.0%} wrong, draw {day['seed']}"
        cells = [
            f"{one['semantic_hits']} | {sum(wrong for _, wrong in one['halves'])}"
            for one in (day, hard)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def pairs(result: dict[str, Any]) -> str:
    """Honest paraphrases and traps that a new cache serves."""
    lines = [
        "| pairs | at most | honest ones served | traps served |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['file']} | {row['max_false_hit_rate']:.0%} | {row['served_same']} of "
        f"{row['same']} | {row['served_different']} of {row['different']} |"
        for row in result["runs"]
    ]
    return "\n".join(lines)


def frontier(result: dict[str, Any]) -> str:
    """Right answers above the best threshold: by the verifier, and by the cosine."""
    rates = list(next(iter(result["streams"].values()))["hits"])
    lines = [
        "| stream | candidates | "
        + " | ".join(f"at {float(rate):.0%} wrong" for rate in rates)
        + " | without learning | by cosine |",
        "| --- | ---: |" + " ---: |" * (len(rates) + 2),
    ]
    for name, found in result["streams"].items():
        hits = " | ".join(f"{hits:,}" for hits in found["hits"].values())
        others = " | ".join(
            " / ".join(f"{hits:,}" for hits in found[ranking].values())
            for ranking in ("hits_cold", "hits_by_cosine")
        )
        lines.append(f"| {name} | {found['candidates']:,} | {hits} | {others} |")
    return "\n".join(lines)


def main() -> None:
    path: Path = RESULTS / "README.md"
    path.write_text(page())
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
