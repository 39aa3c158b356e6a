from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcache.errors import ConfigError, RequestError
from semcache.keys import keys
from semcache.keys.keys import KeyRules, key_rules
from semcache.keys.parse import request
from semcache.types import Query

text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)
params = st.dictionaries(
    st.sampled_from(["temperature", "top_p", "seed", "stop", "max_tokens"]),
    st.integers(-5, 5) | st.floats(0, 2) | st.booleans() | text,
)
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), text), max_size=4)


def query(prompt: str | None = None, rules: KeyRules = keys.STRICT, **call: Any) -> Query:
    return keys.query(request(prompt, **call), rules)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    messages = [{"role": role, "content": words} for role, words in draw(turns)]
    messages.append({"role": "user", "content": draw(text)})
    return {
        "messages": messages,
        "system": draw(st.none() | text),
        "model": draw(st.none() | st.sampled_from(["a", "b"])),
        "namespace": draw(st.none() | st.sampled_from(["n", "m"])),
        "params": draw(params),
        "tools": draw(st.none() | st.just([{"name": "t"}])),
        "response_format": draw(st.none() | st.just({"type": "json_object"})),
    }


@settings(max_examples=2000)
@given(calls(), st.sampled_from(["", " ", "\n", "\t  "]))
def test_the_form_of_a_call_does_not_matter(call: dict[str, Any], blank: str) -> None:
    """Neither the order of names nor white space around earlier turns changes a key."""
    *earlier, last = call["messages"]
    respelled = {
        **dict(reversed(call.items())),
        "params": dict(reversed(call["params"].items())),
        "messages": [{**m, "content": blank + m["content"] + blank} for m in earlier] + [last],
    }
    assert query(**call).exact_key == query(**respelled).exact_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("    return x", "return x"),
        ("Complete this line: ", "Complete this line:"),
        ("a poem\n", "a poem"),
        ("10 k\u2126", "10 k\u03a9"),
        ("\u212b", "\u00c5"),
        ("caf\u00e9", "cafe\u0301"),
    ],
    ids=["indentation", "blank at the end", "line end", "ohm", "angstrom", "composed"],
)
def test_the_question_is_hashed_as_it_is_sent(one: str, other: str) -> None:
    """Not stripped, and not in another Unicode form."""
    assert query(one).exact_key != query(other).exact_key
    assert query(one).question == one


def test_a_long_run_of_combining_marks_is_hashed_at_once() -> None:
    """Putting such a run into a Unicode normal form takes time quadratic in its length."""
    prompt = "a" + "\u0301\u0316" * 80_000
    assert query(prompt, system=prompt, params={"stop": prompt}).question == prompt


@settings(max_examples=2000)
@given(calls(), st.data())
def test_any_change_but_the_question_changes_the_scope(
    call: dict[str, Any], data: st.DataObject
) -> None:
    """Model, tool, parameter, earlier turn, system prompt, format, namespace: each counts."""
    other = {**call, "messages": [dict(m) for m in call["messages"]]}
    changed = data.draw(
        st.sampled_from(
            ["model", "namespace", "tools", "response_format", "system", "params", "turn"]
        )
    )
    if changed == "params":
        other["params"] = {**call["params"], "another": 1}
    elif changed == "turn":
        other["messages"].insert(
            0, {"role": "user", "content": "an earlier turn, not there before"}
        )
    elif changed == "tools":
        other["tools"] = [{"name": "another"}]
    else:
        other[changed] = "another" if changed != "response_format" else {"type": "another"}
    assert query(**other).scope.digest != query(**call).scope.digest
    assert query(**other).question == query(**call).question


@settings(max_examples=2000)
@given(text, text)
def test_the_question_counts(one: str, two: str) -> None:
    """Different questions have different keys, and the same scope."""
    first, second = query(one), query(two)
    assert first.scope == second.scope
    assert (first.exact_key == second.exact_key) == (first.question == second.question)


@given(text)
def test_a_string_is_a_message(prompt: str) -> None:
    """A plain prompt and one message of the user share a key, in any provider's form."""
    forms: list[Any] = [
        [{"role": "user", "content": prompt}],
        [{"role": "user", "content": [{"type": "text", "text": prompt}]}],
        [{"role": "user", "content": {"type": "text", "text": prompt}}],
    ]
    assert {query(messages=form).exact_key for form in forms} == {query(prompt).exact_key}


def test_golden_keys() -> None:
    """The canonical form is pinned: who changes it must raise KEY_VERSION and these keys."""
    assert (keys.KEY_VERSION, keys.SCOPE_VERSION) == (2, 1)
    golden = {
        "plain": query("How do I reset my password?"),
        "named": query(
            "héllo", model="gpt-4o-mini", namespace="support", params={"temperature": 0.0}
        ),
        "chat": query(
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": "And now?"},
            ],
            model="claude",
            tools=[{"name": "search", "input_schema": {"type": "object"}}],
        ),
    }
    assert {name: found.exact_key.hex()[:24] for name, found in golden.items()} == GOLDEN


