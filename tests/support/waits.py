"""Calls that wait for an answer, without a worker: asked, answered and let pass by hand."""

from collections.abc import Awaitable
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys, log, queue, record, waiting
from rejoin.shared.asks import Answer, Ask
from rejoin.shared.frames import Frame
from rejoin.shared.record import Status
from rejoin.shared.tool_events import Needs
from tests.support.messages import LIFE, accept, claim, place, until

FAR: Final = 4_102_444_800_000  # a deadline that no test reaches


async def ask(
    redis: Redis,
    message_id: str,
    token: str,
    call_id: str,
    *,
    needs: Needs = Needs.APPROVAL,
    round_: int = 1,
    deadline_ms: int = FAR,
) -> None:
    """Ask for one call."""
    one = Ask(call_id, needs, round_, deadline_ms)
    await waiting.ask(redis, message_id, token=token, asks=[one], life_seconds=LIFE)


async def wait_for(redis: Redis, *call_ids: str, needs: Needs = Needs.APPROVAL) -> str:
    """A message that the worker `w-a` has claimed under `a` and whose calls wait; its id."""
    message_id = await accept(redis)
    await claim(redis, message_id, "a")
    for call_id in call_ids:
        await ask(redis, message_id, "a", call_id, needs=needs)
    return message_id


async def say(redis: Redis, message_id: str, call_id: str, said: Answer) -> bool:
    """Answer a call."""
    return await waiting.answer(redis, message_id, call_id, said, life_seconds=LIFE)


async def passed(redis: Redis, message_id: str, call_id: str) -> None:
    """Let a call's deadline pass."""
    asked = (await waiting.asked(redis, message_id))[call_id]
    ask_then = Ask(call_id, asked.needs, asked.round, 1)
    key = keys.answers(message_id)
    await cast(Awaitable[int], redis.hset(key, f"ask {call_id}", ask_then.to_json()))


async def until_parked(redis: Redis, message_id: str) -> list[Frame]:
    """Wait until the message waits and its job is given back; its log."""

    async def parked() -> bool:
        found = await record.load(redis, message_id)
        job = await place(redis, message_id)
        waits = found is not None and found.status is Status.WAITING
        return waits and job.owner is None and (job.due_in_ms or 0) > 0

    await until(parked)
    return await log.read_all(redis, message_id)


async def say_and_wake(redis: Redis, message_id: str, call_id: str, said: Answer) -> None:
    """Answer a call, as the API does."""
    await say(redis, message_id, call_id, said)
    await queue.wake(redis, message_id)
