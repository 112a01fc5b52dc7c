"""The seam of replay and live: what a tail does with a log that moves while it reads."""

import asyncio

import pytest

from rejoin.shared.ids import EventId
from tests.support.tails import (
    RESET,
    MemoryHub,
    Socket,
    done,
    joined,
    opened,
    text,
    turns,
)


async def test_events_published_while_the_log_is_read_follow_it(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, n) for n in range(6)]
    hub.after = 5
    hub.append(*frames[:2])
    with opened(hub, socket):
        await turns(4)
        assert hub.looks == 1
        hub.write(*frames[2:4])
        hub.write(*frames[4:])
        await turns()
    assert socket.events == joined(frames)
    assert hub.looks == 1


async def test_a_live_tail_asks_the_log_for_nothing(hub: MemoryHub, socket: Socket) -> None:
    frames = [text(1, n) for n in range(20)]
    with opened(hub, socket) as tail:
        await turns()
        for frame in frames:
            hub.write(frame)
        assert socket.events == joined(frames)
        assert (tail.live, hub.looks, tail.position) == (True, 1, EventId(1, 19))


async def test_a_publish_lost_in_the_middle_of_catching_up_is_read_after_the_reconnect(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, 0), text(1, 1), done(1, 2)]
    hub.after = 10
    hub.append(frames[0])
    with opened(hub, socket) as tail:
        await turns(6)
        assert (hub.looks, tail.live) == (1, False)
        hub.append(*frames[1:])  # the log was read, and the subscription is lost
        hub.lose_connection()
        await turns()
    assert socket.events == joined(frames)
    assert socket.ended


async def test_live_tails_that_lost_a_publish_with_the_connection_read_it(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, 0), done(1, 1)]
    with opened(hub, socket):
        hub.write(frames[0])
        await turns()
        hub.append(frames[1])
        hub.lose_connection()
        await turns()
    assert socket.events == joined(frames)


async def test_live_tails_that_lost_nothing_with_the_connection_read_nothing(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket) as tail:
        await turns()
        hub.write(text(1, 0))
        hub.lose_connection()
        await turns()
        assert (tail.live, hub.looks) == (True, 1)


async def test_after_a_reconnect_the_log_is_asked_until_redis_answers(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, 0), done(1, 1)]
    with opened(hub, socket) as tail:
        hub.write(frames[0])
        await turns()
        hub.append(frames[1])
        hub.away = True  # it loads its file: subscriptions stand, reads are refused
        hub.lose_connection()
        await turns()
        assert tail.live
        hub.away = False
        await turns()
    assert socket.events == joined(frames)


async def test_a_gap_sends_the_tail_to_the_log(hub: MemoryHub, socket: Socket) -> None:
    frames = [text(1, n) for n in range(4)]
    with opened(hub, socket) as tail:
        await turns()
        hub.write(frames[0])
        hub.append(*frames[1:3])
        hub.write(frames[3])
        await turns()
        assert tail.live
    assert socket.events == joined(frames)


async def test_a_new_attempt_sends_the_tail_to_the_log_for_the_end_of_the_last_one(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, 0), text(1, 1), text(3, 0), text(3, 1)]
    with opened(hub, socket):
        await turns()
        hub.write(frames[0])
        hub.append(frames[1])
        hub.write(frames[2])
        hub.write(frames[3])
        await turns()
    assert socket.events == joined(frames)


async def test_a_new_attempt_in_the_queue_sends_the_tail_to_the_log_again(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, 0), text(1, 1), text(2, 0), done(2, 1)]
    hub.after = 10
    hub.append(frames[0])
    with opened(hub, socket):
        await turns(6)
        hub.append(frames[1])  # its publish is lost
        hub.write(frames[2])
        hub.write(frames[3])
        await turns()
    assert socket.events == joined(frames)
    assert socket.ended


async def test_a_first_attempt_that_wrote_nothing_is_not_mistaken_for_the_second(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(2, 0), text(2, 1), text(2, 2)]
    with opened(hub, socket) as tail:
        await turns()
        for frame in frames:
            hub.write(frame)
            await turns(30)
        assert tail.position == EventId(2, 2)
    assert socket.events == joined(frames)


async def test_an_append_that_reaches_back_before_the_position_sends_the_tail_to_the_log(
    hub: MemoryHub, socket: Socket
) -> None:
    """Two appends come as one, and the log was read between them."""
    frames = [text(1, n) for n in range(4)]
    hub.before = 2
    hub.gather(True)
    with opened(hub, socket):
        await turns(3)
        hub.write(*frames[:2])
        await turns(20)
        assert socket.events == joined(frames[:2])
        hub.write(*frames[2:])
        hub.gather(False)
        await turns()
    assert socket.events == joined(frames)


async def test_what_comes_twice_is_sent_once(hub: MemoryHub, socket: Socket) -> None:
    frames = [text(1, 0), text(1, 1), text(1, 2)]
    with opened(hub, socket) as tail:
        await turns()
        hub.write(*frames[:2])
        hub.publish(*frames[:2])
        hub.publish(frames[0])
        assert tail.live
        hub.write(frames[2])
    assert socket.events == joined(frames)
    assert hub.looks == 1


