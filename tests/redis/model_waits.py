"""The model's calls that wait: asked for by a worker, answered by people, or by their deadline."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from redis.asyncio import Redis

from rejoin.shared import keys, queue, record, waiting
from rejoin.shared.asks import Answer, Ask, Kind
from rejoin.shared.errors import Conflict, NotFound
from rejoin.shared.events import Event, FinishReason, Reset, Step
from rejoin.shared.fold import Message, fold
from rejoin.shared.frames import Frame
from rejoin.shared.record import Status
from rejoin.shared.tool_calls import calls_of, open_calls
from rejoin.shared.tool_events import Needs, ToolCall, ToolError, ToolResult, ToolWaiting
from rejoin.shared.waiting import Parked
from tests.support.messages import LIFE, MODEL
from tests.support.waits import FAR, passed, say

T = TypeVar("T")
TOOL: Final = "tool"


@dataclass
class Calls:
    """The open calls of a run, each with whether its `tool_waiting` is in the log.

    `parked`: it gives its job back next; `in_line`: it waits for no call then, but for its turn at
    a provider's key.
    """

    told: dict[str, bool] = field(default_factory=dict)
    asked: bool = False
    parked: bool = False
    in_line: bool = False


def left_open(frames: list[Frame], attempt: int) -> tuple[Reset, Calls]:
    """How a next attempt goes on: with the open calls, or after the last finished step."""
    message = fold(frames)
    steps, opened = message.named("step"), open_calls(message)
    after = steps[-1].id if steps else None
    if opened:
        after = message.last_event_id
    told = {call.tool_call_id: call.waits is not None for call in opened}
    reset = Reset(str(after) if after else None, attempt, MODEL, "takeover")
    return reset, Calls(told)


class Waits:
    """What a world does with calls; it writes through the world's own way to the log."""

    redis: Redis
    rng: random.Random
    calm: bool
    losses: bool
    answered: dict[str, dict[str, bool]]  # message, call: what was accepted of a client
    in_line: set[str]  # messages that waited last for their turn at a provider's key

    def _any_message(self) -> str:
        raise NotImplementedError

    async def _perhaps_again(self, call: Callable[[], Awaitable[T]]) -> T:
        raise NotImplementedError

    # What people and time do.

    async def _answer_any(self, message_id: str = "", *, all_of_them: bool = False) -> None:
        """Answer a call, or all of a message's; the API may die before it wakes anybody."""
        message_id = message_id or self._any_message()
        given = await waiting.answers(self.redis, message_id)
        for call_id in await waiting.asked(self.redis, message_id):
            if all_of_them:
                # What is answered already has been told to whoever waits, or it stalls.
                if call_id not in given:
                    await self._say(message_id, call_id, True, dies=False)
            elif self.rng.random() < (0.1 if call_id in given else 0.7):
                dies = not self.calm and self.rng.random() < 0.5
                await self._say(message_id, call_id, self.rng.random() < 0.5, dies=dies)

    async def _say(self, message_id: str, call_id: str, yes: bool, *, dies: bool) -> None:
        said = Answer(Kind.APPROVE, yes)
        try:
            all_answered = await self._perhaps_again(
                lambda: say(self.redis, message_id, call_id, said)
            )
        except (Conflict, NotFound):
            return
        accepted = self.answered.setdefault(message_id, {}).setdefault(call_id, yes)
        assert accepted is yes, "two answers were accepted"
        if all_answered and not dies:
            await self._perhaps_again(lambda: queue.wake(self.redis, message_id))

    async def _pass_deadline(self) -> None:
        message_id = self._any_message()
        if message_id in self.in_line:
            await self._come_up(message_id)
            return
        for call_id in await waiting.asked(self.redis, message_id):
            if self.rng.random() < 0.5:
                await passed(self.redis, message_id, call_id)
                if not await self._is_held(message_id):
                    await self.redis.zadd(keys.QUEUE, {message_id: 1}, xx=True)

    async def _is_held(self, message_id: str) -> bool:
        return bool(await self.redis.hexists(keys.OWNERS, message_id))  # type: ignore[misc]

    async def _wake_waiting(self, message_id: str) -> None:
        """What an API does after it has set a cancel."""
        found = await record.load(self.redis, message_id)
        if found is None or found.status is not Status.WAITING:
            return
        if self.calm or self.rng.random() < 0.9:
            await self._perhaps_again(lambda: queue.wake(self.redis, message_id))

    # What a worker does with its open calls, a step at a time.

    async def _ask(self, message_id: str, token: str, calls: Calls) -> None:
        asks = [Ask(call_id, Needs.APPROVAL, 1, FAR) for call_id in calls.told]
        await self._perhaps_again(
            lambda: waiting.ask(self.redis, message_id, token=token, asks=asks, life_seconds=LIFE)
        )
        calls.asked = True

    async def _park(self, message_id: str, token: str, calls: Calls) -> Parked:
        parked = await self._perhaps_again(
            lambda: waiting.park(self.redis, message_id, token=token, call_ids=list(calls.told))
        )
        calls.parked = parked is Parked.PARKED
        self.in_line.discard(message_id)
        if calls.parked and self.rng.random() < 0.3:  # before the job is given back
            await self._answer_any(message_id, all_of_them=True)
        return parked

    async def _park_in_line(self, message_id: str, token: str, calls: Calls) -> Parked:
        """Let a message that has no open call wait for its turn at a provider's key."""
        parked = await self._perhaps_again(
            lambda: waiting.park_in_line(self.redis, message_id, token=token, line="key model")
        )
        calls.parked = calls.in_line = parked is Parked.PARKED
        if calls.parked:
            self.in_line.add(message_id)
        return parked

    async def _come_up(self, message_id: str) -> None:
        """Let a message's turn at its provider's key come: it is woken, or its time has come."""
        found = await record.load(self.redis, message_id)
        if found is None or found.status is not Status.WAITING:
            return
        if self.rng.random() < 0.5:
            await self._perhaps_again(lambda: queue.wake(self.redis, message_id))
        elif not await self._is_held(message_id):
            await self.redis.zadd(keys.QUEUE, {message_id: 1}, xx=True)

    async def _give_back(self, message_id: str, job: str, calls: Calls) -> None:
        if calls.in_line:
            await self._perhaps_again(
                lambda: queue.release(self.redis, message_id, job, due_ms=FAR)
            )
            return
        # By the deadlines alone: that they were answered since, the wake tells.
        asked = await waiting.asked(self.redis, message_id)
        due_ms = min(
            (ask.deadline_ms for name, ask in asked.items() if name in calls.told), default=0
        )
        await self._perhaps_again(lambda: queue.release(self.redis, message_id, job, due_ms=due_ms))

    async def _hear(self, message_id: str, calls: Calls) -> list[Event]:
        """The events of a step whose calls are all answered; none where one is not."""
        await self._perhaps_again(lambda: waiting.expire(self.redis, message_id, list(calls.told)))
        given = await waiting.answers(self.redis, message_id)
        events: list[Event] = []
        for call_id in calls.told:
            if call_id not in given:
                return []
            said = given[call_id]
            events.append(
                ToolError(call_id, TOOL, "nobody answered")
                if said.kind is Kind.TIMEOUT
                else ToolResult(call_id, TOOL, said.value)
            )
        return [*events, Step(1, FinishReason.TOOL_CALLS)]

    # What must hold.

    def _check_calls(self, message_id: str, message: Message, *, cancelled: bool) -> None:
        """Each call is closed, was asked for once, and was answered as somebody was promised."""
        promised = self.answered.get(message_id, {})
        for call in calls_of(message):
            assert call.ended is not None, f"{call.tool_call_id} is open"
            assert call.asked == 1 or cancelled, f"asked for {call.asked} times"
            if call.tool_call_id in promised and not cancelled:
                assert call.ended.name == "tool_result", "an answer that was accepted is lost"
                assert call.result is promised[call.tool_call_id]


def new_calls(ids: list[str]) -> tuple[list[Event], Calls]:
    """A model call that is over and asks for tools."""
    return [ToolCall(call_id, TOOL, {}) for call_id in ids], Calls(dict.fromkeys(ids, False))


def told(ids: list[str]) -> list[Event]:
    """What the log says of calls that wait."""
    return [ToolWaiting(call_id, TOOL, Needs.APPROVAL) for call_id in ids]


def closing(calls: Calls) -> list[Event]:
    """What closes them before an end."""
    return [ToolError(call_id, TOOL, "the message ended") for call_id in calls.told]
