"""A cheap check, made for every stream of text, of whether it may consist of events."""

from __future__ import annotations

from collections.abc import Sequence

_BEGINNINGS = ("data:", "event:", "id:", "retry:", ":", "{")
"""How the lines of server-sent events begin, and those of JSON Lines."""
_FIRST_PIECES = 16
"""How many of the first pieces are checked."""


def may_be_events(pieces: Sequence[str]) -> bool:
    """Whether a stream begins as server-sent events or JSON Lines do."""
    return "".join(pieces[:_FIRST_PIECES]).lstrip().startswith(_BEGINNINGS)
