"""agent/NAME over HTTP: listed, accepted where a worker has it, 404 elsewhere."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.caller import (
    Caller,
    assert_names,
    assert_problem,
    assert_whole_log,
    caller,
    until,
)
from tests.support.caller import visible_text as text_of
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import redis_server

WRITER = Path(__file__).parents[2] / "docs" / "how-to" / "agent_writer.py"


@pytest.fixture(scope="module")
def module_stack() -> Iterator[Stack]:
    """An API and a worker with the guide's agent."""
    settings = {"REJOIN_AGENTS": str(WRITER), "REJOIN_DEFAULT_MODEL": "agent/writer"}
    with redis_server() as redis, rejoin_stack(redis, settings=settings) as stack:
        yield stack


@pytest.fixture
async def agents(module_stack: Stack) -> AsyncIterator[Caller]:
    """A caller of that API, once the worker has told of its agent."""
    async with caller(module_stack.url) as speaker:

        async def told() -> bool:
            found = (await speaker.http.get("/api/models")).json()["models"]
            return any(model["id"] == "agent/writer" for model in found)

        await until(told)
        yield speaker
    module_stack.assert_no_traceback()


async def test_an_agent_is_a_model(agents: Caller) -> None:
    response = await agents.post("a city", model="agent/writer")
    assert response.status_code == 202, response.text
    frames = await agents.log(response.json()["message_id"])
    assert_whole_log(frames)
    assert text_of(frames) == "Outline of a city. Draft of a city. Final version of a city. "
    snapshot = await agents.snapshot(response.json()["message_id"])
    assert (snapshot["model"], snapshot["status"]) == ("agent/writer", "done")


async def test_it_may_be_the_default_model(agents: Caller) -> None:
    response = await agents.http.post("/api/messages", json={"input": "a town"})
    assert response.status_code == 202, response.text
    frames = await agents.log(response.json()["message_id"])
    assert frames[0].data["model"] == "agent/writer"


async def test_it_is_listed_as_a_model_of_the_provider_agent(agents: Caller) -> None:
    models = (await agents.http.get("/api/models")).json()["models"]
    (listed,) = [model for model in models if model["provider"] == "agent"]
    assert listed == {
        "id": "agent/writer",
        "provider": "agent",
        "name": "writer",
        "context_window": None,
        "max_output_tokens": None,
        "capabilities": dict.fromkeys(("tools", "vision", "json_schema", "reasoning")),
        "price": None,
        "available": True,
        "cooling": None,
    }


@pytest.mark.parametrize("model", ["agent/nobody", "agent/", "agent/writer?rate=0"])
async def test_one_that_no_worker_has_is_an_unknown_model(agents: Caller, model: str) -> None:
    assert_problem(await agents.post(model=model), 404)
    problem = assert_problem(await agents.post(fallbacks=[model]), 404)
    assert problem["detail"] == f"fallbacks.0: there is no model {model}"


async def test_where_no_worker_ever_was_every_agent_is_unknown(idle_api: Caller) -> None:
    assert_problem(await idle_api.post(model="agent/writer"), 404)


async def test_every_setting_and_part_is_passed_on_to_it(agents: Caller) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://127.0.0.1/a.png"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    response = await agents.http.post(
        "/api/messages",
        json={
            "model": "agent/writer",
            "input": [{"type": "text", "text": "a city"}, image],
            "reasoning_effort": "high",
            "temperature": 1,
            "response_format": wanted,
        },
    )
    assert response.status_code == 202, response.text


async def test_its_message_goes_on_in_a_conversation(agents: Caller) -> None:
    first = (await agents.post("a city", model="agent/writer")).json()
    await agents.snapshot(first["message_id"], wait=10)
    again = await agents.http.post("/api/messages", json={"regenerate": first["message_id"]})
    assert again.status_code == 202, again.text
    frames = await agents.log(again.json()["message_id"])
    assert text_of(frames).startswith("Outline of a city.")


async def test_a_worker_without_agents_tells_of_none(api: Caller) -> None:
    models = (await api.http.get("/api/models")).json()["models"]
    assert [model for model in models if model["provider"] == "agent"] == []
    assert_names(assert_problem(await api.post(model=""), 422), "model")
