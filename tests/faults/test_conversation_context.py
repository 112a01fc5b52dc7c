"""A conversation over HTTP: what each of its messages shows the provider, workers killed too."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.caller import visible_text
from tests.support.provided import Provided, provided_by, simulated
from tests.support.provider_script import simulated_text
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import open_tail


@pytest.fixture
async def asked(own_redis: RedisServer) -> AsyncIterator[Provided]:
    """Processes of the test's own, and a provider that tells what it was asked."""
    with simulated(own_redis) as made:
        async with provided_by(made) as asked:
            yield asked


async def ask(asked: Provided, options: str, text: str | None = None, **fields: Any) -> str:
    """POST a message for a simulated model; its id."""
    model = f"openai/sim?{options}&n={uuid.uuid4().hex[:8]}"
    body = {"model": model} | ({} if text is None else {"input": text}) | fields
    response = await asked.api.http.post("/api/messages", json=body)
    assert response.status_code == 202, response.text
    message_id: str = response.json()["message_id"]
    return message_id


async def answered(asked: Provided, message_id: str) -> str:
    """Wait for a message's end; its text."""
    return visible_text(await asked.api.log(message_id, within=30))


async def shown(asked: Provided, message_id: str) -> list[list[tuple[str, str]]]:
    """The turns of each request that the provider was sent for a message."""
    bodies = [request["body"] for request in await asked.requests(message_id)]
    return [[(turn["role"], turn["content"]) for turn in body["messages"]] for body in bodies]


async def test_branches_and_other_answers_are_each_shown_their_own_path(asked: Provided) -> None:
    first = await ask(asked, "says=a1", "q1")
    await answered(asked, first)
    talk = (await asked.api.snapshot(first))["conversation_id"]
    second = await ask(asked, "says=a2", "q2", conversation_id=talk)  # after the newest
    branch = await ask(asked, "says=a3", "q3", conversation_id=talk, parent_id=first)
    again = await ask(asked, "says=a4", regenerate=second)
    later = await ask(asked, "says=a5", "q5", conversation_id=talk, parent_id=again)
    assert await answered(asked, later) == "a5"
    begun = [("user", "q1"), ("assistant", "a1")]
    assert await shown(asked, first) == [begun[:1]]
    assert await shown(asked, second) == [[*begun, ("user", "q2")]]
    assert await shown(asked, branch) == [[*begun, ("user", "q3")]]
    assert await shown(asked, again) == [[*begun, ("user", "q2")]]
    assert await shown(asked, later) == [
        [*begun, ("user", "q2"), ("assistant", "a4"), ("user", "q5")]
    ]


async def test_a_cancelled_messages_text_is_shown_and_a_takeover_shows_the_same(
    asked: Provided,
) -> None:
    first = await ask(asked, "words=300&rate=50", "q1")
    async with open_tail(asked.api.events(first)) as tail:
        await tail.read_n(10)
    await asked.api.cancel(first)
    half = await answered(asked, first)
    assert 0 < len(half) < len(simulated_text(300))
    assert simulated_text(300).startswith(half)
    talk = (await asked.api.snapshot(first))["conversation_id"]
    second = await ask(asked, "words=100&rate=50", "q2", conversation_id=talk)
    async with open_tail(asked.api.events(second)) as tail:
        await tail.read_n(10)
    asked.stack.worker.kill()
    asked.stack.new_worker().start()
    await answered(asked, second)
    path = [("user", "q1"), ("assistant", half), ("user", "q2")]
    assert await shown(asked, second) == [path, path]
