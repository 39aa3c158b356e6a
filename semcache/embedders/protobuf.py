"""Writes ONNX model files; covers only the messages that semcache's graphs need.

The `onnx` package does this too, but with its dependencies it would add 28 MB to every
installation, for a form of the model that few users need.

Field numbers are those of onnx.proto in ONNX 1.16 (`onnx/onnx.proto`); the wire format is that
of protocol buffers ("Encoding", protobuf.dev). A test reads the output with the `onnx` package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT, INT32, INT64 = 1, 6, 7
"""Element types (`TensorProto.DataType`) of inputs, outputs and casts."""

_ELEMENT = {
    "float32": FLOAT, "uint8": 2, "int8": 3, "int32": INT32, "int64": INT64, "float16": 10,
}  # fmt: skip
_VARINT, _LENGTH_DELIMITED, _FIXED32 = 0, 2, 5
_IS_FLOAT, _IS_INT = 1, 2  # AttributeProto.AttributeType


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
) -> bytes:
    """A NodeProto; attributes are ints or floats."""
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            *(_text(2, name) for name in outputs),
            _text(4, op),
            *(_field(5, _attribute(name, value)) for name, value in sorted(attributes.items())),
            _text(7, domain),
        ]
    )


def tensor(name: str, array: NDArray[Any]) -> bytes:
    """A TensorProto with the elements as raw little-endian data."""
    raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    kind = _ELEMENT[array.dtype.name]
    dims = [_number(1, size) for size in array.shape]
    return b"".join([*dims, _number(2, kind), _text(8, name), _length_prefix(9, len(raw)), raw])


def value(name: str, kind: int, shape: Iterable[str | int]) -> bytes:
    """A ValueInfoProto of a tensor; a string in `shape` names a dynamic dimension."""
    sizes = [_text(2, size) if isinstance(size, str) else _number(1, size) for size in shape]
    dims = b"".join(_field(1, size) for size in sizes)
    tensor_type = _number(1, kind) + _field(2, dims)
    return _text(1, name) + _field(2, _field(1, tensor_type))


def model(
    name: str,
    nodes: Iterable[bytes],
    constants: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    *,
    opsets: dict[str, int],
    version: int,
) -> bytes:
    """A ModelProto with one graph.

    Args:
        opsets: the operator set version of each domain.
        version: the version of the file format (IR version).
    """
    graph: list[bytes] = []
    for number, messages in ((1, nodes), (5, constants), (11, inputs), (12, outputs)):
        for message in messages:
            graph += (_length_prefix(number, len(message)), message)
    graph.append(_text(2, name))
    # Joined only once, since the weights are large.
    return b"".join(
        [
            _number(1, version),
            _length_prefix(7, sum(map(len, graph))),
            *graph,
            *(_field(8, _text(1, domain) + _number(2, v)) for domain, v in opsets.items()),
        ]
    )


def _attribute(name: str, content: float) -> bytes:
    if isinstance(content, float):
        encoded = _varint(2 << 3 | _FIXED32) + struct.pack("<f", content) + _number(20, _IS_FLOAT)
    else:
        encoded = _number(3, content) + _number(20, _IS_INT)
    return _text(1, name) + encoded


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    return _length_prefix(number, len(content)) + content


def _length_prefix(number: int, length: int) -> bytes:
    """The tag and the length that precede a field of `length` bytes."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _number(number: int, integer: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(integer)


def _varint(integer: int) -> bytes:
    """Encode seven bits per byte, lowest first; negative numbers as 64-bit two's complement."""
    rest = integer & 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
