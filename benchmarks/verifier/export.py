"""The trained student as the ONNX file that semcache ships, held against the original.

    python -m benchmarks.verifier.export --student DIR --trained DIR

int8 weights and activations as in the embedder's graph; the word embeddings are no part of
it: whoever runs it looks them up in the default embedder's own table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.common import say
from benchmarks.verifier.train import LAYERS
from semcache.embedders import protobuf
from semcache.embedders.graph import MICROSOFT, Encoder, Shape, Weights
from semcache.verification.pair_model import LONGEST_SIDE, MODEL_FILE

_POSITIONS = 2 * LONGEST_SIDE + 3


class PairEncoder(Encoder):
    """[CLS] a [SEP] b [SEP] to one number; only [CLS] is followed through the last layer."""

    def model(self) -> bytes:
        x = self._embed()
        self._zeros("positions")
        mask = self._node("Cast", ["mask"], to=protobuf.INT32)
        for layer in range(self._shape.layers - 1):
            x = self._layer(x, mask, layer)
        first = self._last_layer(x, mask, self._shape.layers - 1)
        self._head(first)
        width = self._shape.width
        inputs = [
            protobuf.value("words", protobuf.FLOAT, ["total", width]),
            *(
                protobuf.value(name, protobuf.INT64, dims)
                for name, dims in {
                    "positions": ["total"],
                    "marks": ["total"],
                    "spread": ["batch", "longest"],
                    "mask": ["batch", "longest"],
                    "gathered": ["total"],
                    "first": ["batch"],
                }.items()
            ),
        ]
        output = protobuf.value("logit", protobuf.FLOAT, ["batch"])
        return self._file("verifier", inputs, [output])

    def _embed(self) -> str:
        places = self._weights["embeddings.position_embeddings.weight"][:_POSITIONS]
        # A mark says which text a token is of, and whether the other text has it too.
        kinds = self._weights["embeddings.token_type_embeddings.weight"].repeat(2, axis=0)
        marks = self._weights["marks.weight"] + kinds
        x = self._node(
            "Add", ["words", self._node("Gather", [self._const("places", places), "positions"])]
        )
        x = self._node(
            "Add", [x, self._node("Gather", [self._const("marks_table", marks), "marks"])]
        )
        return self._norm(x, "embeddings.LayerNorm")

    def _last_layer(self, x: str, mask: str, number: int) -> str:
        """`_layer` for [CLS] alone: it asks all tokens, and only it goes on."""
        name = f"encoder.layer.{number}."
        width = self._shape.width
        attention = name + "attention.self."
        parts: dict[str, NDArray[Any]] = {
            part: self._weights[f"{attention}{part}.weight"].T for part in ("query", "key", "value")
        }
        first = self._node("Gather", [x, "first"], axis=0)
        query = self._product(first, parts["query"], attention + "q")
        both = np.concatenate([parts["key"], parts["value"]], axis=1)
        kv = self._product(self._quantise(x), both, attention + "kv")
        halves = [attention + "k_out", attention + "v_out"]
        self._nodes.append(
            protobuf.node("Split", [self._spread(kv)], halves, axis=-1, num_outputs=2)
        )
        bias = np.concatenate([self._weights[f"{attention}{p}.bias"] for p in parts])
        attended = self._node(
            "MultiHeadAttention",
            [
                self._node("Unsqueeze", [query, *self._ints([1])]),
                *halves,
                self._const(attention + "bias", bias),
                mask,
            ],
            domain=MICROSOFT,
            num_heads=self._shape.heads,
        )
        self._zeros("first")
        return self._after_attention(
            first, self._node("Reshape", [attended, *self._ints([-1, width])]), name
        )

    def _head(self, x: str) -> None:
        inner = self._product(x, self._weights["head.0.weight"].T, "head_inner")
        inner = self._node(
            "Add", [inner, self._const("head_inner_bias", self._weights["head.0.bias"])]
        )
        inner = self._node("Tanh", [inner])
        out = self._product(inner, self._weights["head.3.weight"].T, "head_outer")
        out = self._node("Add", [out, self._const("head_outer_bias", self._weights["head.3.bias"])])
        self._node("Squeeze", [out, *self._ints([-1])], "logit")


def trained_weights(directory: Path) -> dict[str, NDArray[Any]]:
    """The student's weights, float32, by the names of `BertModel`."""
    found: dict[str, NDArray[Any]] = {}
    for file in sorted(directory.glob("student-*.safetensors")):
        found |= load_file(file)
    return {name.removeprefix("body."): value.astype(np.float32) for name, value in found.items()}


def pair_graph(weights: Weights, shape: Shape, *, quantised: bool = True) -> bytes:
    """The ONNX file of the verifier; see `PairEncoder`."""
    return PairEncoder(weights, shape, quantised, float_attention=0).model()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--student", type=Path, required=True, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--trained", type=Path, required=True, help="what training wrote")
    parser.add_argument("--out", type=Path, default=MODEL_FILE)
    args = parser.parse_args()
    config = json.loads((args.student / "config.json").read_text())
    shape = dataclasses.replace(Shape.from_config(config), layers=LAYERS)
    graph = pair_graph(trained_weights(args.trained), shape)
    args.out.write_bytes(graph)
    say(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
