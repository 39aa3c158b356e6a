"""Plots of results. Colours are Okabe and Ito's, which colour-blind people tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

BLUE, GREY = "#0072B2", "#999999"
_TITLES = {
    "exact_hit": ("Exact hit", "canonical JSON\n+ SHA-256 + SELECT"),
    "semantic_hit": ("Semantic hit", "tokenise\n+ onnxruntime"),
    "miss_and_record": ("Miss and record", "tokenise\n+ onnxruntime"),
}


def latency(result: dict[str, Any], path: Path) -> None:
    """Median and 95th percentile of each operation beside its floor, by size."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), layout="constrained")
    for axis, (name, (title, floor_name)) in zip(axes, _TITLES.items(), strict=True):
        _panel(axis, result["sizes"], name, title, floor_name)
    axes[0].set_ylabel("milliseconds (bar: median, line: 95th percentile)")
    machine = result["environment"]["machine"]
    figure.suptitle(f"What a call costs, beside the least it can cost  ({machine})", fontsize=11)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150, metadata=_undated(suffix))
    plt.close(figure)


def _panel(axis: Any, sizes: list[dict[str, Any]], name: str, title: str, floor_name: str) -> None:
    labels = []
    for place, figures in enumerate(sizes):
        ours = figures[name]
        for offset, found, colour in ((-0.2, ours["floor"], GREY), (0.2, ours, BLUE)):
            axis.bar(place + offset, found["p50_ms"], 0.36, color=colour)
            axis.plot([place + offset] * 2, [found["p50_ms"], found["p95_ms"]], color=colour, lw=1)
        axis.annotate(
            f"{ours['ratio_p50']:.2f} ×",
            (place + 0.2, ours["p95_ms"]),
            ha="center",
            va="bottom",
            color=BLUE,
            fontweight="bold",
        )
        labels.append(f"{figures['entries']:,}")
    axis.set_xticks(range(len(sizes)), labels)
    axis.set_xlabel("entries")
    axis.set_title(title)
    axis.margins(y=0.15)
    axis.text(0.02, 0.97, "semcache", color=BLUE, transform=axis.transAxes, va="top")
    axis.text(
        0.02, 0.90, f"floor: {floor_name}", color="#666666", transform=axis.transAxes, va="top"
    )
    axis.set_ylim(top=axis.get_ylim()[1] * 1.25)
    axis.spines[["top", "right"]].set_visible(False)


def _undated(suffix: str) -> dict[str, Any]:
    return {"Date": None} if suffix == ".svg" else {}


# ----------------------------------------------------------------------------- replays

RIGHT, WRONG = BLUE, "#D55E00"
_INK = "#333333"


