"""What happens to requests and answers with personal data, and the delay of hits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semcache import Completion, ConfigError, Privacy, SemanticCache
from semcache.backends import open_backend
from semcache.telemetry import AboutAskerEvent, FaultEvent, NotStoredEvent
from semcache.types import Personal
from tests.helpers import Heard, hashing_embedder, open_cache
from tests.security.test_planted import run

MINE = "write to jane@example.org about my parcel"
OURS = "how do i track a parcel"


def private(path: Any = ":memory:", **options: Any) -> SemanticCache:
    return open_cache(path, **{"detect": "rules", "hooks": (), **options})


def in_threads(run: Callable[[str], Any]) -> None:
    """Run a function of a name in two threads at once, which have these names."""
    threads = [threading.Thread(target=run, args=(n,), name=n) for n in ("jane", "joe")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_exact_serves_only_the_identical_request() -> None:
    with private(handling="exact") as cache:
        cache.put(MINE, "done")
        assert cache.lookup(MINE).tier == "exact"
        near = cache.lookup(f"please {MINE}")
        assert not near.hit
        assert near.decision.reason == "personal_data"
        assert near.query.personal == Personal(("email",), "exact")
        assert "the request holds email" in cache.explain(f"please {MINE}").decision.detail  # type: ignore[union-attr]
        cache.put(OURS, "here")
        assert cache.lookup(f"{OURS} {OURS}").tier == "semantic"


def test_a_personal_entry_is_no_candidate_for_other_questions() -> None:
    """It has no vector: neither a personal nor a plain question finds it by similarity."""
    with open_cache(":memory:", threshold=0.1, detect="rules", hooks=()) as cache:
        cache.put(MINE, "done")
        assert not cache.lookup("write to somebody about my parcel").hit


def test_skip_neither_serves_nor_stores() -> None:
    with private(handling="skip") as cache:
        lookup = cache.lookup(MINE)
        assert lookup.decision.reason == "personal_data"
        assert cache.record(lookup, "done") is None
        assert cache.put(MINE, "done") is None
        assert len(cache) == 0
        assert cache.stats().not_stored == {"personal_data": 2}
        assert cache.explain(MINE).decision.reason == "personal_data"


def test_what_was_stored_before_is_not_served_either(tmp_path: Path) -> None:
    with open_cache(tmp_path, hooks=()) as cache:
        cache.put(MINE, "done")
    with private(tmp_path, handling="skip") as cache:
        assert not cache.lookup(MINE).hit


def test_user_keeps_it_in_a_namespace_of_the_user() -> None:
    current: list[str | None] = ["jane"]
    with private(handling="user", user=lambda: current[0]) as cache:
        cache.put(MINE, "done")
        cache.put(OURS, "here")
        assert cache.lookup(f"{MINE} please").tier == "semantic"
        current[0] = "joe"
        assert not cache.lookup(MINE).hit
        assert cache.lookup(OURS).hit, "what holds no personal data is shared"
        current[0] = None
        assert cache.lookup(MINE).decision.reason == "personal_data"
        assert cache.put(MINE, "done") is None
        assert {entry.namespace for entry in cache.entries()} == {"default/jane", "default"}
        assert cache.erase(namespace="default/jane").entries == 1


@pytest.mark.parametrize("handling", ["exact", "skip", "user"])
@pytest.mark.parametrize("where", ["text", "payload"])
def test_answers_are_searched_too(handling: str, where: str) -> None:
    """An answer about somebody is not served to others, although the question names nobody."""
    user = (lambda: "jane") if handling == "user" else None
    text = "Her address is jane@example.org."
    answer = Completion(text)
    if where == "payload":
        answer = Completion("ok", payload={"people": [{"to": text}]}, payload_kind="json")
    with private(handling=handling, user=user) as cache:
        entry = cache.put(OURS, answer)
        if handling == "exact":
            assert entry is not None
            assert cache.lookup(OURS).hit
            assert not cache.lookup(f"{OURS} {OURS}").hit
        else:
            assert entry is None
            assert not cache.lookup(OURS).hit


def test_public_texts_and_the_system_prompt_do_not_count() -> None:
    with private(handling="skip", public=["help@shop.example", "+49 30 1234567"]) as cache:
        assert cache.put("how do i reach you", "Write to help@shop.example or +49 30 1234567.")
        assert cache.put(OURS, "here", system="You are the desk of jane@example.org.")
        assert cache.put("a question", "at jane@example.org") is None


def test_earlier_messages_are_searched() -> None:
    messages = [
        {"role": "user", "content": "I am jane@example.org"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "is it far"},
    ]
    with private(handling="skip") as cache:
        assert cache.lookup(messages=messages).decision.reason == "personal_data"


def test_a_function_of_ones_own() -> None:
    with private(detect=lambda text: ["name"] if "Jane" in text else (), handling="skip") as cache:
        assert cache.put("who is Jane", "a friend") is None
        assert cache.put("who is it", "a friend") is not None


@pytest.mark.parametrize("broken", ["detect", "user", "name", "slash", "coroutine", "kinds"])
def test_a_detector_that_fails_keeps_nothing(broken: str) -> None:
    """Not known to be harmless: neither served nor stored, and reported; the call goes on."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("no model")

    options: dict[str, Any] = {"detect": fails, "handling": "skip"}
    if broken == "kinds":
        options["detect"] = lambda _text: "name"
    elif broken != "detect":
        ids = {"name": " a  b ", "slash": "a/b", "coroutine": object()}
        user = fails if broken == "user" else (lambda: ids[broken])
        options = {"detect": "rules", "handling": "user", "user": user}
    heard = Heard()
    with open_cache(":memory:", hooks=[heard], **options) as cache:
        ask = cache.cached(lambda question: "done", name="ask")
        assert ask(MINE) == "done"
        assert len(cache) == 0
    assert {event.where for event in heard.of(FaultEvent)} == {"privacy"}


