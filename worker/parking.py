"""A message's model calls and its providers' quotas: each is admitted, or the message is parked.

A parked message holds no worker. Its `retry` tells workers how often its models had failed before,
for that counts on.
"""

import asyncio

from rejoin.shared import waiting
from rejoin.shared.errors import ProviderError
from rejoin.shared.events import Failed, FailureCode, Retry
from rejoin.shared.waiting import Parked
from rejoin.worker.admission import PATIENCE_SECONDS, Admitted
from rejoin.worker.attempt import Attempt
from rejoin.worker.bill import Bill
from rejoin.worker.calls import Waiting
from rejoin.worker.kit import Kit, insist
from rejoin.worker.model_calling import ModelCalling
from rejoin.worker.quota_scopes import Later
from rejoin.worker.step import Step
from rejoin.worker.stopping import LEAVING, Stop, Stoppable, Stopped
from rejoin.worker.takeover import parking_note
from rejoin.worker.tries import Tries


class Parking:
    """One run's. `tries` are those of each model that count, from before and by now."""

    def __init__(self, kit: Kit, attempt: Attempt, stoppable: Stoppable) -> None:
        self.tries = Tries(attempt.before.failures)
        self._kit = kit
        self._stoppable = stoppable
        self._message_id = attempt.record.message_id
        self._caller = attempt.record.owner
        self._parked = False
        self._go_on = set[str]()
        # An answer that somebody reads already is not to wait for all that are yet to begin.
        self._had_turn = attempt.claim.attempt > 1 or bool(attempt.before.progress.steps)

    def goes_on(self, model: str, reason: str) -> None:
        """Note that the message goes on with a model for that reason, from now on."""
        if reason == FailureCode.RATE_LIMITED:
            self._go_on.add(model)

    async def ask(self, model: str, tokens: int, seconds: float) -> Admitted | Later:
        """Ask for one call of so many tokens, for a short time within the slot.

        The message may run for `seconds`.

        Raises:
            Stopped: somebody, or the deadline, stopped it.
        """
        self._parked = False
        try:
            async with self._stoppable, asyncio.timeout(seconds):
                return await self._kit.admission.ask(
                    model,
                    place=self._message_id,
                    caller=self._caller,
                    tokens=tokens,
                    # What it waits within its slot is of its own time, and must not use it up.
                    patience_seconds=min(PATIENCE_SECONDS, seconds / 4),
                    had_turn=self._had_turn,
                    goes_on=model in self._go_on,
                )
        except TimeoutError:
            await self._kit.admission.abandon(model, self._message_id)
            raise Stopped(Stop.TOTAL) from None
        except Stopped as stopped:
            if stopped.reason not in LEAVING:
                await self._kit.admission.abandon(model, self._message_id)
            raise

    async def make(
        self, calling: ModelCalling, attempt: Attempt, model: str, call: Step, admitted: Admitted
    ) -> Failed | None:
        """Make a call that was admitted; see ModelCalling.call.

        Raises:
            ProviderError, Stopped, LogRefused: as that.
        """
        call.hear, self._had_turn = admitted.heard, True
        try:
            failure = await calling.call(attempt, model, call)
        except ProviderError as error:
            # Before its slot is given back: who came into it would be refused too.
            self._parked = await admitted.refused(error)
            raise
        finally:
            tokens = call.usage.tokens if admitted.counts else None
            await admitted.over(tokens, made=call.called_at is not None)
        if failure is None:
            self.tries.clear()  # the next step's are its own
        return failure

    def is_for_long(self, error: ProviderError) -> bool:
        """Whether the call just made parked its key for longer than a worker is held."""
        return self._parked and (error.retry_after_seconds or 0) > PATIENCE_SECONDS

    async def leave(self, later: Later) -> Failed:
        """Wait no more; the failure that says so."""
        await self._kit.admission.leave(later)
        text = f"the provider's key has no room for it for another {later.seconds:.0f} seconds"
        return Failed(FailureCode.RATE_LIMITED, text, retryable=True)

    async def park(self, attempt: Attempt, later: Later, bill: Bill) -> Waiting:
        """Let the message wait for its turn, without a worker.

        Raises:
            Stopped: it is cancelled.
            LogRefused: the log takes no more.
        """
        note = parking_note(bill.tell(), self.tries.failures)
        reason = FailureCode.RATE_LIMITED.value
        attempt.writer.put(Retry(reason, round(later.seconds, 3)), note)
        await attempt.writer.stored()
        redis, line = self._kit.redis, later.scope.line
        parked = await insist(
            self._message_id,
            lambda: waiting.park_in_line(
                redis, self._message_id, token=attempt.claim.token, line=line
            ),
        )
        if parked is Parked.CANCEL:
            await self._kit.admission.leave(later)
            raise Stopped(Stop.CANCELLED)
        return Waiting(later.due_ms)
