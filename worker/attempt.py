"""One run at a message: claim, call the model, write, end."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from redis.asyncio import Redis
from rejoin.shared import log, queue, record
from rejoin.shared.clock import now_ms
from rejoin.shared.ending import Ender, Lives, aftermath, end_message
from rejoin.shared.errors import (
    CancelAsked,
    LogEnded,
    LogRefused,
    LogUnavailable,
    LogWentBack,
    MessageMissing,
)
from rejoin.shared.events import Done, Event, Failed, FinishReason, Step, Usage
from rejoin.shared.fold import fold
from rejoin.shared.opening import opening
from rejoin.shared.request import StoredRequest
from rejoin.shared.settings import Settings
from rejoin.worker.deadlines import Deadlines
from rejoin.worker.failures import INTERNAL, exhausted, failure_of, failure_of_stop
from rejoin.worker.providers.registry import Providers
from rejoin.worker.step import Step as ModelCall
from rejoin.worker.step import model_request
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.takeover import Takeover, step_note, takeover_of
from rejoin.worker.writer import Appender, Writer

T = TypeVar("T")

_LONGEST_PAUSE_SECONDS: Final = 1.0
_WENT_BACK_SECONDS: Final = 0.2  # a log that goes back again and again must not spin

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt of a worker process works with."""

    settings: Settings
    redis: Redis
    appender: Appender
    providers: Providers
    worker_id: str

    @property
    def lives(self) -> Lives:
        """What a message's keys live."""
        return Lives(self.settings.open_ttl_seconds, self.settings.log_ttl_seconds)

    @property
    def ender(self) -> Ender:
        """This worker as one that ends messages."""
        return Ender(self.redis, self.worker_id, self.lives)


class Outcome(StrEnum):
    """How a run ended, for the job it was."""

    ENDED = "ended"  # the message has its end: the job is done
    LEFT = "left"  # it is another's by now: touch nothing
    HANDED_OVER = "handed_over"  # it goes on elsewhere: the job is due at once
    LATER = "later"  # there is nothing to run yet
    AGAIN = "again"  # Redis lost a part of it: begin a new attempt


