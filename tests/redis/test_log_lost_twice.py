"""Redis loses parts of a log of steps and tools, again and again: all happens, and costs, once."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log
from rejoin.shared.errors import LogRefused
from rejoin.shared.events import Usage
from rejoin.shared.fold import Message, fold
from rejoin.shared.frames import Frame
from rejoin.shared.spent import attempts_of, total
from rejoin.worker.providers.base import UsageChunk
from tests.redis.test_log_lost import Kept, lose, whole
from tests.support.in_process import SCRIPT, until_events, worker_on
from tests.support.logs import data
from tests.support.messages import accept, enqueue, until_true
from tests.support.scripted_provider import Line, ScriptedProvider, answer, texts
from tests.support.tools import PlainTool, call, calling

PAUSE: Final = 0.003  # so that not all of an answer is one append
USED: Final = UsageChunk(10, 5)
STEPS: Final[list[list[Line]]] = [
    [*texts("one "), PAUSE, *calling(call("a"), call("b"), words="and ", used=USED)],
    [*texts("two "), PAUSE, *calling(call("c"), used=USED)],
    [*texts("three "), PAUSE, *texts("four "), PAUSE, *answer("five"), USED],
]
TEXT: Final = "one and two three four five"
EVENTS: Final = 20


class Losses:
    """Stands in the appends' way, and loses something before or after some of the events."""

    def __init__(self, redis: Redis, message_id: str, seed: int) -> None:
        self.seen: list[list[Frame]] = []  # the log, before each loss
        self.told: list[str] = []
        self._rng = random.Random(seed)
        self._redis = redis
        self._id = message_id
        self._kept: list[Kept] = []
        self._appended = 0
        self._due = sorted(self._rng.sample(range(1, EVENTS), self._rng.randint(2, 4)))
        self._append_all = log.append_all

    async def append_all(
        self, redis: Redis, batches: Sequence[log.Batch]
    ) -> list[log.Appended | LogRefused]:
        """Append, as the real one does."""
        (batch,) = batches
        self._kept.append(await Kept.of(self._redis, self._id))
        self._appended += len(batch.frames)
        due = [at for at in self._due if at <= self._appended]
        self._due = self._due[len(due) :]
        # What is lost behind the end, nobody of the appender's notices.
        after = bool(due) and not batch.ending and self._rng.random() < 0.5
        if due and not after:
            await self._lose()
        outcomes = await self._append_all(redis, batches)
        if after:
            await self._lose()
        return outcomes

    async def _lose(self) -> None:
        found = await log.read_all(self._redis, self._id)
        self.seen.append(found)
        match self._rng.choice(["all", "newest", "newest", "later", "later"]):
            case "all":
                self.told.append("all")
                await self._redis.delete(keys.log(self._id))
            case "newest":
                lost = [str(frame.id) for frame in found[-self._rng.randint(1, 9) :]]
                self.told.append(f"from {lost[:1]}")
                if lost:
                    await self._redis.xdel(keys.log(self._id), *lost)
            case _:
                self.told.append("what came since")
                await self._rng.choice(self._kept[-6:]).go_back(self._redis)


def summed(message: Message) -> Usage:
    """What the attempts used together."""
    spent: Usage | None = None
    for attempt in attempts_of(message, None, None):
        if isinstance(used := attempt["usage"], dict):
            spent = total(spent, Usage(**used))
    return spent or Usage()


async def test_a_call_is_billed_once_whose_end_a_later_worker_tells_again(
    clean_redis_url: str, redis: Redis
) -> None:
    look, gate = PlainTool(gate=asyncio.Event()), asyncio.Event()
    message_id = await accept(redis, model=SCRIPT, tools=["look"])
    await enqueue(redis, message_id)
    first = ScriptedProvider(calling(call("a"), words="one ", used=USED))
    async with worker_on(clean_redis_url, first, tools=[look], lease_seconds=0.5) as worker:
        await until_events(redis, message_id, 4)  # start, text, tool_call, tool_start
        await worker.die()
    heir = ScriptedProvider([*texts("two "), gate, *answer("three"), USED])
    async with worker_on(clean_redis_url, heir, name="w2", tools=[look], lease_seconds=0.5):
        await until_true(lambda: heir.given == 1)
        await until_events(redis, message_id, 8)  # reset, tool_error, step, text
        await lose(redis, message_id, 2)
        gate.set()
        frames, message = await whole(redis, message_id)
    assert message.text == "one two three"
    assert (len(first.calls), len(heir.calls), len(look.ran)) == (1, 1, 1)
    assert data(frames, "usage") == [asdict(summed(message))] == [asdict(Usage(20, 10))]


@pytest.mark.parametrize("seed", [*range(8), 19, 30, 34, 58, 76, 80, 118])
async def test_whatever_is_lost_and_how_often_everything_happens_and_costs_once(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    message_id = await accept(redis, model=SCRIPT, tools=["look"])
    losses = Losses(redis, message_id, seed)
    monkeypatch.setattr("rejoin.worker.writer.log.append_all", losses.append_all)
    look, provider = PlainTool(), ScriptedProvider(*STEPS)
    async with worker_on(clean_redis_url, provider, tools=[look]):
        await enqueue(redis, message_id)
        frames, message = await whole(redis, message_id)
    why = f"{losses.told}: {[f'{frame.id} {frame.name}' for frame in frames]}"
    assert message.text == TEXT, why
    assert (len(provider.calls), len(look.ran)) == (3, 3), why
    assert [step.fields["step"] for step in message.named("step")] == [1, 2, 3], why
    for seen in losses.seen:  # a client that was cut off there, and comes back in the end
        rest = [frame for frame in frames if not seen or frame.id > seen[-1].id]
        client = fold([*seen, *rest])
        # One that lacks what a `reset` names has a gap, knows it, and comes back for all.
        assert client.gap or client.text == TEXT, why
    logs = [*losses.seen, frames]
    for one, other in itertools.combinations(logs, 2):
        told = {frame.id: frame.data for frame in one}
        assert all(told.get(frame.id, frame.data) == frame.data for frame in other), why
    assert data(frames, "usage") == [asdict(Usage(30, 15))], why
    assert summed(message) == Usage(30, 15), why
