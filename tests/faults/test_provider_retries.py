"""A provider that fails and is asked again: what clients see of it, and how often it is asked."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.caller import Stopwatch, assert_whole_log, data_of, names, visible_text
from tests.support.provided import KEY, WORDS, Provided, Simulated, provided_by, simulated
from tests.support.provider_script import simulated_text
from tests.support.redis_server import RedisServer, redis_server
from tests.support.sse_reader import SseFrame, open_tail

TRIES = 3
SETTINGS = {
    "REJOIN_TIMEOUT_IDLE": "1.5",
    "REJOIN_TIMEOUT_FIRST_TOKEN": "1.5",
    "REJOIN_PROVIDER_RETRIES": str(TRIES),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulated]:
    """One for all tests that leave it whole."""
    with redis_server() as redis, simulated(redis, **SETTINGS) as made:
        yield made


@pytest.fixture
async def provided(shared: Simulated) -> AsyncIterator[Provided]:
    async with provided_by(shared) as provided:
        yield provided


@pytest.fixture
async def own(own_redis: RedisServer) -> AsyncIterator[Provided]:
    """A stack for a test to break."""
    with simulated(own_redis, **SETTINGS) as made:
        async with provided_by(made) as own:
            yield own


def assert_answered(frames: list[SseFrame]) -> None:
    assert_whole_log(frames)
    assert visible_text(frames) == simulated_text(WORDS)
    chars = len(simulated_text(WORDS))
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": chars}


BEFORE = {
    "fault=429&retry_after=0": "rate_limited",
    "fault=500": "provider_unavailable",
    "fault=503": "provider_unavailable",
    "fault=empty": "provider_protocol",
    "fault=html": "provider_protocol",
}


@pytest.mark.parametrize("fault", BEFORE)
async def test_failures_before_the_first_event_are_told_and_then_there_is_the_answer(
    provided: Provided, fault: str
) -> None:
    message_id = await provided.ask(f"{fault}&times=2")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    assert names(frames) == ["start", "retry", "retry", "text", "step", "usage", "done"]
    for retry in data_of(frames, "retry"):
        assert set(retry) == {"reason", "in_seconds"}
        assert retry["reason"] == BEFORE[fault]
    assert {frame.id.partition("-")[0] for frame in frames if frame.id} == {"1"}
    (usage,) = data_of(frames, "usage")
    assert (usage["output_tokens"], usage["estimated"]) == (WORDS, False)
    assert len(await provided.requests(message_id)) == 3


async def test_a_provider_that_gave_nothing_in_time_is_asked_again(provided: Provided) -> None:
    message_id = await provided.ask("fault=silent&times=1")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    assert [retry["reason"] for retry in data_of(frames, "retry")] == ["provider_timeout"]
    assert data_of(frames, "reset") == []
    assert [request["disconnected"] for request in await provided.requests(message_id)] == [
        True,
        False,
    ]


async def test_the_pauses_grow_and_are_told_as_they_are(provided: Provided) -> None:
    message_id = await provided.ask("fault=500&times=2")
    frames = await provided.api.log(message_id, within=20)
    first, second = (retry["in_seconds"] for retry in data_of(frames, "retry"))
    assert 0.25 <= first <= 0.5 <= second <= 1
    at = [request["at"] for request in await provided.requests(message_id)]
    assert at[1] - at[0] >= first - 0.01
    assert at[2] - at[1] >= second - 0.01


async def test_retry_after_is_honoured(provided: Provided) -> None:
    message_id = await provided.ask("fault=429&retry_after=2&times=1")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    (retry,) = data_of(frames, "retry")
    assert 2 <= retry["in_seconds"] <= 2.25
    before, after = await provided.requests(message_id)
    assert after["at"] - before["at"] >= 2


async def test_when_all_tries_are_used_up_it_fails_in_the_providers_words(
    provided: Provided,
) -> None:
    message_id = await provided.ask("fault=429&retry_after=0")
    frames = await provided.api.log(message_id, within=20)
    assert_whole_log(frames)
    assert names(frames) == ["start", "retry", "retry", "usage", "failed"]
    failed = frames[-1].data
    assert (failed["code"], failed["status"]) == ("rate_limited", 429)
    assert "Simulated error 429." in failed["message"]
    assert failed["retryable"] is True
    assert len(await provided.requests(message_id)) == TRIES


REFUSED = {
    "fault=400": "invalid_request",
    "fault=401": "authentication",
    "fault=403": "authentication",
    "fault=404": "invalid_request",
    "fault=context": "context_length_exceeded",
    "fault=filter": "content_filter",
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_what_is_not_retryable_fails_at_once(provided: Provided, fault: str) -> None:
    # What no other model could do better is not asked of one.
    others = ["words=6"] if fault == "fault=400" else []
    message_id = await provided.ask(fault, *others)
    frames = await provided.api.log(message_id)
    assert names(frames) == ["start", "usage", "failed"]
    assert frames[-1].data["code"] == REFUSED[fault]
    assert frames[-1].data["retryable"] is False
    assert len(await provided.requests(message_id)) == 1


async def test_a_key_that_the_provider_repeats_is_told_to_nobody(provided: Provided) -> None:
    message_id = await provided.ask("fault=leak")
    frames = await provided.api.log(message_id)
    assert frames[-1].data["code"] == "authentication"
    assert "Incorrect API key provided" in frames[-1].data["message"]
    for said in (frames[-1].raw.decode(), str(await provided.api.snapshot(message_id))):
        assert KEY not in said
        assert KEY[-8:] not in said


MIDWAY = {
    "fault=drop": {"provider_unavailable", "provider_protocol"},
    "fault=reset": {"provider_unavailable", "provider_protocol"},
    "fault=eof": {"provider_protocol"},
    "fault=junk": {"provider_protocol"},
    "fault=error": {"provider_unavailable"},
    "fault=stall": {"provider_timeout"},
}


@pytest.mark.parametrize("fault", MIDWAY)
async def test_a_break_in_mid_stream_is_taken_back_and_done_again_by_the_same_worker(
    provided: Provided, fault: str
) -> None:
    message_id = await provided.ask(f"{fault}&times=1")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    assert names(frames) == ["start", "text", "reset", "text", "step", "usage", "done"]
    (reset,) = data_of(frames, "reset")
    seen = await provided.api.snapshot(message_id)
    assert reset["after"] is None
    assert reset["attempt"] == seen["attempt"] == 2
    assert reset["reason"] in MIDWAY[fault]
    assert reset["model"] == seen["model"]
    assert len({attempt["worker"] for attempt in seen["attempts"]}) == 1
    assert "lease" not in provided.stack.worker.said()
    (usage,) = data_of(frames, "usage")
    assert usage["estimated"] is True
    assert usage["input_tokens"] > 7  # both calls are billed, and only one of them told
    assert usage["output_tokens"] > WORDS
    assert len(await provided.requests(message_id)) == 2


async def test_breaks_in_mid_stream_are_bounded(provided: Provided) -> None:
    message_id = await provided.ask("fault=drop&at=4")
    frames = await provided.api.log(message_id, within=20)
    assert_whole_log(frames)
    again = ["reset", "text"] * (TRIES - 1)
    assert names(frames) == ["start", "text", *again, "usage", "failed"]
    assert visible_text(frames) == simulated_text(4)
    assert frames[-1].data["retryable"] is True
    assert len(await provided.requests(message_id)) == TRIES


async def test_a_late_reader_of_an_answer_with_breaks_has_its_text_alone(
    provided: Provided,
) -> None:
    message_id = await provided.ask("fault=eof&at=3&times=2")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    for frame in frames[:-1]:
        async with open_tail(provided.api.events(message_id), last_event_id=frame.id) as tail:
            rest = await tail.read_until_end()
        had = frames[: frames.index(frame) + 1]
        assert visible_text([*had, *rest]) == simulated_text(WORDS)


async def test_the_next_model_goes_on_when_one_has_used_up_its_tries(provided: Provided) -> None:
    message_id = await provided.ask("fault=503&retry_after=0", "words=6")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    assert names(frames) == [
        "start", "retry", "retry", "reset", "text", "step", "usage", "done",
    ]  # fmt: skip
    (reset,) = data_of(frames, "reset")
    models = [request["body"]["model"] for request in await provided.requests(message_id)]
    assert reset["model"] == "openai/" + models[-1]
    assert reset["reason"] == "provider_unavailable"
    assert len(models) == TRIES + 1
    attempts = (await provided.api.snapshot(message_id))["attempts"]
    assert [attempt["model"] for attempt in attempts] == ["openai/" + models[0], reset["model"]]


async def test_models_are_asked_in_their_order_and_each_has_its_own_tries(
    provided: Provided,
) -> None:
    first, second = "fault=500&retry_after=0", "fault=drop&retry_after=0"
    message_id = await provided.ask(first, second, "fault=429&retry_after=0&times=1")
    frames = await provided.api.log(message_id, within=30)
    assert_answered(frames)
    models = [request["body"]["model"] for request in await provided.requests(message_id)]
    assert len(set(models)) == 3
    assert models == [*models[:1] * 3, *models[3:4] * 3, *models[6:7] * 2]
    resets = [reset["model"].removeprefix("openai/") for reset in data_of(frames, "reset")]
    assert resets == [*models[3:6], models[6]]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("401", "authentication"),
        ("402", "rate_limited"),
        ("404", "invalid_request"),
        ("context", "context_length_exceeded"),
        ("filter", "content_filter"),
    ],
)
async def test_the_next_model_goes_on_at_once_when_asking_one_again_is_of_no_use(
    provided: Provided, fault: str, reason: str
) -> None:
    message_id = await provided.ask(f"fault={fault}", "words=6")
    frames = await provided.api.log(message_id, within=20)
    assert_answered(frames)
    assert [reset["reason"] for reset in data_of(frames, "reset")] == [reason]
    assert len(await provided.requests(message_id)) == 2


async def test_what_is_wrong_with_the_request_itself_asks_no_other_model(
    provided: Provided,
) -> None:
    message_id = await provided.ask("fault=400", "words=6")
    frames = await provided.api.log(message_id, within=20)
    assert names(frames)[-1] == "failed"
    assert len(await provided.requests(message_id)) == 1


async def test_when_all_models_fail_the_message_fails_as_the_last_one(provided: Provided) -> None:
    message_id = await provided.ask("fault=503&retry_after=0", "fault=429&retry_after=0")
    frames = await provided.api.log(message_id, within=20)
    assert_whole_log(frames)
    assert (frames[-1].event, frames[-1].data["code"]) == ("failed", "rate_limited")
    assert len(data_of(frames, "usage")) == 1
    assert len(await provided.requests(message_id)) == 2 * TRIES


async def test_a_cancel_ends_a_pause(provided: Provided) -> None:
    message_id = await provided.ask("fault=503&retry_after=60")
    async with open_tail(provided.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-1:] == ["retry"])
        watch = Stopwatch()
        assert (await provided.api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=5)
        assert watch.seconds < 2
    assert names(frames) == ["start", "retry", "usage", "done"]
    assert frames[-1].data == {"finish_reason": "cancelled", "text_chars": 0}
    assert len(await provided.requests(message_id)) == 1


async def test_a_retry_after_beyond_the_messages_time_fails_it_at_once(provided: Provided) -> None:
    message_id = await provided.ask("fault=429&retry_after=100000")
    frames = await provided.api.log(message_id)
    assert names(frames) == ["start", "usage", "failed"]
    assert frames[-1].data["code"] == "rate_limited"
    assert len(await provided.requests(message_id)) == 1


async def test_a_fallback_is_not_kept_waiting_by_a_retry_after_beyond_the_messages_time(
    provided: Provided,
) -> None:
    message_id = await provided.ask("fault=429&retry_after=100000", "words=6")
    frames = await provided.api.log(message_id)
    assert_answered(frames)
    assert [reset["reason"] for reset in data_of(frames, "reset")] == ["rate_limited"]


async def test_a_fallback_is_not_kept_waiting_by_a_parking_of_its_own_providers_key(
    own: Provided,
) -> None:
    another = f"openai/another?words={WORDS}"
    message_id = await own.ask("fault=429&retry_after=60", fallbacks=[another])
    frames = await own.api.log(message_id)
    assert_answered(frames)
    assert [reset["reason"] for reset in data_of(frames, "reset")] == ["rate_limited"]


async def test_a_worker_that_leaves_in_a_pause_hands_over(own: Provided) -> None:
    message_id = await own.ask("fault=503&retry_after=60&times=1")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-1:] == ["retry"])
        own.stack.new_worker().start()
        assert await asyncio.to_thread(own.stack.worker.terminate, 4) == 0  # not as a late task
        frames = await tail.read_until_end(within=10)
    assert_answered(frames)
    assert names(frames) == ["start", "retry", "reset", "text", "step", "usage", "done"]
    seen = await own.api.snapshot(message_id)
    assert len({attempt["worker"] for attempt in seen["attempts"]}) == 2


async def test_a_worker_killed_in_a_pause_is_followed_by_another(own: Provided) -> None:
    message_id = await own.ask("fault=503&retry_after=60&times=1")
    async with open_tail(own.api.events(message_id)) as tail:
        await tail.until(lambda: names(tail.frames)[-1:] == ["retry"])
        own.stack.new_worker().start()
        own.stack.worker.kill()
        frames = await tail.read_until_end(within=10)
    assert_answered(frames)
    assert data_of(frames, "reset")[0]["reason"] == "takeover"
