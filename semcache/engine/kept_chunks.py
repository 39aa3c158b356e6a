"""The chunks received so far from a stream, for its readers and for the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semcache.engine.call_options import Codec


class RestartError(Exception):
    """The stream cannot be followed, and the reader has received nothing: it can start again."""


class Kept:
    """The chunks received so far from a stream.

    Attributes:
        storable: whether the stream may be stored: the codec could convert every chunk, and no
            reader has sent a value or an error into the stream.
        seen: the chunks as the model sent them, for `store_if`.
        returned: the return value of the generator.
        fault: why a chunk cannot be stored.
        over: whether the stream has ended.
        error: the error with which it ended.
    """

    def __init__(self, codec: Codec, *, keep_seen: bool = False) -> None:
        self._codec = codec
        self._keep_seen = keep_seen
        self._chunks: list[tuple[Any, bool]] = []
        self._originals: dict[int, Any] = {}
        self.storable = True
        self.seen: list[Any] = []
        self.returned: Any = None
        self.fault: Exception | None = None
        self.over = False
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._chunks)

    def add(self, chunk: Any) -> None:
        if self._keep_seen:
            self.seen.append(chunk)
        self._originals[len(self._chunks)] = chunk
        if self.storable:
            try:
                self._chunks.append((self._codec.keep(chunk), True))
                return
            except Exception as error:
                self.storable, self.fault = False, error
        self._chunks.append((chunk, False))

    def chunk(self, position: int) -> Any:
        """A chunk: the original for the first reader that asks, a copy for each later one."""
        try:
            return self._originals.pop(position)
        except KeyError:
            pass
        kept, is_kept = self._chunks[position]
        return self._codec.load_chunk(kept) if is_kept else kept

    def raise_error(self, position: int) -> None:
        """Raise the error with which the stream ended, if there is one.

        Raises:
            RestartError: the reader that took the chunks was interrupted, and this reader has
                received nothing yet.
        """
        if self.error is None:
            return
        if isinstance(self.error, Exception):
            raise self.error
        if position == 0:
            raise RestartError
        raise RuntimeError("the stream was interrupted by another of its readers") from self.error

    @property
    def whole(self) -> list[Any] | None:
        """What `keep` returned for every chunk; None if the stream cannot be stored."""
        return [kept for kept, _ in self._chunks] if self.storable else None
