"""Many POSTs at one instant on two APIs: one message of a conversation runs, whatever breaks."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.caller import Caller, assert_whole_log, caller, until, visible_text
from tests.support.processes import Stack, Worker
from tests.support.sse_reader import open_tail

WORDS = "this one is to be broken off in its middle " * 6
WITHIN = 90.0  # of which a minute for what a killed API left without a record


@pytest.fixture
async def two_apis(stack: Stack) -> AsyncIterator[list[Caller]]:
    """Callers of two API processes, behind which two workers run."""
    stack.new_api().start()
    stack.new_worker().start()
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(caller(api.url)) for api in stack.apis[-2:]]


async def post(api: Caller, text: str, conversation_id: str | None = None, **fields: Any) -> str:
    if conversation_id is not None:
        fields["conversation_id"] = conversation_id
    return await api.accepted(text, **fields)


async def ended(api: Caller, message_id: str) -> dict[str, Any]:
    """Wait for a message's end, through whatever happens; the message."""
    seen: dict[str, Any] = {}

    async def has_ended() -> bool:
        nonlocal seen
        response = await api.http.get(f"/api/messages/{message_id}", params={"wait": "5"})
        seen = response.json() if response.status_code == 200 else {}
        return seen.get("finished_at") is not None

    await until(has_ended, within=WITHIN)
    return seen


async def assert_one_after_another(api: Caller, ids: Sequence[str]) -> list[str]:
    """Check by their logs that no two ran side by side; the ids in the order of their starts."""
    seen = [await ended(api, message_id) for message_id in ids]
    for message_id in ids:
        assert_whole_log(await api.log(message_id))
    ran = sorted((one["attempts"][0]["started_at"], one["finished_at"], one["id"]) for one in seen)
    for before, after in itertools.pairwise(ran):
        assert before[1] <= after[0], f"{after[2]} started before {before[2]} had ended"
    return [message_id for _, _, message_id in ran]


async def runner_of(stack: Stack, api: Caller, message_id: str) -> Worker:
    """The worker that runs a message right now."""
    ran_by = (await api.snapshot(message_id))["attempts"][-1]["worker"]
    (worker,) = (worker for worker in stack.workers if worker.worker_id == ran_by)
    return worker


async def under_way(api: Caller) -> tuple[str, str]:
    """A message in its middle, and its conversation."""
    message_id = await post(api, WORDS, rate=20)
    async with open_tail(api.events(message_id)) as tail:
        await tail.read_n(4)
    conversation_id: str = (await api.snapshot(message_id))["conversation_id"]
    return message_id, conversation_id


async def test_posts_at_one_instant_on_two_apis_never_run_side_by_side(
    two_apis: list[Caller],
) -> None:
    api = two_apis[0]
    firsts = [await post(api, "zero", rate=50) for _ in range(10)]
    talks = [(await api.snapshot(first))["conversation_id"] for first in firsts]
    for turn in range(4):
        made = await asyncio.gather(
            *(
                post(two_apis[n % 2], f"turn {turn} of {n}", talk, rate=100)
                for talk in talks
                for n in range(4)
            )
        )
        for at in range(len(talks)):
            ids = made[at * 4 : at * 4 + 4]
            await assert_one_after_another(api, [firsts[at], *ids])


async def test_of_posts_at_one_instant_that_do_not_wait_one_is_taken(
    two_apis: list[Caller],
) -> None:
    api = two_apis[0]
    for _ in range(10):
        first = await post(api, "a")
        talk = (await ended(api, first))["conversation_id"]
        answers = await asyncio.gather(
            *(
                two_apis[n % 2].post(WORDS, rate=100, conversation_id=talk, if_busy="reject")
                for n in range(6)
            )
        )
        taken = [one.json()["message_id"] for one in answers if one.status_code == 202]
        refused = [one.json() for one in answers if one.status_code == 409]
        assert (len(taken), len(refused)) == (1, 5)
        assert {one["active_message_id"] for one in refused} == set(taken)
        await api.cancel(taken[0])


async def test_interrupts_at_one_instant_leave_one_running_and_the_others_in_order(
    two_apis: list[Caller],
) -> None:
    api = two_apis[0]
    first, talk = await under_way(api)
    ids = await asyncio.gather(
        *(post(two_apis[n % 2], f"{n}", talk, if_busy="interrupt") for n in range(8))
    )
    await assert_one_after_another(api, [first, *ids])
    assert (await api.snapshot(first))["status"] == "cancelled"


async def test_a_killed_workers_message_is_taken_over_before_the_next_one_starts(
    two_apis: list[Caller], stack: Stack
) -> None:
    api = two_apis[0]
    first, talk = await under_way(api)
    rest = [await post(api, f"after {n}", talk) for n in range(3)]
    (await runner_of(stack, api, first)).kill()
    assert await assert_one_after_another(api, [first, *rest]) == [first, *rest]
    assert visible_text(await api.log(first)) == WORDS


async def test_all_workers_killed_the_conversation_goes_on_with_the_next_worker(
    stack: Stack,
) -> None:
    async with caller(stack.url) as api:
        first, talk = await under_way(api)
        second = await post(api, "after", talk)
        stack.worker.kill()
        third = await post(api, "later", talk)
        stack.worker.start()
        ids = [first, second, third]
        assert await assert_one_after_another(api, ids) == ids


async def test_after_a_cancelled_one_and_a_failed_one_the_next_starts(stack: Stack) -> None:
    async with caller(stack.url) as api:
        first, talk = await under_way(api)
        fails = await post(api, "x", talk, model="openai/nothing-there", temperature=1)
        last = await post(api, "after both", talk)
        await api.cancel(first)
        ids = [first, fails, last]
        assert await assert_one_after_another(api, ids) == ids
        seen = [(await api.snapshot(message_id))["status"] for message_id in ids]
        assert seen == ["cancelled", "failed", "done"]


async def test_a_redis_that_was_restarted_keeps_the_order(stack: Stack) -> None:
    async with caller(stack.url) as api:
        first, talk = await under_way(api)
        rest = [await post(api, f"after {n}", talk) for n in range(3)]
        stack.redis.kill()
        stack.redis.start()
        ids = [first, *rest]
        assert await assert_one_after_another(api, ids) == ids
        assert [visible_text(await api.log(m)) for m in rest] == ["after 0", "after 1", "after 2"]


async def test_a_redis_that_lost_the_turns_gives_them_again(stack: Stack) -> None:
    async with caller(stack.url) as api:
        first, talk = await under_way(api)
        rest = [await post(api, f"after {n}", talk) for n in range(3)]
        with stack.redis.client() as client:
            client.delete(f"rejoin:{{{talk}}}:turns", f"rejoin:{{{talk}}}:conversation")
        ids = [first, *rest]
        for message_id in ids:
            assert (await ended(api, message_id))["status"] == "done"


async def test_an_api_killed_before_it_queued_leaves_nothing_waiting(stack: Stack) -> None:
    """A kill in the middle of many POSTs: what was accepted ends, and nothing blocks the rest."""
    doomed = stack.new_api().start()
    async with caller(stack.url) as api, caller(doomed.url) as dying:
        first, talk = await under_way(api)
        posts = [asyncio.create_task(dying.post("x", conversation_id=talk)) for _ in range(20)]
        await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
        doomed.kill()
        answers = await asyncio.gather(*posts, return_exceptions=True)
        taken = [
            one.json()["message_id"]
            for one in answers
            if not isinstance(one, BaseException) and one.status_code == 202
        ]
        assert taken
        await assert_one_after_another(api, [first, *taken])
