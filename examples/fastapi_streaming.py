"""A web service that streams answers, from the model or from the cache.

uvicorn examples.fastapi_streaming:app
curl -N localhost:8000/ask -d '{"prompt": "How do I reset my password?"}' \
    -H 'content-type: application/json' -H 'x-tenant: acme'
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import semcache

DIRECTORY = os.environ.get("CACHE", os.path.join(tempfile.gettempdir(), "semcache-example"))
MODEL = "support-1"


class Question(BaseModel):
    prompt: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One cache for the process; several workers may open the same directory."""
    with semcache.SemanticCache(DIRECTORY) as cache:
        app.state.cache = cache
        yield


app = FastAPI(lifespan=lifespan)


async def ask_model(request: semcache.Request) -> AsyncIterator[str]:
    """Stands for your model: pieces of an answer, as they are written."""
    for word in ("Open ", "Settings, ", "choose ", "Security, ", "and follow the link."):
        await asyncio.sleep(0.05)
        yield word


@app.post("/ask")
async def ask(
    request: Request, question: Question, x_tenant: Annotated[str, Header()] = "default"
) -> StreamingResponse:
    cache: semcache.SemanticCache = request.app.state.cache
    pieces = cache.astream(question.prompt, ask_model, model=MODEL, namespace=x_tenant)
    return StreamingResponse(pieces, media_type="text/plain")


@app.get("/stats")
async def stats(request: Request) -> dict[str, int]:
    found = request.app.state.cache.stats()
    return {"exact": found.exact_hits, "semantic": found.semantic_hits, "entries": found.entries}
