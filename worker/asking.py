"""Asks the models for one step: each a bounded number of times, one after the other.

An agent takes a model's place for all of its steps, and is run once.

A provider that failed before it gave anything of the step is asked again after a pause, told by
`retry`. One that broke off in mid-stream has its step taken back by the `reset` of a new attempt.
So has, once for each model, an answer that does not fit the JSON schema it was to fit.
"""

import asyncio
import logging
import secrets

from rejoin.shared.catalogue import is_agent
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import NotFound, ProviderError
from rejoin.shared.events import Failed, FinishReason, Retry
from rejoin.worker.agents.run import AgentRun
from rejoin.worker.answered import AnsweredStep
from rejoin.worker.attempt import Attempt
from rejoin.worker.backoff import pause_seconds
from rejoin.worker.bill import Bill
from rejoin.worker.calls import Known, Waiting
from rejoin.worker.context import Context
from rejoin.worker.continuing import CONTINUE, Continuation, refuses
from rejoin.worker.failures import (
    DEADLINE,
    HISTORY_GONE,
    another_model_may,
    failure_of,
    may_do_better,
    unknown_agent,
)
from rejoin.worker.fallback import Choice, Fallback
from rejoin.worker.kit import Kit
from rejoin.worker.model_calling import ModelCalling
from rejoin.worker.new_attempt import Again, begin
from rejoin.worker.offered import Offered
from rejoin.worker.parking import Parking
from rejoin.worker.progress import Progress
from rejoin.worker.providers.base import ModelRequest
from rejoin.worker.quota_scopes import Later, tokens_of
from rejoin.worker.step import Step
from rejoin.worker.stopping import Stop, Stoppable
from rejoin.worker.takeover import usage_note

_log = logging.getLogger(__name__)


