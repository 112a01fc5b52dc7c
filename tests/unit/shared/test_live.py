"""The orders of a subscription that a real Redis shows too rarely, said by a scripted one."""

import asyncio

import pytest

from rejoin.shared import live as live_module
from rejoin.shared.errors import LogUnavailable
from tests.support.listening import SOON, listening
from tests.support.scripted_redis import scripted_redis


async def test_nobody_is_subscribed_before_redis_says_so() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, _):
        waiting = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"))
        assert not waiting.done()
        redis.confirm(b"c")
        await waiting
        await live.subscribe("c", timeout_seconds=SOON)
        assert redis.commands == [(b"SUBSCRIBE", b"c")]


async def test_without_a_confirmation_in_time_it_is_refused_and_stands_asked_for() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, ear):
        with pytest.raises(LogUnavailable):
            await live.subscribe("c", timeout_seconds=0.05)
        await redis.until((b"SUBSCRIBE", b"c"))
        redis.confirm(b"c")
        await live.subscribe("c", timeout_seconds=SOON)
        redis.publish(b"c", b"heard")
        await ear.until_heard(b"heard")
        assert redis.commands == [(b"SUBSCRIBE", b"c")]


async def test_an_earlier_subscriptions_confirmation_does_not_pass_for_the_last_ones() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, _):
        first = asyncio.create_task(live.subscribe("c", timeout_seconds=0.3))
        await redis.until((b"SUBSCRIBE", b"c"))
        live.unsubscribe("c")
        last = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"), (b"UNSUBSCRIBE", b"c"), (b"SUBSCRIBE", b"c"))
        redis.confirm(b"c")
        with pytest.raises(LogUnavailable):
            await first
        assert not last.done()
        redis.confirm(b"c", kind=b"unsubscribe")
        redis.confirm(b"c")
        await last


async def test_letting_a_channel_go_cancels_nobody_who_waits_for_it() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, _):
        waiting = asyncio.create_task(live.subscribe("c", timeout_seconds=0.2))
        await redis.until((b"SUBSCRIBE", b"c"))
        live.unsubscribe("c")
        with pytest.raises(LogUnavailable):
            await waiting


async def test_a_cancelled_waiter_leaves_the_others_waiting() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, _):
        one = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        other = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"))
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        redis.confirm(b"c")
        await other


async def test_restored_waits_for_every_channel_and_for_no_new_one() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, ear):
        await ear.until_restored(1)
        asking = [asyncio.create_task(live.subscribe(n, timeout_seconds=SOON)) for n in "ab"]
        await redis.until((b"SUBSCRIBE", b"a"), (b"SUBSCRIBE", b"b"))
        redis.confirm(b"a", b"b")
        await asyncio.gather(*asking)
        redis.commands.clear()
        redis.cut()
        await redis.until_commands(1)
        ((_, *again),) = redis.commands
        assert sorted(again) == [b"a", b"b"]
        new = asyncio.create_task(live.subscribe("new", timeout_seconds=SOON))
        redis.confirm(again[0])
        redis.publish(again[0], b"early")
        await ear.until_heard(b"early")
        assert ear.restores == 1
        redis.confirm(again[1])
        await ear.until_restored(2)
        assert not new.done()
        redis.confirm(b"new")
        await new


async def test_a_confirmation_lost_with_the_connection_is_waited_for_on_the_next() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, _):
        waiting = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"))
        redis.cut()
        await redis.until((b"SUBSCRIBE", b"c"), (b"SUBSCRIBE", b"c"))
        assert not waiting.done()
        redis.confirm(b"c")
        await waiting


async def test_a_redis_that_refuses_everybody_is_not_hammered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scripted_redis() as redis:
        redis.greet = lambda: b"-ERR max number of clients reached\r\n"
        redis.hang_up = True
        async with listening(redis.url) as (live, _):
            with pytest.raises(LogUnavailable):
                await live.subscribe("c", timeout_seconds=1.5)
        assert 2 <= redis.connections < 15
    assert "max number of clients" in caplog.text


async def test_rubbish_from_redis_ends_the_connection_and_not_the_task() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, ear):
        waiting = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"))
        redis.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await redis.until((b"SUBSCRIBE", b"c"), (b"SUBSCRIBE", b"c"))
        redis.confirm(b"c")
        await waiting
        redis.publish(b"c", b"heard")
        await ear.until_heard(b"heard")


async def test_a_message_that_comes_byte_by_byte_is_whole() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, ear):
        waiting = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"))
        for byte in b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n":
            redis.say(bytes([byte]))
            await asyncio.sleep(0)
        await waiting
        for byte in b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\na\r\n\xffb\r\n":
            redis.say(bytes([byte]))
            await asyncio.sleep(0)
        await ear.until_heard(b"a\r\n\xffb")


async def test_a_peer_that_never_answers_is_given_up_and_dialled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "_BEAT_SECONDS", 0.05)
    async with scripted_redis() as redis:
        redis._take = lambda command, _: redis.commands.append(command)  # type: ignore[method-assign, assignment]
        async with listening(redis.url):
            await redis.until_connections(2)


async def test_a_listener_that_fails_does_not_make_the_process_deaf() -> None:
    async with scripted_redis() as redis, listening(redis.url) as (live, ear):
        waiting = asyncio.create_task(live.subscribe("c", timeout_seconds=SOON))
        await redis.until((b"SUBSCRIBE", b"c"))
        redis.confirm(b"c")
        await waiting
        ear.receive = None  # type: ignore[method-assign, assignment]
        redis.publish(b"c", b"lost")
        await redis.until((b"SUBSCRIBE", b"c"), (b"SUBSCRIBE", b"c"))
        del ear.receive
        redis.confirm(b"c")
        redis.publish(b"c", b"heard")
        await ear.until_heard(b"heard")