def replayed(name: str, found: Sequence[tuple[dict[str, Any], list[Any]]], path: Path) -> None:
    """Four views of a stream's replays: frontier, time, kinds, similarities. PNG and SVG.

    Args:
        found: (figures, outcomes) of each policy.
        path: without a suffix.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    prompts = found[0][0]["prompts"]
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    shown = _middle(found)
    _frontier(axes[0, 0], [one for one, _ in found])
    _over_time(axes[0, 1], *shown)
    _by_kind(axes[1, 0], shown[0])
    _similarities(axes[1, 1], *min(found, key=lambda one: -len(_served(one[1]))))
    figure.suptitle(f"{name}: {prompts:,} prompts replayed through the real cache", fontsize=13)
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(f"{path}{suffix}", dpi=130, metadata=_undated(suffix))
    plt.close(figure)


def _served(outcomes: Sequence[Any]) -> list[Any]:
    return [outcome for outcome in outcomes if outcome.end == "semantic"]


def _middle(found: Sequence[tuple[dict[str, Any], list[Any]]]) -> tuple[dict[str, Any], list[Any]]:
    """The policy that the views of one policy show: threshold 0.9 if it is there."""
    named = [one for one in found if one[0]["policy"] == "fixed 0.9"]
    return named[0] if named else found[len(found) // 2]


def _frontier(axis: Any, results: Sequence[dict[str, Any]]) -> None:
    fixed = [r for r in results if r["policy"].startswith("fixed") and r["semantic_hits"]]
    others = [r for r in results if not r["policy"].startswith("fixed") and r["semantic_hits"]]

    def place(r: dict[str, Any]) -> tuple[float, float]:
        return r["false_hit_rate"] * 100, r["semantic_hits"] / r["prompts"] * 100

    if fixed:
        x, y = zip(*map(place, fixed), strict=True)
        axis.plot(x, y, "-o", color=GREY, ms=4, lw=1)
        for r in fixed:
            axis.annotate(
                r["policy"].split()[1], place(r), xytext=(4, 3), textcoords="offset points",
                fontsize=8, color=_INK,
            )  # fmt: skip
    for r in others:
        axis.plot(*place(r), "D", color=BLUE, ms=7)
        axis.annotate(r["policy"], place(r), xytext=(7, -3), textcoords="offset points", color=BLUE)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("false hit rate: wrong among served semantic hits (%)")
    axis.set_ylabel("served semantic hits (% of prompts)")
    axis.set_title("What each threshold serves, and how much of it is wrong", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _over_time(axis: Any, result: dict[str, Any], outcomes: Sequence[Any]) -> None:
    import numpy as np

    hits = np.cumsum([o.end in ("exact", "semantic") for o in outcomes])
    wrong = np.cumsum([o.right is False for o in outcomes])
    known = np.cumsum([o.known for o in outcomes])
    arrived = np.arange(1, len(outcomes) + 1)
    for place, (line, colour, label) in enumerate((
        (known, GREY, "an oracle's hits"),
        (hits, RIGHT, "hits"),
        (wrong, WRONG, "of these, wrong"),
    )):  # fmt: skip
        axis.plot(arrived, line, color=colour)
        axis.text(
            0.03, 0.95 - 0.06 * place, f"{label}: {int(line[-1]):,}", transform=axis.transAxes,
            va="top", color=colour if colour != GREY else _INK,
        )  # fmt: skip
    axis.set_xlabel("prompts, in order of arrival")
    axis.set_ylabel("so far")
    axis.set_title(f"Over time, with {result['policy']}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _by_kind(axis: Any, result: dict[str, Any]) -> None:
    kinds = [(k, v) for k, v in result["by_kind"].items() if v["semantic_hits"]]
    kinds.sort(key=lambda one: one[1]["false_hits"] / one[1]["semantic_hits"])
    for place, (_kind, found) in enumerate(kinds):
        right = found["semantic_hits"] - found["false_hits"]
        axis.barh(place, right, color=RIGHT)
        axis.barh(place, found["false_hits"], left=right, color=WRONG)
        axis.annotate(
            f"{found['false_hits']:,} of {found['semantic_hits']:,} wrong",
            (found["semantic_hits"], place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color=_INK,
        )  # fmt: skip
    axis.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind, _ in kinds])
    axis.margins(x=0.3)
    axis.set_xlabel("semantic hits (blue: right, orange: wrong)")
    axis.set_title(f"By kind of prompt, with {result['policy']}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _similarities(axis: Any, result: dict[str, Any], outcomes: Sequence[Any]) -> None:
    import numpy as np

    served = _served(outcomes)
    values = {right: [o.similarity for o in served if o.right is right] for right in (True, False)}
    low = min((v for found in values.values() for v in found), default=0.7)
    bins = np.linspace(low, 1.0, 41 if len(served) > 2000 else 16)
    for right, colour, label in ((True, RIGHT, "right"), (False, WRONG, "wrong")):
        counts, _ = np.histogram(values[right], bins)
        axis.stairs(counts, bins, color=colour, lw=1.6)
        if counts.any():
            top = int(counts.argmax())
            axis.annotate(
                f"{label} ({len(values[right]):,})", (bins[top], counts[top]), xytext=(0, 5),
                textcoords="offset points", color=colour,
            )  # fmt: skip
    axis.set_xlabel("cosine similarity of the nearest stored question")
    axis.set_ylabel("prompts")
    axis.set_title(f"Right and wrong neighbours, at or above {result['policy']}", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def peers(result: dict[str, Any], path: Path) -> None:
    """Each cache's frontier on each stream, and what a lookup takes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    streams = list(result["peers"]["semcache"]["replays"])
    colours = dict(
        zip(result["peers"], (BLUE, WRONG, "#009E73", "#CC79A7", GREY, "#000000"), strict=False)
    )
    columns = 2 if len(streams) > 1 else len(streams) + 1
    rows = -(-(len(streams) + 1) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(6.5 * columns, 5 * rows), layout="constrained", squeeze=False
    )
    axes = list(grid.flat)[: len(streams) + 1]
    for axis, stream in zip(axes, streams, strict=False):
        _peers_frontier(axis, result, stream, colours)
    last = axes[-1]
    shown = [(name, found) for name, found in result["peers"].items() if "hit" in found]
    for place, (name, found) in enumerate(reversed(shown)):
        last.barh(place + 0.2, found["hit"]["p50_ms"], 0.35, color=colours[name])
        last.barh(place - 0.2, found["miss"]["p50_ms"], 0.35, color=colours[name], alpha=0.45)
        last.annotate(
            f"hit {found['hit']['p50_ms']:.2f}, miss {found['miss']['p50_ms']:.2f} ms",
            (max(found["hit"]["p50_ms"], found["miss"]["p50_ms"]), place), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    last.set_yticks(range(len(shown)), [name for name, _ in reversed(shown)])
    last.margins(x=0.4)
    last.set_xlabel("milliseconds a lookup, without the embedding (median)")
    last.set_title(f"at {result['entries']:,} entries", fontsize=10)
    last.spines[["top", "right"]].set_visible(False)
    figure.suptitle("semcache and its rivals, same vectors, same run")
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=130, metadata=_undated(suffix))
    plt.close(figure)