def test_calls_with_personal_data_are_not_shared_while_in_flight() -> None:
    barrier, calls = threading.Barrier(2, timeout=20), []

    with private(handling="skip") as cache:

        @cache.cached
        def ask(question: str) -> str:
            calls.append(question)
            barrier.wait()
            return "done"

        in_threads(lambda _name: ask(MINE))
    assert len(calls) == 2


def test_a_decorated_function_says_why_its_answers_are_not_stored() -> None:
    heard = Heard()
    with open_cache(":memory:", hooks=[heard], detect="rules", handling="skip") as cache:
        cache.cached(lambda question: "done", name="ask")(MINE)
    (event,) = heard.of(NotStoredEvent)
    assert "personal data" in event.advice


def test_wrong_values_are_refused() -> None:
    for wrong, said in (
        ({"detect": "regex"}, "detect"), ({"handling": "drop"}, "handling"),
        ({"handling": "user"}, "belong together"), ({"user": lambda: "a"}, "belong together"),
        ({"handling": "skip"}, "Nothing is looked for"),
        ({"detect": "rules", "public": "a@b.example"}, "public"),
        ({"detect": "rules", "public": [""]}, "public"),
        ({"hit_delay": -1.0}, "hit_delay"), ({"hit_delay": "soon"}, "hit_delay"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            Privacy(**wrong)


# ------------------------------------------------------------------------ questions about the asker


def about_asker_events(question: str, **call: Any) -> list[AboutAskerEvent]:
    heard = Heard()
    with open_cache(":memory:", hooks=[heard]) as cache:
        cache.put(question, "in Bremen", **call)
        cache.put(question, "in Hamburg", **call)
    return heard.of(AboutAskerEvent)


def test_an_answer_about_the_asker_that_all_share_is_reported_once() -> None:
    assert len(about_asker_events("Where is my order?")) == 1
    assert not about_asker_events("Where is my order?", namespace="jane")
    assert not about_asker_events("Where is my order?", params={"user_id": 7})
    assert not about_asker_events("How do I cancel my subscription?")


# --------------------------------------------------------------------------------------- the delay


@pytest.mark.parametrize("delay", [0.3, lambda: 0.3])
def test_a_hit_waits(delay: Any) -> None:
    """In calls and streams; a miss does not wait, and `get` returns at once."""
    with open_cache(":memory:", hit_delay=delay, hooks=()) as cache:
        slept: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("semcache.engine.calls.time.sleep", slept.append)
            ask = cache.cached(lambda question: "here", name="ask")
            ask(OURS)
            assert slept == []
            assert ask(OURS) == "here"
            assert slept == [0.3]
            cache.put(OURS, "here")
            assert list(cache.stream(OURS, lambda _request: iter(["never asked"]))) == ["here"]
            assert slept == [0.3, 0.3]
            assert cache.get(OURS) is not None
            assert slept == [0.3, 0.3]


def test_an_async_hit_waits_without_blocking() -> None:
    with open_cache(":memory:", hit_delay=0.2, hooks=()) as cache:

        @cache.cached
        async def ask(question: str) -> str:
            return "here"

        async def both() -> float:
            await ask(OURS)
            start = time.perf_counter()
            await asyncio.gather(ask(OURS), ask(OURS))
            return time.perf_counter() - start

        assert asyncio.run(both()) >= 0.2


def test_presidio_finds_what_the_rules_do() -> None:
    """With its pattern recognizers alone; a language model adds names."""
    presidio = pytest.importorskip("presidio_analyzer", reason="Presidio is not installed")
    spacy = pytest.importorskip("spacy")
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

    engine = presidio.AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])

    def detect(text: str) -> list[str]:
        return [found.entity_type for found in engine.analyze(text=text, language="en")]

    with private(detect=detect, handling="skip") as cache:
        assert cache.put(MINE, "done") is None
        assert cache.put(OURS, "here") is not None


