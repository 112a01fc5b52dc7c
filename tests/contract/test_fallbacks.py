"""Fallbacks over HTTP: which models a message has, who answers, and which one is left alone.

`openai` is not set up here, so whatever is asked of it fails and falls back.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from rejoin.shared import cooling
from rejoin.shared.connections import open_redis
from tests.support.caller import Caller, assert_problem, assert_whole_log, caller, data_of, names
from tests.support.processes import Api, Stack, rejoin_stack
from tests.support.redis_server import redis_server

MODEL: Final = "openai/gpt-5-mini"
OTHER: Final = "openai/gpt-4o-mini"
ECHO: Final = "demo/echo?rate=0"
TEXT: Final = "some words to say again"
FILE: Final = f"""
[fallbacks]
"{MODEL}" = ["openai/gpt-3.5-turbo", "{ECHO}"]
"""


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    file = tmp_path_factory.mktemp("settings") / "rejoin.toml"
    file.write_text(FILE, encoding="utf-8")
    settings = {"REJOIN_SETTINGS_FILE": str(file)}
    with redis_server() as redis, rejoin_stack(redis, settings=settings) as stack:
        yield stack
        stack.assert_no_traceback()


@pytest.fixture
async def own(own_stack: Stack) -> AsyncIterator[Caller]:
    async with caller(own_stack.url) as api:
        yield api


async def resets(api: Caller, **fields: Any) -> list[Any]:
    """The models that went on, of a message that is asked of the unusable one."""
    message_id = await api.accepted(TEXT, model=MODEL, **fields)
    frames = await api.log(message_id)
    assert_whole_log(frames)
    return [reset["model"] for reset in data_of(frames, "reset")]


async def test_the_next_model_answers_and_every_attempt_is_told(own: Caller) -> None:
    message_id = await own.accepted(TEXT, model=MODEL, fallbacks=[OTHER, ECHO])
    frames = await own.log(message_id)
    assert_whole_log(frames)
    assert data_of(frames, "reset") == [
        {"after": None, "attempt": 2, "model": OTHER, "reason": "authentication"},
        {"after": None, "attempt": 3, "model": ECHO, "reason": "authentication"},
    ]
    seen = await own.snapshot(message_id, wait="10")
    assert (seen["status"], seen["text"], seen["model"]) == ("done", TEXT, MODEL)
    told = [
        (one["attempt"], one["model"], one["reason"], one["usage"] is None)
        for one in seen["attempts"]
    ]
    assert told == [
        (1, MODEL, None, True),
        (2, OTHER, "authentication", True),
        (3, ECHO, "authentication", False),
    ]
    assert seen["attempts"][2]["usage"] == seen["usage"]


async def test_a_request_that_names_none_has_the_settings_files(own: Caller) -> None:
    expected = ["openai/gpt-3.5-turbo", ECHO]
    assert await resets(own) == expected
    assert await resets(own, fallbacks=None) == expected


async def test_an_empty_list_asks_no_other_model(own: Caller) -> None:
    assert await resets(own, fallbacks=[]) == []


async def test_one_that_cannot_take_the_request_is_left_out_of_the_files(own: Caller) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
    assert set(await resets(own, response_format=schema)) == {ECHO}


async def test_a_model_named_twice_is_asked_once(own: Caller) -> None:
    assert await resets(own, fallbacks=[MODEL, OTHER, OTHER, MODEL, ECHO]) == [OTHER, ECHO]


async def test_an_answer_given_again_has_the_fallbacks_of_its_model(own: Caller) -> None:
    first = await own.accepted(TEXT, model=MODEL)
    await own.log(first)
    response = await own.http.post("/api/messages", json={"regenerate": first})
    assert response.status_code == 202
    frames = await own.log(response.json()["message_id"])
    assert names(frames)[-1] == "done"
    assert data_of(frames, "reset")[-1]["model"] == ECHO


async def test_an_unknown_model_among_the_fallbacks_is_404(own: Caller) -> None:
    problem = assert_problem(await own.post(fallbacks=["demo/echo", "nobody/has-it"]), 404)
    assert problem["detail"] == "fallbacks.1: there is no model nobody/has-it"


async def test_the_list_of_models_says_which_failed_and_until_when(
    own: Caller, own_stack: Stack
) -> None:
    async with open_redis(own_stack.redis.url) as redis:
        until_ms = await cooling.fail(redis, OTHER, "provider_timeout")
    models = (await own.http.get("/api/models")).json()["models"]
    told = {model["id"]: model["cooling"] for model in models}
    assert told[MODEL] is None
    assert told[OTHER]["reason"] == "provider_timeout"
    until = datetime.fromisoformat(told[OTHER]["until"])
    assert round(until.timestamp() * 1000) == until_ms


def test_an_api_with_a_wrong_file_says_so_and_does_not_start(
    own_stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('[fallbacks]\n"openai/a" = ["demo/other"]', encoding="utf-8")
    api = Api("wrong", own_stack.redis.url, tmp_path, {"REJOIN_SETTINGS_FILE": str(file)})
    assert api.launch().wait() == 2
    assert "REJOIN_SETTINGS_FILE: [fallbacks] 'openai/a'" in api.said()