class Asking:
    """The models' part of a run. `attempt` is the present one, which a break replaces.

    `progress` is how far the message came, `bill` what its calls used, and `call` the model call
    under way, or the last one.
    """

    def __init__(
        self, kit: Kit, attempt: Attempt, stoppable: Stoppable, offered: Offered, known: Known
    ) -> None:
        self.attempt = attempt
        self.bill = Bill(attempt.earlier, attempt.unseen)
        self.call: Step | None = None
        self._kit = kit
        self._stoppable = stoppable
        self._message_id = attempt.record.message_id
        self._context = Context(kit, attempt.record, attempt.request, offered.shown)
        self._offered = offered
        self._known = known
        # By model; what the log tells of a run that was lost, and then this one's own.
        self._rejected = dict(attempt.before.rejected)
        self._refused = set[str]()  # models that refuse to go on with a partial text
        self._models = _models(attempt)
        self._others = list[str]()  # those that may follow the present one
        self._fallback = Fallback(kit, self._message_id)
        self._parking = Parking(kit, attempt, stoppable)
        self._calling = ModelCalling(kit, stoppable, self.bill, lambda: self.left_seconds)

    @property
    def progress(self) -> Progress:
        """How far the message came."""
        return self.attempt.before.progress

    @property
    def left_seconds(self) -> float:
        """How long the message may still run; its waiting does not count."""
        found = self.attempt.record
        ran_ms = max(0, now_ms() - (found.started_at or now_ms()) - found.waited_ms)
        return self._kit.settings.timeout_total - ran_ms / 1000

    @property
    def by_agent(self) -> bool:
        """Whether the next step is an agent's, whose steps its own code bounds."""
        return bool(self._models) and is_agent(self._models[0])

    def offer(self, offered: Offered) -> None:
        """Offer these tools from now on: some have come since."""
        request = self.attempt.request
        self._context = Context(self._kit, self.attempt.record, request, offered.shown)
        self._offered = offered

    async def step(self) -> Step | Waiting | Failed:
        """Make the next step's model call, by the first model that can; an agent runs to its end.

        Where it called tools, `progress.present` is the step from now on. An agent may have to
        wait for the answers to its calls.

        Raises:
            Stopped: somebody, or a deadline, stopped it.
            LogRefused: the log takes no more.
        """
        left, reason = self._models, ""
        while True:
            choice = await self._fallback.choose(left)
            model, passed = left[choice.place], left[: choice.place]
            # One that is left alone is better than none, once the others have failed.
            self._others = [*left[choice.place + 1 :], *passed]
            if why := reason or choice.reason:
                _log.info("message %s: %s goes on (%s)", self._message_id, model, why)
                await self._begin_again(model, why)
                self._parking.goes_on(model, why)
            asked = await self._ask(model, choice)
            if not isinstance(asked, Failed):
                self._models = [model, *self._others]
                self._rejected = {}
                return asked
            if not self._others or not another_model_may(asked):
                return asked
            left, reason = self._others, asked.code

    async def _ask(self, model: str, choice: Choice) -> Step | Waiting | Failed:
        """Ask one model, up to REJOIN_PROVIDER_RETRIES times, or run an agent, once."""
        tries = 1 if choice.on_trial else self._kit.settings.provider_retries
        seen = self._fallback.seen(model)
        while True:
            rejected = self._rejected.get(model)
            shown = (
                [] if rejected is None else await self._calling.correction(self.attempt, rejected)
            )
            try:
                async with self._stoppable, asyncio.timeout(self.left_seconds):
                    steps, partial = self._shown_steps(model), self.progress.partial
                    going_on = await self._context.continuation(model, partial)
                    request = await self._context.model_request(model, steps, shown, going_on)
                    chars = request.chars
                    self.bill.shown(chars)
            except NotFound:
                return HISTORY_GONE
            except TimeoutError:
                return DEADLINE
            if is_agent(model):
                return await self._run_agent(model, request)
            tokens = tokens_of(chars, request.max_tokens)
            admitted = await self._parking.ask(model, tokens, self.left_seconds)
            if isinstance(admitted, Later):
                return await self._wait(admitted)
            call = self.call = self._step_of(request, model, going_on)
            try:
                failure = await self._parking.make(
                    self._calling, self.attempt, model, call, admitted
                )
            except ProviderError as error:
                if (gave_up := await self._take_up(model, call, error, tries, seen)) is not None:
                    return gave_up
                continue
            if failure is None:
                await self._fallback.answered(model, seen)
                return call
            if not may_do_better(failure) or rejected is not None:
                return failure
            self._rejected[model] = "".join(call.texts or ())
            await self._begin_again(model, failure.code)
            self._parking.tries.forget(model)

    async def _take_up(
        self, model: str, call: Step, error: ProviderError, tries: int, seen: int | None
    ) -> Failed | None:
        """See to a call that failed: None where it is to be made again, the pause being over."""
        if call.seam is not None and not call.text_chars and refuses(error):
            self._refused.add(model)
            await self._begin_again(model, error.code)
            return None
        made = self._parking.tries
        failures, tried_seconds = made.fail(model), made.seconds(model)
        pause = pause_seconds(failures, error.retry_after_seconds)
        parks = self._parking.is_for_long(error)
        if (
            not error.retryable
            or failures >= tries
            or pause >= (self._kit.settings.timeout_total if parks else self.left_seconds)
            or await self._fallback.rather_than_wait(pause, self._others, tried_seconds)
        ):
            made.forget(model)
            failure, after = failure_of(error), error.retry_after_seconds
            await self._fallback.failed(model, failure, after, seen=seen)
            return failure
        if not parks:
            await self._take_up_again(model, call, error, pause)
        elif call.gave:
            await self._begin_again(model, error.code)
        return None

    async def _wait(self, later: Later) -> Waiting | Failed:
        """Let the message wait for its turn at the provider's key, or go on with another model."""
        if await self._fallback.rather_than_wait(later.seconds, self._others):
            return await self._parking.leave(later)
        return await self._parking.park(self.attempt, later, self.bill)

    def _step_of(self, request: ModelRequest, model: str, going_on: Continuation | None) -> Step:
        """The call to make; `going_on` is what it goes on with."""
        texts = list[str]() if request.response_format or request.tools else None
        # Also of calls that Redis lost: what became of those is no other call's.
        taken = self._known.started | self._known.ended.keys() | self.progress.call_ids
        call = Step(request, model, len(self.progress.steps) + 1, texts, taken)
        call.recovers = self.attempt.request.recover == CONTINUE
        if going_on is not None:
            call.partial, call.seam = going_on.text, going_on.seam()
        return call

    def _shown_steps(self, model: str) -> list[AnsweredStep]:
        """The message's steps so far, for one that goes on; an agent has its checkpoint for its."""
        steps = self.progress.steps
        return [step for step in steps if step.model != model] if is_agent(model) else steps

    async def _run_agent(self, model: str, request: ModelRequest) -> Step | Waiting | Failed:
        agent = self._kit.agents.find(model)
        if agent is None:
            return unknown_agent(model)
        run = AgentRun(
            self._kit, self.attempt, agent, request, self._offered, self._known, self.bill
        )
        self.call = run.step
        ended = await run.run(self._stoppable, self.left_seconds)
        if ended is not None:
            return ended
        run.step.texts = [*(step.text for step in self.progress.steps), *(run.step.texts or ())]
        return await self._calling.misfit(self.attempt, run.step, FinishReason.STOP) or run.step

    async def _take_up_again(
        self, model: str, call: Step, error: ProviderError, pause: float
    ) -> None:
        """Say that the call is made again, take back what it gave, and wait `pause` seconds."""
        if call.gave:
            await self._begin_again(model, error.code)
        else:
            note = usage_note(self.bill.tell())
            self.attempt.writer.put(Retry(error.code, round(pause, 3)), note)
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
            may_claim=self.attempt.may_claim,
            again=Again(
                self.attempt.claim,
                model,
                reason,
                used=self.bill.tell(),
                spent=self.bill.spent,
                anew=model in self._refused or (self.call is not None and self.call.opened_call),
            ),
        )
        self.bill.begin()
        self.call = None  # what it gave is taken back, or is in the new attempt's progress
        if self.attempt.claim.cancel_asked:
            # The text so far stays, and another model's must not be joined to it.
            self._stoppable.stop(Stop.CANCELLED)


def _models(attempt: Attempt) -> list[str]:
    """The models to ask, in order: from the one that gave the last finished step on."""
    models = [attempt.request.model, *attempt.request.fallbacks]
    last = attempt.before.model
    return models[models.index(last) :] if last in models else models
