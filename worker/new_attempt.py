"""Begins an attempt: claims the message, reads what is there, and writes the first events."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from rejoin.shared import claiming, record
from rejoin.shared.errors import NotItsTurn
from rejoin.shared.events import FailureCode, Usage
from rejoin.shared.fold import Message, fold
from rejoin.shared.opening import opening
from rejoin.shared.record import Claim
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
from rejoin.worker.attempt import Attempt
from rejoin.worker.continuing import stays
from rejoin.worker.kit import Kit, insist
from rejoin.worker.reopening import Reopening
from rejoin.worker.stopping import Stoppable
from rejoin.worker.story import Story, is_whole, told
from rejoin.worker.takeover import Takeover, failures_of, left_as_it_is, takeover_of
from rejoin.worker.writer import Writer

TAKEOVER: Final = "takeover"
ANSWERED: Final = "answered"

_NOTHING: Final = Usage()

MayClaim = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Again:
    """Why a worker begins again by itself, under the claim `held`, and what its calls used.

    `model` and `reason` are told by the `reset`. `used` is noted in it for later attempts: what the
    calls of the attempt before used that finished no step; `spent` is all that its calls used.
    `anew`: the present step begins anew, whatever is to be recovered.
    """

    held: Claim
    model: str
    reason: str
    used: Usage | None = None
    spent: Usage | None = None
    anew: bool = False


class _Use(NamedTuple):
    """What the calls of a broken attempt `used` that the log does not tell, and what was `lost`.

    None: nothing is known to be, or to be missing. `told` is what the log tells, and that besides.
    """

    used: Usage | None
    lost: Usage | None
    told: Usage


async def begin(
    kit: Kit,
    message_id: str,
    stoppable: Stoppable,
    *,
    token: str,
    seen_attempt: int = 0,
    conversation_id: str = "",
    may_claim: MayClaim | None = None,
    again: Again | None = None,
) -> Attempt:
    """Claim the message under `token`, read what is there, write the attempt's first events.

    A worker that begins `again` by itself is refused where another has claimed since. Else
    `conversation_id` is the message's, where the caller knows it, and `may_claim`, asked before
    every try, raises where the job is another's; it is asked too before the log is opened again,
    should Redis lose a part of it.

    Raises:
        MessageMissing: there is no such message (any more).
        LogEnded: it has ended.
        NotItsTurn: another message of its conversation is first; the claim is given back.
        Fenced: the claim held is no longer the message's, or `may_claim` says so.
        RequestUnreadable: nobody can answer it.
    """
    claim, found, first = await _claim(
        kit, message_id, token, seen_attempt, conversation_id, may_claim, again
    )
    # One that lost its beginning is no more than an empty one.
    frames = found.frames if is_whole(found.frames) else []
    request, message = found.request, fold(frames)
    to_end = claim.cancel_asked or claim.lost_runs >= kit.settings.max_attempts
    # An end may come out of turn.
    if not to_end and first != message_id:
        await insist(message_id, lambda: record.hand_over(kit.redis, message_id, token))
        raise NotItsTurn(message_id)
    use = _use_of(message, found, again)
    before = _before(message, request, again, to_end=to_end)
    reason = again.reason if again is not None else _reason_of(before)
    model = again.model if again is not None else before.model
    story = told(frames, message, before.after)
    untold = less(use.told, told_of(fold(story), request))
    reopening = Reopening(
        kit, found.record, claim, model, reason, use.used, use.lost, untold, may_claim, len(story)
    )
    writer = Writer(
        kit.appender,
        message_id,
        claim,
        kit.settings.open_ttl_seconds,
        most_log_bytes=kit.settings.max_log_bytes,
        stop=stoppable.stop,
        story=Story(story),
        reopen=reopening,
    )
    first_events = opening(
        found.record,
        claim.attempt,
        worker_id=kit.worker_id,
        newest=before.newest,
        after=before.after,
        reason=reason,
        model=model,
        used=use.used,
        lost=use.lost,
        ends=to_end,
    )
    writer.open(first_events, found.frames[-1].id if found.frames else None)
    so_far, earlier = spent_of(message, request), seen_of(message, request)
    unseen = [] if to_end else unseen_of(message)
    if not message.attempts and again is None and use.used is None:
        # Nothing was written, Redis was away, and the runs that were lost had called meanwhile.
        unseen = [Unseen(claim.attempt, found.record.model, None)] * claim.lost_runs
    return Attempt(found.record, request, writer, before, so_far, earlier, unseen, may_claim)


async def _claim(
    kit: Kit,
    message_id: str,
    token: str,
    seen_attempt: int,
    conversation_id: str,
    may_claim: MayClaim | None,
    again: Again | None,
) -> tuple[Claim, Stored, str]:
    """The claim, what is stored, and which message of the conversation is first."""
    held = again.held if again is not None else None

    async def claim_and_load() -> tuple[Claim, Stored, str]:
        if may_claim is not None and held is None:
            await may_claim()
        return await claiming.claim_and_load(
            kit.redis,
            message_id,
            held.conversation_id if held is not None else conversation_id,
            token=token,
            worker_id=kit.worker_id,
            life_seconds=kit.settings.open_ttl_seconds,
            seen_attempt=seen_attempt,
            held=held,
        )

    return await insist(message_id, claim_and_load)


def _before(
    message: Message, request: StoredRequest, again: Again | None, *, to_end: bool
) -> Takeover:
    """What the attempt goes on from."""
    if to_end:
        before = left_as_it_is(message)
    elif again is None:
        before = takeover_of(message, goes_on=stays(request, message, None))
    else:
        stands = not again.anew and stays(request, message, again.model)
        before = takeover_of(message, goes_on=stands)
    return replace(before, failures=failures_of(message))


def _use_of(message: Message, found: Stored, again: Again | None) -> _Use:
    if again is None:
        used, lost = take_over(message, found.record, found.request)
        broken = lost if used is None else None  # what was handed over is in the fold by now
        return _Use(used, lost, total(told_of(message, found.request), broken or _NOTHING))
    # Its own worker knows: nothing was lost.
    in_log = told_of(message, found.request)
    lacks = less(again.spent or _NOTHING, in_log)
    used = lacks if lacks.tokens > (again.used or _NOTHING).tokens else again.used
    return _Use(used, _NOTHING, total(in_log, used or _NOTHING))


def _reason_of(before: Takeover) -> str:
    """Why another attempt begins, as the log says."""
    if before.failures is not None:
        return FailureCode.RATE_LIMITED.value
    return ANSWERED if before.answered else TAKEOVER
