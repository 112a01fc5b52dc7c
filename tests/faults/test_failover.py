"""Redis fails over to its replica, by hand, in mid-stream: the text is exact all the same."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from tests.faults.conftest import SETTINGS
from tests.support.caller import Caller, assert_whole_log, caller, until, visible_text
from tests.support.failover import Pair, failover_pair
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_script import Answer, Hold, choice, completion_chunk, sse
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseFrame, open_tail

TEXT = "an answer whose Redis becomes another one in its middle " * 6
COME_BACK = 25.0
LONG_LEASE = {"REJOIN_LEASE_SECONDS": "6"}  # who keeps its connections keeps its messages


@pytest.fixture
async def pair(own_redis: RedisServer) -> AsyncIterator[Pair]:
    async with failover_pair(own_redis) as made:
        yield made


@pytest.fixture
async def moved_stack(pair: Pair) -> AsyncIterator[Stack]:
    """An API on the address that moves; a test starts the workers."""
    settings = {**SETTINGS, "REJOIN_REDIS_URL": pair.url}
    with rejoin_stack(pair.primary, apis=0, workers=0, settings=settings) as stack:
        await asyncio.to_thread(stack.new_api().start)
        yield stack
        stack.assert_no_traceback()
        for process in (*stack.workers, *stack.apis):
            if process.running:
                await asyncio.to_thread(process.terminate)


@pytest.fixture
async def api(moved_stack: Stack) -> AsyncIterator[Caller]:
    async with caller(moved_stack.url) as made:
        yield made


async def hire(stack: Stack, count: int = 1, **settings: str) -> None:
    for _ in range(count):
        await asyncio.to_thread(stack.new_worker(**settings).start)


def ids_on(server: RedisServer, message_id: str) -> list[str]:
    with server.client() as client:
        return [entry_id.decode() for entry_id, _ in client.xrange(f"rejoin:{{{message_id}}}:log")]


def assert_no_id_twice(*tails: Iterable[SseFrame]) -> None:
    """Check that whoever saw an id saw the same event."""
    seen: dict[str, bytes] = {}
    for frames in tails:
        for frame in frames:
            if frame.id is not None:
                assert seen.setdefault(frame.id, frame.raw) == frame.raw


async def assert_all_goes_on(stack: Stack, api: Caller, pair: Pair) -> None:
    """Check that every process lives and that new messages run on the new primary."""
    for _ in range(3):

        async def taken() -> bool:
            return (await api.post("before it")).status_code == 202

        await until(taken)
        message_id = await api.accepted("after it")
        assert visible_text(await api.log(message_id, within=COME_BACK)) == "after it"
        assert ids_on(pair.replica, message_id)
    assert all(process.running for process in (*stack.apis, *stack.workers))


@pytest.mark.parametrize("cut", [True, False], ids=["connections-cut", "connections-left-open"])
async def test_a_failover_without_a_loss_costs_no_event(
    moved_stack: Stack, api: Caller, pair: Pair, cut: bool
) -> None:
    await hire(moved_stack, 2, **LONG_LEASE)
    message_id = await api.accepted(TEXT, rate=20)
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(8)
        await pair.fail_over(cut=cut)
        frames = await tail.read_until_end(within=COME_BACK)
    assert_whole_log(frames)
    assert visible_text(frames) == TEXT
    assert [frame.event for frame in frames].count("reset") == 0
    assert tail.log_bytes() == b"".join(frame.raw for frame in await api.log(message_id))
    assert ids_on(pair.replica, message_id) == [frame.id for frame in frames]
    await assert_all_goes_on(moved_stack, api, pair)


@pytest.mark.parametrize("cut", [True, False], ids=["connections-cut", "connections-left-open"])
async def test_events_that_the_replica_lacked_are_taken_back_by_a_reset(
    moved_stack: Stack, api: Caller, pair: Pair, cut: bool
) -> None:
    await hire(moved_stack, 2)
    message_id = await api.accepted(TEXT, rate=20)
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(8)
        await pair.promote()
        kept = ids_on(pair.replica, message_id)
        seen = await tail.read_n(len(kept) + 6)
        await pair.move(cut=cut)
        frames = await tail.read_until_end(within=COME_BACK)
    assert frames[len(seen)].event == "reset"
    assert visible_text(frames) == TEXT
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(TEXT)}
    whole = await api.log(message_id)
    assert_whole_log(whole)
    assert visible_text(whole) == TEXT
    assert [frame.id for frame in whole[: len(kept)]] == kept
    assert whole[len(kept)].event == "reset"
    assert (await api.snapshot(message_id))["text"] == TEXT
    # Who was away meanwhile, and comes back with an event that nobody has any more.
    assert seen[-1].id not in kept
    async with open_tail(api.events(message_id), last_event_id=seen[-1].id) as late:
        rest = await late.read_until_end()
    assert visible_text([*seen, *rest]) == TEXT
    assert_no_id_twice(frames, whole, rest)
    await assert_all_goes_on(moved_stack, api, pair)


async def test_a_tail_that_saw_a_lost_end_is_told_that_its_position_is_unknown(
    moved_stack: Stack, api: Caller, pair: Pair
) -> None:
    await hire(moved_stack)
    message_id = await api.accepted(TEXT, rate=40)
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(8)
        await pair.promote()
        kept = ids_on(pair.replica, message_id)
        seen = await tail.read_until_end()
    assert tail.saw_end
    await asyncio.to_thread(moved_stack.worker.kill)
    await pair.move(cut=True)

    async with open_tail(api.events(message_id), last_event_id=seen[-1].id) as late:
        replayed = await late.read_n(1 + len(kept), within=COME_BACK)
        assert (replayed[0].event, replayed[0].id) == ("reset", None)
        assert replayed[0].data["reason"] == "position_unknown"
        assert [frame.id for frame in replayed[1:]] == kept
        moved_stack.workers.clear()
        await asyncio.to_thread(moved_stack.new_worker().launch)
        frames = await late.read_until_end(within=COME_BACK)
    assert visible_text([*seen, *frames]) == TEXT
    whole = await api.log(message_id)
    assert_whole_log(whole)
    assert_no_id_twice(seen, frames, whole)
    await assert_all_goes_on(moved_stack, api, pair)


async def test_the_ids_of_an_attempt_that_the_replica_never_heard_of_are_not_given_again(
    moved_stack: Stack, api: Caller, pair: Pair
) -> None:
    """The provider says something else when it is asked again."""
    first = [word(text) for text in ("never ", "to ", "be ", "heard ", "again ")]
    second = [word(text) for text in ("what ", "it ", "said ", "at ", "last")]
    end = [sse(completion_chunk("x", choices=choice({}, "stop"))), sse("[DONE]")]
    async with ProviderServer(lists_models=True) as server:
        server.play(Answer([*first, Hold()]), Answer([*second, *end]))
        provided: dict[str, Any] = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-test"}
        message_id = await api.accepted("tell me", model="openai/x")
        await until(pair.in_step)
        await pair.promote()
        await hire(moved_stack, **provided)
        async with open_tail(api.events(message_id)) as tail:
            seen = await tail.read_n(1 + len(first))
            await asyncio.to_thread(moved_stack.worker.kill)
            await pair.move(cut=True)
            moved_stack.workers.clear()
            await asyncio.to_thread(moved_stack.new_worker(**provided).launch)
            frames = await tail.read_until_end(within=COME_BACK)
        assert visible_text(seen) == "never to be heard again "
        assert visible_text(frames) == "what it said at last"
        whole = await api.log(message_id)
        assert visible_text(whole) == "what it said at last"
        assert_no_id_twice(seen, frames, whole)
        async with open_tail(api.events(message_id), last_event_id=seen[-1].id) as late:
            rest = await late.read_until_end()
        assert visible_text([*seen, *rest]) == "what it said at last"
    await assert_all_goes_on(moved_stack, api, pair)


def word(text: str) -> bytes:
    return sse(completion_chunk("x", choices=choice({"content": text})))
