"""One small driver for each cache: open, put, get, close.

Run by each cache's own Python, so nothing here imports semcache or the other benchmarks at the
top. `threshold` is a cosine similarity; None leaves the cache's own default. Vectors of length
1 are given by `embed`, the same for all; what each cache makes of the threshold:

- GPTCache: FAISS gives squared L2 = 2 - 2 cos; a hit needs 4 - L2^2 >= 4 t, so t = (1 + cos) / 2.
  Its default of 0.8 is cosine 0.6. No tenants: one cache for each. It evicts at 1,000 entries
  unless told otherwise, and writes its index every 20 puts.
- redisvl and langchain-redis: cosine distance = 1 - cos; defaults 0.1 and 0.2 are cosine 0.9
  and 0.8. Tenants: a tag field; a key prefix with an index of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from semcache import Matching

DIMENSION = 384
Embed = Callable[[str], Any]


class Driver:
    """What is asked of each cache. Seconds of import and opening are noted."""

    import_s = 0.0
    open_s = 0.0

    def put(self, prompt: str, answer: str, tenant: str) -> None:
        raise NotImplementedError

    def get(self, prompt: str, tenant: str) -> str | None:
        raise NotImplementedError

    def close(self) -> None:
        """Give everything back in order."""


class Semcache(Driver):
    """semcache with a fixed threshold; its scopes are its tenants."""

    def __init__(
        self, directory: str, embed: Embed, threshold: float | None, **options: Any
    ) -> None:
        start = time.perf_counter()
        import numpy as np

        from semcache import SemanticCache
        from semcache.embedders.function import FunctionEmbedder

        self.import_s = time.perf_counter() - start
        start = time.perf_counter()
        embedder = FunctionEmbedder(
            lambda texts: np.stack([embed(text) for text in texts]),
            name="given",
            dimension=DIMENSION,
        )
        self._cache = SemanticCache(
            directory, embedder=embedder, threshold=threshold, matching=Matching(embed_timeout=None)
        )
        self.open_s = time.perf_counter() - start

    def put(self, prompt: str, answer: str, tenant: str) -> None:
        self._cache.put(prompt, answer, namespace=tenant)

    def get(self, prompt: str, tenant: str) -> str | None:
        found = self._cache.get(prompt, namespace=tenant)
        return None if found is None else found.text

    def close(self) -> None:
        self._cache.close()


class Tutorial(Driver):
    """What tutorials show: a list of vectors, a loop of dot products, nothing on disk."""

    def __init__(
        self, directory: str, embed: Embed, threshold: float | None, **options: Any
    ) -> None:
        start = time.perf_counter()
        import numpy as np

        self.import_s = time.perf_counter() - start
        self._dot = np.dot
        self._embed = embed
        self._threshold = 0.9 if threshold is None else threshold
        self._rows: list[tuple[Any, str, str]] = []

    def put(self, prompt: str, answer: str, tenant: str) -> None:
        self._rows.append((self._embed(prompt), answer, tenant))

    def get(self, prompt: str, tenant: str) -> str | None:
        vector = self._embed(prompt)
        best, found = self._threshold, None
        for stored, answer, owner in self._rows:
            if owner == tenant and (similarity := float(self._dot(vector, stored))) >= best:
                best, found = similarity, answer
        return found


class GPTCache(Driver):
    """GPTCache with SQLite and FAISS, through its `get` and `put`."""

    def __init__(
        self, directory: str, embed: Embed, threshold: float | None, **options: Any
    ) -> None:
        start = time.perf_counter()
        from gptcache.adapter import api

        self.import_s = time.perf_counter() - start
        self._api = api
        self._directory, self._embed, self._threshold = directory, embed, threshold
        self._most = options.get("max_size", 10**9)
        self._caches: dict[str, Any] = {}
        start = time.perf_counter()
        self._of("default")
        self.open_s = time.perf_counter() - start

    def _of(self, tenant: str) -> Any:
        if tenant in self._caches:
            return self._caches[tenant]
        import numpy as np
        from gptcache import Cache, Config
        from gptcache.manager import CacheBase, VectorBase, get_data_manager
        from gptcache.processor.pre import get_prompt
        from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation

        folder = os.path.join(self._directory, tenant)
        os.makedirs(folder, exist_ok=True)
        told = (
            {} if self._threshold is None else {"similarity_threshold": (1 + self._threshold) / 2}
        )
        cache = Cache()
        cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=lambda text, **_: np.asarray(self._embed(text), dtype="float32"),
            data_manager=get_data_manager(
                CacheBase("sqlite", sql_url=f"sqlite:///{os.path.abspath(folder)}/sqlite.db"),
                VectorBase(
                    "faiss", dimension=DIMENSION, index_path=os.path.join(folder, "faiss.index")
                ),
                max_size=self._most,
            ),
            similarity_evaluation=SearchDistanceEvaluation(),
            config=Config(**told),
        )
        self._caches[tenant] = cache
        return cache

    def put(self, prompt: str, answer: str, tenant: str) -> None:
        self._api.put(prompt, answer, cache_obj=self._of(tenant))

    def get(self, prompt: str, tenant: str) -> str | None:
        found: str | None = self._api.get(prompt, cache_obj=self._of(tenant))
        return found

    def close(self) -> None:
        for cache in self._caches.values():
            cache.data_manager.close()
            cache.data_manager.close = lambda: None  # or it writes a stale index at exit


class RedisVL(Driver):
    """redisvl's SemanticCache; tenants by a tag field."""

    def __init__(
        self, directory: str, embed: Embed, threshold: float | None, **options: Any
    ) -> None:
        start = time.perf_counter()
        from redisvl.extensions.cache.llm import SemanticCache
        from redisvl.query.filter import Tag
        from redisvl.utils.vectorize import CustomVectorizer

        self.import_s = time.perf_counter() - start
        start = time.perf_counter()
        self._tag = Tag
        told = {} if threshold is None else {"distance_threshold": 1 - threshold}
        attributes = {"case_sensitive": True, "separator": "\x1f"}
        self._cache = SemanticCache(
            name=options.get("name", "llmcache"),
            vectorizer=CustomVectorizer(embed=_listed(embed, "dimension test")),
            redis_url=options["redis_url"],
            filterable_fields=[{"name": "tenant", "type": "tag", "attrs": attributes}],
            **told,
        )
        self.open_s = time.perf_counter() - start

    def put(self, prompt: str, answer: str, tenant: str) -> None:
        self._cache.store(prompt=prompt, response=answer, filters={"tenant": tenant})

    def get(self, prompt: str, tenant: str) -> str | None:
        found = self._cache.check(
            prompt=prompt, num_results=1, filter_expression=self._tag("tenant") == tenant
        )
        return str(found[0]["response"]) if found else None

    def close(self) -> None:
        self._cache.disconnect()


