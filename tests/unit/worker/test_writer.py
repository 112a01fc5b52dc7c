"""Events gather while an append is in flight, the end goes alone, and a refusal stops the run."""

import asyncio
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.errors import (
    CancelAsked,
    Fenced,
    LogEnded,
    LogRefused,
    LogUnavailable,
    LogWentBack,
    MessageMissing,
)
from rejoin.shared.events import Done, FinishReason, Step, Text, Usage
from rejoin.worker.appender import Appender
from rejoin.worker.stopping import Stop
from rejoin.worker.writer import MOST_WAITING_BYTES
from tests.unit.worker.appending import HeldLog, Stops, new_writer, running

NO_REDIS = cast(Redis, None)
END = ((Usage(), b""), (Done(FinishReason.STOP, 3), b""))
CANCELLED = ((Usage(), b""), (Done(FinishReason.CANCELLED, 3), b""))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldLog:
    return HeldLog(monkeypatch)


async def test_the_first_event_is_sent_at_once_and_later_ones_gather_behind_it(
    held: HeldLog,
) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        await held.until_rounds(1)
        for words in "bcd":
            writer.put(Text(words))
            await asyncio.sleep(0)
        assert held.names() == [["text"]]
        held.answer()
        await held.until_rounds(2)
        held.answer()
        await writer.flush()
    sent = [[str(frame.id) for frame in one[0].frames] for one in held.rounds]
    assert sent == [["1-0"], ["1-1", "1-2", "1-3"]]


