"""Plots of results. Colours are Okabe and Ito's, which colour-blind people tell apart."""

from __future__ import annotations

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
