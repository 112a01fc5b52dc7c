"""A cancel while others tail, come back, or while the message changes its worker."""

import asyncio

import pytest

from tests.support.caller import Caller, assert_whole_log, caller, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import SseFrame, open_tail

TEXT = "somebody cancels this answer while others still read it " * 30


def assert_cancelled(frames: list[SseFrame], seen: str) -> None:
    """Check a cancelled log that keeps the text that somebody saw."""
    assert_whole_log(frames)
    assert [frame.event for frame in frames[-2:]] == ["usage", "done"]
    text = visible_text(frames)
    assert frames[-1].data == {"finish_reason": "cancelled", "text_chars": len(text)}
    assert text.startswith(seen)
    assert TEXT.startswith(text)


async def resumed(api: Caller, message_id: str, after: SseFrame) -> bytes:
    """The rest of a log, from an event on."""
    async with open_tail(api.events(message_id), last_event_id=after.id) as tail:
        await tail.read_until_end()
        return tail.log_bytes()


async def test_every_tail_sees_the_same_end_whoever_cancels(stack: Stack, api: Caller) -> None:
    async with caller(stack.url) as stranger:
        message_id = await api.accepted(TEXT, rate=30)
        logs = [asyncio.create_task(api.log(message_id)) for _ in range(10)]
        async with open_tail(api.events(message_id)) as tail:
            before = await tail.read_n(6)
        rests = [asyncio.create_task(resumed(api, message_id, frame)) for frame in before]
        assert (await stranger.cancel(message_id)).status_code == 202
        whole = await stranger.log(message_id)
        assert_cancelled(whole, visible_text(before))
        for frames in await asyncio.gather(*logs):
            assert [frame.raw for frame in frames] == [frame.raw for frame in whole]
        for n, rest in enumerate(await asyncio.gather(*rests)):
            assert rest == b"".join(frame.raw for frame in whole[n + 1 :])


async def test_a_reader_who_was_away_during_the_cancel_finds_the_rest_and_then_204(
    api: Caller,
) -> None:
    async with api.tailed(TEXT, rate=30) as (message_id, tail):
        before = await tail.read_n(6)
    assert (await api.cancel(message_id)).status_code == 202
    whole = await api.log(message_id)
    rest = await resumed(api, message_id, before[-1])
    assert rest == b"".join(frame.raw for frame in whole[len(before) :])
    headers = {"Last-Event-ID": str(whole[-1].id)}
    again = await api.http.get(f"/api/messages/{message_id}/events", headers=headers)
    assert again.status_code == 204


async def test_leaving_and_coming_back_cancels_nothing(api: Caller) -> None:
    message_id = await api.accepted(TEXT, rate=200)
    for _ in range(5):
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(2)
    frames = await api.log(message_id)
    assert visible_text(frames) == TEXT
    assert frames[-1].data["finish_reason"] == "stop"


async def test_a_cancel_before_another_worker_takes_over_keeps_the_text(
    stack: Stack, api: Caller
) -> None:
    """The other one lives, and waits for the dead one's lease."""
    async with api.tailed(TEXT, rate=30) as (message_id, tail):
        seen = visible_text(await tail.read_n(8))
        stack.new_worker().start()
        stack.worker.kill()
        assert (await api.cancel(message_id)).status_code == 202
        assert_cancelled(await tail.read_until_end(within=5), seen)
    assert (await api.cancel(message_id)).status_code == 202, "twice is as good as once"


@pytest.mark.parametrize("later", [0, 1, 3])
async def test_a_cancel_as_another_worker_has_taken_over_ends_its_attempt(
    stack: Stack, api: Caller, later: int
) -> None:
    async with api.tailed(TEXT, rate=30) as (message_id, tail):
        await tail.read_n(8)
        stack.new_worker().start()
        stack.worker.kill()
        await tail.until(lambda: "reset" in [frame.event for frame in tail.frames])
        count = len(tail.frames)
        seen = visible_text(await tail.read_n(count + later))
        assert (await api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=5)
    assert_cancelled(frames, seen)
    assert [frame.event for frame in frames].count("reset") == 1


async def test_a_cancel_told_to_a_paused_worker_ends_the_message_and_stays_the_end(
    stack: Stack, api: Caller
) -> None:
    async with api.tailed(TEXT, rate=30) as (message_id, tail):
        seen = visible_text(await tail.read_n(8))
        stack.new_worker().start()
        stack.worker.pause()
        assert (await api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end(within=5)
    assert_cancelled(frames, seen)
    stack.worker.resume()
    assert visible_text(await api.log(await api.accepted("later"))) == "later"
    assert [f.raw for f in await api.log(message_id)] == [f.raw for f in frames]
