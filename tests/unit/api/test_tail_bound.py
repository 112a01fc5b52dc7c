"""What waits for a client that does not read is bounded; the log keeps the rest."""

import pytest

from rejoin.api.batches import JOINED_BYTES
from rejoin.api.tail import BOUND_BYTES
from rejoin.shared.frames import Frame
from tests.support.tails import MemoryHub, Socket, done, joined, opened, text, turns

KIB = 1024


def many(count: int, size: int) -> list[Frame]:
    """A log of `count` events of `size` bytes and more."""
    return [*(text(1, n, size) for n in range(count - 1)), done(1, count - 1)]


async def test_a_blocked_client_gets_what_waited_without_a_look_at_the_log(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = many(20, 100)
    with opened(hub, socket) as tail:
        await turns()
        socket.block()
        for frame in frames[:-1]:
            hub.write(frame)
        await turns()
        assert socket.events == b""
        socket.unblock()
        await turns()
        assert (tail.live, hub.looks) == (True, 1)
        hub.write(frames[-1])
    assert socket.events == joined(frames)


async def test_beyond_the_bound_the_queue_is_dropped_and_the_log_is_read(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = many(1000, 10 * KIB)
    with opened(hub, socket) as tail:
        await turns()
        socket.block()
        for frame in frames:
            hub.write(frame)
            await turns(1)
            assert sum(len(batch.frames) for batch in tail._queue) <= BOUND_BYTES
        assert tail._queue == []
        socket.unblock()
        await turns(5000)
    assert socket.events == joined(frames)
    assert socket.ended
    assert hub.looks > 10


async def test_of_a_page_too_no_more_than_the_bound_waits(hub: MemoryHub, socket: Socket) -> None:
    frames = many(400, 10 * KIB)
    hub.append(*frames)
    socket.block()
    with opened(hub, socket):
        await turns()
        socket.unblock()
        await turns(30)
        socket.block()
        await turns()
        assert 0 < sum(len(frame) for frame in hub.pages[-1]) <= BOUND_BYTES
        socket.unblock()
        await turns(5000)
    assert socket.events == joined(frames)


async def test_large_events_are_asked_for_by_no_more_than_the_bound_takes(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = many(400, 10 * KIB)
    hub.append(*frames)
    with opened(hub, socket):
        await turns(5000)
    assert socket.events == joined(frames)
    assert max(hub.limits[1:]) <= BOUND_BYTES // (10 * KIB) + 1


async def test_small_events_are_asked_for_by_the_page(hub: MemoryHub, socket: Socket) -> None:
    frames = many(2000, 20)
    hub.append(*frames)
    with opened(hub, socket):
        await turns(5000)
    assert socket.events == joined(frames)
    assert hub.looks <= 5


async def test_a_replay_is_written_in_pieces(hub: MemoryHub, socket: Socket) -> None:
    frames = many(100, 4 * KIB)
    hub.append(*frames)
    with opened(hub, socket):
        await turns()
    assert socket.events == joined(frames)
    assert max(len(message["body"]) for message in socket.messages) <= JOINED_BYTES


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("size", [BOUND_BYTES - 100, BOUND_BYTES, 3 * BOUND_BYTES])
async def test_an_event_larger_than_the_bound_arrives(
    hub: MemoryHub, socket: Socket, size: int, live: bool
) -> None:
    frames = [text(1, 0), text(1, 1, size), text(1, 2, size), done(1, 3)]
    if not live:
        hub.append(*frames)
    with opened(hub, socket):
        await turns()
        if live:
            for frame in frames:
                hub.write(frame)
                await turns(50)
        await turns()
    assert socket.events == joined(frames)
    assert socket.ended


async def test_an_append_larger_than_the_bound_is_not_written_at_once(
    hub: MemoryHub, socket: Socket
) -> None:
    """A server copies what it is given: a thousand slow clients would hold it a thousand times."""
    frames = many(100, 8 * KIB)
    with opened(hub, socket):
        await turns()
        hub.write(*frames)
        assert socket.events == b""
        await turns()
    assert socket.events == joined(frames)
    assert max(len(message["body"]) for message in socket.messages) <= JOINED_BYTES


async def test_a_client_that_is_slow_all_the_time_gets_everything(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = many(600, 3 * KIB)
    with opened(hub, socket):
        await turns()
        for n, frame in enumerate(frames):
            if n % 100 == 0:
                socket.block()
            hub.write(frame)
            if n % 100 == 99:
                socket.unblock()
                await turns(4)
        socket.unblock()
        await turns(5000)
    assert socket.events == joined(frames)
    assert socket.ended


async def test_an_end_that_came_while_the_client_was_blocked_is_sent_once(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket):
        await turns()
        socket.block()
        hub.write(text(1, 0))
        hub.write(done(1, 1))
        await turns()
        await hub.check()
        socket.unblock()
        await turns()
    assert socket.events == joined([text(1, 0), done(1, 1)])
    assert socket.ended


async def test_an_end_that_blocks_itself_is_sent_once(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket):
        await turns()
        socket.block()
        hub.write(done(1, 0))
        await turns()
        socket.unblock()
        await turns()
    assert (socket.events, socket.ended) == (done(1, 0).data, True)


async def test_a_blocked_client_holds_up_nobody_else(hub: MemoryHub) -> None:
    frames = many(100, 10 * KIB)
    slow, fast = Socket(), Socket()
    with opened(hub, slow), opened(hub, fast):
        await turns()
        slow.block()
        for frame in frames:
            hub.write(frame)
        assert fast.events == joined(frames)
        slow.unblock()
        await turns(5000)
    assert slow.events == joined(frames)
