"""Asks the models for the answer: each a bounded number of times, one after the other.

A provider that failed before it gave anything of the step is asked again after a pause, told by
`retry`. One that broke off in mid-stream has its step taken back by the `reset` of a new attempt.
So has, once for each model, an answer that does not fit the JSON schema it was to fit.
"""

import asyncio
import contextlib
import logging
import secrets
from dataclasses import replace
from typing import Final

from rejoin.shared.clock import now_ms
from rejoin.shared.errors import LogRefused, NotFound, ProviderError
from rejoin.shared.events import Done, Failed, FailureCode, FinishReason, Retry, Step, Usage
from rejoin.shared.spent import total
from rejoin.worker.attempt import Attempt, Finished, begin
from rejoin.worker.backoff import pause_seconds
from rejoin.worker.context import Context
from rejoin.worker.deadlines import Deadlines
from rejoin.worker.failures import (
    DEADLINE,
    HISTORY_GONE,
    INTERNAL,
    another_model_may,
    failure_of,
    timeout_of,
)
from rejoin.worker.kit import Kit
from rejoin.worker.providers.base import Turn
from rejoin.worker.step import Step as ModelCall
from rejoin.worker.stopping import LEAVING, Stop, Stoppable, Stopped
from rejoin.worker.structured import correction, misfit
from rejoin.worker.takeover import step_note

_NOTHING: Final = Usage()

_log = logging.getLogger(__name__)


