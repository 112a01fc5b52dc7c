"""Structured output: an answer that does not fit its JSON schema, and what becomes of it."""

import json
from typing import Any

from redis.asyncio import Redis

from rejoin.shared import record
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FinishReason
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.shared.record import Status
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.base import FinishChunk, UsageChunk
from tests.support.in_process import SCRIPT, until_ended, until_events, worker_on
from tests.support.messages import post, until
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
}
FORMAT = ResponseFormat("answer", SCHEMA)
VALID, INVALID = ['{"a', '": ', "1}"], ['{"a": ', '"one"}']
OTHER = "script/y"


def metered(*words: str, tokens: int) -> list[Line]:
    return [
        *texts(*words),
        UsageChunk(input_tokens=tokens, output_tokens=1),
        FinishChunk(FinishReason.STOP),
    ]


def names(frames: list[Frame]) -> list[str]:
    """The events' names, runs of text as one."""
    found: list[str] = []
    for frame in frames:
        if not (frame.name == "text" and found[-1:] == ["text"]):
            found.append(frame.name)
    return found


def data(frame: Frame) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(frame.json)
    return told


async def asked(redis: Redis, **fields: Any) -> str:
    return await post(redis, model=SCRIPT, response_format=FORMAT, **fields)


async def test_an_answer_that_fits_is_passed_on_as_it_came(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer(*VALID))
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, await asked(redis))
    assert [frame.name for frame in frames] == [
        "start", "text", "text", "text", "step", "usage", "done",
    ]  # fmt: skip
    assert [call.response_format for call in provider.calls] == [FORMAT]


async def test_one_that_does_not_fit_is_taken_back_and_asked_for_once_more(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(metered(*INVALID, tokens=5), metered(*VALID, tokens=7))
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, await asked(redis))
    assert names(frames) == ["start", "text", "reset", "text", "step", "usage", "done"]
    reset, usage, done = (data(frame) for frame in (frames[3], frames[-2], frames[-1]))
    assert (reset["after"], reset["attempt"], reset["reason"]) == (None, 2, "invalid_output")
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 2)
    assert usage["estimated"] is False
    assert done == {"finish_reason": "stop", "text_chars": len("".join(VALID))}
    assert fold(frames).text == "".join(VALID)


async def test_the_model_is_shown_its_own_answer_and_what_is_wrong_with_it(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer(*INVALID), answer(*VALID))
    async with worker_on(clean_redis_url, provider):
        await until_ended(redis, await asked(redis))
    first, second = (call.turns for call in provider.calls)
    assert second[: len(first)] == first
    own, told = second[len(first) :]
    assert (own.role, own.content) == ("assistant", "".join(INVALID))
    assert told.role == "user"
    assert "$.a: 'one' is not of type 'integer'" in str(told.content)
    assert provider.calls[1].response_format == FORMAT


async def test_an_empty_answer_is_not_shown_as_an_empty_turn(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider([FinishChunk(FinishReason.STOP)], answer(*VALID))
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, await asked(redis))
    assert names(frames) == ["start", "reset", "text", "step", "usage", "done"]
    assert [turn.role for turn in provider.calls[1].turns] == ["user", "user"]


async def test_a_second_one_that_does_not_fit_fails_the_message(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(metered(*INVALID, tokens=5), metered("no JSON", tokens=7))
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, await asked(redis))
    assert names(frames) == ["start", "text", "reset", "text", "usage", "failed"]
    assert data(frames[-2])["input_tokens"] == 12
    failed = data(frames[-1])
    assert (failed["code"], failed["retryable"], failed["status"]) == ("invalid_output", True, None)
    assert "not JSON" in failed["message"]
    assert len(provider.calls) == 2


async def test_without_a_schema_nothing_is_validated(clean_redis_url: str, redis: Redis) -> None:
    async with worker_on(clean_redis_url, ScriptedProvider(answer("no JSON"))):
        frames = await until_ended(redis, await post(redis, model=SCRIPT))
    assert names(frames) == ["start", "text", "step", "usage", "done"]


async def test_an_answer_that_was_cut_is_not_asked_for_again(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer('{"a": ', reason=FinishReason.LENGTH))
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, await asked(redis, fallbacks=[OTHER]))
    assert names(frames) == ["start", "text", "usage", "failed"]
    failed = data(frames[-1])
    assert (failed["code"], failed["retryable"]) == ("invalid_output", False)
    assert "max_tokens" in failed["message"]
    assert len(provider.calls) == 1


async def test_an_answer_that_was_cut_where_it_was_whole_is_taken(
    clean_redis_url: str, redis: Redis
) -> None:
    async with worker_on(
        clean_redis_url, ScriptedProvider(answer(*VALID, reason=FinishReason.LENGTH))
    ):
        frames = await until_ended(redis, await asked(redis))
    assert data(frames[-1])["finish_reason"] == "length"


async def test_a_refusal_is_no_answer_and_is_not_validated(
    clean_redis_url: str, redis: Redis
) -> None:
    script = answer("I will not.", reason=FinishReason.CONTENT_FILTER)
    async with worker_on(clean_redis_url, ScriptedProvider(script)):
        frames = await until_ended(redis, await asked(redis))
    assert names(frames) == ["start", "text", "step", "usage", "done"]
    assert data(frames[-1])["finish_reason"] == "content_filter"


