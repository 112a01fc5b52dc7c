"""Redis loses the queue, or a part of it: every accepted message comes to its end all the same."""

import asyncio

from tests.support.caller import Caller, assert_whole_log, caller, until, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import open_tail

TEXT = "a message whose job is lost on the way "


async def assert_all_end(api: Caller, texts: dict[str, str]) -> None:
    logs = await asyncio.gather(*(api.log(message_id, within=30) for message_id in texts))
    for text, frames in zip(texts.values(), logs, strict=True):
        assert_whole_log(frames)
        assert visible_text(frames) == text
        assert frames[-1].event == "done"


async def assert_index_empty(stack: Stack) -> None:
    async def empty() -> bool:
        with stack.redis.client() as client:
            names = ("rejoin:open", "rejoin:queue", "rejoin:owners")
            return not client.exists(*names) and not client.keys("arq:*")

    await until(empty)


def lose_job(stack: Stack, message_id: str) -> None:
    """What a restart of Redis without its newest writes leaves of an accepted message."""
    with stack.redis.client() as client:
        assert client.zrem("rejoin:queue", message_id) == 1
        assert client.delete(f"arq:job:{message_id}") == 1


async def test_a_queue_deleted_with_messages_in_it_is_made_again(idle_stack: Stack) -> None:
    """Some run by then, the rest waits for a slot."""
    async with caller(idle_stack.url) as api:
        idle_stack.new_worker(REJOIN_MAX_JOBS="3").start()
        texts = {}
        for n in range(12):
            text = f"{TEXT}{n}"
            texts[await api.accepted(text, rate=12)] = text
        async with open_tail(api.events(next(iter(texts)))) as tail:
            await tail.read_n(3)
        with idle_stack.redis.client() as client:
            assert client.delete("rejoin:queue") == 1
        await assert_all_end(api, texts)
        await assert_index_empty(idle_stack)


async def test_a_job_lost_before_any_worker_saw_it_is_found(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        message_id = await api.accepted(TEXT)
        lose_job(idle_stack, message_id)
        idle_stack.new_worker().start()
        frames = await api.log(message_id)
        assert visible_text(frames) == TEXT
        assert [frame.event for frame in frames].count("reset") == 0
        await assert_index_empty(idle_stack)


async def test_a_job_lost_in_mid_run_is_run_again(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT * 4, rate=15)
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(3)
            lose_job(stack, message_id)
            frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert visible_text(frames) == TEXT * 4
        await assert_index_empty(stack)


async def test_a_message_whose_job_is_lost_is_cancelled_all_the_same(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        message_id = await api.accepted(TEXT)
        lose_job(idle_stack, message_id)
        assert (await api.cancel(message_id)).status_code == 202
        frames = await api.log(message_id)
        assert frames[-1].data["finish_reason"] == "cancelled"
        await assert_index_empty(idle_stack)


async def test_when_the_reaping_worker_dies_another_reaps(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        first = idle_stack.new_worker(REJOIN_LEASE_SECONDS="0.5").start()

        async def has_its_turn() -> bool:
            with idle_stack.redis.client() as client:
                return client.get("rejoin:reaper") is not None

        await until(has_its_turn)
        idle_stack.new_worker(REJOIN_LEASE_SECONDS="0.5").start()
        first.kill()
        message_id = await api.accepted(TEXT, rate=1)
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(2)
            lose_job(idle_stack, message_id)
            await tail.until(lambda: [f.event for f in tail.frames].count("reset") == 1)
        assert (await api.cancel(message_id)).status_code == 202
        frames = await api.log(message_id)
        assert frames[-1].data["finish_reason"] == "cancelled"
