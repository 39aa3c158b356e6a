"""Every embedder is held to the contract in `protocols.Embedder`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from semcache.embedders.base import Embedder
from semcache.embedders.chunks import embed_in_chunks, split_to_fit
from semcache.embedders.default import DefaultEmbedder
from semcache.embedders.export import LEAST_COSINE, SENTENCES, export_model, locate_original
from semcache.embedders.minilm import WEIGHTS_SHA256, check_digest, default_fingerprint, form_of
from semcache.embedders.onnx import OnnxEmbedder
from semcache.embedders.pool import EmbedderPool
from semcache.embedders.remote import RemoteEmbedder
from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder
from semcache.embedders.time_limit import TimeLimited
from semcache.errors import EmbedderError
from tests.helpers import DIMENSION, hashed, hashing_embedder

TEXTS = ["How do I reset my password?", "hi", "A much longer sentence about trains and tickets."]


def remote(answer: Callable[[httpx.Request], httpx.Response] | None = None) -> RemoteEmbedder:
    def serve(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["input"]
        rows = [{"index": i, "embedding": row.tolist()} for i, row in enumerate(hashed(texts))]
        return httpx.Response(200, json={"data": rows[::-1]})

    client = httpx.Client(transport=httpx.MockTransport(answer or serve))
    return RemoteEmbedder("m", base_url="http://localhost/v1", dimension=DIMENSION, client=client)


@pytest.fixture(scope="session")
def original() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(locate_original())


@pytest.fixture(params=["default", "original", "function", "remote", "limited"])
def any_embedder(request: pytest.FixtureRequest) -> Embedder:
    made: dict[str, Callable[[], Embedder]] = {
        "default": lambda: request.getfixturevalue("embedder"),
        "original": lambda: request.getfixturevalue("original"),
        "function": hashing_embedder,
        "remote": remote,
        "limited": lambda: TimeLimited(hashing_embedder(), 5.0),
    }
    return made[request.param]()


def test_vectors_have_the_shape_and_length_one(any_embedder: Embedder) -> None:
    """float32[n, d], rows of length 1, in the order of the texts."""
    any_embedder.load()
    vectors = any_embedder.embed(TEXTS)
    assert vectors.shape == (3, any_embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert any_embedder.embed([text])[0] @ vector > 0.9999


def test_a_vector_does_not_depend_on_its_company(any_embedder: Embedder) -> None:
    """The same text has the same vector alone, in a small batch and in a large one."""
    alone = any_embedder.embed(TEXTS[:1])[0]
    crowd = [*TEXTS, "x " * 40] * 12
    for vector in any_embedder.embed(crowd)[:: len(TEXTS) + 1]:
        np.testing.assert_allclose(vector, alone, atol=2e-6)


def test_many_threads_may_embed(any_embedder: Embedder) -> None:
    """Concurrent calls give each caller its own text's vector."""
    wanted = any_embedder.embed(TEXTS)
    wrong: list[int] = []

    def work(row: int) -> None:
        found = [any_embedder.embed([TEXTS[row]])[0] for _ in range(5)]
        wrong.extend(row for vector in found if vector @ wanted[row] < 0.9999)

    threads = [threading.Thread(target=work, args=(i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_fingerprint_and_tokens(any_embedder: Embedder) -> None:
    """A fingerprint names the embedder and stays; tokens grow with the text."""
    assert any_embedder.fingerprint == any_embedder.fingerprint != ""
    assert any_embedder.count_tokens("a b c d") > any_embedder.count_tokens("a b")


# -------------------------------------------------------------------- the default model


def test_the_default_model_agrees_with_the_original(
    embedder: DefaultEmbedder, original: SentenceTransformerEmbedder
) -> None:
    """The export in use keeps the cosine that its form promises, on every test sentence."""
    cosines = np.einsum("ij,ij->i", embedder.embed(SENTENCES), original.embed(SENTENCES))
    form = form_of(embedder.fingerprint)
    assert form is not None
    assert cosines.min() >= LEAST_COSINE.get(form, 0.9999)


def test_an_export_in_float32_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: SentenceTransformerEmbedder
) -> None:
    """The slower form agrees to 0.9999; a second export finds the first in place."""
    monkeypatch.setenv("SEMCACHE_MODELS", str(tmp_path))
    said: list[str] = []
    first = export_model("float32", said.append)
    assert first is not None
    vectors = OnnxEmbedder(first).embed(SENTENCES)
    assert np.einsum("ij,ij->i", vectors, original.embed(SENTENCES)).min() >= 0.9999
    assert export_model("float32") == first
    assert any("Ready" in line for line in said)
    assert not list(tmp_path.glob("export-*")), "no half-made export is left behind"


def test_a_damaged_export_is_refused(
    tmp_path: Path, embedder: DefaultEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped byte in the model file is an error, not another vector."""
    inner = embedder._ready()
    assert isinstance(inner, OnnxEmbedder)
    for file in inner.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model = bytearray((tmp_path / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(model)
    with pytest.raises(EmbedderError, match="SHA-256"):
        OnnxEmbedder(tmp_path).embed(["x"])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """The model's file is held against the official SHA-256 before use."""
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(EmbedderError, match=WEIGHTS_SHA256):
        check_digest(tmp_path / "model.safetensors", WEIGHTS_SHA256)


def test_form_is_read_from_the_fingerprint() -> None:
    """A cache's vectors say which form made them; other models' do not."""
    assert form_of(default_fingerprint("int8")) == "int8"
    assert form_of(default_fingerprint("torch")) == "torch"
    assert form_of("function/hashed/512") is None


# ------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "raw",
    [
        np.full((1, DIMENSION), np.nan),
        np.full((1, DIMENSION), np.inf),
        np.zeros((1, DIMENSION)),
        np.ones((2, DIMENSION)),
        np.ones((1, 3)),
        np.ones(DIMENSION),
        [["a"] * DIMENSION],
        None,
    ],
    ids=["nan", "inf", "zero", "rows", "dimension", "flat", "words", "none"],
)
def test_vectors_that_cannot_be_compared_are_an_error(raw: Any) -> None:
    """NaN, zero, a wrong shape: EmbedderError, never a vector."""
    with pytest.raises(EmbedderError):
        hashing_embedder().__class__(lambda texts: raw, name="x", dimension=DIMENSION).embed(["a"])


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: httpx.Response(500, text="overloaded"),
        lambda request: httpx.Response(200, text="<html>"),
        lambda request: httpx.Response(200, json={"data": []}),
        lambda request: httpx.Response(200, json={"data": [{"index": 0}]}),
    ],
)
def test_a_bad_reply_is_an_embedder_error(answer: Any) -> None:
    """Whatever the server sends, the caller sees one kind of error."""
    with pytest.raises(EmbedderError):
        remote(answer).embed(["a"])


