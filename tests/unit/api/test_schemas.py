"""The body of POST /api/messages."""

from typing import Any

import pytest
from pydantic import ValidationError

from rejoin.api.schemas import conversation_of, to_request
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import StoredRequest, StoredTurn
from rejoin.shared.turns import IfBusy

ID = "01980000-0000-7000-8000-000000000001"


def request(**fields: Any) -> StoredRequest:
    body = {"model": "demo/echo", "input": "hi"} | fields
    return to_request({k: v for k, v in body.items() if v is not ...}, default_model=None)


def refused(**fields: Any) -> list[tuple[list[str | int], str]]:
    with pytest.raises((ValidationError, BadRequest)) as raised:
        request(**fields)
    error = raised.value
    if isinstance(error, BadRequest):
        return [([*error.field], error.mend)]
    assert isinstance(error, ValidationError)
    return [([*item["loc"]], item["msg"]) for item in error.errors()]


def test_input_is_the_users_turn() -> None:
    assert request() == StoredRequest("demo/echo", [StoredTurn("user", "hi")])


def test_system_is_no_turn_of_the_conversation() -> None:
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    made = request(input=..., messages=turns, system="first")
    assert made.system == "first"
    assert [(turn.role, turn.content) for turn in made.turns] == [("system", "a"), ("user", "b")]


def test_every_field_reaches_the_worker() -> None:
    made = request(
        temperature=1, top_p=0.5, max_tokens=7, stop=["a", "b"], reasoning_effort="low",
        metadata={"k": "v"},
    )  # fmt: skip
    assert made == StoredRequest(
        "demo/echo",
        [StoredTurn("user", "hi")],
        temperature=1.0,
        top_p=0.5,
        max_tokens=7,
        stop=["a", "b"],
        reasoning_effort="low",
        metadata={"k": "v"},
    )


def test_one_stop_word_is_a_list_of_one() -> None:
    assert request(stop="end").stop == ["end"]


def test_an_empty_input_and_a_nul_are_text() -> None:
    assert request(input="").turns[0].content == ""
    assert request(input="a\0b").turns[0].content == "a\0b"


def test_a_missing_model_is_the_default_one() -> None:
    assert to_request({"input": "hi"}, default_model="demo/echo").model == "demo/echo"
    assert refused(model=...)[0][0] == ["model"]


def test_a_parent_and_a_conversation_are_kept() -> None:
    fields: dict[str, object] = {
        "model": "demo/echo",
        "input": "hi",
        "conversation_id": ID,
        "parent_id": "p",
    }
    made = to_request(fields, default_model=None)
    assert (made.parent_id, made.regenerate) == ("p", None)
    assert conversation_of(fields | {"if_busy": "reject"}) == (ID, IfBusy.REJECT)


@pytest.mark.parametrize("nothing", [{}, {"conversation_id": None, "if_busy": None}])
def test_without_a_conversation_it_begins_one(nothing: dict[str, Any]) -> None:
    assert conversation_of(nothing) == (None, IfBusy.ENQUEUE)


def test_what_to_regenerate_brings_no_turn_and_no_model_of_its_own() -> None:
    made = to_request({"regenerate": ID}, default_model="demo/echo")
    assert made == StoredRequest("", [], regenerate=ID)
    assert to_request({"regenerate": ID, "model": "a/b"}, default_model=None).model == "a/b"


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"model": 5}, ["model"]),
        ({"model": ""}, ["model"]),
        ({"input": ...}, ["input"]),
        ({"input": None}, ["input"]),
        ({"input": 5}, ["input"]),
        ({"messages": [{"role": "user", "content": "a"}]}, ["messages"]),
        ({"input": ..., "messages": []}, ["messages"]),
        ({"input": ..., "messages": "a"}, ["messages"]),
        ({"input": ..., "messages": ["a"]}, ["messages", 0]),
        ({"input": ..., "messages": [{"role": "tool", "content": "a"}]}, ["messages", 0, "role"]),
        ({"input": ..., "messages": [{"role": "user"}]}, ["messages", 0, "content"]),
        ({"input": ..., "messages": [{"role": "system", "content": "a"}]}, ["messages", 0, "role"]),
        (
            {"input": ..., "messages": [{"role": "user", "content": "a", "name": "b"}]},
            ["messages", 0, "name"],
        ),
        ({"temperature": "1"}, ["temperature"]),
        ({"temperature": True}, ["temperature"]),
        ({"temperature": 2.01}, ["temperature"]),
        ({"temperature": -0.1}, ["temperature"]),
        ({"temperature": float("inf")}, ["temperature"]),
        ({"temperature": float("nan")}, ["temperature"]),
        ({"top_p": 0}, ["top_p"]),
        ({"top_p": 1.1}, ["top_p"]),
        ({"max_tokens": 0}, ["max_tokens"]),
        ({"max_tokens": 1.0}, ["max_tokens"]),
        ({"max_tokens": True}, ["max_tokens"]),
        ({"max_tokens": "1"}, ["max_tokens"]),
        ({"max_tokens": 10**30}, ["max_tokens"]),
        ({"stop": ""}, ["stop", 0]),
        ({"stop": 5}, ["stop"]),
        ({"stop": ["a", ""]}, ["stop", 1]),
        ({"stop": ["a", "b", "c", "d", "e"]}, ["stop"]),
        ({"reasoning_effort": "LOW"}, ["reasoning_effort"]),
        ({"reasoning_effort": ""}, ["reasoning_effort"]),
        ({"metadata": {"a": 1}}, ["metadata", "a"]),
        ({"metadata": {"a" * 65: "b"}}, ["metadata", "a" * 65, "[key]"]),
        ({"metadata": {"a": "b" * 513}}, ["metadata", "a"]),
        ({"metadata": {str(n): "" for n in range(17)}}, ["metadata"]),
        ({"conversation_id": 5}, ["conversation_id"]),
        ({"conversation_id": ID, "parent_id": ["x"]}, ["parent_id"]),
        ({"parent_id": ID}, ["parent_id"]),
        ({"if_busy": "wait"}, ["if_busy"]),
        ({"if_busy": True}, ["if_busy"]),
        ({"input": ..., "regenerate": 5}, ["regenerate"]),
        ({"regenerate": ID}, ["regenerate"]),
        (
            {"input": ..., "regenerate": ID, "messages": [{"role": "user", "content": "a"}]},
            ["regenerate"],
        ),
        (
            {"input": ..., "regenerate": ID, "conversation_id": ID, "parent_id": ID},
            ["parent_id"],
        ),
        ({"nonsense": 1}, ["nonsense"]),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], loc: list[str | int]) -> None:
    assert [found for found, _ in refused(**fields)] == [loc]


def test_every_wrong_field_is_told_at_once() -> None:
    found = [loc for loc, _ in refused(temperature="x", tools=[5], nonsense=1)]
    assert sorted(map(str, found)) == ["['nonsense']", "['temperature']", "['tools', 0]"]