async def test_a_provider_that_breaks_in_the_second_call_is_shown_the_same_again(
    clean_redis_url: str, redis: Redis
) -> None:
    broken = ProviderError("gone", code="provider_unavailable", retryable=True)
    provider = ScriptedProvider(answer(*INVALID), [*texts('{"a'), broken], answer(*VALID))
    async with worker_on(clean_redis_url, provider, provider_retries=2):
        frames = await until_ended(redis, await asked(redis))
    assert names(frames) == [
        "start",
        "text",
        "reset",
        "text",
        "reset",
        "text",
        "step",
        "usage",
        "done",
    ]
    assert [data(frame)["reason"] for frame in frames if frame.name == "reset"] == [
        "invalid_output",
        "provider_unavailable",
    ]
    assert provider.calls[2].turns == provider.calls[1].turns
    assert fold(frames).text == "".join(VALID)


async def test_the_next_model_goes_on_and_has_a_second_call_of_its_own(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer(*INVALID), answer("no"), answer("none"), answer(*VALID))
    async with worker_on(clean_redis_url, provider):
        frames = await until_ended(redis, await asked(redis, fallbacks=[OTHER]))
    assert fold(frames).text == "".join(VALID)
    assert [call.model for call in provider.calls] == ["x", "x", "y", "y"]
    assert [len(call.turns) for call in provider.calls] == [1, 3, 1, 3]
    assert frames[-1].name == "done"


async def test_a_worker_lost_in_the_second_call_is_followed_by_one_that_knows_of_the_first(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = ScriptedProvider(answer(*INVALID), [*texts('{"a'), SILENCE], answer('{"a": null}'))
    async with worker_on(clean_redis_url, provider, lease_seconds=0.5) as first:
        message_id = await asked(redis)
        await until_events(redis, message_id, 5)
        await first.die()
        async with worker_on(clean_redis_url, provider, name="worker-2", lease_seconds=0.5):
            frames = await until_ended(redis, message_id)
    assert names(frames) == ["start", "text", "reset", "text", "reset", "text", "usage", "failed"]
    reasons = [data(frame)["reason"] for frame in frames if frame.name == "reset"]
    assert reasons == ["invalid_output", "takeover"]
    assert data(frames[-1])["code"] == "invalid_output"
    assert provider.calls[2].turns == provider.calls[1].turns
    assert len(provider.calls) == 3


async def test_a_worker_lost_while_it_validated_is_followed_by_one_that_asks_anew(
    clean_redis_url: str, redis: Redis
) -> None:
    endless = ResponseFormat("answer", {"pattern": "^(a+)+$"})
    long = f'"{"a" * 60}!"'
    provider = ScriptedProvider(answer(long), answer('"aa"'))
    async with worker_on(clean_redis_url, provider, lease_seconds=0.5) as first:
        first.kit.validation._seconds = 60
        message_id = await post(redis, model=SCRIPT, response_format=endless)
        await until_events(redis, message_id, 2)
        await until(lambda: _validates(first))
        await first.die()
        async with worker_on(clean_redis_url, provider, name="worker-2", lease_seconds=0.5):
            frames = await until_ended(redis, message_id)
    assert names(frames) == ["start", "text", "reset", "text", "step", "usage", "done"]
    assert fold(frames).text == '"aa"'


async def test_a_cancel_while_an_answer_is_validated_ends_it_as_cancelled(
    clean_redis_url: str, redis: Redis
) -> None:
    endless = ResponseFormat("answer", {"pattern": "^(a+)+$"})
    long = f'"{"a" * 60}!"'
    provider = ScriptedProvider(answer(long))
    async with worker_on(clean_redis_url, provider) as running:
        running.kit.validation._seconds = 60
        message_id = await post(redis, model=SCRIPT, response_format=endless)
        await until(lambda: _validates(running))
        await record.cancel(redis, message_id)
        frames = await until_ended(redis, message_id)
        found = await record.load(redis, message_id)
    assert names(frames) == ["start", "text", "usage", "done"]
    assert data(frames[-1]) == {"finish_reason": "cancelled", "text_chars": len(long)}
    assert found is not None
    assert found.status is Status.CANCELLED
    assert len(provider.calls) == 1


async def test_a_schema_that_takes_for_ever_fails_the_message_and_no_other(
    clean_redis_url: str, redis: Redis
) -> None:
    endless = ResponseFormat("answer", {"pattern": "^(a+)+$"})
    provider = ScriptedProvider(answer(f'"{"a" * 60}!"'))
    async with worker_on(clean_redis_url, provider):
        message_id = await post(redis, model=SCRIPT, response_format=endless)
        other = await until_ended(redis, await post(redis, "one two"))
        frames = await until_ended(redis, message_id)
    assert other[-1].name == "done"
    assert names(frames) == ["start", "text", "usage", "failed"]
    failed = data(frames[-1])
    assert (failed["code"], failed["retryable"]) == ("invalid_output", False)
    assert "longer than" in failed["message"]


async def test_echo_is_held_to_a_schema_too(clean_redis_url: str, redis: Redis) -> None:
    async with worker_on(clean_redis_url):
        fits = await post(redis, '{"a": 1}', response_format=FORMAT)
        differs = await post(redis, "hello", response_format=FORMAT)
        assert names(await until_ended(redis, fits))[-1] == "done"
        frames = await until_ended(redis, differs)
    assert names(frames) == ["start", "text", "reset", "text", "usage", "failed"]
    assert data(frames[-1])["code"] == "invalid_output"


async def _validates(running: Any) -> bool:
    return bool(running.kit.validation._turn.locked())


async def test_a_provider_that_has_finished_and_does_not_close_is_held_to_the_schema_too(
    clean_redis_url: str, redis: Redis
) -> None:
    script = [*answer(*INVALID), SILENCE]
    provider = ScriptedProvider(script, [*answer(*VALID), SILENCE])
    async with worker_on(clean_redis_url, provider, timeout_idle=0.2):
        frames = await until_ended(redis, await asked(redis))
    assert names(frames) == ["start", "text", "reset", "text", "step", "usage", "done"]
    assert provider.open == 0
