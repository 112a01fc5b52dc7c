"""One attempt at a message: its claim, its first events, its last ones."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from rejoin.shared import claiming, record
from rejoin.shared.ending import close_calls
from rejoin.shared.errors import NotItsTurn
from rejoin.shared.events import Done, Failed, FailureCode, FinishReason, Step, Usage
from rejoin.shared.fold import fold
from rejoin.shared.opening import opening
from rejoin.shared.record import Claim, Record
from rejoin.shared.request import StoredRequest
from rejoin.shared.spent import (
    Unseen,
    less,
    seen_of,
    spent_of,
    take_over,
    told_of,
    total,
    unseen_of,
)
from rejoin.shared.stored import Stored
from rejoin.shared.tool_calls import CallState
from rejoin.worker.continuing import stays
from rejoin.worker.kit import Kit, insist
from rejoin.worker.reopening import Reopening
from rejoin.worker.stopping import Stoppable
from rejoin.worker.story import Story, is_whole, told
from rejoin.worker.takeover import (
    Takeover,
    failures_of,
    left_as_it_is,
    takeover_of,
    usage_note,
)
from rejoin.worker.writer import Entry, Writer

_NOTHING: Final = Usage()

TAKEOVER: Final = "takeover"
ANSWERED: Final = "answered"


class Finished(NamedTuple):
    """A finished step: its event, and what workers are told of it."""

    event: Step
    note: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that is this worker's: its claim, and the way to its log.

    `before` is what earlier attempts left, and `spent` what they used (None: nothing). `earlier`
    has that by their numbers, without the calls that are `unseen`. `may_claim` raises where the job
    is another's.
    """

    record: Record
    request: StoredRequest
    writer: Writer
    before: Takeover
    spent: Usage | None
    earlier: Mapping[int, Usage | None] = field(default_factory=dict)
    unseen: Sequence[Unseen] = ()
    may_claim: Callable[[], Awaitable[None]] | None = None

    @property
    def claim(self) -> Claim:
        """The present claim: another one than at first where Redis lost a part of the log."""
        return self.writer.claim

    async def end(
        self,
        usage: Usage | None,
        end: Done | Failed,
        *,
        text_chars: int,
        step: Finished | None = None,
        unstepped: Usage | None = None,
        late: Mapping[int, Usage] | None = None,
        open_calls: Iterable[CallState] = (),
    ) -> None:
        """Write the message's last events; a cancel that came first makes it a cancelled end.

        `step` is the last finished one, where there is one: it and the end are one append, so
        that a later attempt finds both or neither. `unstepped` is what this attempt's other
        calls used, as far as its worker knows, and `late` what other workers told of theirs.
        `open_calls` are closed, each with a `tool_error`.

        Raises:
            LogRefused: the log takes no more of this attempt.
        """
        left = list(open_calls)
        bill: list[Entry] = [(usage or Usage(), usage_note(unstepped, late))]
        billed = bill if usage is not None else []
        cancelled = Done(FinishReason.CANCELLED, text_chars)
        await self.writer.finish(
            [*_last(left, step, end), *billed, (end, b"")],
            [*_last(left, step, cancelled), *bill, (cancelled, b"")],
        )


def _last(
    open_calls: Iterable[CallState], step: Finished | None, end: Done | Failed
) -> Iterator[Entry]:
    for event in close_calls(open_calls, end):
        yield event, b""
    if step is not None:
        yield step.event, step.note


