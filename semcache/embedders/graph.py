"""A MiniLM (BERT) encoder as an ONNX graph, written straight from its weights.

Why not an exporter and a stock quantiser: those quantise activations with one scale
for the whole batch, so that a prompt's vector depends on the prompts that happen to
be embedded beside it (measured: cosine down to 0.986 for the same text), and the
same lookup could hit alone and miss in company. Here each token has its own scale:
a text's vector is the same in any batch, closer to the original (mean cosine 0.998
against 0.995), and as fast.

And why texts are packed: a padded batch of prompts of unlike length spends a third of
its time on padding, which is what a batch gains. Only attention sees a padded table.

Weights are int8 with one scale for each output column, activations uint8 with one
scale for each token (Dettmers et al. 2022, "LLM.int8()", section 2.1: row-wise and
column-wise scales). Everything else stays float32.

The word embeddings of the int8 form are no part of its file: whoever runs it looks the
tokens up. They are float16, and shared with the verifier; and mapped into memory from a
file of their own they need not be copied by every process.

Architecture: Devlin et al. 2018, as in transformers' `BertModel`; mean pooling over
tokens and normalisation as in sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from semcache.embedders import protobuf

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights: TypeAlias = Mapping[str, "NDArray[Any]"]

MICROSOFT = "com.microsoft"  # onnxruntime's own operators
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
OPSETS, FORMAT = {"": 18, MICROSOFT: 1}, 9

_FLOAT_ATTENTION = 3
"""Last layers whose query, key and value stay float32: int8 there costs the most agreement
(least cosine 0.973 without, 0.988 with) and they are an eighth of the work."""
_GELU_LEAST = 0.17


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers in a BERT `config.json` that the graph needs."""

    layers: int
    width: int
    heads: int
    epsilon: float
    positions: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Shape:
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
            config["max_position_embeddings"],
        )


@dataclass(frozen=True, slots=True)
class Quantised:
    """uint8 tokens with their scales, float32[tokens, 1], and the number that means zero."""

    tokens: str
    scales: str
    zero: int


def encoder_graph(weights: Weights, shape: Shape, *, quantised: bool) -> bytes:
    """The ONNX file of the graph from packed texts to unit vectors, float32[batch, width].

    Its inputs are the tokens of all texts one after another (int64[total]; in the int8
    form their word embeddings, float32[total, width]) with their positions, where each
    token goes when the texts are spread into a padded table (`spread` and `mask`,
    int64[batch, longest]) and back (`gathered`, int64[total]).
    """
    return Encoder(weights, shape, quantised).model()


