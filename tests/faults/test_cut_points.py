"""Cut anywhere and resumed, a log is byte for byte the uncut one."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.support.caller import Caller, assert_whole_log, caller, visible_text
from tests.support.cutting_proxy import cutting_proxy, random_cuts
from tests.support.processes import Stack
from tests.support.sse_reader import SseFrame, open_tail

TEXT = "cut é before\nand 😀 within every one of these words"


async def until_cut(url: str, cut: int) -> list[SseFrame]:
    """Read exactly `cut` bytes of a tail, then drop it: the events that came whole."""
    async with open_tail(url) as tail:
        await tail.read_bytes(cut)
        return tail.frames


async def rest_of(url: str, seen: Sequence[SseFrame]) -> list[SseFrame]:
    """Come back as a client does: with the last whole event's id."""
    async with open_tail(url, last_event_id=seen[-1].id if seen else None) as tail:
        return await tail.read_until_end()


async def cut_points(url: str) -> tuple[bytes, list[int]]:
    """A finished log's bytes, and where to cut its stream: before, in and after each event.

    In each event: within `data:`, before `id:`, within `id:`, and between the last line and the
    blank one, where some clients have moved their position already.
    """
    async with open_tail(url) as tail:
        frames = await tail.read_until_end()
    assert_whole_log(frames)
    body, points = bytes(tail.raw), [1]
    for frame in frames:
        begin = body.index(frame.raw)
        for within in (b"data: ", b"id: "):
            at = frame.raw.index(within) if within == b"data: " else frame.raw.rindex(within)
            points += [begin + at, begin + at + len(within) + 1]
        points += [begin, begin + len(frame.raw) - 1]
    points.append(len(body) - 1)
    return tail.log_bytes(), sorted(set(points))


async def assert_all_join(
    points: Sequence[int], first_url: str, then_url: str, whole: bytes
) -> None:
    """Cut at every point on one API, come back on another."""
    seen = await asyncio.gather(*(until_cut(first_url, point) for point in points))
    rests = await asyncio.gather(*(rest_of(then_url, frames) for frames in seen))
    for point, frames, rest in zip(points, seen, rests, strict=True):
        joined = b"".join(frame.raw for frame in [*frames, *rest])
        assert joined == whole, f"cut at byte {point}"


async def test_a_finished_log_cut_at_every_point(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT)
        url = api.events(message_id)
        assert visible_text(await api.log(message_id)) == TEXT
        whole, points = await cut_points(url)
        await assert_all_join(points, url, url, whole)


async def test_a_finished_log_cut_at_every_point_and_the_api_restarted(stack: Stack) -> None:
    async with caller(stack.url) as api:
        url = api.events(await api.accepted(TEXT))
        whole, points = await cut_points(url)
        seen = await asyncio.gather(*(until_cut(url, point) for point in points))
        assert stack.api.terminate() == 0
        stack.api.start()
        rests = await asyncio.gather(*(rest_of(url, frames) for frames in seen))
    for frames, rest in zip(seen, rests, strict=True):
        assert b"".join(frame.raw for frame in [*frames, *rest]) == whole


async def live_reader(urls: Sequence[str], events: int, within_frame: int) -> bytes:
    """Follow a running message, cut after `events` events and some bytes of the next."""
    async with open_tail(urls[0]) as tail:
        await tail.read_n(events)
        await tail.until(
            lambda: tail.saw_end or len(tail.frames) > events or _beyond(tail.raw) >= within_frame
        )
        seen = tail.frames[:events]
    if seen and seen[-1].event == "done":
        return b"".join(frame.raw for frame in seen)
    rest = await rest_of(urls[-1], seen)
    return b"".join(frame.raw for frame in [*seen, *rest])


def _beyond(raw: bytearray) -> int:
    return len(raw) - (raw.rfind(b"\n\n") + 2)


async def all_live_readers(api: Caller, message_id: str, urls: Sequence[str]) -> None:
    count = len(TEXT.split()) + 4  # start, a text a word, step, usage, done
    logs = await asyncio.gather(
        *(live_reader(urls, events, part) for events in range(count) for part in (0, 9))
    )
    whole = await api.log(message_id)
    assert_whole_log(whole)
    assert len(whole) == count
    assert set(logs) == {b"".join(frame.raw for frame in whole)}


async def test_a_running_log_cut_at_every_event(stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted(TEXT, rate=10)
        await all_live_readers(api, message_id, [api.events(message_id)])


async def test_a_running_log_cut_at_every_event_and_resumed_at_another_api(
    stack: Stack,
) -> None:
    other = stack.new_api().start()
    async with caller(stack.url) as api, caller(other.url) as elsewhere:
        message_id = await api.accepted(TEXT, rate=10)
        urls = [api.events(message_id), elsewhere.events(message_id)]
        await all_live_readers(api, message_id, urls)


async def test_a_running_log_over_an_api_killed_and_started_again(stack: Stack) -> None:
    """kill -9: no goodbye; every reader is cut wherever it was."""
    text = TEXT + " and on " * 30
    async with caller(stack.url) as api:
        message_id = await api.accepted(text, rate=20)
        url = api.events(message_id)
        seen: list[list[SseFrame]] = [[] for _ in range(8)]

        async def one(mine: list[SseFrame], position: str | None) -> None:
            async with open_tail(url, last_event_id=position) as tail:
                with suppress(ConnectionError):
                    await tail.read_until_end()
                mine += tail.frames

        readers = [asyncio.create_task(one(mine, None)) for mine in seen]
        async with open_tail(url) as pace:
            await pace.read_n(8)
        stack.api.kill()
        await asyncio.gather(*readers)
        assert not any(mine and mine[-1].event == "done" for mine in seen)
        stack.api.start()
        rests = await asyncio.gather(*(rest_of(url, mine) for mine in seen))
        whole = await api.log(message_id)
    assert visible_text(whole) == text
    logs = {b"".join(f.raw for f in [*mine, *rest]) for mine, rest in zip(seen, rests, strict=True)}
    assert logs == {b"".join(frame.raw for frame in whole)}


async def test_a_line_cut_at_random_again_and_again(stack: Stack) -> None:
    """Twenty readers, each behind a proxy that cuts every connection after some bytes."""
    text = "a line that is cut at random " * 10

    async def one(message_id: str, seed: int) -> bytes:
        frames: list[SseFrame] = []
        cuts = random_cuts(seed, least=300, most=1500)
        async with cutting_proxy(stack.api.port, cuts) as proxy:
            url = f"{proxy.url}/api/messages/{message_id}/events"
            for _ in range(200):
                position = frames[-1].id if frames else None
                with suppress(ConnectionError):
                    async with open_tail(url, last_event_id=position) as tail:
                        with suppress(ConnectionError):
                            await tail.read_until_end()
                        frames += tail.frames
                if frames and frames[-1].event == "done":
                    break
            assert proxy.cut_connections > 1  # fewer where much comes at once
        return b"".join(frame.raw for frame in frames)

    async with caller(stack.url) as api:
        message_id = await api.accepted(text, rate=50)
        logs = await asyncio.gather(*(one(message_id, seed) for seed in range(20)))
        whole = await api.log(message_id)
    assert visible_text(whole) == text
    assert set(logs) == {b"".join(frame.raw for frame in whole)}
