"""Runs the calls of one step side by side, and waits for those that people and clients answer."""

import asyncio
from typing import Final, NamedTuple

from rejoin.shared import waiting
from rejoin.shared.asks import Answer, Ask, Kind
from rejoin.shared.request import ToolDefinition
from rejoin.shared.tool_calls import CallState
from rejoin.shared.tool_events import (
    Data,
    Needs,
    ToolError,
    ToolResult,
    ToolStart,
    ToolWaiting,
)
from rejoin.shared.waiting import Parked
from rejoin.worker.attempt import Attempt
from rejoin.worker.beginning import beginning_of
from rejoin.worker.deadlines import within
from rejoin.worker.kit import Kit, insist
from rejoin.worker.offered import Offered
from rejoin.worker.progress import Called, end_call
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.tools.base import Call
from rejoin.worker.tools.bounded import run_bounded

_LOOK_SECONDS: Final = 1.0  # between looks at the answers while other calls run


class Known(NamedTuple):
    """What a run knows of its calls beyond the log, should Redis lose a part of that.

    `started` are the calls whose tools it has run, by their ids, and `ended` the last events of
    those of the present step.
    """

    started: set[str]
    ended: dict[str, ToolResult | ToolError]


class Waiting(NamedTuple):
    """The message waits without a worker; its earliest deadline, by Redis' clock."""

    due_ms: int


