"""The walk of a call, and its four doors."""

from semcache.engine.call_options import COMPLETIONS, TEXT_CHUNKS, Coalesce, Codec, Terms
from semcache.engine.calls import aanswer, answer, astream, stream
from semcache.engine.drivers import in_thread

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
