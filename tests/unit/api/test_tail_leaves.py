"""A tail's other ends: a drain, a long life, a client that is gone, a server of another kind."""

import asyncio
from collections.abc import Generator

import pytest
from starlette.types import Message

from rejoin.api.tail import Tail
from tests.support.messages import until_true
from tests.support.tails import (
    FIRST,
    MESSAGE_ID,
    OWNER,
    MemoryHub,
    Socket,
    done,
    joined,
    memory_hub,
    opened,
    text,
    turns,
)


def assert_parted(socket: Socket, events: bytes) -> None:
    """The stream ended without an end event, with a `retry:` of its own."""
    assert socket.events == events
    assert socket.ended
    assert socket.messages[-1]["body"].startswith(b"retry: ")
    assert socket.body.count(b"retry: ") == 2


async def test_a_live_tail_parts_at_once(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket):
        await turns()
        hub.write(text(1, 0))
        hub.drain()
        assert_parted(socket, text(1, 0).data)
        hub.drain()
        hub.write(text(1, 1))
        await turns()
        assert_parted(socket, text(1, 0).data)


async def test_a_tail_that_reads_the_log_parts_after_its_page(
    hub: MemoryHub, socket: Socket
) -> None:
    hub.after = 20
    hub.append(text(1, 0))
    with opened(hub, socket):
        await turns(8)
        hub.drain()
        await turns()
        assert_parted(socket, text(1, 0).data)


async def test_a_tail_that_waits_for_redis_parts_when_it_is_told_again(
    hub: MemoryHub, socket: Socket
) -> None:
    hub.hold = asyncio.Event()
    with opened(hub, socket):
        await turns()
        hub.drain()
        await turns()
        assert not socket.ended
        await until_true(lambda: socket.ended)
        assert_parted(socket, b"")


async def test_a_long_replay_parts_in_its_middle(hub: MemoryHub, socket: Socket) -> None:
    frames = [text(1, n, 10_000) for n in range(20)]
    hub.append(*frames)
    with opened(hub, socket):
        await turns(1)
        socket.block()
        await turns()
        hub.drain()
        socket.unblock()
        await turns()
        sent = socket.events
        assert_parted(socket, sent)
        assert joined(frames).startswith(sent)
        assert 0 < len(sent) < len(joined(frames))


async def test_a_blocked_tail_parts_when_its_client_reads_again(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket):
        await turns()
        socket.block()
        hub.write(text(1, 0))
        hub.write(text(1, 1))
        hub.drain()
        await turns()
        assert not socket.ended
        socket.unblock()
        await turns()
        assert_parted(socket, text(1, 0).data)


@pytest.mark.parametrize("after", range(12))
async def test_a_tail_opened_around_a_drain_gets_its_first_bytes_and_parts(
    hub: MemoryHub, socket: Socket, after: int
) -> None:
    hub.before = 3
    with opened(hub, socket):
        await turns(after)
        hub.drain()
        await turns()
        assert_parted(socket, b"")
        assert socket.messages[0]["body"] == FIRST["body"]


async def test_a_hub_that_closes_ends_its_tails() -> None:
    hub, live, reads = MemoryHub(), Socket(), Socket()
    with opened(hub, live):
        await turns()
        hub.hold = asyncio.Event()
        with opened(hub, reads):
            await turns()
            await hub.__aexit__()
            assert live.ended
            assert reads.ended
            assert hub.spawned() == 0


async def test_a_comment_breaks_the_silence_of_a_live_tail(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket) as tail:
        await turns()
        tail.comment()
        assert (socket.comments, tail.live) == (1, True)


async def test_a_comment_breaks_the_silence_of_a_tail_that_waits_for_redis(
    hub: MemoryHub, socket: Socket
) -> None:
    hub.hold = asyncio.Event()
    hub.append(text(1, 0))
    with opened(hub, socket) as tail:
        await turns()
        tail.comment()
        tail.comment()
        assert socket.comments == 2
        hub.hold.set()
        await turns()
    assert (socket.events, hub.looks) == (text(1, 0).data, 1)


