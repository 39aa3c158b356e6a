"""The walk of a call, and its four doors."""

from semcache.flow.doors import aanswer, answer, astream, stream
from semcache.flow.drivers import in_thread
from semcache.flow.terms import COMPLETIONS, TEXT_CHUNKS, Coalesce, Codec, Terms

__all__ = [
    "COMPLETIONS",
    "TEXT_CHUNKS",
    "Coalesce",
    "Codec",
    "Terms",
    "aanswer",
    "answer",
    "astream",
    "in_thread",
    "stream",
]
