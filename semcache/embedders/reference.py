"""The original model's vectors of a few sentences, with which every other form is compared.

The vectors are shipped with the package, so that a machine can check its results without
PyTorch. `python -m benchmarks.reference_vectors` makes them with the original model, run by
sentence-transformers, and prints the digest to put here when the sentences change.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semcache.embedders.minilm import REINSTALL, check_digest

if TYPE_CHECKING:
    from semcache.embedders.base import Embedder
    from semcache.types import Vector

REFERENCE_FILE = Path(__file__).with_name("reference.npy")
REFERENCE_SHA256 = "209ae84b5c0dc8f78d78f72d87b3caa87c0023beab5f54a4d83af87d827dc994"

MIN_COSINE = {"int8": 0.98, "float32": 0.9999}
"""Minimum cosine of a form's vector and the original's, on every sentence."""

SENTENCES = (
    "How do I reset my password?",
    "how can i change my pasword",
    "What is the warranty on a 3-year plan?",
    "Cancel my order #48213 and refund $1,299.00 to my card ending in 4417.",
    "flights from Boston to Denver on 4 July",
    "flights from Denver to Boston on 7 April",
    "Is it safe to take ibuprofen with alcohol?",
    "hi",
    "thanks!",
    "Write a Python function that returns the n-th Fibonacci number.",
    "def f(x): return x ** 2  # why is this slow?",
    "SELECT name FROM users WHERE id = 7;",
    "Summarise the plot of Hamlet in three sentences.",
    "What's the weather like in Paris today?",
    "Why is the sky blue?",
    "Who won the world cup in 1998?",
    "Translate 'good morning' into Japanese.",
    "Wie setze ich mein Passwort zurück?",
    "¿Cuál es la capital de Australia?",
    "Comment annuler mon abonnement ?",
    "Как отменить заказ?",
    "パスワードを忘れました。",
    "我的订单在哪里?",
    "كيف يمكنني تغيير كلمة المرور؟",
    "비밀번호를 어떻게 바꾸나요?",
    "😀 my card got declined 😡😡",
    "ERROR: connection refused (errno 111) at 10.0.0.12:5432",
    "https://example.com/a/b?c=d#e",
    "1 2 3 4 5 6 7 8 9 10",
    "The quick brown fox jumps over the lazy dog.",
    "I can't log in", "I can log in",
    "Which is larger, Jupiter or Saturn?",
    "Explain quantum entanglement to a ten-year-old.",
    "What are the opening hours of your Lisbon office on Sundays?",
    "You are a helpful assistant. Answer briefly. Question: what is a mutex?",
    "A recipe for lentil soup without onions, for six people, under forty minutes.",
    "The train that leaves at 9:15 arrives at 11:40; how long does the journey take?",
    "Compare the pros and cons of renting and buying a home in a city where prices have "
    "doubled in ten years, for a couple with two children and irregular income.",
    "Please list every public holiday in Germany, Austria and Switzerland for next year, "
    "with its date and the cantons or states that keep it.",
    "My laptop makes a loud noise when it starts, then the fan stops, then the screen goes "
    "black and comes back after a minute; what should I check first, and what then?",
    "antidisestablishmentarianism",
    "a",
    "?!",
    "Ω ≈ 3.14159 × 10⁻²³ mol·L⁻¹",
    "kitten", "feline animal", "stock market crash",
)  # fmt: skip


def load_reference(file: Path = REFERENCE_FILE) -> Vector:
    """Load the original's vectors of `SENTENCES`: float32[len(SENTENCES), d], rows of length 1.

    Raises:
        EmbedderError: the file is missing or corrupt.
    """
    check_digest(file, REFERENCE_SHA256, REINSTALL)
    vectors: Vector = np.load(file, allow_pickle=False)
    return vectors


def min_cosine(embedder: Embedder) -> float:
    """The lowest cosine with the original's vectors over `SENTENCES`, on this machine."""
    reference = load_reference()
    return float(np.einsum("ij,ij->i", embedder.embed(SENTENCES), reference).min())
