"""The loop of a run: a model call, the tools that it calls, the next model call, to the end."""

import contextlib
from collections.abc import Mapping
from typing import Final

from rejoin.shared import late_usage
from rejoin.shared.errors import LogUnavailable
from rejoin.shared.events import Done, Failed, FinishReason, Step, Usage
from rejoin.shared.request import shown_chars
from rejoin.worker.asking import Asking
from rejoin.worker.attempt import Attempt, Finished
from rejoin.worker.calls import Calls, Known, Waiting
from rejoin.worker.failures import DEADLINE, unknown_tools
from rejoin.worker.kit import Kit
from rejoin.worker.offered import offered
from rejoin.worker.progress import Called
from rejoin.worker.step import Step as ModelCall
from rejoin.worker.stopping import LEAVING, Stop, Stoppable, Stopped
from rejoin.worker.takeover import step_note

_NOTHING: Final = Usage()
_TOOLS_SECONDS: Final = 30.0


class Answer:
    """One run's way from where the message stands to its end, or to where it has to wait."""

    def __init__(
        self, kit: Kit, attempt: Attempt, stoppable: Stoppable, known: Known | None = None
    ) -> None:
        known = known or Known(set(), {})
        self._kit = kit
        self._stoppable = stoppable
        self._offered = offered(kit.tools, attempt.request)
        self._asking = Asking(kit, attempt, stoppable, self._offered, known)
        self._known = known

    @property
    def attempt(self) -> Attempt:
        """The present attempt."""
        return self._asking.attempt

    def tell(self) -> Usage:
        """Return what its calls used beyond what the log tells of, which the caller notes."""
        self._count_unseen()
        return self._asking.bill.tell() or _NOTHING

    async def tell_late(self) -> None:
        """Tell whoever has the message by now what the calls of this attempt used in all.

        Raises:
            LogUnavailable: Redis is away; a repeat is safe.
        """
        claim, used = self.attempt.claim, self._asking.bill.present or _NOTHING
        message_id = self.attempt.record.message_id
        await late_usage.tell(self._kit.redis, message_id, claim.attempt, used)

    async def run(self) -> Waiting | None:
        """Go on until the message has ended; or return what it waits for, without a worker.

        Raises:
            Stopped: the message is to be left to another worker; nothing is ended.
            LogRefused: the log takes no more.
        """
        try:
            if self._offered.unknown:
                await self._await_tools()
            if self._offered.unknown:
                await self._end(unknown_tools(self._offered.unknown))
                return None
            return await self._go_on()
        except Stopped as stopped:
            if stopped.reason in LEAVING:
                raise
            await self._stop(stopped.reason)
            return None

    async def _await_tools(self) -> None:
        """Wait for the tools of MCP servers that are still being opened, or away."""
        async with self._stoppable:
            await self._kit.tools.settle(self._offered.unknown, seconds=_TOOLS_SECONDS)
        self._offered = offered(self._kit.tools, self.attempt.request)
        self._asking.offer(self._offered)

    async def _go_on(self) -> Waiting | None:
        if self.attempt.writer.after_step and self._between_steps:
            await self._stop(Stop.CANCELLED)
            return None
        while (called := await self._called()) is not None:
            if isinstance(called, Waiting):
                return called
            calls = Calls(self._kit, self.attempt, self._offered, called, self._known)
            waiting = await calls.run(self._stoppable, self._asking.left_seconds)
            if waiting is not None:
                return waiting
            await self._finish_step(called)
            if self.attempt.writer.after_step:
                await self._stop(Stop.CANCELLED)
                return None
        return None

    async def _called(self) -> Called | Waiting | None:
        """Return the step whose calls are to be run next; None: the message has ended.

        Or, from an agent, what the message waits for.
        """
        asking, most = self._asking, self._kit.settings.max_steps
        if (called := asking.progress.present) is None:
            if len(asking.progress.steps) >= most and not asking.by_agent:
                await self._end(self._done(FinishReason.LENGTH))
                return None
            asked = await asking.step()
            if isinstance(asked, Waiting):
                return asked
            if isinstance(asked, Failed):
                await self._end(asked)
                return None
            if (called := asking.progress.present) is None:
                await self._finish(asked)
                return None
        if called.finish_reason is FinishReason.CONTENT_FILTER:
            await self._close(called, FinishReason.CONTENT_FILTER)
            return None
        if called.number >= most:
            await self._close(called, FinishReason.LENGTH)
            return None
        return called

    @property
    def _between_steps(self) -> bool:
        before = self.attempt.before
        return bool(before.progress.steps) and before.progress.present is None and not before.begun

    async def _finish_step(self, called: Called) -> None:
        """Write that a step with calls is over: a later attempt goes back to here."""
        writer = self.attempt.writer
        note = step_note(None, called.model, called.thinking)
        writer.put_step(Step(called.number, FinishReason.TOOL_CALLS), note)
        self._asking.progress.finish(called)
        # Whether a cancel waited for this very moment is what its append tells.
        await writer.stored()
        self._known.ended.clear()

    async def _finish(self, call: ModelCall) -> None:
        """End the message well, with the step that called no tools."""
        reason = call.finish_reason or FinishReason.STOP
        if reason is FinishReason.TOOL_CALLS:  # it says so, and calls none
            reason = FinishReason.STOP
        bill, used = self._asking.bill, call.usage
        late = await self._hear_late()
        others = bill.untold
        bill.add(used)
        note = step_note(used, call.model, call.thinking)
        step = Finished(Step(call.number, reason), note)
        await self.attempt.end(
            bill.spent,
            self._done(reason),
            text_chars=self._text_chars,
            step=step,
            unstepped=others,
            late=late,
        )

    async def _close(self, called: Called, reason: FinishReason) -> None:
        """End the message with a step whose calls are not run."""
        own = reason if reason is FinishReason.CONTENT_FILTER else FinishReason.TOOL_CALLS
        note = step_note(None, called.model, called.thinking)
        step = Finished(Step(called.number, own), note)
        await self._end(self._done(reason), step)

    async def _stop(self, reason: Stop) -> None:
        match reason:
            case Stop.TOTAL:
                await self._end(DEADLINE)
            case Stop.LOG_FULL:
                await self._end(self._done(FinishReason.LENGTH))
            case _:
                await self._end(self._done(FinishReason.CANCELLED))

    async def _end(self, end: Done | Failed, step: Finished | None = None) -> None:
        """End the message, and the calls that are open with it."""
        asking = self._asking
        self._count_unseen()
        late = await self._hear_late()
        usage = asking.bill.spent
        if usage is None and isinstance(end, Done):
            usage = _NOTHING
        open_calls = list(asking.progress.open_calls)
        if asking.call is not None and asking.progress.present is None:
            open_calls += [call for call in asking.call.calls if call.ended is None]
        await self.attempt.end(
            usage,
            end,
            text_chars=self._text_chars,
            step=step,
            unstepped=asking.bill.untold,
            late=late,
            open_calls=open_calls,
        )

    async def _hear_late(self) -> Mapping[int, Usage]:
        """Take what other workers told of attempts that were theirs; without Redis, nothing."""
        if not self.attempt.earlier:
            return {}
        with contextlib.suppress(LogUnavailable):
            told = await late_usage.told(self._kit.redis, self.attempt.record.message_id)
            return self._asking.bill.correct(told)
        return {}

    def _count_unseen(self) -> None:
        """Count what earlier workers lost unseen, where no call says better what it was shown."""
        self._asking.bill.shown(shown_chars(self.attempt.request))

    @property
    def _text_chars(self) -> int:
        return self._asking.progress.text_chars

    def _done(self, reason: FinishReason) -> Done:
        return Done(reason, self._text_chars)
