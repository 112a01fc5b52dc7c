"""A leased job: runs its message to the end, or as far as it may, and sees to the job."""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from dataclasses import asdict
from enum import StrEnum
from typing import Final

from rejoin.shared import log, queue, record
from rejoin.shared.ending import aftermath, end_message
from rejoin.shared.errors import (
    Fenced,
    LogEnded,
    LogRefused,
    LogWentBack,
    MessageMissing,
    NotItsTurn,
    RequestUnreadable,
)
from rejoin.shared.events import Done, FinishReason
from rejoin.worker.answer import Answer
from rejoin.worker.attempt import Attempt
from rejoin.worker.calls import Known
from rejoin.worker.failures import INTERNAL, exhausted
from rejoin.worker.kit import Kit, insist
from rejoin.worker.new_attempt import begin
from rejoin.worker.stopping import Stop, Stoppable, Stopped
from rejoin.worker.writer import Writer

_FRESH_SHARE: Final = 1 / 3  # of a lease; the rest is for the claim's way to Redis
_WENT_BACK_SECONDS: Final = 0.2  # a log that goes back again and again must not spin

_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a run ended, for the job it was."""

    ENDED = "ended"  # the message has its end: the job is done
    LEFT = "left"  # it is another's by now: touch nothing
    HANDED_OVER = "handed_over"  # it goes on elsewhere: the job is due at once
    LATER = "later"  # there is nothing to run yet
    NOT_ITS_TURN = "not_its_turn"  # it waits for another message, without a job
    AGAIN = "again"  # Redis lost a part of it: begin a new attempt
    PARKED = "parked"  # it waits for answers to its calls, without a worker


class Run:
    """One run at a message under a lease on its job.

    `over`: it writes no more and gives its lease back, which a renewal may find gone already.
    `leased_at` is when the lease was asked for, in seconds of time.monotonic(), and
    `conversation_id` the message's; whoever does not know them leaves them out.
    """

    def __init__(
        self,
        kit: Kit,
        message_id: str,
        job_token: str,
        *,
        leased_at: float = -math.inf,
        conversation_id: str = "",
    ) -> None:
        self.message_id = message_id
        self.over = False
        self._kit = kit
        self._job_token = job_token
        self._leased_at = leased_at
        self._conversation_id = conversation_id
        self._stoppable = Stoppable()
        self._seen_attempt = 0
        self._token = ""
        self._writer: Writer | None = None  # of the newest attempt
        self._answered: Answer | None = None  # the same
        self._known = Known(set(), {})
        self._due_ms = 0  # when a parked message's job is due

    def stop(self, reason: Stop) -> None:
        """Stop the run; the first reason that is not for another try counts."""
        self._stoppable.stop(reason)

    def leased_again(self, job_token: str) -> None:
        """Go on under another lease of this worker's on the job."""
        self._job_token = job_token

    async def run(self) -> None:
        """Run the message to its end, or as far as it may; see to its job either way.

        Redis being away is waited for. A defect of ours ends the message as `internal`.
        """
        outcome = Outcome.AGAIN
        try:
            while outcome is Outcome.AGAIN:
                self._stoppable.forgive()
                self.over = False
                outcome = await self._attempt()
                if outcome is Outcome.ENDED:
                    outcome = await self._finish()
        except Exception as error:  # noqa: BLE001  a defect must end the message, not hang it
            if isinstance(error, RequestUnreadable):
                _log.error("message %s: %s", self.message_id, error)
            else:
                _log.exception("message %s failed inside Rejoin", self.message_id)
            ender, token = self._kit.ender, self._job_token
            await insist(
                self.message_id,
                lambda: end_message(ender, self.message_id, INTERNAL, job_token=token),
            )
            return
        await self._see_to_the_job(outcome)

    async def _attempt(self) -> Outcome:
        self._token, self._writer, self._answered = secrets.token_hex(8), None, None
        try:
            with self._kit.openings:
                attempt = await begin(
                    self._kit,
                    self.message_id,
                    self._stoppable,
                    token=self._token,
                    seen_attempt=self._seen_attempt,
                    conversation_id=self._conversation_id,
                    may_claim=self._hold_lease,
                )
            self._seen_attempt = attempt.claim.attempt
            return await self._work(attempt)
        except MessageMissing:
            return Outcome.LATER
        except LogEnded:
            return Outcome.ENDED
        except NotItsTurn:
            return Outcome.NOT_ITS_TURN
        except LogWentBack:
            _log.warning("Redis lost events of %s; a new attempt begins", self.message_id)
            await self._look_further()
            return Outcome.AGAIN
        except LogRefused:
            return Outcome.LEFT

    async def _work(self, attempt: Attempt) -> Outcome:
        answer = self._answered = Answer(self._kit, attempt, self._stoppable, self._known)
        try:
            return await self._answer(answer)
        finally:
            self._writer = answer.attempt.writer
            self._seen_attempt, self._token = self._writer.claim[:2]

    async def _answer(self, answer: Answer) -> Outcome:
        attempt = answer.attempt
        if attempt.claim.cancel_asked:
            self.stop(Stop.CANCELLED)
        before = attempt.before
        if attempt.claim.lost_runs >= self._kit.settings.max_attempts:
            failure = exhausted(attempt.claim.lost_runs)
            await attempt.end(
                attempt.spent,
                failure,
                text_chars=before.text_chars,
                open_calls=before.progress.open_calls,
            )
            return Outcome.ENDED
        if before.finish_reason not in (None, FinishReason.TOOL_CALLS):
            done = Done(before.finish_reason, before.text_chars)
            await attempt.end(attempt.spent, done, text_chars=before.text_chars)
            return Outcome.ENDED
        if attempt.claim.attempt > 1:
            await self._kit.openings.settled()
        try:
            waiting = await answer.run()
        except Stopped as stopped:
            return await self._leave(stopped.reason, answer)
        if waiting is None:
            return Outcome.ENDED
        self._due_ms = waiting.due_ms
        return Outcome.PARKED

    async def _leave(self, reason: Stop, answer: Answer) -> Outcome:
        attempt = answer.attempt
        if reason is not Stop.HANDED_OVER:
            if attempt.writer.refused is not None:
                raise attempt.writer.refused
            return Outcome.LEFT
        await attempt.writer.flush()
        redis, token, handed = self._kit.redis, attempt.claim.token, _handed(answer)
        await insist(
            self.message_id, lambda: record.hand_over(redis, self.message_id, token, handed)
        )
        return Outcome.HANDED_OVER

    async def _hold_lease(self) -> None:
        """Raise Fenced if the lease is another's: a claim would fence its owner in mid-run.

        It may be long over, of a worker that was paused or that waited for Redis. Not one asked for
        less than a share of a lease ago: its end was set after that, and nobody takes it before its
        end. This clock runs on in a paused process (the loop's own is that of its last turn), so a
        pause up to here is seen; one from here to the claim is seen by no renewal either.
        """
        seconds = self._kit.settings.lease_seconds
        if time.monotonic() - self._leased_at < seconds * _FRESH_SHARE:
            return
        lease = {self.message_id: self._job_token}
        if await queue.renew(self._kit.redis, lease, lease_seconds=seconds):
            raise Fenced(self.message_id)

    async def _look_further(self) -> None:
        """The record may be attempts behind its log: the next claim goes beyond both."""
        # This run was not lost with its worker, and is not to be counted so.
        handed = None if self._answered is None else _handed(self._answered)
        await insist(
            self.message_id,
            lambda: record.hand_over(self._kit.redis, self.message_id, self._token, handed),
        )
        await asyncio.sleep(_WENT_BACK_SECONDS)
        ((_, newest),) = await insist(
            self.message_id, lambda: log.newest_of(self._kit.redis, [self.message_id])
        )
        self._seen_attempt = max(self._seen_attempt, newest.attempt if newest else 0)

    async def _finish(self) -> Outcome:
        """See to what follows the end, once it is known to be written."""
        self.over = True
        tries = 0

        async def finish() -> None:
            nonlocal tries
            tries += 1
            last = self._writer.last if self._writer is not None else None
            try:
                if tries > 1 and last is not None:
                    # Redis was away, and may be back without the end: nobody has passed the turn.
                    with contextlib.suppress(LogEnded):
                        await log.append(self._kit.redis, last)
                await self._aftermath()
            except LogWentBack:
                await self._end_again()
                await finish()

        try:
            await insist(self.message_id, finish)
        except MessageMissing:
            return Outcome.LATER
        except LogWentBack:
            _log.warning("Redis lost the end of %s; a new attempt begins", self.message_id)
            await self._look_further()
            return Outcome.AGAIN
        except LogRefused:
            return Outcome.LEFT
        return Outcome.ENDED

    async def _end_again(self) -> None:
        if self._writer is None or self._writer.last is None:
            raise LogWentBack(self.message_id)
        try:
            await self._writer.finish_again()
        finally:
            self._seen_attempt, self._token = self._writer.claim[:2]

    async def _aftermath(self) -> None:
        await aftermath(
            self._kit.redis,
            self.message_id,
            job_token=self._job_token,
            life_seconds=self._kit.settings.open_ttl_seconds,
        )

    async def _see_to_the_job(self, outcome: Outcome) -> None:
        self.over = True
        redis, message_id, token = self._kit.redis, self.message_id, self._job_token
        match outcome:
            case Outcome.HANDED_OVER:
                await insist(message_id, lambda: queue.release(redis, message_id, token))
            case Outcome.PARKED:
                due_ms = self._due_ms
                await insist(
                    message_id, lambda: queue.release(redis, message_id, token, due_ms=due_ms)
                )
            case Outcome.LATER:
                await insist(message_id, lambda: queue.put_off(redis, message_id, token))
            case Outcome.NOT_ITS_TURN:
                # It is due again when its turn comes, or when the reaper has placed it again.
                await insist(message_id, lambda: queue.complete(redis, message_id, token))
            case Outcome.LEFT:
                # Ended by somebody who had no lease on the job: it is ours to take off.
                found = await insist(message_id, lambda: record.load(redis, message_id))
                if found is not None and found.ended:
                    with contextlib.suppress(LogWentBack):
                        await insist(message_id, self._aftermath)
                elif found is not None and self._answered is not None:
                    await insist(message_id, self._answered.tell_late)


def _handed(answer: Answer) -> record.Handed:
    return record.Handed(answer.attempt.claim.attempt, asdict(answer.tell()))