def _peers_frontier(
    axis: Any, result: dict[str, Any], stream: str, colours: dict[str, str]
) -> None:
    """Caches that serve the same at every threshold are one line; their defaults are points."""

    def place(said: dict[str, Any]) -> tuple[float, float]:
        return (said["false_hit_rate"] or 0.0) * 100, said["hit_rate"] * 100

    lines: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, found in result["peers"].items():
        replays = found["replays"].get(stream, {})
        wanted = [f"{at:g}" for at in result["grid"]] if "hit" in found else list(replays)
        points = tuple(place(replays[at]) for at in wanted if replays[at]["semantic_hits"])
        lines.setdefault(points, []).append(name)
    for points, names in lines.items():
        x, y = zip(*points, strict=True)
        shared = len(names) > 1
        colour = GREY if shared else colours[names[0]]
        axis.plot(x, y, "o-", color=colour, ms=4, lw=1)
        label = "fixed thresholds, 0.80 to 0.98:\n" + ", ".join(names) if shared else names[0]
        middle = len(points) // 2
        axis.annotate(
            label, points[middle], xytext=(8, -14 if shared else 6), textcoords="offset points",
            fontsize=8, color=_INK if shared else colour,
        )  # fmt: skip
    defaults: dict[tuple[float, float], list[str]] = {}
    for name, found in result["peers"].items():
        said = found["replays"].get(stream, {}).get(f"{found.get('default_threshold', 0):g}")
        if said is not None and said["semantic_hits"]:
            defaults.setdefault(place(said), []).append(name)
    widest = max(x for points in lines for x, _ in points)
    for point, names in defaults.items():
        left = point[0] > 0.4 * widest
        axis.plot(*point, "D", color=colours[names[0]], ms=6)
        axis.annotate(
            f"{' and '.join(names)}: default", point, xytext=(-6 if left else 6, 6),
            textcoords="offset points", ha="right" if left else "left", fontsize=8,
            color=colours[names[0]],
        )  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("false hit rate: wrong among served (%)")
    axis.set_ylabel("served (% of prompts)")
    axis.set_title(stream, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


# --------------------------------------------------------------------------- the bound

_TITLE_OF = {
    "s1_qqp": "Quora questions",
    "s2_tenants": "eight tenants' FAQs",
    "s3_zipf": "popular and one-off",
    "s4_near_miss": "near-misses",
    "s5_multiturn": "conversations",
    "support": "support (our own)",
}
_RULE = "#009E73"


def frontiers(streams: dict[str, Any], path: Path) -> None:
    """Served against wrong, for each stream and for each kind of near-miss. PNG and SVG.

    Args:
        path: without a suffix; the kinds go to `path` + "-by-kind".
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = 3
    rows = -(-len(streams) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(12.5, 4.1 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(streams) :]:
        axis.set_visible(False)
    for axis, (name, found) in zip(axes.flat, streams.items(), strict=False):
        _bound_panel(axis, _TITLE_OF.get(name, name), found)
    figure.supxlabel("wrong among served semantic hits (%)", fontsize=10)
    figure.supylabel("served semantic hits (% of prompts)", fontsize=10)
    _save(figure, path)
    shown = [n for n in ("s4_near_miss", "support", "s2_tenants", "s5_multiturn") if n in streams]
    if shown:
        _kinds({name: streams[name] for name in shown}, path.with_name(f"{path.name}-by-kind"))


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(f"{path}{suffix}", dpi=130, metadata=_undated(suffix))
    plt.close(figure)


def _bound_panel(axis: Any, title: str, found: dict[str, Any]) -> None:
    def place(r: dict[str, Any]) -> tuple[float, float]:
        return (r["false_hit_rate"] or 0.0) * 100, r["semantic_hits"] / r["prompts"] * 100

    fixed = [place(r) for r in found["fixed"] if r["semantic_hits"]]
    ours = [place(r) for r in found["cold"] if r["semantic_hits"]]
    rule = [place(r) for r in found["vcache"] if r["semantic_hits"]]
    x, y = zip(*fixed, strict=True)
    axis.plot(x, y, "-o", color=GREY, ms=3, lw=1)
    axis.annotate("fixed thresholds", fixed[len(fixed) // 2], xytext=(6, -10),
                  textcoords="offset points", color="#666666", fontsize=8)  # fmt: skip
    for places, marker, colour, label in ((rule, "s", _RULE, "vCache's rule"),
                                          (ours, "D", BLUE, "semcache")):  # fmt: skip
        if places:
            axis.plot(*zip(*places, strict=True), marker, ls="-", lw=1, color=colour, ms=6)
            axis.annotate(label, places[-1], xytext=(7, 2), textcoords="offset points",
                          color=colour, fontsize=8, fontweight="bold")  # fmt: skip
    for rate in (2, 5, 10):
        axis.axvline(rate, color=WRONG, lw=0.6, ls=":")
    low = min((p[0] for p in fixed), default=0.0)
    axis.set_xlim(-0.5, max(25.0, low + 10))
    top = max([p[1] for p in ours] + [p[1] for p in fixed if p[0] <= 25] + [1.0])
    axis.set_ylim(0, top * 1.15)
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _kinds(streams: dict[str, Any], path: Path) -> None:
    """Of each kind of prompt: what was served wrong and right, at 0.9 and with the bound."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(streams), figsize=(4.1 * len(streams), 6), layout="constrained", squeeze=False
    )
    for axis, (name, found) in zip(axes.flat, streams.items(), strict=True):
        fixed = next(r for r in found["fixed"] if r["policy"] == "fixed 0.9")
        ours = found["cold"][1]
        kinds = sorted(fixed["by_kind"], key=lambda k: fixed["by_kind"][k]["prompts"])
        for row, kind in enumerate(kinds):
            for offset, one, strong in ((0.2, fixed, 0.45), (-0.2, ours, 1.0)):
                said = one["by_kind"].get(kind)
                if said is None:
                    continue
                wrong = said["false_hits"] / said["prompts"] * 100
                right = said["semantic_hits"] / said["prompts"] * 100 - wrong
                axis.barh(row + offset, right, 0.38, color=BLUE, alpha=strong)
                axis.barh(row + offset, wrong, 0.38, left=right, color=WRONG, alpha=strong)
        axis.set_yticks(range(len(kinds)), kinds, fontsize=8)
        axis.set_title(_TITLE_OF.get(name, name), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        "served semantic hits (% of the kind's prompts): right in blue, wrong in orange; "
        "pale: threshold 0.90, full: semcache at 5%",
        fontsize=9,
    )
    _save(figure, path)