class Calls:
    """The open calls of one step. `known` is what the run knows of earlier attempts of its own."""

    def __init__(
        self, kit: Kit, attempt: Attempt, offered: Offered, called: Called, known: Known
    ) -> None:
        self._kit = kit
        self._attempt = attempt
        self._writer = attempt.writer
        self._message_id = attempt.record.message_id
        self._tools = offered.by_name
        self._called = called
        self._known = known
        self._tasks: set[asyncio.Task[None]] = set()
        self._waits: dict[str, CallState] = {}
        self._asked_under = ""  # the claim's token

    async def run(self, stoppable: Stoppable, seconds: float) -> Waiting | None:
        """Go on until each call has its result or error; or return what the message waits for.

        Whatever runs is told to stop where this is stopped, or after `seconds`.

        Raises:
            Stopped: somebody, or the deadline, stopped it; its open calls stay open.
            LogRefused: the log takes no more.
        """
        stoppable.forgive()  # of a provider that had finished and did not close
        async with stoppable:
            with within(stoppable, seconds):
                try:
                    return await self._run()
                finally:
                    await self._stop()

    async def _run(self) -> Waiting | None:
        await self._begin(self._called.open_calls)
        while True:
            if self._tasks:
                await self._look()
            elif not self._waits:
                return None
            elif not await self._hear() and (parked := await self._park()) is not None:
                return parked

    async def _begin(self, calls: list[CallState]) -> None:
        """Let calls begin that neither run nor wait."""
        to_run, to_ask, anew = list[CallState](), list[tuple[CallState, Needs]](), set[str]()
        for call in calls:
            call_id = call.tool_call_id
            if (ended := self._known.ended.get(call_id)) is not None:
                self._end(call, ended)
                continue
            was_started = call.started or call_id in self._known.started
            self._known.started.discard(call_id)
            begun = beginning_of(call, self._tools.get(call.name), was_started=was_started)
            if begun.error is not None:
                self._fail(call, begun.error)
            elif begun.needs is None:
                to_run.append(call)
            else:
                to_ask.append((call, begun.needs))
                anew |= {call_id} if begun.anew else set()
        await self._ask(to_ask, anew)
        await self._start(to_run)

    async def _ask(self, asked: list[tuple[CallState, Needs]], anew: set[str]) -> None:
        """Note what is asked for, then tell of it; what waited before is noted again, no more."""
        if not asked:
            return
        for call, _ in asked:
            call.asked += call.tool_call_id in anew
        await self._note_asks(asked)
        for call, needs in asked:
            call.waits, call.started = needs, False
            self._waits[call.tool_call_id] = call
            if call.tool_call_id in anew:
                self._writer.put(ToolWaiting(call.tool_call_id, call.name, needs))

    async def _note_asks(self, asked: list[tuple[CallState, Needs]]) -> None:
        redis, message_id, settings = self._kit.redis, self._message_id, self._kit.settings
        deadline_ms = await insist(message_id, lambda: waiting.now_ms(redis))
        deadline_ms += int(settings.tool_wait_seconds * 1000)
        asks = [Ask(call.tool_call_id, needs, call.asked, deadline_ms) for call, needs in asked]
        token, life_seconds = self._attempt.claim.token, settings.open_ttl_seconds
        await insist(
            message_id,
            lambda: waiting.ask(
                redis, message_id, token=token, asks=asks, life_seconds=life_seconds
            ),
        )
        self._asked_under = token

    async def _start(self, calls: list[CallState]) -> None:
        """Start tools, once the log says that they are started."""
        if not calls:
            return
        for call in calls:
            self._writer.put(ToolStart(call.tool_call_id, call.name))
            call.started = True
        await self._writer.stored()
        for call in calls:
            self._known.started.add(call.tool_call_id)
            self._tasks.add(asyncio.create_task(self._run_tool(call)))

    async def _run_tool(self, call: CallState) -> None:
        tool = self._tools.get(call.name)
        if tool is None or isinstance(tool, ToolDefinition):
            self._fail(call, f"there is no tool {call.name}")
            return
        found = self._attempt.record
        seen = Call(
            found.message_id,
            found.conversation_id,
            call.step,
            call.tool_call_id,
            self._attempt.request.metadata,
            lambda name, value: self._report(call, name, value),
        )
        most_bytes = self._kit.settings.tool_output_bytes
        outcome = await run_bounded(tool, call.arguments, seen, most_bytes=most_bytes)
        if outcome.error is not None:
            self._fail(call, outcome.error)
        else:
            self._end(call, ToolResult(call.tool_call_id, call.name, outcome.result))

    def _report(self, call: CallState, name: str, value: object) -> None:
        # What a tool says on its way may be lost, its memory may not grow: Redis is slow, or away.
        if call.ended is None and not self._writer.behind:
            self._writer.put(Data(name, value, call.tool_call_id))

    async def _look(self) -> None:
        """Wait for a tool's end; and while calls wait too, for their answers now and then."""
        timeout = _LOOK_SECONDS if self._waits else None
        done, self._tasks = await asyncio.wait(
            self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
        if self._waits:
            await self._hear()

    async def _hear(self) -> bool:
        """Take the answers that came; False where there were none."""
        redis, message_id = self._kit.redis, self._message_id
        if self._asked_under != self._attempt.claim.token:
            # Redis lost a part of the message, and may have lost this too.
            waits = self._waits.values()
            await self._note_asks([(call, call.waits) for call in waits if call.waits is not None])
        call_ids = list(self._waits)
        await insist(message_id, lambda: waiting.expire(redis, message_id, call_ids))
        given = await insist(message_id, lambda: waiting.answers(redis, message_id))
        approved = []
        for call_id in call_ids:
            if (said := given.get(call_id)) is not None:
                call = self._waits.pop(call_id)
                if said == Answer(Kind.APPROVE, value=True):
                    approved.append(call)
                else:
                    self._take(call, said)
        await self._start(approved)
        return len(self._waits) < len(call_ids)

    def _take(self, call: CallState, said: Answer) -> None:
        match said.kind:
            case Kind.RESULT:
                self._end(call, ToolResult(call.tool_call_id, call.name, said.value))
            case Kind.ERROR:
                self._fail(call, said.value)
            case Kind.APPROVE:
                self._fail(call, "refused: the call was not approved")
            case Kind.TIMEOUT:
                seconds = self._kit.settings.tool_wait_seconds
                self._fail(call, f"timed out: nobody answered within {seconds:g} seconds")

    async def _park(self) -> Waiting | None:
        """Let the message wait; None: its calls were answered meanwhile.

        Raises:
            Stopped: it is cancelled.
        """
        redis, message_id = self._kit.redis, self._message_id
        await self._writer.stored()
        token, call_ids = self._attempt.claim.token, list(self._waits)
        asked = await insist(message_id, lambda: waiting.asked(redis, message_id))
        parked = await insist(
            message_id,
            lambda: waiting.park(redis, message_id, token=token, call_ids=call_ids),
        )
        match parked:
            case Parked.CANCEL:
                raise Stopped(Stop.CANCELLED)
            case Parked.ANSWERED:
                return None
        # One that Redis has forgotten is asked for again by whoever takes the message then.
        deadlines = [asked[call_id].deadline_ms for call_id in call_ids if call_id in asked]
        return Waiting(min(deadlines, default=0))

    async def _stop(self) -> None:
        """Stop what runs; each tool is given its time to stop, and no more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _fail(self, call: CallState, error: object) -> None:
        self._end(call, ToolError(call.tool_call_id, call.name, error))

    def _end(self, call: CallState, event: ToolResult | ToolError) -> None:
        self._writer.put(event)
        self._known.ended[call.tool_call_id] = event
        end_call(call, event)
