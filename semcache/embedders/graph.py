"""A MiniLM (BERT) encoder as an ONNX graph, written straight from its weights.

An exporter with a stock quantiser is not used, because it quantises activations with one
scale for the whole batch: the vector of a prompt would depend on the other prompts in the
batch (measured: cosine down to 0.986 for the same text), and the same lookup could hit alone
and miss in a batch. Here each token has its own scale: the vector of a text is the same in
any batch, closer to the original (mean cosine 0.998 instead of 0.995), and as fast to compute.

Texts are packed without padding, because a padded batch of prompts of different lengths
spends a third of its time on padding, which is all that batching gains. Only attention uses
padded tensors.

Weights are int8 with one scale for each output column, activations uint8 with one
scale for each token (Dettmers et al. 2022, "LLM.int8()", section 2.1: row-wise and
column-wise scales). Everything else stays float32.

The word embeddings of the int8 form are not part of the model file: the caller looks the
tokens up. The embeddings are float16 and shared with the verifier; they are in a separate
file that is mapped into memory, so that processes do not each hold a copy.

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
"""Number of last layers whose query, key and value stay float32. In int8 they would lose the
most accuracy (minimum cosine 0.973 instead of 0.988), and they are an eighth of the work."""
_GELU_LEAST = 0.17
"""The output of GELU is never below the negative of this value."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The values of a BERT `config.json` that the graph needs."""

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
    """Names of uint8 activations and of their scales, float32[tokens, 1], and the zero point."""

    tokens: str
    scales: str
    zero: int


def encoder_graph(weights: Weights, shape: Shape, *, quantised: bool) -> bytes:
    """The ONNX file of the graph from packed texts to unit vectors, float32[batch, width].

    Its inputs are the concatenated tokens of all texts (int64[total]; in the int8 form their
    word embeddings, float32[total, width]), the position of each token in its text
    (`positions`, int64[total]), the indices that unpack the tokens into a padded tensor
    (`spread` and `mask`, int64[batch, longest]), and those that pack them again (`gathered`,
    int64[total]).
    """
    return Encoder(weights, shape, quantised).model()


class Encoder:
    """Writes the nodes of the graph; the verifier's graph uses the same building blocks."""

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
        """The model file with all nodes and constants added so far."""
        constants = self._constants.values()
        return protobuf.model(
            name, self._nodes, constants, inputs, outputs, opsets=OPSETS, version=FORMAT
        )

    def _zeros(self, like: str) -> None:
        """Add the uint8 zero points, one per token of `like`, that `_quantise` uses."""
        if self._quantised:
            tokens = self._node("Shape", [like])
            for zero in (0, 128):
                value = self._const(f"zero_{zero}", np.uint8(zero))
                self._zero_points[zero] = self._node("Expand", [value, tokens])

    # ------------------------------------------------------------------------- parts

    def _embed(self) -> str:
        words = "words"
        if not self._quantised:
            words = self._node(
                "Gather", [self._const("words", self._weights[WORD_EMBEDDINGS]), "tokens"]
            )
        table = (
            self._weights["embeddings.position_embeddings.weight"][: self._shape.positions]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        positions = self._node("Gather", [self._const("places", table), "positions"])
        return self._norm(self._node("Add", [words, positions]), "embeddings.LayerNorm")

    def _layer(self, x: str, mask: str, number: int) -> str:
        name = f"encoder.layer.{number}."
        width = self._shape.width
        attention = name + "attention.self."
        projections = [attention + part for part in ("query", "key", "value")]
        matrix = np.concatenate([self._weights[p + ".weight"].T for p in projections], axis=1)
        bias = np.concatenate([self._weights[p + ".bias"] for p in projections])
        exact = number >= self._shape.layers - self._float_attention
        qkv = self._product(x if exact else self._quantise(x), matrix, attention + "qkv")
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
        """The part of a layer after attention, which treats each token separately."""
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
        """Mean pooling, without the division: the vector is normalised anyway."""
        mask = self._node("Cast", ["mask"], to=protobuf.FLOAT)
        mask = self._node("Unsqueeze", [mask, *self._ints([-1])])
        masked = self._node("Mul", [self._spread(x), mask])
        total = self._node("ReduceSum", [masked, *self._ints([1])], keepdims=0)
        self._node("LpNormalization", [total], "embedding", axis=-1, p=2)

    # --------------------------------------------------------------------- operations

    def _quantise(self, x: str) -> str | Quantised:
        """Quantise each token to uint8 with zero point 128, by its largest absolute value."""
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
        quantised, scales = _columns_to_int8(matrix)
        product = self._node(
            "MatMulIntegerToFloat",
            [
                x.tokens,
                self._const(name, quantised),
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
        """`_dense` for the output of GELU, which is never below -`_GELU_LEAST`.

        Shifted up by that much the output is never negative, so that all 255 steps are used;
        the bias corrects for the shift.
        """
        if not self._quantised:
            return self._dense(x, name)
        shifted = self._node("Add", [x, self._const("gelu_least", np.float32(_GELU_LEAST))])
        matrix = self._weights[name + ".weight"].T
        product = self._product(self._scaled(shifted, shifted, 255, 0), matrix, name)
        quantised, scales = _columns_to_int8(matrix)
        correction = _GELU_LEAST * quantised.sum(axis=0, dtype=np.float64) * scales
        bias = (self._weights[name + ".bias"] - correction).astype(np.float32)
        return self._node("Add", [product, self._const(name + ".bias", bias)])

    def _norm(self, x: str, name: str) -> str:
        gain = self._const(name + ".weight", self._weights[name + ".weight"])
        shift = self._const(name + ".bias", self._weights[name + ".bias"])
        return self._node(
            "LayerNormalization", [x, gain, shift], axis=-1, epsilon=self._shape.epsilon
        )

    def _spread(self, x: str) -> str:
        """Unpack [total, width] into [batch, longest, width]."""
        return self._node("Gather", [x, "spread"], axis=0)

    def _gather(self, x: str, width: int) -> str:
        """Pack [batch, longest, width] into [total, width]."""
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
    """Quantise each column: int8[in, out], and the scales, float32[out]."""
    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127
    quantised = np.clip(np.round(matrix / scales), -127, 127).astype(np.int8)
    return quantised, scales.astype(np.float32)
