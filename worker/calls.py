"""Runs the calls of one step side by side, and waits for those that people and clients answer."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rejoin.shared import waiting
from rejoin.shared.asks import Answer, Ask, Kind
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import ToolError as Refused
from rejoin.shared.request import ToolDefinition
from rejoin.shared.tool_calls import UNKNOWN_OUTCOME, CallState
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
from rejoin.worker.deadlines import within
from rejoin.worker.kit import Kit, insist
from rejoin.worker.offered import Offered
from rejoin.worker.progress import Called, end_call
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.tools.base import Call, OnUnknownOutcome, Tool
from rejoin.worker.tools.bounded import run_bounded

_LOOK_SECONDS: Final = 1.0  # between looks at the answers while other calls run

_LOST: Final = f"{UNKNOWN_OUTCOME}: its worker was lost while it ran"

_log = logging.getLogger(__name__)


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


@dataclass(slots=True)
class _Sorted:
    """Calls that are to begin: those to run, and those to ask for, where that is new."""

    run: list[CallState] = field(default_factory=list)
    ask: list[tuple[CallState, Needs]] = field(default_factory=list)


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
        found = _Sorted()
        for call in calls:
            self._sort(call, found)
        await self._ask(found.ask)
        await self._start(found.run)

    def _sort(self, call: CallState, found: _Sorted) -> None:
        tool = self._tools.get(call.name)
        if (ended := self._known.ended.get(call.tool_call_id)) is not None:
            self._end(call, ended)
        elif call.unfit is not None:
            self._fail(call, call.unfit)
        elif call.started or call.tool_call_id in self._known.started:
            self._sort_unknown(call, tool, found)
        elif call.waits is not None:
            found.ask.append((call, call.waits))
        elif tool is None:
            self._fail(call, f"there is no tool {call.name}")
        elif isinstance(tool, ToolDefinition):
            found.ask.append((call, Needs.RESULT))
        elif (refused := _misfit(tool, call)) is not None:
            self._fail(call, refused)
        elif tool.needs_approval:
            found.ask.append((call, Needs.APPROVAL))
        else:
            found.run.append(call)

    def _sort_unknown(
        self, call: CallState, tool: Tool | ToolDefinition | None, found: _Sorted
    ) -> None:
        """A call that was started, and nobody knows what became of it."""
        policy = OnUnknownOutcome.FAIL
        if tool is not None and not isinstance(tool, ToolDefinition):
            policy = tool.on_unknown_outcome
        self._known.started.discard(call.tool_call_id)
        match policy:
            case OnUnknownOutcome.RETRY:
                found.run.append(call)
            case OnUnknownOutcome.ASK:
                call.waits = None  # asked anew, whatever was asked before
                found.ask.append((call, Needs.APPROVAL))
            case _:
                self._fail(call, _LOST)

    async def _ask(self, asked: list[tuple[CallState, Needs]]) -> None:
        """Note what is asked for, then tell of it; what waited before is noted again, no more."""
        if not asked:
            return
        deadline_ms = now_ms() + int(self._kit.settings.tool_wait_seconds * 1000)
        new = [(call, needs) for call, needs in asked if call.waits is None]
        for call, _ in new:
            call.asked += 1
        asks = [Ask(call.tool_call_id, needs, call.asked, deadline_ms) for call, needs in asked]
        await insist(
            self._message_id,
            lambda: waiting.ask(
                self._kit.redis,
                self._message_id,
                token=self._attempt.claim.token,
                asks=asks,
                life_seconds=self._kit.settings.open_ttl_seconds,
            ),
        )
        for call, needs in new:
            call.waits, call.started = needs, False
            self._writer.put(ToolWaiting(call.tool_call_id, call.name, needs))
        self._waits |= {call.tool_call_id: call for call, _ in asked}

    async def _start(self, calls: list[CallState]) -> None:
        """Start tools, once the log says that they are started."""
        if not calls:
            return
        for call in calls:
            self._writer.put(ToolStart(call.tool_call_id, call.name))
            call.started = True
            self._known.started.add(call.tool_call_id)
        await self._writer.stored()
        for call in calls:
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


def _misfit(tool: Tool, call: CallState) -> str | None:
    """Why the tool does not take the arguments; None: it does."""
    try:
        tool.check(call.arguments)
    except Refused as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a tool's own bug ends its call alone
        _log.exception("the tool %s could not check its arguments", tool.name)
        return f"the arguments could not be checked: {type(error).__name__}"
    return None
