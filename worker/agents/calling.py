"""The calls of tools that an agent makes: each told, bounded, and done once as far as can be."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from rejoin.shared import waiting
from rejoin.shared.asks import Ask
from rejoin.shared.errors import ToolError as Refused
from rejoin.shared.events import FinishReason, dumps
from rejoin.shared.tool_calls import UNKNOWN_OUTCOME, CallState
from rejoin.shared.tool_events import ToolCall, ToolError, ToolResult, ToolWaiting
from rejoin.worker.agents.earlier import ASKED, call_id_of
from rejoin.worker.attempt import Attempt
from rejoin.worker.called import told_of
from rejoin.worker.calls import Calls, Known, Waiting
from rejoin.worker.kit import Kit, insist
from rejoin.worker.offered import Offered
from rejoin.worker.progress import Called, end_call
from rejoin.worker.step import Step
from rejoin.worker.tools.plain import NotPlain, plain

MOST_ARGUMENT_BYTES: Final = 1_048_576

_GIVEN_UP: Final = "the agent did not wait for it"


class AgentCalls(Calls):
    """The calls of one run of an agent. Those that are open are in `step.calls`.

    `wish` is set when a call waits for a person or a client: the message may have to wait too.
    `note` gives what workers are told with a `tool_call`: who runs it, and what models used.
    """

    def __init__(
        self,
        kit: Kit,
        attempt: Attempt,
        offered: Offered,
        known: Known,
        step: Step,
        note: Callable[[str, Mapping[str, object]], bytes],
    ) -> None:
        called = Called(step.number, "", step.model, FinishReason.TOOL_CALLS, (), step.calls)
        tools = {name: found for name in kit.tools.names() if (found := kit.tools.find(name))}
        super().__init__(kit, attempt, Offered({**tools, **offered.by_name}), called, known)
        self.wish = asyncio.Event()
        self.over = False
        self.done: list[CallState] = []  # of the present step
        self._step = step
        self._note = note
        self._times: Counter[tuple[int, str]] = Counter()
        self._ends: dict[str, asyncio.Future[ToolResult | ToolError]] = {}
        self._running: dict[str, asyncio.Task[object]] = {}
        self._asked: Mapping[str, Ask] | None = None
        self._beginning = 0

    async def call(self, name: str, arguments: object, broken: str | None = None) -> object:
        """Run one call, and return its result; `broken` are arguments that are none.

        Raises:
            ToolError: it failed, was refused, or there is no such tool.
            RuntimeError: the agent's run is over.
        """
        if self.over:
            raise RuntimeError("the agent's run is over")
        call = self._called_for(name, arguments, broken)
        ended: asyncio.Future[ToolResult | ToolError] = asyncio.get_running_loop().create_future()
        self._ends[call.tool_call_id] = ended
        self._step.calls.append(call)
        event = ToolCall(call.tool_call_id, call.name, call.arguments)
        self._writer.put(event, self._note(ASKED, told_of(call)))
        try:
            self._beginning += 1
            try:
                await self._recall(call)
                await self._begin([call])
            finally:
                self._beginning -= 1
            if call.tool_call_id in self._waits:
                self.wish.set()
            end = await ended
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        if isinstance(end, ToolError):
            raise Refused(str(end.error))
        return end.result

    async def hear_or_park(self, alone: Callable[[], bool]) -> Waiting | None:
        """Take what waiting calls were answered; where there was nothing, let the message wait.

        `alone` says whether nothing else of the agent's is under way that the wait would stop.

        Raises:
            Stopped: it is cancelled.
        """
        self._tasks = {task for task in self._tasks if not task.done()}
        if not self._waits or await self._hear():
            return None
        if self._tasks or self._beginning or not alone():
            return None
        return await self._park()

    async def stop(self) -> None:
        """Stop what runs; nothing begins any more."""
        self.over = True
        await self._stop()

    def end(self, call: CallState, event: ToolResult | ToolError) -> None:
        """End a call that the agent itself runs."""
        self._writer.put(event)
        end_call(call, event)
        self._step.calls.remove(call)
        self.done.append(call)

    def forget(self) -> None:
        """Forget the present step's calls, which no later run comes to."""
        self.done = []
        self._known.ended.clear()

    def close(self, why: str) -> None:
        """End the calls that are open."""
        for call in tuple(self._step.calls):
            self._waits.pop(call.tool_call_id, None)
            self._fail(call, f"{UNKNOWN_OUTCOME}: {why}" if call.started else why)

    def _called_for(self, name: str, arguments: object, broken: str | None) -> CallState:
        try:
            held = plain(arguments, most_bytes=MOST_ARGUMENT_BYTES)
        except NotPlain as error:
            raise Refused(f"the arguments of {name} are {error}") from error
        if not isinstance(held, dict):
            raise Refused(f"the arguments of {name} are no object of names and values")
        asked, number = dumps([name, held, broken]), self._step.number
        self._times[number, asked] += 1
        times = self._times[number, asked]
        call_id = call_id_of(self._message_id, self._step.model, number, asked, times)
        unfit = None if broken is None else f"the arguments are not a JSON object: {broken[:200]}"
        return CallState(call_id, number, name, held, unfit=unfit)

    async def _recall(self, call: CallState) -> None:
        """Take up what an earlier attempt asked for: the call waits on, with its deadline."""
        if self._attempt.claim.attempt == 1:
            return
        redis, message_id = self._kit.redis, self._message_id
        if self._asked is None:
            self._asked = await insist(message_id, lambda: waiting.asked(redis, message_id))
        if (asked := self._asked.get(call.tool_call_id)) is None:
            return
        call.asked = asked.round
        if {call.tool_call_id} & (self._known.started | self._known.ended.keys()):
            return
        call.waits = asked.needs
        given = await insist(message_id, lambda: waiting.answers(redis, message_id))
        if call.tool_call_id not in given:
            # It was told of, and a `reset` took that back. One that has its answer is not told of
            # again: a client would run its tool a second time.
            self._writer.put(ToolWaiting(call.tool_call_id, call.name, asked.needs))

    async def _run_tool(self, call: CallState) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running[call.tool_call_id] = task
        try:
            await super()._run_tool(call)
        finally:
            self._running.pop(call.tool_call_id, None)

    def _give_up(self, call: CallState) -> None:
        """The agent was cancelled in its wait: by itself, or because its run is over."""
        if self.over or call.ended is not None:
            return
        self._waits.pop(call.tool_call_id, None)
        if (task := self._running.get(call.tool_call_id)) is not None:
            task.cancel()
        why = f"{UNKNOWN_OUTCOME}: {_GIVEN_UP}" if call.started else _GIVEN_UP
        self._fail(call, why)

    def _end(self, call: CallState, event: ToolResult | ToolError) -> None:
        if call.ended is not None:
            return
        super()._end(call, event)
        self._step.calls.remove(call)
        self.done.append(call)
        if (ended := self._ends.pop(call.tool_call_id, None)) is not None and not ended.done():
            ended.set_result(event)
