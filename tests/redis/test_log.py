"""The log takes each batch once and in order, tells who reads along, and lives as long as asked."""

from redis.asyncio import Redis

from rejoin.shared import keys, log
from rejoin.shared.errors import (
    Fenced,
    MessageMissing,
)
from tests.support.messages import accept, batch, claim, end, ids, start


async def test_events_are_stored_in_order_and_read_back(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    first = batch(
        message_id, owner, 0, [start(message_id), "one ", "zwö\u2028"], private=b'{"a":1}'
    )
    await log.append(any_redis, first)
    second = batch(message_id, owner, 3, ["drei"])
    await log.append(any_redis, second)
    assert await log.read_all(any_redis, message_id) == [*first.frames, *second.frames]


async def test_a_repeated_batch_is_stored_once_and_succeeds_again(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    for written in (
        batch(message_id, owner, 0, [start(message_id), "one"]),
        batch(message_id, owner, 2, ["two"]),
        batch(message_id, owner, 3, end(), ending="done"),
    ):
        told = [await log.append(any_redis, written) for _ in range(3)]
        assert told[0] == told[1] == told[2]
    assert await ids(any_redis, message_id) == ["1-0", "1-1", "1-2", "1-3", "1-4"]


async def test_the_ending_batch_again_after_a_lost_reply_is_a_success(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    last = batch(message_id, owner, 0, [start(message_id), *end()], ending="done")
    await log.append(any_redis, last)
    await log.append(any_redis, last)
    assert len(await ids(any_redis, message_id)) == 3


async def test_every_key_has_an_expiry_from_its_first_write(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    names = [keys.record(message_id), keys.request(message_id)]
    assert all([0 < await any_redis.ttl(name) <= 600 for name in names])
    owner = await claim(any_redis, message_id, "a")
    await log.append(any_redis, batch(message_id, owner, 0, [start(message_id)], life=500))
    names.append(keys.log(message_id))
    assert all([490 <= await any_redis.ttl(name) <= 500 for name in names])
    last = batch(message_id, owner, 1, end(), ending="done", life=60)
    await log.append(any_redis, last)
    assert all([50 <= await any_redis.ttl(name) <= 60 for name in names])
    assert {name.decode() async for name in any_redis.scan_iter(f"*{message_id}*")} == set(names)


async def test_what_is_published_is_the_batch_with_its_place(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    async with any_redis.pubsub() as heard:
        await heard.subscribe(keys.live(message_id))
        await heard.get_message(timeout=5)
        first = batch(message_id, owner, 0, [start(message_id), "one"], private=b"never shown")
        last = batch(message_id, owner, 2, end(), ending="done")
        for written in (first, first, last, last):
            await log.append(any_redis, written)
        payloads = [(await heard.get_message(timeout=5) or {})["data"] for _ in range(2)]
        assert await heard.get_message(timeout=0.05) is None  # a repeat is not published again
    assert payloads == [
        b"1 0 1 0\n" + b"".join(frame.data for frame in first.frames),
        b"1 2 3 1\n" + b"".join(frame.data for frame in last.frames),
    ]


async def test_the_logs_bytes_are_counted_over_all_attempts(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    written = 0
    for token in ("a", "b"):
        owner = await claim(any_redis, message_id, token)
        for first, words in enumerate(("one", "zwei \u00fc 😀")):
            sent = batch(message_id, owner, first, [words], private=b"not counted")
            written += sum(len(frame.data) for frame in sent.frames)
            assert (await log.append(any_redis, sent)).log_bytes == written
            assert (await log.append(any_redis, sent)).log_bytes == written


async def test_scripts_forgotten_by_redis_are_loaded_again(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a")
    written = []
    for first in range(4):
        await any_redis.script_flush()
        written.append(batch(message_id, owner, first, [f"{first}"]))
        await log.append(any_redis, written[-1])
    await any_redis.script_flush()
    await log.append(any_redis, written[-1])
    assert await ids(any_redis, message_id) == ["1-0", "1-1", "1-2", "1-3"]


async def test_one_round_trip_takes_batches_of_many_messages_each_by_itself(
    any_redis: Redis,
) -> None:
    message_ids = [await accept(any_redis) for _ in range(5)]
    owners = [await claim(any_redis, message_id, "a") for message_id in message_ids]
    await claim(any_redis, message_ids[1], "b")
    await any_redis.delete(keys.record(message_ids[3]))
    batches = [
        batch(message_id, owner, 0, [start(message_id)])
        for message_id, owner in zip(message_ids, owners, strict=True)
    ]
    await any_redis.script_flush()
    outcomes = await log.append_all(any_redis, batches)
    assert [type(outcome) for outcome in outcomes] == [
        log.Appended,
        Fenced,
        log.Appended,
        MessageMissing,
        log.Appended,
    ]
    assert [len(await ids(any_redis, message_id)) for message_id in message_ids] == [1, 0, 1, 0, 1]


async def test_attempts_past_32_bits_keep_their_ids(any_redis: Redis) -> None:
    message_id = await accept(any_redis)
    owner = await claim(any_redis, message_id, "a", seen=1_795_253_400_124)
    assert owner.attempt == 1_795_253_400_125
    for first in (0, 1):
        await log.append(any_redis, batch(message_id, owner, first, ["a"]))
    assert await ids(any_redis, message_id) == ["1795253400125-0", "1795253400125-1"]