async def test_a_comment_that_blocks_holds_the_page_back_and_tears_nothing(
    hub: MemoryHub, socket: Socket
) -> None:
    hub.hold = asyncio.Event()
    hub.append(text(1, 0))
    with opened(hub, socket) as tail:
        await turns()
        socket.block()
        tail.comment()
        tail.comment()
        hub.hold.set()
        await turns()
        assert socket.waiting == 1
        socket.unblock()
        await turns()
    assert [m["body"] for m in socket.messages[1:]] == [b": \n\n", text(1, 0).data]


async def test_a_blocked_client_gets_no_comments_on_top(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket) as tail:
        await turns()
        socket.block()
        hub.write(text(1, 0))
        for _ in range(50):
            tail.comment()
            await turns(3)
        socket.unblock()
        await turns()
    assert socket.comments == 0


async def test_behind_a_send_that_needs_a_task_live_events_arrive(hub: MemoryHub) -> None:
    frames = [*(text(1, n) for n in range(20)), done(1, 20)]
    socket = Socket(needs_task=True)
    hub.append(frames[0])
    with opened(hub, socket) as tail:
        await turns()
        for frame in frames[1:10]:
            hub.write(frame)
            await turns(5)
        tail.comment()
        await turns()
        for frame in frames[10:]:
            hub.write(frame)
        await turns()
    assert socket.events == joined(frames)
    assert (socket.comments, socket.ended) == (1, True)
    assert hub.looks == 1


async def test_behind_a_send_that_gives_no_coroutine_live_events_arrive(hub: MemoryHub) -> None:
    taken = Socket()

    def send(message: Message) -> _Awaitable:
        return _Awaitable(taken, message)

    tail = Tail(hub, send, MESSAGE_ID, OWNER, None)
    tail.open(dict(FIRST))
    await turns()
    hub.write(text(1, 0), done(1, 1))
    await turns()
    tail.close()
    assert taken.events == joined([text(1, 0), done(1, 1)])


class _Awaitable:
    """What some servers' `send` gives: no coroutine, only something to await."""

    def __init__(self, socket: Socket, message: Message) -> None:
        self._socket = socket
        self._message = message

    def __await__(self) -> Generator[object, None, None]:
        return self._socket.send(self._message).__await__()


async def test_a_send_that_fails_ends_the_tail_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    for live in (True, False):
        async with memory_hub() as hub:
            socket = Socket()
            if not live:
                hub.append(text(1, 0))
                socket.fails = True
            with opened(hub, socket) as tail:
                await turns()
                socket.fails = True
                hub.write(text(1, 1))
                await turns()
                tail.comment()
                tail.part()
                hub.write(text(1, 2))
                await turns()
                assert hub.spawned() == 1  # the hub's own
            assert socket.events == b""
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


async def test_a_send_that_fails_once_ends_the_stream_and_leaves_nobody_waiting(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket):
        await turns()
        socket.fails = True
        hub.write(text(1, 0))
        socket.fails = False
        await turns()
        assert (socket.events, socket.ended) == (b"", True)


async def test_a_blocked_client_that_goes_leaves_nothing_behind(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket):
        await turns()
        socket.block()
        hub.write(text(1, 0))
        await turns()
    await turns()
    assert (hub.spawned(), hub.channels()) == (1, 0)


async def test_a_tail_opened_after_the_drain_parts_by_itself(
    hub: MemoryHub, socket: Socket
) -> None:
    hub.drain()
    with opened(hub, socket):
        await turns()
        assert_parted(socket, b"")


async def test_nothing_is_sent_before_the_first_bytes(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket) as tail:
        tail.comment()
        hub.write(text(1, 0))
        assert socket.messages == []
        await turns()
    assert (socket.messages[0], socket.comments) == (FIRST, 0)
    assert socket.events == text(1, 0).data


async def test_nothing_is_sent_after_the_end(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket) as tail:
        await turns()
        hub.write(done(1, 0))
        sent = len(socket.messages)
        hub.publish(text(1, 1))
        tail.comment()
        await hub.check()
        hub.lose_connection()
        hub.drain()
        await turns()
        assert (len(socket.messages), hub.looks) == (sent, 1)
    assert socket.events == done(1, 0).data