class Answer:
    """The models' part of a run. `attempt` is the present one, which a break replaces."""

    def __init__(self, kit: Kit, attempt: Attempt, stoppable: Stoppable) -> None:
        self.attempt = attempt
        self._kit = kit
        self._stoppable = stoppable
        self._message_id = attempt.record.message_id
        self._context = Context(kit, attempt.record, attempt.request)
        self._spent = attempt.spent
        self._unstepped: Usage | None = None  # of this attempt alone
        self._text_chars = attempt.before.text_chars
        # By model; what the log tells of a run that was lost, and then this one's own.
        self._rejected = dict(attempt.before.rejected)

    async def run(self) -> None:
        """Ask until there is an answer, or none to be had, and end the message either way.

        Raises:
            Stopped: the message is to be left to another worker; nothing is ended.
            LogRefused: the log takes no more.
        """
        request = self.attempt.request
        failure: Failed | None = None
        try:
            for model in (request.model, *request.fallbacks):
                if failure is not None:
                    await self._begin_again(model, failure.code)
                failure = await self._ask(model)
                if failure is None:
                    return
                if not another_model_may(failure):
                    break
        except Stopped as stopped:
            if stopped.reason in LEAVING:
                raise
            await self._end(_end_of(stopped.reason, self._text_chars))
            return
        if failure is not None:
            await self._end(failure)

    async def _ask(self, model: str) -> Failed | None:
        """Ask one model, up to REJOIN_PROVIDER_RETRIES times; None: it has answered."""
        tries = self._kit.settings.provider_retries
        failures = 0
        while True:
            rejected = self._rejected.get(model)
            shown = [] if rejected is None else await self._correction(rejected)
            try:
                async with self._stoppable, asyncio.timeout(self._left_seconds()):
                    request = await self._context.model_request(model, shown)
            except NotFound:
                return HISTORY_GONE
            except TimeoutError:
                return DEADLINE
            call = ModelCall(request, model, texts=[] if request.response_format else None)
            try:
                failure = await self._call(model, call)
                if failure is None or not _may_do_better(failure) or rejected is not None:
                    return failure
                self._rejected[model] = "".join(call.texts or ())
                await self._begin_again(model, failure.code)
                failures = 0
            except ProviderError as error:
                failures += 1
                pause = pause_seconds(failures, error.retry_after_seconds)
                if not error.retryable or failures == tries or pause >= self._left_seconds():
                    return failure_of(error)
                await self._take_up_again(model, call, error, pause)

    async def _call(self, model: str, call: ModelCall) -> Failed | None:
        """Make one call; end the message where it succeeds.

        Raises:
            ProviderError: it failed in a way that may be worth another try.
            Stopped, LogRefused: as `run`.
        """
        settings = self._kit.settings
        deadlines = Deadlines(
            self._stoppable,
            first_token_seconds=settings.timeout_first_token,
            idle_seconds=settings.timeout_idle,
            total_seconds=self._left_seconds(),
        )
        before = self._text_chars
        try:
            provider, name = self._kit.providers.find(model)
            call.request = replace(call.request, model=name)
            finish_reason = await call.run(
                provider, self.attempt.writer, self._stoppable, deadlines
            )
        except Stopped as stopped:
            self._text_chars = before + call.text_chars
            self._spend(call)
            if (error := timeout_of(stopped.reason)) is None:
                raise
            self._stoppable.forgive()
            raise error from stopped
        except (ProviderError, LogRefused):
            self._text_chars = before + call.text_chars
            self._spend(call, refused=not (call.text_chars or call.reasoning_chars))
            raise
        except Exception:  # noqa: BLE001  an adapter's defect ends its message alone
            _log.exception("message %s: the adapter of %s failed", self._message_id, model)
            self._spend(call)
            return INTERNAL
        self._text_chars = before + call.text_chars
        others = self._unstepped
        used = self._spend(call)
        if (failure := await self._misfit(call, finish_reason)) is not None:
            return failure
        done = Done(finish_reason, self._text_chars)
        step = Finished(Step(1, finish_reason), used, step_note(used, model, call.thinking))
        await self.attempt.end(
            self._spent, done, text_chars=self._text_chars, step=step, unstepped=others
        )
        return None

    async def _misfit(self, call: ModelCall, finish_reason: FinishReason) -> Failed | None:
        """The failure of an answer that does not fit its JSON schema, where it is to fit one."""
        wanted = self.attempt.request.response_format
        if wanted is None or call.texts is None:
            return None
        self._stoppable.forgive()  # of a provider that had finished and did not close
        try:
            async with self._stoppable, asyncio.timeout(self._left_seconds()):
                text = "".join(call.texts)
                return await misfit(self._kit.validation, wanted, text, finish_reason)
        except TimeoutError:
            return DEADLINE
        except OSError:
            _log.exception("message %s could not be validated", self._message_id)
            return INTERNAL

    async def _correction(self, rejected: str) -> list[Turn]:
        wanted = self.attempt.request.response_format
        if wanted is not None:
            with contextlib.suppress(TimeoutError):  # the call's own deadline ends the message
                async with self._stoppable, asyncio.timeout(self._left_seconds()):
                    return await correction(self._kit.validation, wanted, rejected)
        return []

    async def _take_up_again(
        self, model: str, call: ModelCall, error: ProviderError, pause: float
    ) -> None:
        """Say that the call is made again, take back what it gave, and wait `pause` seconds."""
        if call.text_chars or call.reasoning_chars:
            await self._begin_again(model, error.code)
        else:
            self.attempt.writer.put(Retry(error.code, round(pause, 3)))
        _log.info("message %s: %s; again in %.1f s", self._message_id, error, pause)
        async with self._stoppable:
            await asyncio.sleep(pause)

    async def _begin_again(self, model: str, reason: str) -> None:
        # All of the old attempt first: what is under way after the claim would be fenced.
        await self.attempt.writer.flush()
        self.attempt = await begin(
            self._kit,
            self._message_id,
            self._stoppable,
            token=secrets.token_hex(8),
            seen_attempt=self.attempt.claim.attempt,
            held=self.attempt.claim,
            model=model,
            reason=reason,
            used=self._unstepped,
        )
        self._unstepped = None
        self._text_chars = self.attempt.before.text_chars
        if self.attempt.claim.cancel_asked:
            # The text so far stays, and another model's must not be joined to it.
            self._stoppable.stop(Stop.CANCELLED)

    async def _end(self, end: Done | Failed) -> None:
        usage = self._spent
        if usage is None and isinstance(end, Done):
            usage = _NOTHING
        await self.attempt.end(usage, end, text_chars=self._text_chars, unstepped=self._unstepped)

    def _spend(self, call: ModelCall, *, refused: bool = False) -> Usage:
        """Add and return what a call used; refused before it gave anything it is not billed."""
        if call.called_at is None:
            return _NOTHING
        unbilled = refused and call.reported is None
        used = _NOTHING if unbilled else call.usage
        self._spent = total(self._spent, used)
        if not unbilled:
            self._unstepped = total(self._unstepped, used)
        return used

    def _left_seconds(self) -> float:
        started_at = self.attempt.record.started_at or now_ms()
        return self._kit.settings.timeout_total - max(0, now_ms() - started_at) / 1000


def _end_of(reason: Stop, text_chars: int) -> Done | Failed:
    if reason is Stop.TOTAL:
        return DEADLINE
    full = reason is Stop.LOG_FULL
    return Done(FinishReason.LENGTH if full else FinishReason.CANCELLED, text_chars)


def _may_do_better(failure: Failed) -> bool:
    return failure.code is FailureCode.INVALID_OUTPUT and failure.retryable
