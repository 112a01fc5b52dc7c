"""Runs an agent at a message: one attempt, to its end or to where the message has to wait."""

import asyncio
import logging
from contextlib import aclosing
from functools import partial
from typing import Final

from rejoin.shared import log
from rejoin.shared.errors import LogRefused, ProviderError
from rejoin.shared.events import Failed, FailureCode
from rejoin.worker.agents.calling import AgentCalls
from rejoin.worker.agents.declared import Agent
from rejoin.worker.agents.earlier import note_earlier
from rejoin.worker.agents.given import Run
from rejoin.worker.agents.model_call import Asker, ModelCalls, Ways
from rejoin.worker.agents.notes import call_note
from rejoin.worker.agents.saying import Sayings, Unsayable
from rejoin.worker.attempt import Attempt
from rejoin.worker.bill import Bill
from rejoin.worker.calls import Known, Waiting
from rejoin.worker.deadlines import within
from rejoin.worker.failures import failure_of
from rejoin.worker.kit import Kit, insist
from rejoin.worker.offered import Offered
from rejoin.worker.providers.base import ModelRequest
from rejoin.worker.step import Step
from rejoin.worker.stopping import Stoppable, Stopped

_STOP_SECONDS: Final = 0.5  # to clean up in; a cancelled message is to end within a second
_LOOK_SECONDS: Final = 1.0  # between looks at the answers while other things run

_log = logging.getLogger(__name__)

# Whatever does not heed its cancellation in time goes on here; asyncio alone would forget it.
_running: set[asyncio.Task[None]] = set()


class _Exited(Exception):
    """An agent asked the whole process to exit, which it may not."""


class AgentRun:
    """One run of an agent. `step` is what it has given of its present step."""

    def __init__(
        self,
        kit: Kit,
        attempt: Attempt,
        agent: Agent,
        request: ModelRequest,
        offered: Offered,
        known: Known,
        bill: Bill,
    ) -> None:
        progress = attempt.before.progress
        number = len(progress.steps) + 1
        self.step = Step(request, agent.model, number, texts=[])
        self._agent = agent
        self._kit = kit
        self._attempt = attempt
        self._known = known
        note = partial(call_note, bill)
        self._calls = AgentCalls(kit, attempt, offered, known, self.step, note)
        self._sayings = Sayings(
            attempt.writer,
            progress,
            bill,
            self.step,
            self._calls,
            most_bytes=kit.settings.tool_output_bytes,
        )
        ways = Ways(
            kit.settings,
            kit.providers,
            kit.tools,
            bill,
            attempt.writer.put,
            self._sayings.shows,
            Asker(kit.admission, attempt.record.message_id, attempt.record.owner),
        )
        self._models = ModelCalls(ways)
        record = attempt.record
        self._run = Run(
            message_id=record.message_id,
            conversation_id=record.conversation_id,
            request=request,
            metadata=attempt.request.metadata,
            checkpoint=progress.checkpoint_of(agent.model),
            step=number,
            attempt=attempt.claim.attempt,
            _models=self._models,
            _tools=self._calls,
        )

    async def run(self, stoppable: Stoppable, seconds: float) -> Failed | Waiting | None:
        """Run the agent to its end; None: it ended well, and what it said is in the log.

        Raises:
            Stopped: somebody, or the deadline after `seconds`, stopped it.
            LogRefused: the log takes no more.
        """
        stoppable.forgive()  # of a provider that had finished and did not close
        async with stoppable:
            with within(stoppable, seconds):
                if self._run.attempt > 1:
                    redis, message_id = self._kit.redis, self._run.message_id
                    frames = await insist(message_id, lambda: log.read_all(redis, message_id))
                    note_earlier(frames, self._known)
                task = asyncio.create_task(self._speak())
                _running.add(task)
                task.add_done_callback(_forget)
                try:
                    waiting = await self._watch(task)
                finally:
                    self._calls.over = self._models.over = True
                    await self._stop(task)
                if waiting is not None:
                    return waiting
        failure = self._failure(task)
        if failure is None:
            self._sayings.end()
        return failure

    async def _speak(self) -> None:
        try:
            async with aclosing(self._agent(self._run)) as said:
                async for one in said:
                    if self._calls.over:
                        return
                    await self._sayings.take(one)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio would end the whole worker with it.
            raise _Exited(type(error).__name__) from error

    async def _watch(self, task: asyncio.Task[None]) -> Waiting | None:
        """Wait for the agent's end; or let the message wait where the agent does nothing else."""
        wish = asyncio.create_task(self._calls.wish.wait())
        try:
            await asyncio.wait([task, wish], return_when=asyncio.FIRST_COMPLETED)
        finally:
            wish.cancel()
        while not task.done():
            alone = self._models.is_idle
            if (parked := await self._calls.hear_or_park(alone)) is not None:
                return parked
            await asyncio.wait([task], timeout=_LOOK_SECONDS)
        return None

    async def _stop(self, task: asyncio.Task[None]) -> None:
        """Stop the agent and its tools; each is given its time to clean up, and no more."""
        # Once: a second one would interrupt what it does to clean up.
        task.cancel()
        await asyncio.wait([task], timeout=_STOP_SECONDS)
        if not task.done():
            _log.warning("the agent %s was told to stop and goes on, unheard", self._agent.name)
        await self._calls.stop()

    def _failure(self, task: asyncio.Task[None]) -> Failed | None:
        """How the agent failed; None: it did not.

        Raises:
            Stopped, LogRefused: it was stopped from within, by the log.
        """
        error = None if task.cancelled() else task.exception()
        match error:
            case None if not task.cancelled():
                return None
            case Stopped() | LogRefused():
                raise error
            case ProviderError():
                return failure_of(error)
            case Unsayable():
                _log.error("the agent %s %s", self._agent.name, error)
                return _failed(f"the agent {self._agent.name} {error}")
        _log.error(
            "the agent %s failed (%s)", self._agent.name, self._run.message_id, exc_info=error
        )
        return _failed(f"the agent {self._agent.name} failed")


def _failed(said: str) -> Failed:
    return Failed(FailureCode.INTERNAL, said, retryable=True)


def _forget(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # of one that was left behind nobody else asks