class Encoder:
    """Writes the nodes of the graph; the verifier's graph is made of the same parts."""

    def __init__(
        self,
        weights: Weights,
        shape: Shape,
        quantised: bool,
        float_attention: int = _FLOAT_ATTENTION,
    ) -> None:
        self._weights = weights
        self._shape = shape
        self._quantised = quantised
        self._float_attention = float_attention
        self._zero_points: dict[int, str] = {}
        self._nodes: list[bytes] = []
        self._constants: dict[str, bytes] = {}

    def model(self) -> bytes:
        x = self._embed()
        self._zeros("positions")
        mask = self._node("Cast", ["mask"], to=protobuf.INT32)
        for layer in range(self._shape.layers):
            x = self._layer(x, mask, layer)
        self._pool(x)
        shapes = {
            "positions": ["total"],
            "spread": ["batch", "longest"],
            "mask": ["batch", "longest"],
            "gathered": ["total"],
        }
        inputs = [protobuf.value(name, protobuf.INT64, dims) for name, dims in shapes.items()]
        if self._quantised:
            words = protobuf.value("words", protobuf.FLOAT, ["total", self._shape.width])
        else:
            words = protobuf.value("tokens", protobuf.INT64, ["total"])
        inputs.insert(0, words)
        output = protobuf.value("embedding", protobuf.FLOAT, ["batch", self._shape.width])
        return self._file("encoder", inputs, [output])

    def _file(self, name: str, inputs: list[bytes], outputs: list[bytes]) -> bytes:
        """The model file of all nodes and constants so far."""
        constants = self._constants.values()
        return protobuf.model(
            name, self._nodes, constants, inputs, outputs, opsets=OPSETS, version=FORMAT
        )

    def _zeros(self, like: str) -> None:
        """What means zero in uint8, once for each token of `like`; for `_quantise` to use."""
        if self._quantised:
            tokens = self._node("Shape", [like])
            for zero in (0, 128):
                value = self._const(f"zero_{zero}", np.uint8(zero))
                self._zero_points[zero] = self._node("Expand", [value, tokens])

    # ------------------------------------------------------------------------- parts

    def _embed(self) -> str:
        found = "words"
        if not self._quantised:
            found = self._node(
                "Gather", [self._const("words", self._weights[WORD_EMBEDDINGS]), "tokens"]
            )
        places = (
            self._weights["embeddings.position_embeddings.weight"][: self._shape.positions]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        used = self._node("Gather", [self._const("places", places), "positions"])
        return self._norm(self._node("Add", [found, used]), "embeddings.LayerNorm")

    def _layer(self, x: str, mask: str, number: int) -> str:
        name = f"encoder.layer.{number}."
        width = self._shape.width
        attention = name + "attention.self."
        projections = [attention + part for part in ("query", "key", "value")]
        joined = np.concatenate([self._weights[p + ".weight"].T for p in projections], axis=1)
        bias = np.concatenate([self._weights[p + ".bias"] for p in projections])
        exact = number >= self._shape.layers - self._float_attention
        qkv = self._product(x if exact else self._quantise(x), joined, attention + "qkv")
        parts = [f"{attention}{part}_out" for part in "qkv"]
        self._nodes.append(
            protobuf.node("Split", [self._spread(qkv)], parts, axis=-1, num_outputs=3)
        )
        attended = self._node(
            "MultiHeadAttention",
            [*parts, self._const(attention + "bias", bias), mask],
            domain=MICROSOFT,
            num_heads=self._shape.heads,
        )
        return self._after_attention(x, self._gather(attended, width), name)

    def _after_attention(self, x: str, attended: str, name: str) -> str:
        """What a layer does with each token by itself."""
        out = self._dense(attended, name + "attention.output.dense")
        x = self._norm(self._node("Add", [out, x]), name + "attention.output.LayerNorm")
        inner = self._product(
            self._quantise(x),
            self._weights[name + "intermediate.dense.weight"].T,
            name + "intermediate",
        )
        inner_bias = self._const(
            name + "intermediate.bias", self._weights[name + "intermediate.dense.bias"]
        )
        inner = self._node("BiasGelu", [inner, inner_bias], domain=MICROSOFT)
        out = self._dense_after_gelu(inner, name + "output.dense")
        return self._norm(self._node("Add", [out, x]), name + "output.LayerNorm")

    def _pool(self, x: str) -> None:
        """The mean over tokens up to its length: normalising does away with the divisor."""
        mask = self._node("Cast", ["mask"], to=protobuf.FLOAT)
        mask = self._node("Unsqueeze", [mask, *self._ints([-1])])
        kept = self._node("Mul", [self._spread(x), mask])
        total = self._node("ReduceSum", [kept, *self._ints([1])], keepdims=0)
        self._node("LpNormalization", [total], "embedding", axis=-1, p=2)

    # --------------------------------------------------------------------- operations

    def _quantise(self, x: str) -> str | Quantised:
        """Tokens to uint8 around 128, each by its own largest absolute value."""
        if not self._quantised:
            return x
        return self._scaled(x, self._node("Abs", [x]), 127, 128)

    def _scaled(self, x: str, magnitude: str, steps: int, zero: int) -> Quantised:
        largest = self._node("ReduceMax", [magnitude, *self._ints([-1])], keepdims=0)
        scale = self._node("Mul", [largest, self._const(f"step_{steps}", np.float32(1 / steps))])
        tokens = self._node("QuantizeLinear", [x, scale, self._zero_points[zero]], axis=0)
        return Quantised(tokens, self._node("Unsqueeze", [scale, *self._ints([-1])]), zero)

    def _product(self, x: str | Quantised, matrix: NDArray[Any], name: str) -> str:
        """x @ matrix for float32[in, out]."""
        if isinstance(x, str):
            return self._node("MatMul", [x, self._const(name, matrix.astype(np.float32))])
        whole, scales = _columns_to_int8(matrix)
        product = self._node(
            "MatMulIntegerToFloat",
            [
                x.tokens,
                self._const(name, whole),
                self._const("one", np.float32(1)),
                self._const(name + "_scales", scales.astype(np.float32)),
                self._const(f"zero_{x.zero}", np.uint8(x.zero)),
            ],
            domain=MICROSOFT,
        )
        return self._node("Mul", [product, x.scales])

    def _dense(self, x: str, name: str) -> str:
        product = self._product(self._quantise(x), self._weights[name + ".weight"].T, name)
        bias = self._const(name + ".bias", self._weights[name + ".bias"])
        return self._node("Add", [product, bias])

    def _dense_after_gelu(self, x: str, name: str) -> str:
        """`_dense` for the output of GELU, which is never below -0.17.

        Moved up by that much it is never negative, and all 255 steps serve it; the bias
        takes the move back.
        """
        if not self._quantised:
            return self._dense(x, name)
        moved = self._node("Add", [x, self._const("gelu_least", np.float32(_GELU_LEAST))])
        matrix = self._weights[name + ".weight"].T
        product = self._product(self._scaled(moved, moved, 255, 0), matrix, name)
        whole, scales = _columns_to_int8(matrix)
        back = _GELU_LEAST * whole.sum(axis=0, dtype=np.float64) * scales
        bias = (self._weights[name + ".bias"] - back).astype(np.float32)
        return self._node("Add", [product, self._const(name + ".bias", bias)])

    def _norm(self, x: str, name: str) -> str:
        gain = self._const(name + ".weight", self._weights[name + ".weight"])
        shift = self._const(name + ".bias", self._weights[name + ".bias"])
        return self._node(
            "LayerNormalization", [x, gain, shift], axis=-1, epsilon=self._shape.epsilon
        )

    def _spread(self, x: str) -> str:
        """[total, width] to [batch, longest, width]"""
        return self._node("Gather", [x, "spread"], axis=0)

    def _gather(self, x: str, width: int) -> str:
        """[batch, longest, width] to [total, width]"""
        rows = self._node("Reshape", [x, *self._ints([-1, width])])
        return self._node("Gather", [rows, "gathered"], axis=0)

    def _node(
        self, op: str, inputs: list[str], output: str | None = None, domain: str = "", **attrs: Any
    ) -> str:
        output = output or f"{op}_{len(self._nodes)}"
        self._nodes.append(protobuf.node(op, inputs, [output], domain, **attrs))
        return output

    def _const(self, name: str, value: Any) -> str:
        if name not in self._constants:
            array = np.ascontiguousarray(value)
            self._constants[name] = protobuf.tensor(name, array.reshape(np.shape(value)))
        return name

    def _ints(self, *lists: list[int]) -> list[str]:
        return [
            self._const("ints_" + "_".join(map(str, values)), np.array(values, np.int64))
            for values in lists
        ]


def _columns_to_int8(matrix: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8[in, out] and the scale of each column, float32[out]."""
    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127
    whole = np.clip(np.round(matrix / scales), -127, 127).astype(np.int8)
    return whole, scales.astype(np.float32)
