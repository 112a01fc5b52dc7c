"""Makes one model call of a step: within its deadlines, billed, and fitting its JSON schema."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from rejoin.shared.errors import LogRefused, ProviderError
from rejoin.shared.events import Failed, FinishReason, Usage
from rejoin.worker.attempt import Attempt
from rejoin.worker.bill import Bill
from rejoin.worker.deadlines import Deadlines
from rejoin.worker.failures import DEADLINE, INTERNAL, timeout_of
from rejoin.worker.kit import Kit
from rejoin.worker.providers.base import Turn
from rejoin.worker.step import Step
from rejoin.worker.stopping import Stoppable, Stopped
from rejoin.worker.structured import correction, misfit

_NOTHING: Final = Usage()

_log = logging.getLogger(__name__)


class ModelCalling:
    """How the model calls of a run are made. `left_seconds` tells how long it may still run."""

    def __init__(
        self, kit: Kit, stoppable: Stoppable, bill: Bill, left_seconds: Callable[[], float]
    ) -> None:
        self._kit = kit
        self._stoppable = stoppable
        self._bill = bill
        self._left_seconds = left_seconds

    async def call(self, attempt: Attempt, model: str, call: Step) -> Failed | None:
        """Make one call; None: it gave an answer, or calls of tools, that are in the log now.

        Raises:
            ProviderError: it failed in a way that may be worth another try.
            Stopped: somebody, or a deadline, stopped it.
            LogRefused: the log takes no more.
        """
        settings = self._kit.settings
        deadlines = Deadlines(
            self._stoppable,
            first_token_seconds=settings.timeout_first_token,
            idle_seconds=settings.timeout_idle,
            total_seconds=self._left_seconds(),
        )
        before = attempt.before.progress.text_chars
        try:
            provider, name = self._kit.providers.find(model)
            call.request = replace(call.request, model=name)
            attempt.writer.note_call(call.number)
            finish_reason = await call.run(provider, attempt.writer, self._stoppable, deadlines)
        except Stopped as stopped:
            self._spend(call)
            if (error := timeout_of(stopped.reason)) is None:
                raise
            self._stoppable.forgive()
            raise error from stopped
        except ProviderError:
            self._spend(call, refused=not call.got)
            raise
        except LogRefused:
            self._spend(call)
            raise
        except Exception:  # noqa: BLE001  an adapter's defect ends its message alone
            _log.exception("message %s: the adapter of %s failed", attempt.record.message_id, model)
            self._spend(call)
            return INTERNAL
        finally:
            attempt.before.progress.text_chars = before + call.text_chars
        if call.called:
            self._spend(call)
            used = self._bill.tell() or _NOTHING
            attempt.before.progress.present = call.end(attempt.writer, used)
            return None
        return await self.misfit(attempt, call, finish_reason)

    async def misfit(
        self, attempt: Attempt, call: Step, finish_reason: FinishReason
    ) -> Failed | None:
        """The failure of an answer that does not fit its JSON schema, where it is to fit one."""
        wanted = attempt.request.response_format
        if wanted is None or call.texts is None:
            return None
        self._stoppable.forgive()  # of a provider that had finished and did not close
        failure: Failed | None = None
        try:
            async with self._stoppable, asyncio.timeout(self._left_seconds()):
                text = "".join(call.texts)
                failure = await misfit(self._kit.validation, wanted, text, finish_reason)
        except TimeoutError:
            failure = DEADLINE
        except OSError:
            _log.exception("message %s could not be validated", attempt.record.message_id)
            failure = INTERNAL
        except Stopped:
            self._spend(call)
            raise
        if failure is not None:
            self._spend(call)
        return failure

    async def correction(self, attempt: Attempt, rejected: str) -> list[Turn]:
        """The turns that show a model what it gave, `rejected`, and how that does not fit."""
        wanted = attempt.request.response_format
        if wanted is not None:
            with contextlib.suppress(TimeoutError):  # the call's own deadline ends the message
                async with self._stoppable, asyncio.timeout(self._left_seconds()):
                    return await correction(self._kit.validation, wanted, rejected)
        return []

    def _spend(self, call: Step, *, refused: bool = False) -> None:
        """Add what a call used; refused before it gave anything it is not billed."""
        if call.called_at is None:
            return
        if refused and call.reported is None:
            self._bill.refused()
        else:
            self._bill.add(call.usage)
