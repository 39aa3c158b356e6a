"""Train the verifier: a large model learns from the pairs, a small one from both.

    python -m benchmarks.verifier.prepare --out WORK
    python -m benchmarks.verifier.train --pairs WORK/pairs.jsonl --evaluate WORK/evaluate.jsonl \\
        --teacher DIR-OF-all-mpnet-base-v2 --student DIR-OF-all-MiniLM-L6-v2 --out WORK
    python -m benchmarks.verifier.export --student DIR-OF-all-MiniLM-L6-v2 --trained WORK
    python -m benchmarks.verifier.prior

The teacher is all-mpnet-base-v2 as a cross-encoder; the student has the first layers of
all-MiniLM-L6-v2, its word embeddings frozen (so that they need not be shipped: the default
embedder has them), and is told of each token whether the other text has it too. It learns
from the labels and from what the teacher says of pairs, of those too that nobody labelled
(Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network"). It needs
PyTorch: `pip install ".[bench,sentence-transformers]"`.

The shipped weights took six and a half minutes on one H200 (seed 7): the teacher 90 seconds,
the student 160, the rest reading and scoring. On two cores it would take days; `--limit`
tries it out there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from semcache.verification.pair_model import LONGEST_SIDE, laid_out

LAYERS = 5
SEED = 7


@dataclass(frozen=True)
class Example:
    """Token ids of two texts, what is known of them, and how much that counts."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    label: float | None = None
    weight: float = 1.0


def say(*what: object) -> None:
    print(time.strftime("%H:%M:%S"), *what, flush=True)


# -------------------------------------------------------------------------------- models


class Teacher(nn.Module):
    """<s> a </s></s> b </s> through MPNet; the logit of "same answer" from the first token."""

    rate, epochs, batch = 6e-5, 2, 256

    def __init__(self, directory: Path) -> None:
        super().__init__()
        from transformers import AutoConfig, MPNetModel

        config = AutoConfig.from_pretrained(directory)
        self.body = MPNetModel(config, add_pooling_layer=False)
        state = load_weights(directory)
        missing, _ = self.body.load_state_dict(state, strict=False)
        assert not [name for name in missing if "position_ids" not in name], missing
        self.head = _head(config.hidden_size)

    @staticmethod
    def layout(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[list[int], list[int]]:
        return [0, *a, 2, 2, *b, 2], []

    padding = 1

    def forward(
        self,
        tokens: torch.Tensor,
        marks: torch.Tensor,  # noqa: ARG002 - it has none
        mask: torch.Tensor,
    ) -> torch.Tensor:
        found = self.body(input_ids=tokens, attention_mask=mask).last_hidden_state[:, 0]
        logits: torch.Tensor = self.head(found)[:, 0]
        return logits


class Student(nn.Module):
    """[CLS] a [SEP] b [SEP] through the first layers of MiniLM, each token marked.

    Marks: 2 x (0: first text, 1: second) + (1: the other text has this token too).
    """

    rate, epochs, batch = 2e-4, 5, 256

    def __init__(self, directory: Path, layers: int = LAYERS) -> None:
        super().__init__()
        from transformers import AutoConfig, BertModel

        config = AutoConfig.from_pretrained(directory)
        config.num_hidden_layers = layers
        self.body = BertModel(config, add_pooling_layer=False)
        missing, _ = self.body.load_state_dict(load_weights(directory), strict=False)
        assert not [name for name in missing if "position_ids" not in name], missing
        self.marks = nn.Embedding(4, config.hidden_size)
        nn.init.zeros_(self.marks.weight)
        self.head = _head(config.hidden_size)
        self.body.embeddings.word_embeddings.weight.requires_grad_(False)

    @staticmethod
    def layout(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[list[int], list[int]]:
        return laid_out(a, b)

    padding = 0

    def forward(
        self, tokens: torch.Tensor, marks: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        words = self.body.embeddings.word_embeddings(tokens) + self.marks(marks)
        found = self.body(
            inputs_embeds=words, token_type_ids=marks // 2, attention_mask=mask
        ).last_hidden_state[:, 0]
        logits: torch.Tensor = self.head(found)[:, 0]
        return logits


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 1))


def load_weights(directory: Path) -> dict[str, torch.Tensor]:
    """The weights in a directory: as published, or in parts of int8 rows with their scales."""
    from safetensors.torch import load_file

    files = sorted(directory.glob("*.safetensors"))
    state: dict[str, torch.Tensor] = {}
    for file in files:
        state |= load_file(file)
    for name in [name for name in state if name.endswith(".rows")]:
        plain = name.removesuffix(".rows")
        state[plain] = state.pop(name).float() * state.pop(plain + ".scales").float()[:, None]
    return {name: value.float() for name, value in state.items() if "position_ids" not in name}


# ------------------------------------------------------------------------------- batches


def tokenised(directory: Path, texts: Sequence[str]) -> list[tuple[int, ...]]:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST_SIDE + 2)
    return [tuple(found.ids[1:-1]) for found in tokenizer.encode_batch(list(texts))]


