"""One attempt at a message: its claim, its first events, its last ones."""

from dataclasses import dataclass

from rejoin.shared import record, stored
from rejoin.shared.errors import CancelAsked
from rejoin.shared.events import Done, Event, Failed, FinishReason, Usage
from rejoin.shared.fold import fold
from rejoin.shared.opening import opening
from rejoin.shared.record import Claim, Record
from rejoin.shared.request import StoredRequest
from rejoin.shared.spent import spent_of
from rejoin.worker.kit import Kit, insist
from rejoin.worker.stopping import Stoppable
from rejoin.worker.takeover import Takeover, left_as_it_is, takeover_of
from rejoin.worker.writer import Writer


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that is this worker's: its claim, and the way to its log.

    `before` is what earlier attempts left, and `spent` what they used (None: nothing).
    """

    record: Record
    request: StoredRequest
    claim: Claim
    writer: Writer
    before: Takeover
    spent: Usage | None

    async def end(
        self,
        usage: Usage | None,
        end: Done | Failed,
        *,
        text_chars: int,
        step: tuple[Event, bytes] | None = None,
    ) -> None:
        """Write the message's last events; a cancel that came first makes it a cancelled end.

        `step` is the last finished step's event, where there is one: it and the end are one
        append, so that a later attempt finds both or neither.

        Raises:
            LogRefused: the log takes no more of this attempt.
        """
        entries: list[tuple[Event, bytes]] = [] if step is None else [step]
        if usage is not None:
            entries.append((usage, b""))
        try:
            await self.writer.finish(*entries, (end, b""))
        except CancelAsked:
            cancelled = Done(FinishReason.CANCELLED, text_chars)
            await self.writer.finish((usage or Usage(), b""), (cancelled, b""))


async def begin(
    kit: Kit,
    message_id: str,
    stoppable: Stoppable,
    *,
    token: str,
    seen_attempt: int = 0,
    held: Claim | None = None,
    model: str | None = None,
    reason: str = "takeover",
) -> Attempt:
    """Claim the message under `token`, read what is there, write the attempt's first events.

    `held` is the claim of a worker that begins again by itself; it is refused where another has
    claimed since. `model` and `reason` are told by the `reset`.

    Raises:
        MessageMissing: there is no such message (any more).
        LogEnded: it has ended.
        Fenced: `held` is no longer the message's claim.
        RequestUnreadable: nobody can answer it.
    """
    redis = kit.redis
    claim = await insist(
        message_id,
        lambda: record.claim(
            redis,
            message_id,
            token=token,
            worker_id=kit.worker_id,
            life_seconds=kit.settings.open_ttl_seconds,
            seen_attempt=seen_attempt,
            held=held,
        ),
    )
    found = await insist(message_id, lambda: stored.load(redis, message_id))
    request, message = found.request, fold(found.frames)
    if claim.cancel_asked or claim.lost_runs >= kit.settings.max_attempts:
        before = left_as_it_is(message)
    else:
        before = takeover_of(message)
    writer = Writer(
        kit.appender,
        message_id,
        claim,
        kit.lives,
        most_log_bytes=kit.settings.max_log_bytes,
        stop=stoppable.stop,
    )
    for event, private in opening(
        found.record,
        claim.attempt,
        worker_id=kit.worker_id,
        newest=before.newest,
        after=before.after,
        reason=reason,
        model=model,
    ):
        writer.put(event, private)
    return Attempt(found.record, request, claim, writer, before, spent_of(message, request))