# ----------------------------------------------------------------------------- where it could leak


HELD = "Call Jane on +49 170 1234567"


def test_an_answer_that_is_not_stored_is_not_shared_either() -> None:
    """Of two equal calls in flight, each gets its own answer."""
    both, calls = threading.Barrier(2, timeout=20), []
    with private(handling="skip") as cache:

        @cache.cached
        def ask(question: str) -> str:
            calls.append(question)
            time.sleep(0.2)
            return f"{threading.current_thread().name}@example.org"

        answers: dict[str, str] = {}

        def run(name: str) -> None:
            both.wait()
            answers[name] = ask(OURS)

        in_threads(run)
    assert answers == {"jane": "jane@example.org", "joe": "joe@example.org"}


def test_without_the_conversation_in_the_key_nothing_is_kept() -> None:
    """The key does not tell one person's conversation from another's."""
    messages = [
        {"role": "user", "content": "I am jane@example.org"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Is there any news?"},
    ]
    with private(handling="exact", context="none") as cache:
        assert cache.record(cache.lookup(messages=messages), "Your parcel is here.") is None
        assert cache.get("Is there any news?") is None


def test_what_is_exact_only_stays_so(tmp_path: Path) -> None:
    """After embedding everything again, and after an export and an import."""
    with private(tmp_path / "cache") as cache:
        cache.put(OURS, HELD)
    for command in (
        ("export", str(tmp_path / "export"), "--cache", str(tmp_path / "cache")),
        ("import", str(tmp_path / "export"), "--cache", str(tmp_path / "other")),
    ):
        assert run(*command)[0] == 0
    with open_cache(tmp_path / "other", hooks=(), threshold=0.1) as cache:
        assert cache.lookup(OURS).hit
        assert not cache.lookup(f"{OURS} please").hit
    backend = open_backend(str(tmp_path / "cache"))
    assert backend.maintenance is not None
    backend.maintenance.reembed(hashing_embedder(), lambda _done, _total: None)
    backend.close()
    with open_cache(tmp_path / "cache", hooks=(), threshold=0.1) as cache:
        assert cache.lookup(OURS).hit
        assert not cache.lookup(f"{OURS} please").hit


@pytest.mark.parametrize(
    "call",
    [
        {"messages": [{"role": "user", "content": OURS, "name": "jane@example.org"}]},
        {"messages": [{"role": "user", "content": OURS},
                      {"role": "tool", "tool_call_id": "1", "content": "jane@example.org"}]},
        {"messages": [{"role": "user", "content": OURS}], "params": {"email": "jane@example.org"}},
    ],
)  # fmt: skip
def test_everything_that_is_sent_is_searched(call: dict[str, Any]) -> None:
    with private(handling="skip") as cache:
        assert cache.lookup(**call).decision.reason == "personal_data"


@pytest.mark.parametrize("payload", [{"jane@example.org": 1}, {"card": 4111111111111111}])
def test_names_and_numbers_of_an_answer_are_searched(payload: Any) -> None:
    with private(handling="skip") as cache:
        assert cache.put(OURS, Completion("ok", payload=payload, payload_kind="json")) is None


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), "soon"])
def test_a_delay_that_is_none_is_a_fault(delay: Any) -> None:
    heard = Heard()
    with open_cache(":memory:", hit_delay=lambda: delay, hooks=[heard]) as cache:
        ask = cache.cached(lambda question: "here", name="ask")
        assert ask(OURS) == ask(OURS) == "here"
    assert {event.where for event in heard.of(FaultEvent)} == {"privacy"}
