"""Redis goes away and comes back: tails stay open, nothing is lost or doubled."""

import asyncio

import pytest

from tests.support.caller import (
    UNKNOWN_ID,
    Caller,
    Stopwatch,
    assert_problem,
    assert_try_later,
    assert_whole_log,
    caller,
    until,
    visible_text,
)
from tests.support.processes import Stack, rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseReader, open_tail, sse_request

TEXT = "a longer answer that Redis leaves in its middle " * 8
COME_BACK = 20.0


async def quick_503(api: Caller) -> None:
    watch = Stopwatch()
    assert_try_later(await api.post("a"))
    assert watch.seconds < 5.5


async def assert_goes_on(api: Caller, tail: SseReader, message_id: str) -> None:
    frames = await tail.read_until_end(within=COME_BACK)
    assert_whole_log(frames)
    assert visible_text(frames) == TEXT
    again = b"".join(frame.raw for frame in await api.log(message_id))
    assert tail.log_bytes() == again


async def test_a_tail_outlives_a_killed_redis(stack: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        await tail.read_n(8)
        stack.redis.kill()
        await tail.read_comments(2, within=5)
        await quick_503(api)
        stack.redis.start()
        await assert_goes_on(api, tail, message_id)


async def test_a_tail_outlives_a_redis_that_stalls(stack: Stack, api: Caller) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        await tail.read_n(8)
        with stack.redis.paused():
            await tail.read_comments(1, within=12)  # a look at a stalled Redis takes its time
            await quick_503(api)
        await assert_goes_on(api, tail, message_id)


async def test_many_tails_outlive_redis_restarted_again_and_again(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)

        async def one(position: str | None) -> bytes:
            async with open_tail(api.events(message_id), last_event_id=position) as tail:
                await tail.read_until_end(within=COME_BACK)
                return tail.log_bytes()

        async with open_tail(api.events(message_id)) as first:
            await first.read_n(3)
        tails = [asyncio.create_task(one(None)) for _ in range(10)]
        late = [asyncio.create_task(one("1-2")) for _ in range(5)]
        for _ in range(3):
            await asyncio.sleep(0.5)
            stack.redis.restart()
        logs = await asyncio.gather(*tails)
        whole = await api.log(message_id)
    assert_whole_log(whole)
    assert visible_text(whole) == TEXT
    assert set(logs) == {b"".join(frame.raw for frame in whole)}
    assert set(await asyncio.gather(*late)) == {b"".join(frame.raw for frame in whole[3:])}


async def test_every_call_says_503_or_holds_while_redis_is_away(stack: Stack, api: Caller) -> None:
    message_id = await api.accepted()
    await api.log(message_id)
    stack.redis.kill()
    assert (await api.http.get("/healthz")).status_code == 200
    assert_problem(await api.http.get("/readyz"), 503)
    await quick_503(api)
    assert_problem(await api.http.get(f"/api/messages/{message_id}"), 503)
    assert_problem(await api.cancel(message_id), 503)
    keyed = await api.post("a", headers={"Idempotency-Key": "while away"})
    assert_try_later(keyed)
    assert (await api.http.get("/")).status_code == 200
    stack.redis.start()
    assert (await api.post("a", headers={"Idempotency-Key": "while away"})).status_code == 202


async def test_a_new_tail_waits_for_redis_and_then_sends_the_log(stack: Stack, api: Caller) -> None:
    message_id = await api.accepted()
    whole = await api.log(message_id)
    stack.redis.kill()
    async with (
        open_tail(api.events(message_id)) as tail,
        open_tail(api.events(message_id), last_event_id=whole[1].id) as resumed,
    ):
        await tail.read_comments(2, within=5)
        assert (len(tail.retries), tail.frames) == (1, [])
        stack.redis.start()
        frames = await tail.read_until_end(within=COME_BACK)
        assert [frame.raw for frame in frames] == [frame.raw for frame in whole]
        rest = await resumed.read_until_end(within=COME_BACK)
        assert [frame.raw for frame in rest] == [frame.raw for frame in whole[2:]]


async def test_a_new_tail_of_an_unknown_message_ends_without_an_end_event(
    stack: Stack, api: Caller
) -> None:
    stack.redis.kill()
    async with open_tail(api.events(UNKNOWN_ID)) as tail:
        await tail.read_comments(1, within=5)
        stack.redis.start()
        assert await tail.read_until_end(within=COME_BACK) == []
    assert_problem(await api.http.get(f"/api/messages/{UNKNOWN_ID}/events"), 404)


async def test_a_new_tail_that_saw_the_end_is_let_go_when_redis_is_back(
    stack: Stack, api: Caller
) -> None:
    message_id = await api.accepted()
    end = (await api.log(message_id))[-1].id
    stack.redis.kill()
    async with open_tail(api.events(message_id), last_event_id=end) as tail:
        await tail.read_comments(1, within=5)
        stack.redis.start()
        assert await tail.read_until_end(within=COME_BACK) == []
    async with sse_request(
        "GET", api.events(message_id), headers={"Last-Event-ID": str(end)}
    ) as seen:
        assert seen.status == 204


@pytest.mark.parametrize("stalls", [False, True])
async def test_a_queued_message_is_run_after_redis_was_away(
    stack: Stack, api: Caller, stalls: bool
) -> None:
    """The worker lives through it too."""
    if stalls:
        with stack.redis.paused():
            await quick_503(api)
    else:
        stack.redis.kill()
        await quick_503(api)
        stack.redis.start()
    async with api.tailed("after the outage") as (_, tail):
        frames = await tail.read_until_end(within=COME_BACK)
    assert visible_text(frames) == "after the outage"


async def test_a_cancel_after_an_outage_still_reaches_a_silent_provider(
    stack: Stack, api: Caller
) -> None:
    async with api.tailed("one two three", rate=0.02) as (message_id, tail):
        await tail.read_n(1)
        stack.redis.restart()

        async def ready() -> bool:
            return (await api.http.get("/readyz")).status_code == 200

        await until(ready)
        assert (await api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=8)
    assert_whole_log(frames)
    assert frames[-1].data["finish_reason"] == "cancelled"


async def test_processes_that_start_without_redis_find_it_later(own_redis: RedisServer) -> None:
    with rejoin_stack(own_redis, workers=0) as stack:
        own_redis.kill()
        late = stack.new_api().start_unready()
        async with caller(late.url) as api:
            assert_problem(await api.http.get("/readyz"), 503)
            assert_try_later(await api.post("a"))
            own_redis.start()

            async def taken() -> bool:
                return (await api.post("a")).status_code == 202

            await until(taken)
            stack.new_worker().start()
            assert visible_text(await api.log(await api.accepted("found"))) == "found"
        stack.assert_no_traceback()


async def test_a_tail_of_a_message_that_redis_lost_is_not_silent_for_ever(
    stack: Stack, api: Caller
) -> None:
    async with api.tailed(TEXT, rate=40) as (message_id, tail):
        await tail.read_n(3)
        with stack.redis.client() as client:
            client.flushall()
        await tail.read_until_end(within=15)
        assert not tail.saw_end
    assert_problem(await api.http.get(f"/api/messages/{message_id}/events"), 404)
    assert visible_text(await api.log(await api.accepted("goes on"))) == "goes on"