GOLDEN = {
    "plain": "56ff3c8ec404a0b2c5a997a1",
    "named": "b81f46cd00212087bee70635",
    "chat": "b717defb069889666f1a0c62",
}


def test_openai_and_anthropic_forms_agree() -> None:
    """A conversation has one key, whichever client wrote it down."""
    pixel = base64.b64encode(b"\x89PNG pixel").decode()
    openai = query(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 2+2?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_x1",
                        "type": "function",
                        "function": {"name": "add", "arguments": '{"b": 2, "a": 2}'},
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And this picture?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
                ],
            },
        ],
        model="m",
    )
    anthropic = query(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "toolu_9", "name": "add", "input": {"a": 2, "b": 2}}
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And this picture?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": pixel},
                    },
                ],
            },
        ],
        model="m",
    )
    assert openai.exact_key == anthropic.exact_key
    assert openai.question == "And this picture?"


def image(data: bytes) -> list[Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        }
    ]


def test_images_enter_the_scope_by_content() -> None:
    """Another picture under the same words is another scope."""
    cat, dog = query(messages=image(b"cat")), query(messages=image(b"dog"))
    assert cat.question == dog.question == "What is this?"
    assert cat.scope.digest != dog.scope.digest
    assert cat.exact_key == query(messages=image(b"cat")).exact_key


def test_random_ids_of_tool_calls_do_not_matter() -> None:
    """The same tool conversation with fresh ids has the same key; other results do not."""

    def conversation(call_id: str, result: str) -> Query:
        return query(
            messages=[
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "tool_use", "id": call_id, "name": "weather", "input": {}}
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": call_id, "content": result}],
                },
            ]
        )

    assert conversation("a", "sunny").exact_key == conversation("b", "sunny").exact_key
    assert conversation("a", "sunny").exact_key != conversation("a", "rain").exact_key
    assert conversation("a", "sunny").question == "Weather?"


def test_no_user_turn_means_no_question() -> None:
    """A conversation without the user's words can only be found exactly."""
    found = query(messages=[{"role": "system", "content": "Write a poem."}])
    assert found.question is None


def test_ignore_loosens_the_scope_on_the_callers_word() -> None:
    """What is ignored does not split the scope; what is not, does."""
    rules = key_rules({"temperature", "model"})
    warm = query("Hi", rules, model="a", params={"temperature": 1, "seed": 1})
    cold = query("Hi", rules, model="b", params={"temperature": 0, "seed": 1})
    other = query("Hi", rules, model="b", params={"temperature": 0, "seed": 2})
    assert warm.exact_key == cold.exact_key != other.exact_key


def test_context_none_forgets_earlier_turns_and_keeps_to_itself() -> None:
    """context="none" shares over conversations, but never with those who keep the context."""
    earlier = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    last = {"role": "user", "content": "Thanks!"}
    loose = key_rules(context="none")
    assert (
        query(None, loose, messages=[*earlier, last]).exact_key == query("Thanks!", loose).exact_key
    )
    assert query("Thanks!", loose).exact_key != query("Thanks!").exact_key


def test_the_namespace_cannot_be_ignored() -> None:
    """Not even on the caller's word are tenants mixed."""
    with pytest.raises(ConfigError, match="tenant"):
        key_rules({"namespace"})


def test_the_memo_tells_types_apart() -> None:
    """1 and True are equal to Python but are different parameters."""
    assert query("Hi", params={"x": 1}).exact_key != query("Hi", params={"x": True}).exact_key
    assert query("Hi", params={"x": 1}).exact_key == query("Hi", params={"x": 1.0}).exact_key
    assert query("Hi", params={"x": "1"}).exact_key != query("Hi", params={"x": 1}).exact_key


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": "  \n"}, "empty"),
        ({"prompt": 7}, "not a string"),
        ({"prompt": "a\ud800b"}, "surrogate.*character 1"),
        ({"prompt": "x" * 10_000_000}, "10,000,000 characters"),
        ({"messages": []}, "empty list"),
        ({"messages": "hello"}, "list of messages"),
        ({"messages": [{"content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": 3}]}, "not text"),
        ({"messages": [{"role": "user", "content": " "}]}, "nothing to ask"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text block"),
        ({}, "either a prompt"),
        ({"prompt": "a", "messages": []}, "either a prompt"),
        ({"prompt": "a", "namespace": ""}, "namespace"),
        ({"prompt": "a", "tags": "urgent"}, "list of tags"),
        ({"prompt": "a", "params": {"temperature": float("nan")}}, "finite"),
    ],
)
def test_bad_requests_are_said_clearly(call: dict[str, Any], message: str) -> None:
    """What cannot be asked is a RequestError that says why."""
    prompt = call.pop("prompt", None)
    with pytest.raises(RequestError, match=message):
        query(prompt, **call)