class Attempt:
    """One run at a message under a lease on its job."""

    def __init__(self, tools: Tools, message_id: str, job_token: str) -> None:
        self.message_id = message_id
        self._tools = tools
        self._job_token = job_token
        self._stoppable = Stoppable()
        self._asked: Stop | None = None
        self._token = ""
        self._text_before = 0
        self._seen_attempt = 0

    def stop(self, reason: Stop) -> None:
        """Stop the run; the first reason counts, and outlives a new attempt after a refusal."""
        if self._asked is None and reason is not Stop.LOG_REFUSED:
            self._asked = reason
        self._stoppable.stop(reason)

    async def run(self) -> None:
        """Run the message to its end, or as far as it may; see to its job either way.

        Redis being away is waited for. A defect of ours ends the message as `internal`.
        """
        outcome = Outcome.AGAIN
        try:
            while outcome is Outcome.AGAIN:
                if self._stoppable.reason is Stop.LOG_REFUSED:
                    self._stoppable = Stoppable()
                    if self._asked is not None:
                        self._stoppable.stop(self._asked)
                outcome = await self._run()
        except Exception:  # noqa: BLE001  a defect of ours must end the message, not hang it
            _log.exception("message %s failed inside Rejoin", self.message_id)
            await self._insist(
                lambda: end_message(
                    self._tools.ender, self.message_id, INTERNAL, job_token=self._job_token
                )
            )
            return
        await self._see_to_the_job(outcome)

    async def _run(self) -> Outcome:
        try:
            return await self._claim_and_run()
        except MessageMissing:
            return Outcome.LATER
        except LogEnded:
            return Outcome.ENDED
        except LogWentBack:
            _log.warning("Redis lost events of %s; a new attempt begins", self.message_id)
            await self._hand_over()  # this run was not lost with its worker
            await asyncio.sleep(_WENT_BACK_SECONDS)
            return Outcome.AGAIN
        except LogRefused:
            return Outcome.LEFT

    async def _claim_and_run(self) -> Outcome:
        tools, message_id = self._tools, self.message_id
        self._token = secrets.token_hex(8)
        claim = await self._insist(self._claim_under_lease)
        if claim is None:
            return Outcome.LEFT
        self._seen_attempt = claim.attempt
        found = await self._insist(lambda: record.load(tools.redis, message_id))
        request = await self._insist(lambda: record.load_request(tools.redis, message_id))
        if found is None or request is None:
            raise MessageMissing(message_id)
        writer = Writer(
            tools.appender,
            message_id,
            claim,
            tools.lives,
            most_log_bytes=tools.settings.max_log_bytes,
            stop=self.stop,
        )
        before = await self._open(found, claim, writer)
        if claim.cancel_asked:
            self.stop(Stop.CANCELLED)
        if claim.lost_runs >= tools.settings.max_attempts:
            failure = exhausted(claim.lost_runs)
            return await self._end(writer, before.usage, failure, self._text_before)
        if before.finish_reason is not None and before.finish_reason is not FinishReason.TOOL_CALLS:
            done = Done(before.finish_reason, self._text_before)
            return await self._end(writer, before.usage, done, self._text_before)
        return await self._call_model(found, request, writer)

    async def _claim_under_lease(self) -> record.Claim | None:
        """Claim the message; None where its job is another worker's by now.

        The lease may be long over: of a worker that was paused, or that waited for Redis. A claim
        then would fence the new owner in the middle of its run.
        """
        tools = self._tools
        lease = {self.message_id: self._job_token}
        if await queue.renew(tools.redis, lease, lease_seconds=tools.settings.lease_seconds):
            return None
        return await record.claim(
            tools.redis,
            self.message_id,
            token=self._token,
            worker_id=tools.worker_id,
            life_seconds=tools.settings.open_ttl_seconds,
            seen_attempt=self._seen_attempt,
        )

    async def _open(self, found: record.Record, claim: record.Claim, writer: Writer) -> Takeover:
        """Write the attempt's first events; return what earlier attempts left."""
        before = Takeover(None)
        if claim.attempt > 1:
            frames = await self._insist(lambda: log.read_all(self._tools.redis, self.message_id))
            before = takeover_of(fold(frames))
            if before.newest is not None:  # a record that went back may be attempts behind
                self._seen_attempt = max(self._seen_attempt, before.newest.attempt)
        self._text_before = before.text_chars
        for event, private in opening(
            found,
            claim.attempt,
            worker_id=self._tools.worker_id,
            newest=before.newest,
            after=before.after,
            reason="takeover",
        ):
            writer.put(event, private)
        return before

    async def _call_model(
        self, found: record.Record, request: StoredRequest, writer: Writer
    ) -> Outcome:
        tools = self._tools
        call = ModelCall(model_request(request, self.message_id))
        settings = tools.settings
        ran_seconds = (now_ms() - (found.started_at or now_ms())) / 1000
        deadlines = Deadlines(
            self._stoppable,
            first_token_seconds=settings.timeout_first_token,
            idle_seconds=settings.timeout_idle,
            total_seconds=settings.timeout_total - max(0, ran_seconds),
        )
        end: Event
        try:
            provider, name = tools.providers.find(request.model)
            call.request = model_request(request, self.message_id, name)
            finish_reason = await call.run(provider, writer, self._stoppable, deadlines)
        except Stopped as stopped:
            if stopped.reason in (Stop.HANDED_OVER, Stop.LEASE_LOST, Stop.LOG_REFUSED):
                return await self._leave(stopped.reason, writer)
            text_chars = self._text_before + call.text_chars
            reason = FinishReason.CANCELLED
            if stopped.reason is Stop.LOG_FULL:
                reason = FinishReason.LENGTH
            end = failure_of_stop(stopped.reason) or Done(reason, text_chars)
            return await self._end(writer, call.usage, end, text_chars)
        except LogRefused:
            raise
        except Exception as error:  # noqa: BLE001  an adapter's defect ends its message alone
            failure = failure_of(error)
            if failure is INTERNAL:
                _log.exception("message %s: the provider's adapter failed", self.message_id)
            text_chars = self._text_before + call.text_chars
            usage = call.usage if call.called else None
            return await self._end(writer, usage, failure, text_chars)
        text_chars = self._text_before + call.text_chars
        done = Done(finish_reason, text_chars)
        step = (Step(1, finish_reason), step_note(call.usage))
        return await self._end(writer, call.usage, done, text_chars, step)

    async def _end(
        self,
        writer: Writer,
        usage: Usage | None,
        end: Done | Failed | Event,
        text_chars: int,
        *before: tuple[Event, bytes],
    ) -> Outcome:
        """Write the last events; a cancel that came first turns them into a cancelled end."""
        spent = [] if usage is None else [(usage, b"")]
        try:
            await writer.finish(*before, *spent, (end, b""))
        except CancelAsked:
            cancelled = Done(FinishReason.CANCELLED, text_chars)
            await writer.finish((usage or Usage(), b""), (cancelled, b""))
        return Outcome.ENDED

    async def _leave(self, reason: Stop, writer: Writer) -> Outcome:
        if reason is not Stop.HANDED_OVER:
            if writer.refused is not None:
                raise writer.refused
            return Outcome.LEFT
        await writer.flush()
        await self._hand_over()
        return Outcome.HANDED_OVER

    async def _hand_over(self) -> None:
        await self._insist(
            lambda: record.hand_over(self._tools.redis, self.message_id, self._token)
        )

    async def _see_to_the_job(self, outcome: Outcome) -> None:
        redis, message_id, token = self._tools.redis, self.message_id, self._job_token
        match outcome:
            case Outcome.ENDED:
                await self._insist(lambda: aftermath(redis, message_id, job_token=token))
            case Outcome.HANDED_OVER:
                await self._insist(lambda: queue.release(redis, message_id, token))
            case Outcome.LATER:
                await self._insist(lambda: queue.put_off(redis, message_id, token))
            case Outcome.LEFT:
                # Ended by somebody who had no lease on the job: it is ours to take off.
                found = await self._insist(lambda: record.load(redis, message_id))
                if found is not None and found.ended:
                    await self._insist(lambda: aftermath(redis, message_id, job_token=token))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again while Redis is away: each call bears being repeated."""
        pause = 0.05
        while True:
            try:
                return await call()
            except LogUnavailable as error:
                _log.warning("%s; message %s waits", error, self.message_id)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