@pytest.mark.parametrize("seen", range(4))
async def test_the_end_closes_the_response_once(hub: MemoryHub, socket: Socket, seen: int) -> None:
    frames = [text(1, 0), text(1, 1), text(1, 2), done(1, 3)]
    hub.after = 4
    hub.append(*frames[:seen])
    with opened(hub, socket):
        await turns(5)
        hub.write(*frames[seen:])
        hub.publish(*frames[seen:])
        await turns()
    assert socket.events == joined(frames)
    assert [message["more_body"] for message in socket.messages].count(False) == 1
    assert socket.ended


async def test_an_end_that_was_appended_within_a_look_closes_the_response(
    hub: MemoryHub, socket: Socket
) -> None:
    """The log's newest event and the page are two commands: the end may come between them."""
    frames = [text(1, 0), done(1, 1)]
    hub.append(frames[0])
    hub.between = lambda: hub.append(frames[1])
    with opened(hub, socket):
        await turns()
    assert socket.events == joined(frames)
    assert socket.ended


async def test_a_client_at_the_end_that_was_not_known_yet_is_let_go(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, 0), done(1, 1)]
    hub.away = True
    hub.append(*frames)
    with opened(hub, socket, frames[-1].id):
        await turns()
        hub.away = False
        await turns()
    assert (socket.events, socket.ended) == (b"", True)


@pytest.mark.parametrize("position", [EventId(1, 2), EventId(1, 99), EventId(7, 0)])
async def test_a_position_later_than_the_log_is_reset_and_gets_all(
    hub: MemoryHub, socket: Socket, position: EventId
) -> None:
    frames = [text(1, 0), text(1, 1)]
    hub.append(*frames)
    with opened(hub, socket, position) as tail:
        await turns()
        hub.write(done(1, 2))
        assert tail.position == EventId(1, 2)
    assert socket.events == RESET + joined([*frames, done(1, 2)])


async def test_a_position_in_an_empty_log_is_reset(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket, EventId(1, 4)):
        await turns()
        hub.write(text(1, 0))
    assert socket.events == RESET + text(1, 0).data


async def test_a_log_that_went_back_is_reset_by_the_check(hub: MemoryHub, socket: Socket) -> None:
    with opened(hub, socket):
        await turns()
        hub.write(text(1, 0), text(1, 1))
        hub.frames.pop()
        await hub.check()
        await turns()
    assert socket.events == joined([text(1, 0), text(1, 1)]) + RESET + text(1, 0).data


@pytest.mark.parametrize("owner", [None, "another"])
async def test_nothing_is_sent_of_a_message_that_is_not_the_clients(
    hub: MemoryHub, socket: Socket, owner: str | None
) -> None:
    hub.owner = owner
    hub.append(text(1, 0), done(1, 1))
    with opened(hub, socket, EventId(9, 9)):
        await turns()
    assert (socket.events, socket.ended) == (b"", True)


async def test_a_message_that_is_gone_ends_its_tails_at_the_check(
    hub: MemoryHub, socket: Socket
) -> None:
    with opened(hub, socket):
        await turns()
        hub.write(text(1, 0))
        hub.frames, hub.owner = [], None
        await hub.check()
        await turns()
    assert (socket.events, socket.ended) == (text(1, 0).data, True)


async def test_a_tail_goes_on_by_itself_when_redis_is_back(hub: MemoryHub, socket: Socket) -> None:
    frames = [text(1, 0), text(1, 1), done(1, 2)]
    hub.away = True
    hub.append(*frames)
    with opened(hub, socket, frames[0].id):
        await turns()
        assert (socket.events, socket.ended) == (b"", False)
        assert socket.comments > 1
        hub.away = False
        await turns()
    assert socket.events == joined(frames[1:])


async def test_a_page_that_never_comes_in_time_is_asked_for_in_smaller_ones(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, n) for n in range(40)]
    hub.most = 10
    hub.append(*frames)
    with opened(hub, socket):
        await turns()
    assert socket.events == joined(frames)


async def test_while_redis_cannot_be_listened_to_the_log_is_read_again_and_again(
    hub: MemoryHub, socket: Socket
) -> None:
    frames = [text(1, n) for n in range(3)]
    hub.deaf = True
    hub.append(frames[0])
    with opened(hub, socket) as tail:
        await turns()
        assert socket.events == frames[0].data
        hub.write(frames[1])
        await turns()
        assert socket.events == joined(frames[:2])
        assert not tail.live
        hub.deaf = False
        await turns()
        assert tail.live
        hub.write(frames[2])
        assert socket.events == joined(frames)


async def test_a_defect_ends_the_stream_without_an_end_event_and_is_logged(
    hub: MemoryHub, socket: Socket, caplog: pytest.LogCaptureFixture
) -> None:
    hub.append(text(1, 0))
    hub.between = lambda: 1 / 0  # type: ignore[assignment]
    with opened(hub, socket):
        await turns()
    assert (socket.events, socket.ended) == (b"", True)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("after", range(25))
async def test_a_client_that_goes_at_any_moment_leaves_nothing_behind(after: int) -> None:
    hub, socket = MemoryHub(), Socket()
    hub.before = hub.after = 3
    hub.append(text(1, 0))
    with opened(hub, socket):
        await turns(after)
    await turns(3)
    assert (hub.spawned(), hub.channels(), len(hub.beats.tails)) == (0, 0, 0)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
