"""Ends a message that no worker runs, and sees to what follows: the next one's turn, the job."""

import contextlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from redis.asyncio import Redis

from rejoin.shared import log, prices, queue, quota, record, stored, turns
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import (
    CancelAsked,
    Fenced,
    LogEnded,
    LogWentBack,
    MessageMissing,
)
from rejoin.shared.events import Done, Event, Failed, FinishReason, Usage
from rejoin.shared.fold import Message, fold
from rejoin.shared.opening import frames, opening
from rejoin.shared.spent import guessed, spent_of, take_over
from rejoin.shared.tool_calls import UNKNOWN_OUTCOME, CallState, open_calls
from rejoin.shared.tool_events import ToolError

_TRIES: Final = 3  # a cancel or a claim that came in between; neither comes a third time


class Ender(NamedTuple):
    """Who ends messages, by its name in the record; the keys live so long, until it is saved."""

    redis: Redis
    name: str
    life_seconds: int


async def end_message(
    ender: Ender, message_id: str, failure: Failed | None = None, *, job_token: str = ""
) -> None:
    """End the log with `failure` (None: as cancelled), then do what follows an end.

    A cancel that is set wins over the failure. Where a worker took the message meanwhile it is
    left alone. `job_token` is that of the caller's lease on the job, if it has one. May be
    repeated.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    seen_attempt = 0
    for _ in range(_TRIES):
        try:
            await _claim_and_end(ender, message_id, failure, seen_attempt)
        except CancelAsked:
            continue
        except LogWentBack:
            # The record may be attempts behind its log: claim beyond what the log has.
            ((_, newest),) = await log.newest_of(ender.redis, [message_id])
            seen_attempt = newest.attempt if newest else 0
            continue
        except Fenced:
            return
        except (LogEnded, MessageMissing):
            break
        break
    else:
        return  # not ended: its job must stay, for whoever takes it next
    with contextlib.suppress(LogWentBack):  # Redis lost the end: whoever takes the job ends it
        await aftermath(
            ender.redis, message_id, job_token=job_token, life_seconds=ender.life_seconds
        )


async def aftermath(redis: Redis, message_id: str, *, job_token: str, life_seconds: int) -> bool:
    """What follows a message's end: it passes its turn, the next one of its conversation is queued.

    Then its place in a provider's line goes, where it had one, and its own job; it is to be saved,
    and its index entry goes last. Each step may be repeated. `life_seconds` is how long the next
    one's job and the conversation live. Returns whether the index entry went: not where the job is
    another's.

    Raises:
        LogWentBack: the message has not ended (any more); nothing is done.
        LogUnavailable: Redis is away; a repeat is safe, once the end is known to be written still.
    """
    found = await record.load(redis, message_id)
    if found is not None:
        if not found.ended:
            raise LogWentBack(message_id)
        following = await turns.pass_on(
            redis, found.conversation_id, message_id, life_seconds=life_seconds
        )
        if following:
            await queue.enqueue(
                redis,
                following,
                life_seconds=life_seconds,
                now_ms=now_ms(),
                conversation_id=found.conversation_id,
            )
        if found.line:
            await quota.leave(redis, found.line, message_id)
    if await queue.complete(redis, message_id, job_token):
        found = await record.load(redis, message_id)
        if found is None or found.ended:
            await queue.drop_index(redis, message_id)
            return True
    return False


async def _claim_and_end(
    ender: Ender, message_id: str, failure: Failed | None, seen_attempt: int
) -> None:
    claim = await record.claim(
        ender.redis,
        message_id,
        # One token for all who end it under this name: cancels at once share a claim and a batch.
        token=f"end {ender.name} {seen_attempt}",
        worker_id=ender.name,
        life_seconds=ender.life_seconds,
        seen_attempt=seen_attempt,
    )
    found = await stored.load(ender.redis, message_id)
    message = fold(found.frames)
    end: Done | Failed
    if failure is None or claim.cancel_asked or claim.cancel_after_step:
        end, reason = Done(FinishReason.CANCELLED, len(message.text)), "cancelled"
    else:
        end, reason = failure, failure.code.value
    await prices.load_for(guessed(message, message.spending.all_calls))
    used, lost = take_over(message, found.record, found.readable_request)
    usage = spent_of(message, found.readable_request)
    entries = opening(
        found.record,
        claim.attempt,
        worker_id=ender.name,
        newest=message.last_event_id,
        after=message.last_event_id,
        reason=reason,
        used=used,
        lost=lost,
    )
    entries += [(event, b"") for event in _last_events(message, usage, end)]
    await log.append(
        ender.redis,
        log.Batch(
            message_id,
            claim.token,
            frames(claim.attempt, 0, entries),
            ender.life_seconds,
            ending_of(end),
            log.found_last(message.last_event_id),
        ),
    )


def _last_events(message: Message, usage: Usage | None, end: Done | Failed) -> list[Event]:
    events = list[Event](close_calls(open_calls(message), end))
    if isinstance(end, Done) or message.last_event_id is not None:
        events.append(usage or Usage())
    return [*events, end]


def close_calls(calls: Iterable[CallState], end: Done | Failed) -> list[ToolError]:
    """Return what closes the open calls of a message that ends so, before its `usage`.

    Of one whose tool was running nobody knows what it did.
    """
    if isinstance(end, Failed):
        why = f"the message failed: {end.message}"
    elif end.finish_reason is FinishReason.CANCELLED:
        why = "the message was cancelled"
    else:
        why = f"the message ended: {end.finish_reason.value}"
    return [
        ToolError(
            call.tool_call_id, call.name, f"{UNKNOWN_OUTCOME}: {why}" if call.started else why
        )
        for call in calls
    ]


def ending_of(event: Event) -> str:
    """How the message stands after `event`: done, failed or cancelled; empty: it goes on."""
    if isinstance(event, Failed):
        return record.Status.FAILED.value
    if isinstance(event, Done):
        cancelled = event.finish_reason is FinishReason.CANCELLED
        return (record.Status.CANCELLED if cancelled else record.Status.DONE).value
    return ""
