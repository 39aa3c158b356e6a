"""An index on disk, so that a cache opens without reading every vector from the store.

One file: a line of JSON (the header) under a checksum of its own, and then the
sections it names, one after another. The header says for which store and embedder it
was made and how far it had followed the store; a CRC-32 covers all sections. A
snapshot is only a copy: where anything does not fit, it is thrown away and the index
rebuilt from the store.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcache.indexes.partition import Flat, Lists

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMAT = "semcache-index-1"
_MAX_HEADER = 1 << 30


class SnapshotError(Exception):
    """The snapshot cannot be used; the index must be rebuilt."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What ties a snapshot to its store.

    Attributes:
        store_id: the store's own random id.
        fingerprint: the embedder whose vectors these are.
        last_id, last_deletion: how far the index had followed the store.
    """

    store_id: str
    fingerprint: str
    last_id: int = 0
    last_deletion: int = 0


def save(path: Path, facts: Facts, dimension: int, parts: Mapping[bytes, Flat | Lists]) -> None:
    """Write beside `path` and move into place."""
    sections = list(_sections(parts))
    crc = 0
    for _, data in sections:
        crc = zlib.crc32(data.data, crc)
    header = {
        "format": _FORMAT,
        "dimension": dimension,
        "facts": asdict(facts),
        "crc32": crc,
        "sections": [{**meta, "bytes": data.nbytes} for meta, data in sections],
    }
    handle, name = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    line = json.dumps(header).encode()
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(b"%08x %s\n" % (zlib.crc32(line), line))
            for _, data in sections:
                file.write(data.data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _sections(
    parts: Mapping[bytes, Flat | Lists],
) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    flat = {scope: rows for scope, rows in parts.items() if isinstance(rows, Flat)}
    if flat:
        counts = [rows.count for rows in flat.values()]
        scopes = np.frombuffer(b"".join(flat), np.uint8)
        yield {"kind": "scopes", "counts": counts}, scopes
        yield {"kind": "ids"}, _bytes(np.concatenate([rows.ids for rows in flat.values()]))
        yield {"kind": "vectors"}, _bytes(np.concatenate([rows.vectors for rows in flat.values()]))
    for scope, rows in parts.items():
        if isinstance(rows, Lists):
            yield {"kind": "lists", "scope": scope.hex(), "made_for": rows.made_for}, rows.dump()


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def load(path: Path, expected: Facts, dimension: int) -> tuple[Facts, dict[bytes, Flat | Lists]]:
    """Read a snapshot made for this store, embedder and dimension.

    Raises:
        SnapshotError: it is missing, damaged, or was made for another.
    """
    try:
        with path.open("rb") as file:
            header = _header(file.readline(_MAX_HEADER))
            facts = _checked(header, expected, dimension)
            body = np.fromfile(file, np.uint8)
        if zlib.crc32(body.data) != header["crc32"]:
            raise SnapshotError(f"{path} is damaged (its checksum does not match)")
        return facts, _parts(header["sections"], body, dimension)
    except SnapshotError:
        raise
    except Exception as error:
        raise SnapshotError(f"{path} cannot be read: {error}") from error


def _header(line: bytes) -> Any:
    """The header, if its own checksum says that it is whole."""
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if int(checksum, 16) != zlib.crc32(text):
        raise SnapshotError("the snapshot's header is damaged")
    return json.loads(text)


def _checked(header: Any, expected: Facts, dimension: int) -> Facts:
    if header["format"] != _FORMAT or header["dimension"] != dimension:
        raise SnapshotError("the snapshot has another format or dimension")
    facts = Facts(**header["facts"])
    if replace(facts, last_id=0, last_deletion=0) != replace(expected, last_id=0, last_deletion=0):
        raise SnapshotError("the snapshot was made for another store or embedder")
    if facts.last_id > expected.last_id or facts.last_deletion > expected.last_deletion:
        raise SnapshotError("the snapshot is ahead of the store")
    return facts


def _parts(
    sections: list[dict[str, Any]], body: NDArray[np.uint8], dimension: int
) -> dict[bytes, Flat | Lists]:
    parts: dict[bytes, Flat | Lists] = {}
    at = 0
    held: dict[str, tuple[dict[str, Any], NDArray[np.uint8]]] = {}
    for section in sections:
        data = body[at : at + section["bytes"]]
        at += section["bytes"]
        if section["kind"] == "lists":
            parts[bytes.fromhex(section["scope"])] = Lists.load(data, section["made_for"])
        else:
            held[section["kind"]] = (section, data)
    if at != len(body):
        raise SnapshotError("the snapshot is cut short")
    if held:
        parts.update(_flat_parts(held, dimension))
    return parts


def _flat_parts(
    held: Mapping[str, tuple[dict[str, Any], NDArray[np.uint8]]], dimension: int
) -> dict[bytes, Flat | Lists]:
    section, scopes = held["scopes"]
    ids = held["ids"][1].view(np.int64)
    vectors = held["vectors"][1].view(np.float32).reshape(-1, dimension)
    parts: dict[bytes, Flat | Lists] = {}
    start = 0
    for number, count in enumerate(section["counts"]):
        rows = Flat(dimension, capacity=max(count, 1))
        rows.add(ids[start : start + count], vectors[start : start + count])
        parts[scopes[32 * number : 32 * number + 32].tobytes()] = rows
        start += count
    return parts
