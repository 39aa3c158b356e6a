"""Train the shipped pair model further, on more labelled pairs, and export it again.

    python -m benchmarks.verifier.prepare --data ../shared/data --out WORK
    python -m benchmarks.verifier.fine_tune --minilm DIR-OF-all-MiniLM-L6-v2 \\
        --general WORK/pairs.jsonl --pairs benchmarks/data/verifier_pairs.jsonl \\
        --clusters benchmarks/data/verifier_clusters.jsonl --out WORK

The weights are read back from the shipped file, so that the large model that taught it is not
needed. The new pairs are everyday questions written for this project: honest paraphrases and
traps of the same questions. A cluster is one question in several wordings, beside questions that
lie close to it but need another answer; pairs are drawn from it. So that nothing is forgotten,
pairs that it learned from before come along, whose target is half their label and half what the
model said before; and what is exported is a mean of the weights before and after (M. Wortsman et
al., "Robust fine-tuning of zero-shot models", CVPR 2022).

It needs PyTorch and onnx: `pip install ".[bench,sentence-transformers]" onnx`. On two cores it
learns from about 150 pairs a second.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.verifier.train import (
    LAYERS,
    SEED,
    Example,
    Student,
    average_precision,
    batches,
    examples_of,
    say,
    tensors,
    train,
)
from semcache.verification.pair_model import MODEL_FILE, PairModel

HONEST, TRAPS, AMONG_TRAPS = 12, 13, 2
"""Pairs drawn from a cluster: of the same question; of different ones; of two of its traps."""
_GELU_LEAST = 0.17
"""As in `semcache.embedders.graph`: the bias of the second dense layer is corrected for it."""


def shipped_state(file: Path = MODEL_FILE) -> dict[str, torch.Tensor]:
    """The weights in an exported file, by the names of `Student`, without the word embeddings."""
    import onnx.numpy_helper

    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(file).graph.initializer
    }

    def matrix(name: str) -> NDArray[Any]:
        found = stored[name].astype(np.float32)
        return found * stored[f"{name}_scales"] if f"{name}_scales" in stored else found

    state: dict[str, NDArray[Any]] = {
        "marks.weight": stored["marks_table"],
        "head.0.weight": stored["head_inner"].T,
        "head.0.bias": stored["head_inner_bias"],
        "head.3.weight": stored["head_outer"].T,
        "head.3.bias": stored["head_outer_bias"],
        "body.embeddings.token_type_embeddings.weight": np.zeros((2, 384), np.float32),
    }
    for name, value in stored.items():
        if "LayerNorm" in name:
            state[f"body.{name}"] = value
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        attention = layer + "attention.self."
        if f"{attention}qkv" in stored:
            parts = np.split(matrix(f"{attention}qkv"), 3, axis=1)
        else:
            parts = [matrix(f"{attention}q"), *np.split(matrix(f"{attention}kv"), 2, axis=1)]
        biases = np.split(stored[f"{attention}bias"], 3)
        for part, weight, bias in zip(("query", "key", "value"), parts, biases, strict=True):
            state[f"body.{attention}{part}.weight"] = weight.T
            state[f"body.{attention}{part}.bias"] = bias
        dense = layer + "attention.output.dense"
        state[f"body.{dense}.weight"] = matrix(dense).T
        state[f"body.{dense}.bias"] = stored[f"{dense}.bias"]
        state[f"body.{layer}intermediate.dense.weight"] = matrix(f"{layer}intermediate").T
        state[f"body.{layer}intermediate.dense.bias"] = stored[f"{layer}intermediate.bias"]
        out = matrix(f"{layer}output.dense")
        state[f"body.{layer}output.dense.weight"] = out.T
        state[f"body.{layer}output.dense.bias"] = stored[
            f"{layer}output.dense.bias"
        ] + _GELU_LEAST * out.sum(axis=0)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}


def shipped_student(minilm: Path) -> Student:
    """The shipped pair model, as it can be trained."""
    model = Student(minilm)
    state = model.state_dict()
    import onnx.numpy_helper

    stored = {t.name: t for t in onnx.load(MODEL_FILE).graph.initializer}
    places = onnx.numpy_helper.to_array(stored["places"])
    state["body.embeddings.position_embeddings.weight"][: len(places)] = torch.from_numpy(
        places.copy()
    )
    state.update(shipped_state())
    model.load_state_dict(state)
    return model


@torch.no_grad()
def logits(model: Student, examples: Sequence[Example], device: str) -> NDArray[np.float32]:
    """The logit of each pair, in the order in which it stands."""
    model.to(device).eval()
    out = np.zeros(len(examples), np.float32)
    for chosen in batches(examples, 256, None):
        inputs = tensors(model, examples, chosen, None, device)
        out[chosen] = model(*inputs).float().cpu().numpy()
    return out


def read_pairs(paths: Sequence[Path]) -> list[tuple[str, str, float]]:
    """Lines of {"a": ..., "b": ..., "same": ...}."""
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [(row["a"], row["b"], float(row["same"])) for row in rows]


def pairs_of_clusters(path: Path) -> list[tuple[str, str, float]]:
    """Pairs drawn from the clusters of a file, as many honest ones as traps.

    Each line is {"same": [...], "different": [...]}: wordings of one question, and questions that
    need another answer, also from each other.
    """
    rng = random.Random(SEED)
    pairs: list[tuple[str, str, float]] = []
    for line in path.read_text().splitlines():
        cluster = json.loads(line)
        same, different = cluster["same"], cluster["different"]
        drawn = [
            (_sampled(combinations(same, 2), HONEST, rng), 1.0),
            (_sampled(product(different, same), TRAPS - AMONG_TRAPS, rng), 0.0),
            (_sampled(combinations(different, 2), AMONG_TRAPS, rng), 0.0),
        ]
        for chosen, label in drawn:
            for a, b in chosen:
                pairs.append((a, b, label) if rng.random() < 0.5 else (b, a, label))
    rng.shuffle(pairs)
    return pairs


def _sampled(
    pairs: Iterable[tuple[str, str]], count: int, rng: random.Random
) -> list[tuple[str, str]]:
    found = list(pairs)
    return rng.sample(found, min(count, len(found)))


def labelled(minilm: Path, pairs: Sequence[tuple[str, str, float]], weight: float) -> list[Example]:
    """Examples of (a, b, label), all of one weight."""
    rows = [(a, b, label, "", weight) for a, b, label in pairs]
    return examples_of(minilm, rows, [label for *_, label in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minilm", type=Path, required=True, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--general", type=Path, required=True, help="pairs.jsonl of prepare")
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help="the new pairs")
    parser.add_argument("--clusters", type=Path, nargs="*", default=[], help="new clusters")
    parser.add_argument("--evaluate", type=Path, nargs="*", default=[], help="pairs held back")
    parser.add_argument(
        "--evaluate-clusters", type=Path, nargs="*", default=[], help="clusters held back"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mix", type=float, default=0.6, help="share of the new weights")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--weight", type=float, default=2.0, help="of a new pair")
    parser.add_argument(
        "--general-share", type=float, default=2.0, help="general pairs per new one"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(SEED)
    model = shipped_student(args.minilm)
    pairs = [*read_pairs(args.pairs), *chain(*map(pairs_of_clusters, args.clusters))]
    new = labelled(args.minilm, pairs, args.weight)
    with args.general.open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row[2] is not None]
    count = min(len(rows), int(len(new) * args.general_share * args.epochs))
    rows = [rows[i] for i in rng.choice(len(rows), count, replace=False)]
    say(f"{len(new):,} new pairs, {len(rows):,} general ones")
    general = labelled(args.minilm, [(a, b, float(same)) for a, b, same, *_ in rows], 1.0)
    before = 1 / (1 + np.exp(-logits(model, general, device)))
    general = [
        Example(e.a, e.b, 0.5 * float(p) + 0.5 * (e.label or 0.0), row[4])
        for e, p, row in zip(general, before, rows, strict=True)
    ]
    held = {path.stem: read_pairs([path]) for path in args.evaluate}
    held |= {path.stem: pairs_of_clusters(path) for path in args.evaluate_clusters}
    for name, pairs in held.items():
        _report(model, args.minilm, pairs, f"before: {name}", device)
    model.rate, model.batch = args.rate, 64
    old = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, [*new * args.epochs, *general], device, epochs=1, seconds=1e9)
    mixed = {
        name: torch.lerp(old[name].to(value.device), value, args.mix)
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    model.load_state_dict(mixed, strict=False)
    for name, pairs in held.items():
        _report(model, args.minilm, pairs, f"after: {name}", device)
    _export(model, args.minilm, args.out)


def _report(
    model: Student, minilm: Path, pairs: list[tuple[str, str, float]], what: str, device: str
) -> None:
    scores = logits(model, labelled(minilm, pairs, 1.0), device)
    labels = np.array([bool(same) for *_, same in pairs])
    right = float(((scores > 0) == labels).mean())
    say(f"  {what}: AP {average_precision(labels, scores):.4f}, {right:.3f} right")


def _export(model: Student, minilm: Path, out: Path) -> None:
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    state = {
        name: value.float().contiguous().cpu()
        for name, value in model.state_dict().items()
        if "word_embeddings" not in name and "position_ids" not in name
    }
    save_file(state, out / "student-1.safetensors")
    say(f"now: python -m benchmarks.verifier.export --student {minilm} --trained {out}")


def check(minilm: Path) -> float:
    """The largest difference between the file and what is read back from it, in log-odds."""
    texts = [("How do I reset my password?", "how can i reset my password"), ("a dog", "a cat")]
    file = PairModel().logits(texts)
    model = shipped_student(minilm)
    read = logits(model, labelled(minilm, [(a, b, 0.0) for a, b in texts], 1.0), "cpu")
    return float(np.abs(np.array(file) - read).max())


if __name__ == "__main__":
    main()
