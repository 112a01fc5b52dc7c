"""Any batches, sent again by anybody in any order, give exactly the log."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from rejoin.shared import log, record
from rejoin.shared.errors import (
    Fenced,
    LogWentBack,
)
from tests.support.messages import accept, batch, claim

each_example_has_its_own_message = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def sendings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Sizes of batches, and in which order they are sent, again and again, by a worker gone wild.

    The first sending of each keeps its order; any that were sent before may come again.
    """
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    order: list[int] = []
    for number in range(len(sizes)):
        again = st.lists(st.integers(0, number), max_size=3)
        order += [number, *draw(again)]
    return sizes, order


@each_example_has_its_own_message
@given(sendings())
async def test_any_repeats_of_any_batches_give_exactly_the_log(
    redis: Redis, sending: tuple[list[int], list[int]]
) -> None:
    sizes, order = sending
    message_id = await accept(redis)
    owner = await claim(redis, message_id, "a")
    firsts = itertools.accumulate(sizes, initial=0)
    batches = [
        batch(message_id, owner, first, [f"{first + n} " for n in range(size)])
        for first, size in zip(firsts, sizes, strict=False)
    ]
    newest = -1
    for number in order:
        if number in (newest, newest + 1):
            await log.append(redis, batches[number])
            newest = number
        else:
            with pytest.raises(LogWentBack):
                await log.append(redis, batches[number])
    assert await log.read_all(redis, message_id) == [f for b in batches for f in b.frames]


@each_example_has_its_own_message
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=14))
async def test_writers_of_any_claims_never_interleave(
    redis: Redis, moves: list[tuple[int, int, bool]]
) -> None:
    """Three workers claim and write in any order; each knows only its own last claim."""
    message_id = await accept(redis)
    claims: dict[int, record.Claim] = {}
    written: dict[int, int] = {}
    for turn, (worker, size, again) in enumerate(moves):
        if again or worker not in claims:
            claims[worker] = await claim(redis, message_id, f"{worker}-{turn}")
            written[worker] = 0
        sent = batch(message_id, claims[worker], written[worker], [f"{worker} "] * size)
        newest = max(claims.values(), key=lambda won: won.attempt)
        if claims[worker] == newest:
            await log.append(redis, sent)
            written[worker] += size
        else:
            with pytest.raises(Fenced):
                await log.append(redis, sent)
    by_attempt: dict[int, list[tuple[int, bytes]]] = {}
    for frame in await log.read_all(redis, message_id):
        by_attempt.setdefault(frame.id.attempt, []).append((frame.id.sequence, frame.json))
    for events in by_attempt.values():
        assert [sequence for sequence, _ in events] == list(range(len(events)))
        assert len({words for _, words in events}) == 1
    assert list(by_attempt) == sorted(by_attempt)


async def test_two_processes_sending_the_same_batch_at_once_store_it_once(redis: Redis) -> None:
    message_id = await accept(redis)
    owner = await claim(redis, message_id, "a")
    written = [batch(message_id, owner, n, [f"{n}"]) for n in range(20)]
    for sent in written:
        await asyncio.gather(*(log.append(redis, sent) for _ in range(8)))
    assert await log.read_all(redis, message_id) == [b.frames[0] for b in written]
