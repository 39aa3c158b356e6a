"""The values that flow through semcache. All are immutable: a change returns a new value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semcache.types.base import JSON, Source, Tier
from semcache.types.completions import (
    NO_USAGE,
    UNFINISHED,
    AttemptReport,
    AttemptResult,
    Chunk,
    Completion,
    Usage,
)
from semcache.types.decisions import (
    Candidate,
    Decision,
    Evidence,
    Explore,
    Finding,
    Hit,
    Lookup,
    Miss,
    MissReason,
    NeighbourAgreement,
    Neighbours,
)
from semcache.types.entries import ChangeCursor, Entry, LeaseHolder, Neighbour, NewEntry, Selection
from semcache.types.labels import Observation, ObservationKind, PendingComparison, ServedHit
from semcache.types.requests import (
    DEFAULT_NAMESPACE,
    EXACT_ONLY,
    Handling,
    MediaPart,
    Message,
    OpaquePart,
    Part,
    Personal,
    Query,
    Request,
    Scope,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from semcache.types.base import Vector

__all__ = [
    "DEFAULT_NAMESPACE",
    "EXACT_ONLY",
    "JSON",
    "NO_USAGE",
    "UNFINISHED",
    "AttemptReport",
    "AttemptResult",
    "Candidate",
    "ChangeCursor",
    "Chunk",
    "Completion",
    "Decision",
    "Entry",
    "Evidence",
    "Explore",
    "Finding",
    "Handling",
    "Hit",
    "LeaseHolder",
    "Lookup",
    "MediaPart",
    "Message",
    "Miss",
    "MissReason",
    "Neighbour",
    "NeighbourAgreement",
    "Neighbours",
    "NewEntry",
    "Observation",
    "ObservationKind",
    "OpaquePart",
    "Part",
    "PendingComparison",
    "Personal",
    "Query",
    "Request",
    "Scope",
    "Selection",
    "ServedHit",
    "Source",
    "TextPart",
    "Tier",
    "ToolCallPart",
    "ToolResultPart",
    "Usage",
    "Vector",
]
