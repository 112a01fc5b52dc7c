"""A provider whose answers do not fit the JSON schema: what clients see, and what it is shown."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.caller import assert_whole_log, data_of, names, visible_text
from tests.support.provided import ASKED, Provided, Simulated, provided_by, simulated
from tests.support.redis_server import RedisServer, redis_server
from tests.support.sse_reader import open_tail

VALID = '{"city":"Zürich","people":427721}'
WRONG = "something else"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulated]:
    """One for all tests that leave it whole."""
    with redis_server() as redis, simulated(redis) as made:
        yield made


@pytest.fixture
async def asked(shared: Simulated) -> AsyncIterator[Provided]:
    async with provided_by(shared, response_format=FORMAT) as asked:
        yield asked


@pytest.fixture
async def own(own_redis: RedisServer) -> AsyncIterator[Provided]:
    """A stack for a test to break."""
    with simulated(own_redis) as made:
        async with provided_by(made, response_format=FORMAT) as own:
            yield own


async def test_an_invalid_answer_is_taken_back_for_the_valid_one(asked: Provided) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other&times=1")
    frames = await asked.api.log(message_id, within=20)
    assert_whole_log(frames)
    assert names(frames) == ["start", "text", "reset", "text", "step", "usage", "done"]
    assert visible_text(frames) == VALID
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(VALID)}
    (reset,) = data_of(frames, "reset")
    assert (reset["after"], reset["attempt"], reset["reason"]) == (None, 2, "invalid_output")
    (usage,) = data_of(frames, "usage")
    assert (usage["input_tokens"], usage["estimated"]) == (14, False)
    seen = await asked.api.snapshot(message_id)
    assert (seen["text"], seen["status"]) == (VALID, "done")
    assert [attempt["reason"] for attempt in seen["attempts"]] == [None, "invalid_output"]


async def test_whoever_joins_late_or_comes_back_has_the_valid_text_alone(asked: Provided) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other&times=1")
    frames = await asked.api.log(message_id, within=20)
    for had in range(len(frames)):
        last = frames[had - 1].id if had else None
        async with open_tail(asked.api.events(message_id), last_event_id=last) as tail:
            rest = await tail.read_until_end()
        assert visible_text([*frames[:had], *rest]) == VALID


async def test_the_provider_is_shown_its_answer_and_the_errors(asked: Provided) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other&times=1")
    await asked.api.log(message_id, within=20)
    requests = await asked.requests(message_id)
    first, second = [request["body"]["messages"] for request in requests]
    assert first == [{"role": "user", "content": ASKED}]
    assert second[:2] == [*first, {"role": "assistant", "content": WRONG}]
    assert second[2]["role"] == "user"
    assert "it is not JSON" in second[2]["content"]


async def test_a_second_invalid_answer_fails_the_message(asked: Provided) -> None:
    message_id = await asked.ask(f"says={VALID}&fault=other")
    frames = await asked.api.log(message_id, within=20)
    assert_whole_log(frames)
    assert names(frames) == ["start", "text", "reset", "text", "usage", "failed"]
    failed = frames[-1].data
    assert (failed["code"], failed["retryable"], failed["status"]) == ("invalid_output", True, None)
    assert frames[-2].data["input_tokens"] == 14
    assert len(await asked.requests(message_id)) == 2
    assert (await asked.api.snapshot(message_id))["error"]["code"] == "invalid_output"


async def test_a_cancel_in_the_second_call_ends_it_as_cancelled(asked: Provided) -> None:
    message_id = await asked.ask(f"says={VALID}&rate=5&fault=other&times=1")
    async with open_tail(asked.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-2:] == ["reset", "text"], within=20)
        assert (await asked.api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=5)
    assert names(frames) == ["start", "text", "reset", "text", "usage", "done"]
    assert frames[-1].data["finish_reason"] == "cancelled"
    assert VALID.startswith(visible_text(frames))


async def test_a_worker_killed_in_the_second_call_is_followed_by_one_that_knows_of_the_first(
    own: Provided,
) -> None:
    message_id = await own.ask(f"says={VALID}&rate=5&fault=other&times=1")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-2:] == ["reset", "text"], within=20)
        own.stack.worker.kill()
        own.stack.new_worker().start()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    assert [reset["reason"] for reset in data_of(frames, "reset")] == ["invalid_output", "takeover"]
    assert visible_text(frames) == VALID
    _, second, third = [request["body"] for request in await own.requests(message_id)]
    assert third["messages"] == second["messages"]


async def test_a_worker_killed_before_a_second_invalid_answer_does_not_ask_a_third_time(
    own: Provided,
) -> None:
    message_id = await own.ask("rate=5&fault=other")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-2:] == ["reset", "text"], within=20)
        own.stack.worker.kill()
        own.stack.new_worker().start()
        frames = await tail.read_until_end(within=20)
    assert_whole_log(frames)
    assert (frames[-1].event, frames[-1].data["code"]) == ("failed", "invalid_output")
    assert len(data_of(frames, "reset")) == 2
    assert len(await own.requests(message_id)) == 3


async def test_a_schema_whose_pattern_never_ends_holds_up_nobody(asked: Provided) -> None:
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
