"""Redis loses what it had: newest events, a log, its scripts. The text is exact all the same."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.caller import Caller, assert_whole_log, caller, until, visible_text
from tests.support.processes import Process, Stack, rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseFrame, open_tail, sse_request

TEXT = "a text of which Redis loses something on the way " * 4


def lose_newest(client: Any, log: str) -> None:
    """What a failover to a replica that lagged does to a log."""
    ids = [entry_id for entry_id, _ in client.xrevrange(log, count=3)]
    if ids:
        client.xdel(log, *ids)


def lose_all(client: Any, log: str) -> None:
    client.delete(log)


async def text_in_database(api: Caller, stack: Stack, message_id: str) -> str:
    """The text of an ended message as the database alone has it."""
    with stack.redis.client() as client:

        async def saved() -> bool:
            return client.zscore("rejoin:unsaved", message_id) is None

        await until(saved)
        client.delete(*(f"rejoin:{{{message_id}}}:{name}" for name in ("record", "request", "log")))
    snapshot = await api.snapshot(message_id)
    assert snapshot["status"] == "done"
    text: str = snapshot["text"]
    return text


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
        assert await text_in_database(api, stack, message_id) == TEXT


async def test_a_log_lost_again_and_again_is_the_same_for_every_client_and_the_database(
    stack: Stack,
) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)
        log = f"rejoin:{{{message_id}}}:log"
        async with (
            open_tail(api.events(message_id)) as one,
            open_tail(api.events(message_id)) as other,
        ):
            with stack.redis.client() as client:
                for n in range(6):
                    await one.read_n(4 + 4 * n)
                    lose_newest(client, log) if n % 3 else lose_all(client, log)
            tails = [await tail.read_until_end(within=20) for tail in (one, other)]
        assert [visible_text(frames) for frames in tails] == [TEXT, TEXT]
        assert visible_text(await api.log(message_id)) == TEXT
        assert await text_in_database(api, stack, message_id) == TEXT


async def test_a_full_memory_costs_no_text(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)
        with stack.redis.client() as client:
            async with open_tail(api.events(message_id)) as tail:
                await tail.read_n(8)
                client.config_set("maxmemory", "1")
                try:
                    await tail.read_comments(2)
                finally:
                    client.config_set("maxmemory", "0")
                frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert visible_text(frames) == TEXT
        assert await text_in_database(api, stack, message_id) == TEXT


async def test_a_lost_log_begins_again_with_start_and_reset(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=40)
        with stack.redis.client() as client:
            await follow(api, message_id, lambda: client.delete(f"rejoin:{{{message_id}}}:log"))
        start, reset, *_ = await api.log(message_id)
        assert (start.event, reset.event) == ("start", "reset")
        assert reset.data["after"] is None
        assert start.data["attempt"] == reset.data["attempt"] > 1


async def test_a_position_that_was_lost_is_unknown_whichever_way_it_is_brought(
    stack: Stack,
) -> None:
    async with caller(stack.url) as api:
        body = {"model": "demo/echo?rate=0", "input": "one two three"}
        headers = {"Idempotency-Key": "a position that was lost"}
        message_id = await api.accepted("one two three", headers=headers)
        last = (await api.log(message_id))[-1].id
        assert last is not None
        with stack.redis.client() as client:
            lose_newest(client, f"rejoin:{{{message_id}}}:log")
        brought = headers | {"Last-Event-ID": last}
        posted = json.dumps(body).encode()
        for opened in (
            open_tail(api.events(message_id), last_event_id=last),
            open_tail(f"{api.events(message_id)}?last_event_id={last}"),
            sse_request("POST", f"{stack.url}/api/messages", headers=brought, body=posted),
        ):
            async with opened as tail:
                reset, start = await tail.read_n(2)
            assert (reset.id, reset.event, start.event) == (None, "reset", "start")
            assert (reset.data["after"], reset.data["reason"]) == (None, "position_unknown")
        page = await api.page(message_id, last)
        assert [event["id"] for event in page["events"][:2]] == [None, "1-0"]
        assert page["events"][0]["data"]["reason"] == "position_unknown"


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


async def test_every_process_warns_at_its_start_of_a_redis_that_may_lose_messages(
    own_redis: RedisServer,
) -> None:
    with own_redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
    with rejoin_stack(own_redis) as stack:
        for process in (stack.apis[0], stack.worker):

            async def said(process: Process = process) -> bool:
                return "appendonly yes" in process.said()

            await until(said)
            assert process.said().count("maxmemory-policy allkeys-lru") == 1