async def test_writers_share_a_round_and_each_has_its_own_answer(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writers = [new_writer(appender, Stops().tell, message_id=f"m{n}") for n in range(600)]
        for writer in writers:
            writer.put(Text("a"))
        for n in range(3):
            await held.until_rounds(n + 1)
            held.answer()
        await asyncio.gather(*(writer.flush() for writer in writers))
    assert [len(one) for one in held.rounds] == [256, 256, 88]
    sent = [batch.message_id for one in held.rounds for batch in one]
    assert sent == [f"m{n}" for n in range(600)]


async def test_a_flush_waits_for_all_that_was_put(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        await writer.flush()
        writer.put(Text("a"))
        writer.put(Text("b"))
        flushing = [asyncio.create_task(writer.flush()) for _ in range(3)]
        await held.until_rounds(1)
        writer.put(Text("c"))
        held.answer()
        await held.until_rounds(2)
        assert not any(task.done() for task in flushing)
        held.answer()
        await asyncio.gather(*flushing)


async def test_what_was_put_before_is_stored_whatever_is_put_meanwhile(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        storing = asyncio.create_task(writer.stored())
        await held.until_rounds(1)
        writer.put(Text("b"))
        held.answer()
        async with asyncio.timeout(5):
            await storing
        held.answer()
        await writer.flush()


async def test_a_step_is_told_to_the_log_with_the_batch_that_has_it(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        await held.until_rounds(1)
        writer.put_step(Step(1, FinishReason.TOOL_CALLS))
        writer.put(Text("b"))
        held.answer()
        await held.until_rounds(2)
        writer.put(Text("c"))
        held.answer()
        held.answer()
        await writer.flush()
    assert [one[0].ending for one in held.rounds] == ["", "step", ""]
    assert writer.last is None


async def test_a_cancel_that_lets_the_step_end_stops_nothing(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        stops = Stops()
        writer = new_writer(appender, stops.tell)
        writer.put(Text("a"))
        held.answer(log.Appended(cancel_asked=False, log_bytes=1, cancel_after_step=True))
        await writer.flush()
        assert writer.after_step
        writer.put(Text("b"))
        held.answer()
        await writer.flush()
    assert writer.after_step
    assert stops == []


async def test_a_cancelled_flush_leaves_the_others_waiting(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        await held.until_rounds(1)
        one, other = (asyncio.create_task(writer.flush()) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        held.answer()
        await other


async def test_the_end_goes_alone_in_one_piece(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        writer.put(Text("b"))
        finishing = asyncio.create_task(writer.finish(END, CANCELLED))
        for n in (1, 2):
            await held.until_rounds(n)
            held.answer()
        await finishing
    assert held.names() == [["text", "text"], ["usage", "done"]]
    (text,), (end,) = held.rounds
    assert (text.ending, text.life_seconds) == ("", 600)
    assert (end.ending, end.life_seconds) == ("done", 600)


async def test_a_cancel_before_the_end_rewinds_to_another_end(held: HeldLog) -> None:
    stops = Stops()
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, stops.tell)
        writer.put(Text("a"))
        held.answer()
        held.answer(CancelAsked("m"))
        held.answer()
        await writer.finish(END, CANCELLED)
    ends = [one[0] for one in held.rounds[1:]]
    assert [[str(frame.id) for frame in end.frames] for end in ends] == [["1-1", "1-2"]] * 2
    assert [end.ending for end in ends] == ["done", "cancelled"]
    assert stops == []


async def test_a_cancel_told_by_an_append_stops_the_run(held: HeldLog) -> None:
    stops = Stops()
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, stops.tell)
        writer.put(Text("a"))
        held.answer(log.Appended(cancel_asked=True, log_bytes=1))
        await writer.flush()
    assert stops == [Stop.CANCELLED]


@pytest.mark.parametrize("refusal", [Fenced, LogEnded, LogWentBack, MessageMissing])
async def test_a_refusal_stops_the_run_and_nothing_more_is_sent(
    held: HeldLog, refusal: type[LogRefused]
) -> None:
    stops = Stops()
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, stops.tell)
        writer.put(Text("a"))
        await held.until_rounds(1)
        writer.put(Text("b"))
        held.answer(refusal("m"))
        with pytest.raises(refusal):
            await writer.flush()
        writer.put(Text("c"))
        with pytest.raises(refusal):
            await writer.flush()
        with pytest.raises(refusal):
            await writer.finish(END, CANCELLED)
    assert stops == [Stop.LOG_REFUSED]
    assert len(held.rounds) == 1
    assert not writer.behind


async def test_a_full_log_stops_the_run(held: HeldLog) -> None:
    stops = Stops()
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, stops.tell, most_log_bytes=1000)
        for log_bytes in (999, 1000):
            writer.put(Text("a"))
            held.answer(log.Appended(cancel_asked=False, log_bytes=log_bytes))
            await writer.flush()
            assert stops == ([] if log_bytes < 1000 else [Stop.LOG_FULL])


async def test_a_writer_is_behind_until_what_waits_is_taken(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        await held.until_rounds(1)
        half = "x" * (MOST_WAITING_BYTES // 2)
        writer.put(Text(half))
        assert not writer.behind
        writer.put(Text(half))
        assert writer.behind
        held.answer()
        await held.until_rounds(2)
        assert not writer.behind
        held.answer()
        await writer.flush()


async def test_while_redis_is_away_the_very_same_batch_is_sent_again(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        writer.put(Text("a"))
        writer.put(Text("b"))
        for n in (1, 2, 3):
            await held.until_rounds(n)
            writer.put(Text(f"later {n}"))
            held.answer(LogUnavailable("Redis is away") if n < 3 else None)
        await held.until_rounds(4)
        held.answer()
        await writer.flush()
    first = held.rounds[0]
    assert held.rounds[1:3] == [first, first]
    assert [len(one[0].frames) for one in held.rounds] == [2, 2, 2, 3]


async def test_an_appender_outlives_an_outage_of_every_writer(held: HeldLog) -> None:
    async with running(Appender(NO_REDIS)) as appender:
        writers = [new_writer(appender, Stops().tell, message_id=f"m{n}") for n in range(3)]
        for writer in writers:
            writer.put(Text("a"))
        held.answer(LogUnavailable("Redis is away"))
        held.answer()
        await asyncio.gather(*(writer.flush() for writer in writers))
    assert held.rounds[0] == held.rounds[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    moves=st.lists(st.sampled_from(["put", "put", "turn", "answer", "away"]), max_size=40),
)
async def test_whatever_the_pace_every_event_is_sent_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, moves: list[str]
) -> None:
    held = HeldLog(monkeypatch)
    async with running(Appender(NO_REDIS)) as appender:
        writer = new_writer(appender, Stops().tell)
        put = 0
        for move in moves:
            if move == "put":
                writer.put(Text(str(put)))
                put += 1
            elif move == "answer":
                held.answer()
            elif move == "away" and put < 3:
                held.answer(LogUnavailable("Redis is away"))
            await asyncio.sleep(0)
        held.held = False
        held.answer()
        async with asyncio.timeout(5):
            await writer.flush()
    stored: list[log.Batch] = []
    for (sent,) in held.rounds:
        if not stored or stored[-1] != sent:  # a repeat is exactly the last one
            stored.append(sent)
    sequences = [frame.id.sequence for sent in stored for frame in sent.frames]
    assert sequences == list(range(put))
