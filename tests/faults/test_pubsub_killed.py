"""Redis drops the pub/sub connections in mid-stream: what was published meanwhile is not lost."""

import asyncio

from tests.support.caller import assert_whole_log, caller, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import open_tail

TEXT = "every word of it must come through " * 10


async def kill_subscribers(stack: Stack, times: int, every: float) -> int:
    killed = 0
    with stack.redis.client() as client:
        for _ in range(times):
            await asyncio.sleep(every)
            killed += int(client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
    return killed


async def test_killed_subscriptions_lose_nothing_of_many_messages(stack: Stack) -> None:
    async with caller(stack.url) as api:
        ids = [await api.accepted(f"{n} {TEXT}", rate=50) for n in range(10)]
        killing = asyncio.create_task(kill_subscribers(stack, times=8, every=0.12))
        logs = await asyncio.gather(*(api.log(message_id) for message_id in ids))
        assert await killing > 5
        for n, (message_id, frames) in enumerate(zip(ids, logs, strict=True)):
            assert_whole_log(frames)
            assert visible_text(frames) == f"{n} {TEXT}"
            assert [f.raw for f in await api.log(message_id)] == [f.raw for f in frames]


async def test_a_kill_just_before_the_end_does_not_hide_the_end(stack: Stack) -> None:
    """Killed around the last events: nothing later is published that would show the hole."""
    text = "short and quick to end"

    async with caller(stack.url) as api:
        for n in range(8):
            message_id = await api.accepted(text, rate=50)
            async with open_tail(api.events(message_id)) as tail:
                await tail.read_n(3 + n % 3)
                with stack.redis.client() as client:
                    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                frames = await tail.read_until_end()
            assert_whole_log(frames)
            assert visible_text(frames) == text


async def test_every_connection_killed_loses_nothing(stack: Stack) -> None:
    async with caller(stack.url) as api:
        ids = [await api.accepted(f"{n} {TEXT}", rate=50) for n in range(5)]
        tails = [asyncio.create_task(api.log(message_id)) for message_id in ids]
        with stack.redis.client() as client:
            for _ in range(5):
                await asyncio.sleep(0.2)
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for n, frames in enumerate(await asyncio.gather(*tails)):
            assert_whole_log(frames)
            assert visible_text(frames) == f"{n} {TEXT}"


async def test_a_killed_subscription_does_not_deafen_a_cancel(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted("one two three", rate=0.02)
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(1)
            with stack.redis.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert (await api.cancel(message_id)).status_code == 202
            frames = await tail.read_until_end(within=5)
        assert frames[-1].data["finish_reason"] == "cancelled"