def soak(result: dict[str, Any], path: Path) -> None:
    """Memory of the processes and size of the files over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, name, title in (
        (axes[0], "memory_mb", "resident memory of a process, MB"),
        (axes[1], "file_mb", "size of the cache's files, MB"),
    ):
        at, value = zip(*result[name], strict=True)
        axis.plot([second / 60 for second in at], value, ".", color=BLUE, markersize=3)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("minutes")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    lives = result["processes_started"]
    figure.suptitle(f"TTLs, evictions, invalidations and {lives} processes at random", fontsize=11)
    _save(figure, path.with_suffix(""))


def large(result: dict[str, Any], path: Path) -> None:
    """What calls cost by the number of entries, against their floors, and what it all takes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = result["sizes"]
    entries = [figures["entries"] for figures in sizes]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
    for name, colour, title in (
        ("semantic_hit", BLUE, "semantic hit"),
        ("miss", "#E69F00", "miss"),
        ("exact_hit", "#009E73", "exact hit"),
        ("record", "#CC79A7", "record"),
    ):
        for axis, value in (
            (axes[0], [figures[name]["ratio_p50"] for figures in sizes]),
            (axes[1], [figures[name]["p50_ms"] for figures in sizes]),
        ):
            axis.plot(entries, value, "o-", color=colour, label=title, markersize=4)
    axes[0].set_title("median, as a ratio to its floor", fontsize=10)
    axes[0].set_ylim(bottom=0)
    axes[1].set_title("median, milliseconds", fontsize=10)
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=8, frameon=False)
    recall = [figures["recall"]["recall_at_1"] for figures in sizes]
    axes[2].plot(entries, recall, "o-", color=BLUE, markersize=4)
    axes[2].axhline(0.98, color=GREY, lw=1, ls=":")
    axes[2].set_ylim(0.9, 1.005)
    axes[2].set_title("recall@1 against exact search", fontsize=10)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xlabel("entries")
        axis.spines[["top", "right"]].set_visible(False)
    machine = result["environment"]["machine"]
    figure.suptitle(f"Cost against size  ({machine})", fontsize=11)
    _save(figure, path.with_suffix(""))
