"""Writes an ONNX model file: the few messages of the format that our graphs are made of.

The `onnx` package does this too, but it and what it brings would be 28 MB of every
installation, to be used for a form of the model that few ask for.

Field numbers: onnx.proto of ONNX 1.16 (`onnx/onnx.proto`), in protocol buffers' wire format
("Encoding", protobuf.dev). A test has the `onnx` package read what is written here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT, INT32, INT64 = 1, 6, 7
"""Element types of `TensorProto.DataType` that inputs, outputs and casts name."""

_ELEMENT = {
    "float32": FLOAT, "uint8": 2, "int8": 3, "int32": INT32, "int64": INT64, "float16": 10,
}  # fmt: skip
_VARINT, _LENGTH, _FIXED32 = 0, 2, 5
_IS_FLOAT, _IS_INT = 1, 2  # AttributeProto.AttributeType


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any
) -> bytes:
    """A NodeProto; attributes are whole numbers or floats."""
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
    """A TensorProto with the elements in raw form, which is little-endian."""
    raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    kind = _ELEMENT[array.dtype.name]
    dims = [_number(1, size) for size in array.shape]
    return b"".join([*dims, _number(2, kind), _text(8, name), _head(9, len(raw)), raw])


def value(name: str, kind: int, shape: Iterable[str | int]) -> bytes:
    """A ValueInfoProto of a tensor; a size that is not known beforehand has a name."""
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
        opsets: the version of each domain of operators; version: of the format.
    """
    graph: list[bytes] = []
    for number, messages in ((1, nodes), (5, constants), (11, inputs), (12, outputs)):
        for message in messages:
            graph += (_head(number, len(message)), message)
    graph.append(_text(2, name))
    # Joined once: the weights are most of it.
    return b"".join(
        [
            _number(1, version),
            _head(7, sum(map(len, graph))),
            *graph,
            *(_field(8, _text(1, domain) + _number(2, v)) for domain, v in opsets.items()),
        ]
    )


def _attribute(name: str, given: float) -> bytes:
    if isinstance(given, float):
        found = _varint(2 << 3 | _FIXED32) + struct.pack("<f", given) + _number(20, _IS_FLOAT)
    else:
        found = _number(3, given) + _number(20, _IS_INT)
    return _text(1, name) + found


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    return _head(number, len(content)) + content


def _head(number: int, length: int) -> bytes:
    """What stands before a field of so many bytes."""
    return _varint(number << 3 | _LENGTH) + _varint(length)


def _number(number: int, given: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(given)


def _varint(given: int) -> bytes:
    """Seven bits a byte, lowest first; a negative number as 64 bits of two's complement."""
    rest = given & 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)