def batches(
    examples: Sequence[Example], size: int, rng: np.random.Generator | None
) -> Iterator[NDArray[np.int64]]:
    """Indexes of examples of like length; in chance's order where there is chance."""
    lengths = np.array([len(e.a) + len(e.b) for e in examples])
    if rng is None:
        order = np.argsort(lengths, kind="stable")
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    order = rng.permutation(len(examples))
    pool = size * 64
    groups = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(lengths[part], kind="stable")]
        groups += [part[i : i + size] for i in range(0, len(part), size)]
    yield from (groups[i] for i in rng.permutation(len(groups)))


def tensors(
    model: Any, examples: Sequence[Example], chosen: NDArray[np.int64], swap: Any, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    laid = []
    for i in chosen:
        e = examples[i]
        laid.append(
            model.layout(e.b, e.a) if swap is not None and swap() else model.layout(e.a, e.b)
        )
    longest = -(-max(len(tokens) for tokens, _ in laid) // 8) * 8
    tokens = np.full((len(laid), longest), model.padding, np.int64)
    marks = np.zeros((len(laid), longest), np.int64)
    mask = np.zeros((len(laid), longest), np.int64)
    for row, (ids, found) in enumerate(laid):
        tokens[row, : len(ids)] = ids
        marks[row, : len(found)] = found
        mask[row, : len(ids)] = 1
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(part).to(device, non_blocking=True) for part in (tokens, marks, mask)
    )


# ------------------------------------------------------------------------------ training


def train(
    model: Any, examples: Sequence[Example], device: str, *, epochs: float, seconds: float
) -> None:
    """Adam over shuffled batches, the rate rising for a twentieth and falling to nothing."""
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    model.to(device).train()
    labels = torch.tensor([e.label for e in examples], dtype=torch.float32, device=device)
    weights = torch.tensor([e.weight for e in examples], dtype=torch.float32, device=device)
    per_epoch = -(-len(examples) // model.batch)
    total = int(per_epoch * epochs)
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(wanted, lr=model.rate, weight_decay=0.01, betas=(0.9, 0.98))
    start, step = time.time(), 0
    while step < total:
        for chosen in batches(examples, model.batch, rng):
            # By the clock where there is less of it than was planned for.
            done = max(step / total, (time.time() - start) / seconds)
            if done >= 1:
                step = total
                break
            rise = min(1.0, step / (0.05 * total))
            for group in optimiser.param_groups:
                group["lr"] = model.rate * rise * 0.5 * (1 + math.cos(math.pi * done))
            inputs = tensors(model, examples, chosen, lambda: rng.random() < 0.5, device)
            with torch.autocast(device, torch.bfloat16):
                logits = model(*inputs)
            picked = torch.from_numpy(chosen).to(device)
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits.float(), labels[picked], reduction="none"
            )
            loss = (losses * weights[picked]).sum() / weights[picked].sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(wanted, 1.0)
            optimiser.step()
            step += 1
            if step % 200 == 0 or step == 20:
                taken = time.time() - start
                say(f"  step {step:,} of {total:,}, loss {loss.item():.4f}, {taken:.0f} s")


@torch.no_grad()
def scored(model: Any, examples: Sequence[Example], device: str) -> NDArray[np.float32]:
    """The logit of each pair, the mean over both orders."""
    model.to(device).eval()
    out = np.zeros(len(examples), np.float32)
    for chosen in batches(examples, 1024, None):
        for turned in (False, True):
            inputs = tensors(model, examples, chosen, lambda t=turned: t, device)
            with torch.autocast(device, torch.bfloat16):
                out[chosen] += 0.5 * model(*inputs).float().cpu().numpy()
    return out


def examples_of(
    directory: Path, pairs: Sequence[Sequence[Any]], labels: Sequence[float | None]
) -> list[Example]:
    texts = list(dict.fromkeys(side for pair in pairs for side in pair[:2]))
    ids = dict(zip(texts, tokenised(directory, texts), strict=True))
    return [
        Example(ids[a], ids[b], label, weight)
        for (a, b, _, _, weight), label in zip(pairs, labels, strict=True)
    ]


def blended(
    pairs: Sequence[Sequence[Any]], teacher: NDArray[np.float32], trust: float = 0.6
) -> list[float]:
    """What the student is to say: the teacher's word, and the label's where there is one."""
    said = 1 / (1 + np.exp(-teacher.astype(np.float64)))
    return [
        float(p) if pair[2] is None else trust * float(p) + (1 - trust) * pair[2]
        for p, pair in zip(said, pairs, strict=True)
    ]


def average_precision(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    order = np.argsort(-scores)
    hits = labels[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def report(pairs: Sequence[Sequence[Any]], scores: NDArray[np.float32], what: str) -> None:
    """How well the labels of each source come out."""
    for source in sorted({pair[3] for pair in pairs}):
        rows = [i for i, pair in enumerate(pairs) if pair[3] == source and pair[2] is not None]
        labels = np.array([bool(pairs[i][2]) for i in rows])
        if len(rows) < 20:
            continue
        right = float(((scores[rows] > 0) == labels).mean())
        more = (
            f", AP {average_precision(labels, scores[rows]):.3f}" if 0 < labels.mean() < 1 else ""
        )
        say(f"  {what} {source}: {len(rows)} pairs, {right:.3f} right{more}")


def lines(path: Path, limit: int | None = None) -> list[list[Any]]:
    with path.open(encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return found if limit is None else found[:limit]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=Path, required=True, help="from benchmarks.verifier.prepare"
    )
    parser.add_argument("--evaluate", type=Path, help="labelled pairs to score, never learned from")
    parser.add_argument("--teacher", type=Path, help="directory of all-mpnet-base-v2")
    parser.add_argument("--student", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only so many pairs, to try it out")
    parser.add_argument("--seconds", type=float, default=1e9, help="the most that one model learns")
    parser.add_argument("--epochs", type=float)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    pairs = lines(args.pairs, args.limit)
    held = pairs[: len(pairs) // 50]
    others = lines(args.evaluate, args.limit) if args.evaluate else []
    said = args.out / "teacher.npz"
    if args.teacher:
        teach(args, pairs, len(held), others, said, device)
    if args.student:
        learn(args, pairs, len(held), others, np.load(said)["pairs"], device)


def teach(args: Any, pairs: Any, held: int, others: Any, said: Path, device: str) -> None:
    """The teacher learns from labels and says what it thinks of all pairs."""
    say("teacher: reading")
    examples = examples_of(args.teacher, pairs, [pair[2] for pair in pairs])
    model = Teacher(args.teacher)
    known = [e for e in examples[held:] if e.label is not None]
    say(f"teacher: {len(known):,} pairs")
    train(model, known, device, epochs=args.epochs or model.epochs, seconds=args.seconds)
    found = scored(model, examples, device)
    report(pairs[:held], found[:held], "held back:")
    more = scored(model, examples_of(args.teacher, others, [None] * len(others)), device)
    report(others, more, "never seen:")
    np.savez(said, pairs=found.astype(np.float16), others=more.astype(np.float16))
    say("teacher: done")


def learn(
    args: Any, pairs: Any, held: int, others: Any, teacher: NDArray[np.float32], device: str
) -> None:
    """The student learns from labels and teacher."""
    from safetensors.torch import save_file

    say("student: reading")
    examples = examples_of(args.student, pairs, blended(pairs, teacher))
    model = Student(args.student)
    say(f"student: {len(examples) - held:,} pairs")
    train(model, examples[held:], device, epochs=args.epochs or model.epochs, seconds=args.seconds)
    found = scored(model, examples[:held], device)
    report(pairs[:held], found, "held back:")
    more = scored(model, examples_of(args.student, others, [None] * len(others)), device)
    report(others, more, "never seen:")
    np.savez(args.out / "student.npz", others=more.astype(np.float16))
    state = {
        name: value.half().contiguous().cpu()
        for name, value in model.state_dict().items()
        if "word_embeddings" not in name and "position_ids" not in name
    }
    names = list(state)
    half = len(names) // 2
    save_file({n: state[n] for n in names[:half]}, args.out / "student-1.safetensors")
    save_file({n: state[n] for n in names[half:]}, args.out / "student-2.safetensors")
    say("student: done")


if __name__ == "__main__":
    main()
