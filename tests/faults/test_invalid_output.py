"""A provider whose answers do not fit the JSON schema: what clients see, and what it is shown."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.caller import Caller, assert_whole_log, caller, visible_text
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_server import provider_process
from tests.support.redis_server import RedisServer, redis_server
from tests.support.sse_reader import SseFrame, open_tail

VALID = '{"city":"Zürich","people":427721}'
WRONG = "something else"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}


class Asked(NamedTuple):
    """A stack whose `openai` is a simulator in a process of its own."""

    stack: Stack
    api: Caller
    base_url: str

    async def ask(self, options: str, **fields: Any) -> str:
        """POST a message for a simulated model that no other test counts with; its id."""
        model = f"openai/sim?{options}&n={uuid.uuid4().hex[:8]}"
        return await self.api.accepted(
            "which city?", model=model, **{"response_format": FORMAT, **fields}
        )

    async def requests(self, message_id: str) -> list[dict[str, Any]]:
        """The bodies that the provider was sent for a message, in order."""
        address = self.base_url.removesuffix("/v1") + "/requests"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            told: list[dict[str, Any]] = (await http.get(address)).json()
        return [request["body"] for request in told if request["reference"] == message_id]


@contextmanager
def asked_stack(redis: RedisServer) -> Iterator[tuple[Stack, str]]:
    with provider_process() as base_url:
        settings = {
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": base_url,
            "REJOIN_LEASE_SECONDS": "1",
        }
        with rejoin_stack(redis, settings=settings) as stack:
            yield stack, base_url
            stack.assert_no_traceback()


@pytest.fixture(scope="module")
def shared_stack() -> Iterator[tuple[Stack, str]]:
    """One for all tests that leave it whole."""
    with redis_server() as redis, asked_stack(redis) as made:
        yield made


@pytest.fixture
async def asked(shared_stack: tuple[Stack, str]) -> AsyncIterator[Asked]:
    stack, base_url = shared_stack
    async with caller(stack.url) as api:
        yield Asked(stack, api, base_url)


@pytest.fixture
async def own(own_redis: RedisServer) -> AsyncIterator[Asked]:
    """A stack for a test to break."""
    with asked_stack(own_redis) as (stack, base_url):
        async with caller(stack.url) as api:
            yield Asked(stack, api, base_url)


def names(frames: list[SseFrame]) -> list[str]:
    """The events' names, runs of text as one."""
    found: list[str] = []
    for frame in frames:
        if not (frame.event == "text" and found[-1:] == ["text"]):
            found.append(frame.event)
    return found


def of(frames: list[SseFrame], name: str) -> list[dict[str, Any]]:
    return [frame.data for frame in frames if frame.event == name]


async def test_an_invalid_answer_is_taken_back_for_the_valid_one(asked: Asked) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other&times=1")
    frames = await asked.api.log(message_id, within=20)
    assert_whole_log(frames)
    assert names(frames) == ["start", "text", "reset", "text", "step", "usage", "done"]
    assert visible_text(frames) == VALID
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(VALID)}
    (reset,) = of(frames, "reset")
    assert (reset["after"], reset["attempt"], reset["reason"]) == (None, 2, "invalid_output")
    (usage,) = of(frames, "usage")
    assert (usage["input_tokens"], usage["estimated"]) == (14, False)
    seen = await asked.api.snapshot(message_id)
    assert (seen["text"], seen["status"]) == (VALID, "done")
    assert [attempt["reason"] for attempt in seen["attempts"]] == [None, "invalid_output"]


async def test_whoever_joins_late_or_comes_back_has_the_valid_text_alone(asked: Asked) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other&times=1")
    frames = await asked.api.log(message_id, within=20)
    for had in range(len(frames)):
        last = frames[had - 1].id if had else None
        async with open_tail(asked.api.events(message_id), last_event_id=last) as tail:
            rest = await tail.read_until_end()
        assert visible_text([*frames[:had], *rest]) == VALID


async def test_the_provider_is_shown_its_answer_and_the_errors(asked: Asked) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other&times=1")
    await asked.api.log(message_id, within=20)
    first, second = [body["messages"] for body in await asked.requests(message_id)]
    assert first == [{"role": "user", "content": "which city?"}]
    assert second[:2] == [*first, {"role": "assistant", "content": WRONG}]
    assert second[2]["role"] == "user"
    assert "it is not JSON" in second[2]["content"]


async def test_a_second_invalid_answer_fails_the_message(asked: Asked) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other")
    frames = await asked.api.log(message_id, within=20)
    assert_whole_log(frames)
    assert names(frames) == ["start", "text", "reset", "text", "usage", "failed"]
    failed = frames[-1].data
    assert (failed["code"], failed["retryable"], failed["status"]) == ("invalid_output", True, None)
    assert frames[-2].data["input_tokens"] == 14
    assert len(await asked.requests(message_id)) == 2
    assert (await asked.api.snapshot(message_id))["error"]["code"] == "invalid_output"


async def test_a_cancel_in_the_second_call_ends_it_as_cancelled(asked: Asked) -> None:
    message_id = await asked.ask(f"says={VALID}&rate=5&fault=other&times=1")
    async with open_tail(asked.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-2:] == ["reset", "text"], within=20)
        assert (await asked.api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=5)
    assert names(frames) == ["start", "text", "reset", "text", "usage", "done"]
    assert frames[-1].data["finish_reason"] == "cancelled"
    assert VALID.startswith(visible_text(frames))


async def test_a_worker_killed_in_the_second_call_is_followed_by_one_that_knows_of_the_first(
    own: Asked,
) -> None:
    message_id = await own.ask(f"says={VALID}&rate=5&fault=other&times=1")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-2:] == ["reset", "text"], within=20)
        own.stack.worker.kill()
        own.stack.new_worker().start()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    assert [reset["reason"] for reset in of(frames, "reset")] == ["invalid_output", "takeover"]
    assert visible_text(frames) == VALID
    _, second, third = await own.requests(message_id)
    assert third["messages"] == second["messages"]


async def test_a_worker_killed_before_a_second_invalid_answer_does_not_ask_a_third_time(
    own: Asked,
) -> None:
    message_id = await own.ask("rate=5&fault=other")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-2:] == ["reset", "text"], within=20)
        own.stack.worker.kill()
        own.stack.new_worker().start()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    assert (frames[-1].event, frames[-1].data["code"]) == ("failed", "invalid_output")
    assert len(of(frames, "reset")) == 2
    assert len(await own.requests(message_id)) == 3


async def test_a_schema_whose_pattern_never_ends_holds_up_nobody(asked: Asked) -> None:
    endless = {"name": "a", "schema": {"pattern": "^([a-z ]+)+$"}}
    message_id = await asked.ask(
        'says="' + "a" * 60 + '!"',
        response_format={"type": "json_schema", "json_schema": endless},
    )
    plain = await asked.ask(f"says={VALID}", response_format=None)
    assert names(await asked.api.log(plain, within=20))[-1] == "done"
    frames = await asked.api.log(message_id, within=20)
    assert (frames[-1].event, frames[-1].data["code"]) == ("failed", "invalid_output")
    assert frames[-1].data["retryable"] is False