def test_the_key_is_in_no_message() -> None:
    """A secret appears neither in an error nor in a repr."""
    client = httpx.Client(
        transport=httpx.MockTransport(lambda request: httpx.Response(401, text="no"))
    )
    embedder = RemoteEmbedder(
        "m", base_url="http://localhost", dimension=4, api_key="sk-secret", client=client
    )
    with pytest.raises(EmbedderError) as caught:
        embedder.embed(["a"])
    assert "sk-secret" not in str(caught.value) + repr(embedder)


def test_a_hung_embedder_is_cut_off_and_left_alone() -> None:
    """One caller waits for the limit; the next is told at once."""
    release = threading.Event()
    hung = hashing_embedder().__class__(
        lambda texts: release.wait(20) and hashed(texts), name="hung", dimension=DIMENSION
    )
    limited = TimeLimited(hung, 0.1)
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(EmbedderError, match=r"within 0\.1 s"):
            limited.embed(["a"])
    assert time.monotonic() - start < 5
    release.set()


# ------------------------------------------------------------------------ pool and chunks


def test_the_pool_gathers_and_gives_each_its_own() -> None:
    """Under load texts are embedded together, and every caller gets its own vector."""
    sizes: list[int] = []

    def slow(texts: list[str]) -> Any:
        sizes.append(len(texts))
        time.sleep(0.005)
        return hashed(texts)

    pool = EmbedderPool(hashing_embedder().__class__(slow, name="s", dimension=DIMENSION), runs=1)
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            text = f"question {number} {turn}"
            if pool.embed(text) @ hashing_embedder().embed([text])[0] < 0.999:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not wrong
    assert sum(sizes) == 60
    assert max(sizes) > 1


def test_the_pool_passes_errors_to_those_concerned_and_goes_on() -> None:
    """A failing batch fails its own callers; the next call works."""

    def picky(texts: list[str]) -> Any:
        time.sleep(0.002)
        if any("bad" in text for text in texts):
            raise RuntimeError("no")
        return hashed(texts)

    pool = EmbedderPool(hashing_embedder().__class__(picky, name="p", dimension=DIMENSION), runs=1)
    ended: list[bool] = []

    def work(text: str) -> None:
        try:
            pool.embed(text)
            ended.append(True)
        except EmbedderError:
            ended.append(False)

    threads = [
        threading.Thread(target=work, args=("bad" if i % 3 == 0 else "good",)) for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 12
    assert False in ended
    assert pool.embed("good").shape == (DIMENSION,)


def test_long_texts_are_embedded_whole(embedder: DefaultEmbedder) -> None:
    """Two long prompts that begin alike and end differently have different vectors."""
    start = "The terms of the contract between the parties are as follows. " * 60
    one, two = start + "Who pays for repairs?", start + "Name the capital of Australia." * 30
    assert embedder.count_tokens(one) > embedder.window > 0  # type: ignore[operator]
    cut = embedder.embed([one, two])
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6, err_msg="cut silently, they are one")
    assert embed_in_chunks(embedder, one) @ embed_in_chunks(embedder, two) < 0.99
    batched = split_to_fit(embedder, one)
    assert "".join("".join(batched).split()) == "".join(one.split())
    assert all(embedder.count_tokens(piece) <= embedder.window for piece in batched)  # type: ignore[operator]
