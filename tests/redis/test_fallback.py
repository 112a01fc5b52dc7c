"""The next model goes on where one failed; one that failed is left alone by all workers."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import cooling, keys
from rejoin.shared.errors import LogUnavailable, ProviderError
from rejoin.shared.fold import Message, fold
from rejoin.shared.frames import Frame
from rejoin.worker import tries
from rejoin.worker.failures import failure_of
from rejoin.worker.fallback import Fallback
from rejoin.worker.providers.base import WorkingChunk
from tests.support.cooled import time_over
from tests.support.in_process import kit_for, until_ended, until_events, worker_on
from tests.support.logs import data, names
from tests.support.messages import post, until_true
from tests.support.scripted_provider import SILENCE, Line, answer, texts
from tests.support.several_models import SeveralModels
from tests.support.tools import PlainTool, call, calling

A, B, C = "script/a", "script/b", "script/c"
WHOLE: Final = answer("all ", "of ", "it")
TEXT: Final = "all of it"
STRAIGHT: Final = ["start", *["text"] * len(WHOLE[:-1]), "step", "usage", "done"]


def error(
    code: str = "provider_unavailable",
    *,
    retryable: bool = True,
    status: int | None = None,
    after: float | None = None,
) -> ProviderError:
    return ProviderError(
        "no", code=code, retryable=retryable, status=status, retry_after_seconds=after
    )


DOWN: Final = error()
UNLIKE: Final = [  # what another model may do better, and whether all leave this one alone
    (error("provider_unavailable"), True),
    (error("provider_unavailable", retryable=False), True),
    (error("provider_timeout"), True),
    (error("provider_protocol"), True),
    (error("rate_limited"), True),
    (error("rate_limited", retryable=False, status=402), True),
    (error("authentication", retryable=False, status=401), True),
    (error("authentication", retryable=False), False),  # this worker has no key
    (error("invalid_request", retryable=False, status=404), True),
    (error("context_length_exceeded", retryable=False, status=400), False),
    (error("content_filter", retryable=False, status=400), False),
    (ZeroDivisionError(), False),
]
NAMES: Final = [f"{getattr(one, 'code', 'internal')}{n}" for n, (one, _) in enumerate(UNLIKE)]


def a_and_b(*first: list[Line], then: list[Line] = WHOLE) -> SeveralModels:
    return SeveralModels(a=first, b=[then])


async def asked(redis: Redis, *fallbacks: str, model: str = A, **fields: Any) -> list[Frame]:
    """Post a message for a worker that runs; its log, once it has ended."""
    message_id = await post(redis, model=model, fallbacks=list(fallbacks), **fields)
    return await until_ended(redis, message_id)


def tell(message: Message) -> list[tuple[object, object]]:
    return [(attempt["model"], attempt["reason"]) for attempt in message.attempts]


@pytest.mark.parametrize(("failure", "cools"), UNLIKE, ids=NAMES)
@pytest.mark.parametrize("given", [0, 1, 40])
async def test_the_next_model_goes_on_wherever_one_failed(
    clean_redis_url: str, redis: Redis, failure: Exception, *, cools: bool, given: int
) -> None:
    provider = a_and_b([*texts(*["lost "] * given), failure])
    async with worker_on(clean_redis_url, provider):
        frames = await asked(redis, B)
    message = fold(frames)
    code = getattr(failure, "code", "internal")
    assert message.text == TEXT
    assert tell(message) == [(A, None), (B, code)]
    (reset,) = data(frames, "reset")
    assert (reset["after"], reset["model"], reset["reason"]) == (None, B, code)
    assert names(frames)[-3:] == ["step", "usage", "done"]
    assert provider.calls() == {"a": 1, "b": 1}
    assert set(await cooling.left_alone(redis)) == ({A} if cools else set())


@pytest.mark.parametrize("status", [400, 413, 422, None])
async def test_a_bad_request_of_the_callers_is_bad_for_all(
    clean_redis_url: str, redis: Redis, status: int | None
) -> None:
    provider = a_and_b([error("invalid_request", retryable=False, status=status)])
    async with worker_on(clean_redis_url, provider):
        frames = await asked(redis, B)
    assert names(frames) == ["start", "usage", "failed"]
    assert provider.calls() == {"a": 1, "b": 0}
    assert await cooling.left_alone(redis) == {}


async def test_a_provider_that_is_not_set_up_has_a_fallback(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    async with worker_on(clean_redis_url, a_and_b()):
        frames = await asked(redis, B, model="openai/gpt-5-mini")
    assert fold(frames).text == TEXT
    assert data(frames, "reset")[0]["reason"] == "authentication"
    assert await cooling.left_alone(redis) == {}  # another worker may have the key


@pytest.mark.parametrize(
    "cut",
    [
        [WorkingChunk(), DOWN],
        [*texts("I look "), WorkingChunk(), DOWN],
        [call("lost"), DOWN],
        [call("lost"), call("cut", at=1), DOWN],
    ],
    ids=["arguments", "text", "one call", "two calls"],
)
async def test_no_tool_runs_on_what_broke_off(
    clean_redis_url: str, redis: Redis, cut: list[Line]
) -> None:
    look = PlainTool()
    provider = SeveralModels(a=[cut], b=[calling(call("b", at=2)), WHOLE])
    async with worker_on(clean_redis_url, provider, tools=[look]):
        frames = await asked(redis, B, tools=["look"])
    assert look.seen == [{"at": 2}]
    message = fold(frames)
    assert message.text == TEXT
    assert len(message.named("tool_call")) == len(message.named("tool_result")) == 1
    assert data(frames, "reset")[0]["after"] is None


async def test_a_finished_step_stays_and_the_next_model_goes_on_after_it(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool()
    provider = SeveralModels(
        a=[calling(call("a"), words="first "), [*texts("lost"), DOWN]], b=[WHOLE]
    )
    async with worker_on(clean_redis_url, provider, tools=[look]):
        frames = await asked(redis, B, tools=["look"])
    step = next(frame for frame in frames if frame.name == "step")
    (reset,) = data(frames, "reset")
    assert (reset["after"], reset["model"]) == (str(step.id), B)
    assert fold(frames).text == f"first {TEXT}"
    assert len(look.ran) == 1


async def test_when_all_fail_the_message_fails_as_the_last_one_did(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = SeveralModels(a=[[DOWN]], b=[[error("rate_limited")]], c=[[*texts("x"), DOWN]])
    async with worker_on(clean_redis_url, provider):
        frames = await asked(redis, B, C)
    assert [reset["reason"] for reset in data(frames, "reset")] == [
        "provider_unavailable",
        "rate_limited",
    ]
    assert names(frames)[-2:] == ["usage", "failed"]
    assert data(frames, "failed")[0]["code"] == "provider_unavailable"
    assert provider.calls() == {"a": 1, "b": 1, "c": 1}


async def test_a_model_that_failed_is_passed_over_by_the_next_message_of_any_worker(
    clean_redis_url: str, redis: Redis
) -> None:
    first, second = a_and_b([DOWN]), a_and_b(WHOLE)
    async with worker_on(clean_redis_url, first, provider_retries=2):
        await asked(redis, B)
    assert first.calls() == {"a": 2, "b": 1}
    async with worker_on(clean_redis_url, second, name="worker-2"):
        frames = await asked(redis, B)
    assert second.calls() == {"a": 0, "b": 1}
    assert names(frames)[:2] == ["start", "reset"]
    assert tell(fold(frames)) == [(A, None), (B, "provider_unavailable")]
    assert fold(frames).text == TEXT


async def test_a_message_without_fallbacks_asks_its_model_and_its_answer_ends_the_wait(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = a_and_b([DOWN], WHOLE)
    async with worker_on(clean_redis_url, provider):
        await asked(redis, B)
        assert A in await cooling.left_alone(redis)
        assert names(await asked(redis)) == STRAIGHT
        assert await cooling.left_alone(redis) == {}
        await asked(redis, B)
    assert provider.calls() == {"a": 3, "b": 1}


async def test_an_answer_that_began_before_the_failure_does_not_end_the_wait(
    clean_redis_url: str, redis: Redis
) -> None:
    gate = asyncio.Event()
    provider = a_and_b([*texts("one "), gate, *answer("two")], [DOWN])
    async with worker_on(clean_redis_url, provider):
        early = await post(redis, model=A, fallbacks=[B])
        await until_events(redis, early, 2)
        await asked(redis, B)
        gate.set()
        assert fold(await until_ended(redis, early)).text == "one two"
    assert set(await cooling.left_alone(redis)) == {A}


async def test_where_all_are_left_alone_the_first_is_asked(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = SeveralModels(a=[[DOWN], WHOLE], b=[[DOWN]])
    async with worker_on(clean_redis_url, provider):
        await asked(redis, B)
        frames = await asked(redis, B)
    assert names(frames) == STRAIGHT
    assert provider.calls() == {"a": 2, "b": 1}


async def test_one_that_was_passed_over_is_better_than_none(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = SeveralModels(a=[[DOWN], WHOLE], b=[WHOLE, [error("provider_timeout")]])
    async with worker_on(clean_redis_url, provider):
        await asked(redis, B)
        frames = await asked(redis, B)
    assert fold(frames).text == TEXT
    assert tell(fold(frames)) == [
        (A, None),
        (B, "provider_unavailable"),
        (A, "provider_timeout"),
    ]


async def test_after_the_wait_one_message_of_all_workers_tries_it_once(
    clean_redis_url: str, redis: Redis
) -> None:
    gate = asyncio.Event()
    await cooling.fail(redis, A, "provider_timeout")
    await time_over(redis, A)
    ones = [a_and_b([gate, DOWN]) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for n, provider in enumerate(ones):
            own = worker_on(clean_redis_url, provider, name=f"worker-{n}", provider_retries=3)
            await stack.enter_async_context(own)
        sent = [await post(redis, model=A, fallbacks=[B]) for _ in range(8)]
        await until_true(lambda: sum(one.calls()["b"] for one in ones) == 7)
        gate.set()
        ended = [fold(await until_ended(redis, message_id)) for message_id in sent]
    assert {message.text for message in ended} == {TEXT}
    assert sum(one.calls()["a"] for one in ones) == 1
    reasons = sorted(str(message.attempts[1]["reason"]) for message in ended)
    assert reasons == ["provider_timeout"] * 7 + ["provider_unavailable"]
    assert await cooling.left_alone(redis) != {}


async def test_a_trial_that_is_answered_ends_the_wait_for_all(
    clean_redis_url: str, redis: Redis
) -> None:
    await cooling.fail(redis, A, "provider_timeout")
    await time_over(redis, A)
    provider = a_and_b(WHOLE)
    async with worker_on(clean_redis_url, provider):
        assert names(await asked(redis, B)) == STRAIGHT
    assert await redis.exists(keys.COOLING) == 0


async def test_a_model_that_refuses_the_message_alone_is_there_for_others(
    clean_redis_url: str, redis: Redis
) -> None:
    await cooling.fail(redis, A, "provider_timeout")
    await time_over(redis, A)
    provider = a_and_b([error("context_length_exceeded", retryable=False, status=400)])
    async with worker_on(clean_redis_url, provider):
        assert fold(await asked(redis, B)).text == TEXT
    assert await redis.exists(keys.COOLING) == 0


async def test_a_long_pause_is_not_waited_for_where_another_model_is_usable(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = a_and_b([error("rate_limited", status=429, after=60)])
    async with worker_on(clean_redis_url, provider, provider_retries=6):
        frames = await asked(redis, B)
    assert names(frames)[:2] == ["start", "reset"]
    assert fold(frames).text == TEXT
    assert provider.calls() == {"a": 1, "b": 1}
    seconds, _ = await redis.time()
    assert (await cooling.left_alone(redis))[A].until_ms > (seconds + 50) * 1000


@pytest.mark.parametrize("fallbacks", [[], [B]], ids=["none", "left alone"])
async def test_a_long_pause_is_waited_for_where_no_other_model_is_usable(
    clean_redis_url: str, redis: Redis, fallbacks: list[str]
) -> None:
    await cooling.fail(redis, B, "provider_timeout")
    provider = a_and_b([error("rate_limited", status=429, after=60)])
    async with worker_on(clean_redis_url, provider, provider_retries=6) as running:
        message_id = await post(redis, model=A, fallbacks=fallbacks)
        await until_events(redis, message_id, 2)
        await running.die()
    assert provider.calls() == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("fallbacks", "a_minute_a_try", "calls"),
    [([B], True, {"a": 2, "b": 1}), ([B], False, {"a": 3, "b": 1}), ([], True, {"a": 3, "b": 0})],
    ids=["slow", "fast", "no other model"],
)
async def test_a_model_is_tried_for_a_minute_where_another_one_may_go_on(
    clean_redis_url: str,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    fallbacks: list[str],
    *,
    a_minute_a_try: bool,
    calls: dict[str, int],
) -> None:
    provider = a_and_b([DOWN])
    monkeypatch.setattr(
        tries, "monotonic", lambda: 61 * provider.calls()["a"] if a_minute_a_try else 0
    )
    async with worker_on(clean_redis_url, provider, provider_retries=3):
        frames = await asked(redis, *fallbacks)
    assert provider.calls() == calls
    assert fold(frames).text == (TEXT if fallbacks else "")


async def test_a_takeover_goes_on_with_the_model_that_was_fallen_back_to(
    clean_redis_url: str, redis: Redis
) -> None:
    provider = SeveralModels(a=[[DOWN]], b=[[*texts("half "), SILENCE], WHOLE])
    async with worker_on(clean_redis_url, provider, lease_seconds=1) as lost:
        message_id = await post(redis, model=A, fallbacks=[B])
        await until_events(redis, message_id, 3)
        await lost.die()
    await redis.delete(keys.COOLING)
    async with worker_on(clean_redis_url, provider, name="worker-2", lease_seconds=1):
        message = fold(await until_ended(redis, message_id))
    assert message.text == TEXT
    assert tell(message) == [(A, None), (B, "provider_unavailable"), (B, "takeover")]
    assert provider.calls() == {"a": 1, "b": 2}


async def test_while_redis_is_away_the_order_is_the_requests(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise LogUnavailable("Redis is away")

    for name in ("choose", "fail", "clear"):
        monkeypatch.setattr(cooling, name, away)
    kit = kit_for(redis)
    kit.seen_cooling[A] = 1
    fallback = Fallback(kit, "m1")
    assert await fallback.choose([A, B]) == (0, False, None)
    assert await fallback.rather_than_wait(60, [B])
    await fallback.answered(A, 1)
    await fallback.failed(A, failure_of(DOWN), None, seen=None)
    assert fallback.seen(A) == 1
    await kit.database.aclose()


async def test_a_message_with_one_model_asks_redis_nothing(redis: Redis) -> None:
    kit = kit_for(redis)
    before = (await redis.info("stats"))["total_commands_processed"]
    for _ in range(10):
        await Fallback(kit, "m1").choose([A])
        await Fallback(kit, "m1").answered(A, None)
    after = (await redis.info("stats"))["total_commands_processed"]
    assert after - before == 1  # the first look itself
    await kit.database.aclose()


async def test_what_a_process_has_seen_is_bounded(redis: Redis) -> None:
    kit = kit_for(redis)
    fallback = Fallback(kit, "m1")
    for number in range(600):
        fallback._note(f"script/{number}", 1)
    assert len(kit.seen_cooling) == 500
    await kit.database.aclose()


async def test_a_step_leaves_a_model_alone_that_failed_others_since_the_last_one(
    clean_redis_url: str, redis: Redis
) -> None:
    look = PlainTool(gate=asyncio.Event())
    provider = SeveralModels(a=[calling(call("a"))], b=[WHOLE])
    async with worker_on(clean_redis_url, provider, tools=[look]):
        message_id = await post(redis, model=A, fallbacks=[B], tools=["look"])
        await until_true(lambda: bool(look.ran))
        await cooling.fail(redis, A, "provider_timeout")
        look.gate.set()  # type: ignore[union-attr]
        frames = await until_ended(redis, message_id)
    assert fold(frames).text == TEXT
    step = next(frame for frame in frames if frame.name == "step")
    (reset,) = data(frames, "reset")
    assert (reset["after"], reset["reason"]) == (str(step.id), "provider_timeout")
