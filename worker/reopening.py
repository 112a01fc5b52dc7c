"""Opens a log again of which Redis lost a part: claims it, and finds out what is to be told again.

The run goes on meanwhile: its provider's stream is read on, its tools are not stopped.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from rejoin.shared import claiming, record
from rejoin.shared.errors import LogWentBack
from rejoin.shared.events import Usage
from rejoin.shared.fold import fold
from rejoin.shared.ids import EventId
from rejoin.shared.opening import opening
from rejoin.shared.record import Claim, Record
from rejoin.shared.spent import less, told_of
from rejoin.shared.stored import Stored, fold_beside
from rejoin.worker.kit import Kit, insist
from rejoin.worker.story import Story, is_whole, told
from rejoin.worker.writer import Reopened, Writer

LOG_LOST: Final = "log_lost"

_PAUSE_SECONDS: Final = 0.2  # a log that goes back again and again must not spin
_TRIES: Final = 3  # a claim that is behind its log; it is beyond it the second time

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reopening:
    """Opens one attempt's log again, as often as Redis loses a part of it.

    `may_claim` raises where the job is another's. `claim` is the attempt's, and `model`, `reason`,
    `used` and `lost` are what its first event tells; `begun_at` is how long its story was by then.
    `untold` is what the calls before it used of which no event of the story tells, but this one
    and those of earlier attempts, lost maybe too.
    """

    kit: Kit
    record: Record
    claim: Claim
    model: str | None
    reason: str
    used: Usage | None
    lost: Usage | None
    untold: Usage
    may_claim: Callable[[], Awaitable[None]] | None
    begun_at: int
    _last: float = float("-inf")
    _openings: set[EventId] = field(default_factory=set)  # wherever its first event may stand

    async def __call__(self, writer: Writer) -> Reopened:
        """Claim the message for the writer, and return how its log is to go on.

        Raises:
            LogWentBack: more is lost than the writer holds: a new run has to look.
            Fenced, LogEnded, MessageMissing: as at a claim.
        """
        message_id = self.record.message_id
        if time.monotonic() - self._last < 1:
            await asyncio.sleep(_PAUSE_SECONDS)
        self._last = time.monotonic()
        found, is_first = await self._claim(writer)
        if not is_first and not writer.claim.cancel_asked:
            raise LogWentBack(message_id)  # its turn went back too
        stand = await self._stand(writer.claim, found, writer.story)
        _log.warning("Redis lost events of %s; they are written again", message_id)
        return stand

    async def _claim(self, writer: Writer) -> tuple[Stored, bool]:
        """Claim beyond what the record and the log have; and whether it is the message's turn."""
        message_id, redis, seen = self.record.message_id, self.kit.redis, writer.claim.attempt
        for _ in range(_TRIES):
            before, token = writer.claim.token, secrets.token_hex(8)
            # This run was not lost with its worker, and is not to be counted so.
            await insist(message_id, lambda: record.hand_over(redis, message_id, before))  # noqa: B023
            claim, found, first = await insist(message_id, lambda: self._load(token, seen))  # noqa: B023
            writer.claimed(claim)
            newest = found.frames[-1].id.attempt if found.frames else 0
            if newest < claim.attempt:
                return found, first == message_id
            seen = newest
        raise LogWentBack(message_id)

    async def _load(self, token: str, seen_attempt: int) -> tuple[Claim, Stored, str]:
        # Redis may have lost the claim that the writer had: its lease is what it goes by.
        if self.may_claim is not None:
            await self.may_claim()
        return await claiming.claim_and_load(
            self.kit.redis,
            self.record.message_id,
            self.record.conversation_id,
            token=token,
            worker_id=self.kit.worker_id,
            life_seconds=self.kit.settings.open_ttl_seconds,
            seen_attempt=seen_attempt,
            held=None,
        )

    async def _stand(self, claim: Claim, found: Stored, story: Story) -> Reopened:
        frames = found.frames
        newest = after = None
        kept, opened, untold = 0, False, self.untold
        last = frames[-1].id if frames else None
        if is_whole(frames):
            newest = last
            message = await fold_beside(frames)
            left = told(frames, message, newest)
            common = story.common_with(left)
            if common is None:
                raise LogWentBack(self.record.message_id)
            kept = common
            after = newest if kept == len(left) else (left[kept - 1].id if kept else None)
            self._openings.add(EventId(self.claim.attempt, 0))
            opened = after == newest and any(frame.id in self._openings for frame in frames)
            of_story = told_of(fold(left[:kept]), found.request)
            untold = less(untold, less(told_of(message, found.request), of_story))
        elif not story.is_whole:
            raise LogWentBack(self.record.message_id)
        self._openings.add(EventId(claim.attempt, 0))
        # Nothing was left as it began: a call that the log has in part now is told to its end.
        nothing = self.used is None and self.lost in (None, Usage()) and untold == Usage()
        goes_on = opened or (kept < self.begun_at and nothing)
        entries = opening(
            self.record,
            claim.attempt,
            worker_id=self.kit.worker_id,
            newest=newest,
            after=after,
            reason=LOG_LOST if opened else self.reason,
            model=self.model,
            used=None if opened or self.used is None else untold,
            lost=None if opened or self.used is not None else untold,
            goes_on=goes_on,
        )
        return Reopened(entries, last, kept)