class LangChainRedis(Driver):
    """langchain-redis' RedisSemanticCache; tenants by a prefix, each with its own index."""

    def __init__(
        self, directory: str, embed: Embed, threshold: float | None, **options: Any
    ) -> None:
        start = time.perf_counter()
        from langchain_core.embeddings import Embeddings
        from langchain_core.outputs import Generation
        from langchain_redis import RedisSemanticCache

        self.import_s = time.perf_counter() - start
        start = time.perf_counter()
        one = _listed(embed, "test")

        class Given(Embeddings):  # type: ignore[misc]
            def embed_query(self, text: str) -> list[float]:
                return one(text)

            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [one(text) for text in texts]

        told = {} if threshold is None else {"distance_threshold": 1 - threshold}
        name = options.get("name", "llmcache")

        def make(tenant: str) -> Any:
            # A closing mark: "shop" would otherwise read "shop2" too.
            return RedisSemanticCache(
                embeddings=Given(),
                redis_url=options["redis_url"],
                prefix=f"{name}|{tenant}|",
                name=f"{name}-{tenant}",
                **told,
            )

        self._make = make
        self._generation = Generation
        self._caches = {"default": make("default")}
        self.open_s = time.perf_counter() - start

    def _of(self, tenant: str) -> Any:
        if tenant not in self._caches:
            self._caches[tenant] = self._make(tenant)
        return self._caches[tenant]

    def put(self, prompt: str, answer: str, tenant: str) -> None:
        self._of(tenant).update(prompt, "llm", [self._generation(text=answer)])

    def get(self, prompt: str, tenant: str) -> str | None:
        found = self._of(tenant).lookup(prompt, "llm")
        return str(found[0].text) if found else None

    def close(self) -> None:
        for cache in self._caches.values():
            cache.redis.close()


def _listed(embed: Embed, probe: str) -> Callable[[str], list[float]]:
    """Vectors as lists; these caches embed a word of their own to learn the dimension."""

    def listed(text: str) -> list[float]:
        if text == probe:
            return [1.0, *[0.0] * (DIMENSION - 1)]
        return [float(value) for value in embed(text)]

    return listed


DRIVERS: dict[str, type[Any]] = {
    "semcache": Semcache,
    "tutorial": Tutorial,
    "gptcache": GPTCache,
    "redisvl": RedisVL,
    "langchain-redis": LangChainRedis,
}
