"""Redis loses what it had: newest events, a log, its scripts. The text is exact all the same."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.caller import Caller, assert_whole_log, caller, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import SseFrame, open_tail

TEXT = "a text of which Redis loses something on the way " * 4


def lose_newest(client: Any, log: str) -> None:
    """What a failover to a replica that lagged does to a log."""
    ids = [entry_id for entry_id, _ in client.xrevrange(log, count=3)]
    client.xdel(log, *ids)


def lose_all(client: Any, log: str) -> None:
    client.delete(log)


async def follow(api: Caller, message_id: str, loss: Callable[[], None]) -> list[SseFrame]:
    """Tail a message; after eight events the loss happens."""
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(8)
        loss()
        return await tail.read_until_end(within=20)


@pytest.mark.parametrize("lose", [lose_newest, lose_all])
async def test_lost_events_are_written_again_in_a_new_attempt(
    stack: Stack, lose: Callable[[Any, str], None]
) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)
        with stack.redis.client() as client:
            log = f"rejoin:{{{message_id}}}:log"
            frames = await follow(api, message_id, lambda: lose(client, log))
        assert visible_text(frames) == TEXT
        assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(TEXT)}
        whole = await api.log(message_id)
        assert_whole_log(whole)
        assert visible_text(whole) == TEXT
        assert (await api.snapshot(message_id))["text"] == TEXT
        # Who comes back with a position that was lost is told, and has the text in the end too.
        lost = max(n for n, frame in enumerate(frames) if str(frame.id).startswith("1-"))
        async with open_tail(api.events(message_id), last_event_id=frames[lost].id) as tail:
            rest = await tail.read_until_end()
        assert visible_text([*frames[: lost + 1], *rest]) == TEXT


async def test_a_lost_log_begins_again_with_start_and_reset(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)
        with stack.redis.client() as client:
            await follow(api, message_id, lambda: client.delete(f"rejoin:{{{message_id}}}:log"))
        start, reset, *_ = await api.log(message_id)
        assert (start.event, reset.event) == ("start", "reset")
        assert reset.data["after"] is None
        assert start.data["attempt"] == reset.data["attempt"] > 1


async def test_scripts_that_redis_forgot_are_loaded_again(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)

        def forget() -> None:
            with stack.redis.client() as client:
                client.script_flush()

        frames = await follow(api, message_id, forget)
        assert_whole_log(frames)
        assert visible_text(frames) == TEXT
        with stack.redis.client() as client:
            client.script_flush()
        assert visible_text(await api.log(await api.accepted("again"))) == "again"


async def test_without_wake_tokens_the_poll_still_finds_messages(idle_stack: Stack) -> None:
    async with caller(idle_stack.url) as api:
        ids = [await api.accepted(f"{n}") for n in range(5)]
        with idle_stack.redis.client() as client:
            client.delete("rejoin:wake")
        idle_stack.new_worker().start()
        logs = await asyncio.gather(*(api.log(message_id) for message_id in ids))
        assert [visible_text(log) for log in logs] == [f"{n}" for n in range(5)]