async def begin(
    kit: Kit,
    message_id: str,
    stoppable: Stoppable,
    *,
    token: str,
    seen_attempt: int = 0,
    conversation_id: str = "",
    may_claim: Callable[[], Awaitable[None]] | None = None,
    held: Claim | None = None,
    model: str | None = None,
    reason: str | None = None,
    used: Usage | None = None,
    spent: Usage | None = None,
    anew: bool = False,
) -> Attempt:
    """Claim the message under `token`, read what is there, write the attempt's first events.

    `held` is the claim of a worker that begins again by itself; it is refused where another has
    claimed since. Without it, `conversation_id` is the message's, where the caller knows it, and
    `may_claim`, asked before every try, raises where the job is another's; it is asked too before
    the log is opened again, should Redis lose a part of it. `model` and `reason` are
    told by the `reset` (None: the one that goes on, and what the log says: `takeover`, `answered`
    or `rate_limited`); `used` is noted in it for later attempts: what the calls of the attempt
    before used that finished no step. `anew`: the present step begins anew, whatever is to be
    recovered.

    Raises:
        MessageMissing: there is no such message (any more).
        LogEnded: it has ended.
        NotItsTurn: another message of its conversation is first; the claim is given back.
        Fenced: `held` is no longer the message's claim, or `may_claim` says so.
        RequestUnreadable: nobody can answer it.
    """
    redis = kit.redis

    async def claim_and_load() -> tuple[Claim, Stored, str]:
        if may_claim is not None and held is None:
            await may_claim()
        return await claiming.claim_and_load(
            redis,
            message_id,
            held.conversation_id if held is not None else conversation_id,
            token=token,
            worker_id=kit.worker_id,
            life_seconds=kit.settings.open_ttl_seconds,
            seen_attempt=seen_attempt,
            held=held,
        )

    claim, found, first = await insist(message_id, claim_and_load)
    # One that lost its beginning is no more than an empty one.
    frames = found.frames if is_whole(found.frames) else []
    request, message = found.request, fold(frames)
    lost: Usage | None = _NOTHING  # its own worker knows: nothing was lost
    if held is None:
        used, lost = take_over(message, found.record, request)
    in_log = told_of(message, request)
    if held is not None:
        lacks = less(spent or _NOTHING, in_log)
        used = lacks if lacks.tokens > (used or _NOTHING).tokens else used
    to_end = claim.cancel_asked or claim.lost_runs >= kit.settings.max_attempts
    # An end may come out of turn.
    if not to_end and first != message_id:
        await insist(message_id, lambda: record.hand_over(redis, message_id, token))
        raise NotItsTurn(message_id)
    goes_on = not anew and stays(request, message, model)
    before = left_as_it_is(message) if to_end else takeover_of(message, goes_on=goes_on)
    before = replace(before, failures=failures_of(message))
    reason = reason or _reason_of(before)
    model = model or before.model
    story = told(frames, message, before.after)
    # What was handed over is in the log's fold already.
    broken = used if held is not None else None if used is not None else lost
    untold = less(total(in_log, broken or _NOTHING), told_of(fold(story), request))
    writer = Writer(
        kit.appender,
        message_id,
        claim,
        kit.settings.open_ttl_seconds,
        most_log_bytes=kit.settings.max_log_bytes,
        stop=stoppable.stop,
        story=Story(story),
        reopen=Reopening(
            kit, found.record, claim, model, reason, used, lost, untold, may_claim, len(story)
        ),
    )
    first_events = opening(
        found.record,
        claim.attempt,
        worker_id=kit.worker_id,
        newest=before.newest,
        after=before.after,
        reason=reason,
        model=model,
        used=used,
        lost=lost,
        ends=to_end,
    )
    writer.open(first_events, found.frames[-1].id if found.frames else None)
    so_far, earlier = spent_of(message, request), seen_of(message, request)
    unseen = [] if to_end else unseen_of(message)
    if not message.attempts and held is None and used is None:
        # Nothing was written, Redis was away, and the runs that were lost had called meanwhile.
        unseen = [Unseen(claim.attempt, found.record.model, None)] * claim.lost_runs
    return Attempt(found.record, request, writer, before, so_far, earlier, unseen, may_claim)


def _reason_of(before: Takeover) -> str:
    """Why another attempt begins, as the log says."""
    if before.failures is not None:
        return FailureCode.RATE_LIMITED.value
    return ANSWERED if before.answered else TAKEOVER
