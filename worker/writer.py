"""One attempt's way to its log: gathers what comes while an append is in flight, without a timer.

A log that lost events is opened again, and told again what it lost, while its provider's stream is
read on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from rejoin.shared import log
from rejoin.shared.call_notes import CallNote
from rejoin.shared.ending import ending_of
from rejoin.shared.errors import CancelAsked, LogRefused, LogWentBack
from rejoin.shared.events import Event
from rejoin.shared.frames import Frame, encode
from rejoin.shared.ids import EventId
from rejoin.shared.record import Claim
from rejoin.worker.appender import Appender
from rejoin.worker.stopping import Stop
from rejoin.worker.story import Story

MOST_WAITING_BYTES: Final = 1_048_576  # of one attempt; beyond it the provider is not read on

_log = logging.getLogger(__name__)

Entry = tuple[Event, bytes]  # an event, and JSON for workers alone (or b"")


class Reopened(NamedTuple):
    """Where a log stands that was opened again.

    What opens it, behind its `newest` event, and how much of the story it tells.
    """

    opening: Sequence[Entry]
    newest: EventId | None
    told: int


class Writer:
    """One attempt's way to its log: numbers and encodes events, and hears what the log says.

    `stop` is told when a cancel was asked for, when the log is full, or when it refuses.
    `after_step`: a cancel was asked for that lets the present step end. `story` is what the log
    tells already. `reopen` claims a log that lost events and finds out which; without it, or where
    it cannot, such a log refuses like any other. `claim` is another one from then on.
    """

    def __init__(
        self,
        appender: Appender,
        message_id: str,
        claim: Claim,
        life_seconds: int,
        *,
        most_log_bytes: int,
        stop: Callable[[Stop], None],
        story: Story | None = None,
        reopen: "Callable[[Writer], Awaitable[Reopened]] | None" = None,
    ) -> None:
        self.refused: LogRefused | None = None
        self.claim = claim
        self.after_step = claim.cancel_after_step
        self.last: log.Batch | None = None  # the one that ends the log
        self.story = Story() if story is None else story
        self._appender = appender
        self._message_id = message_id
        self._life_seconds = life_seconds
        self._most_log_bytes = most_log_bytes
        self._stop = stop
        self._reopen = reopen
        self._next = 0
        self._after = ""
        self._pending: list[Frame] = []
        self._pending_bytes = 0
        self._in_flight_bytes = 0
        self._log_bytes = 0  # as the last append told
        self._ending = ""
        self._end: tuple[Sequence[Entry], Sequence[Entry]] = ((), ())
        self._end_place = 0  # in the story
        self._stepped = False
        self._called_step = 0  # whose model call was made last
        self._put = 0  # how many events were put, sent, and stored
        self._taken = 0
        self._stored = 0
        self._in_flight = False
        self._settled: asyncio.Future[None] | None = None

    @property
    def behind(self) -> bool:
        """Whether so much waits that the provider must not be read on."""
        return self._pending_bytes > MOST_WAITING_BYTES

    @property
    def full(self) -> bool:
        """Whether the log reaches its bound with what was put, sent or not."""
        written = self._log_bytes + self._in_flight_bytes
        return written + self._pending_bytes >= self._most_log_bytes

    def open(self, opening: Sequence[Entry], newest: EventId | None) -> None:
        """Put the attempt's first events; `newest` was the log's last one."""
        self._after = log.found_last(newest)
        for event, private in opening:
            event_id = EventId(self.claim.attempt, self._next)
            self._next += 1
            self._send(Frame(event_id, encode(event_id, event), private))

    def put(self, event: Event, private: bytes = b"") -> None:
        """Give the next event its id and send it, with what else waits."""
        if self.refused is not None:
            return
        event_id = EventId(self.claim.attempt, self._next)
        data = encode(event_id, event)
        self._next += 1
        self.story.add(data, private)
        self._send(Frame(event_id, data, private))

    def put_step(self, step: Event, private: bytes = b"") -> None:
        """Put a `step` that is not the last one: what was lost before it is forgotten."""
        self._stepped = True
        self.put(step, private)

    def note_call(self, step: int) -> None:
        """Note that the model call of a step is made now, should its worker be lost with it."""
        self._called_step = step
        attempt, token = self.claim[:2]
        self._appender.note_call(CallNote(self._message_id, token, attempt, step))

    def _send(self, frame: Frame) -> None:
        self._put += 1
        self._pending_bytes += len(frame.data)
        self._pending.append(frame)
        if not self._in_flight:
            self._in_flight = True
            self._appender.add(self)

    async def stored(self) -> None:
        """Wait until all that was put before is in the log, whatever is put meanwhile.

        Raises:
            LogRefused: it never will be.
        """
        until = self._put
        while self._in_flight and self._stored < until:
            await self._settling()
        if self.refused is not None:
            raise self.refused

    async def flush(self) -> None:
        """Wait until all that was put is in the log.

        Raises:
            LogRefused: it never will be.
        """
        while self._in_flight:
            await self._settling()
        if self.refused is not None:
            raise self.refused

    async def _settling(self) -> None:
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._settled)

    async def finish(self, end: Sequence[Entry], cancelled: Sequence[Entry]) -> None:
        """Append the message's last events, in one piece and alone: all of them or none.

        `cancelled` are those of a message for which a cancel came before them.

        Raises:
            LogRefused: the log takes no more of this attempt.
        """
        self._end = (end, cancelled)
        await self.flush()
        self._end_place = len(self.story)
        try:
            await self._finish(end)
        except CancelAsked:
            await self._finish(cancelled)

    async def finish_again(self) -> None:
        """Append an end again that the log took, and lost.

        Raises:
            LogRefused: it takes no more of this attempt.
        """
        self._in_flight = True
        await self.reopen()
        await self.finish(*self._end)

    async def _finish(self, entries: Sequence[Entry]) -> None:
        under: Claim | None = None
        while under is not self.claim:  # else it was opened again, without the end
            await self.flush()
            under, first = self.claim, self._next
            self._ending = ending_of(entries[-1][0])
            for event, private in entries:
                self.put(event, private)
            try:
                await self.flush()
            except CancelAsked:
                self.refused, self._next, self._ending = None, first, ""
                self.story.cut(self._end_place)
                raise

    def take(self) -> log.Batch:
        """Hand over what waits (the appender calls it)."""
        frames, self._pending = self._pending, []
        self._in_flight_bytes, self._pending_bytes = self._pending_bytes, 0
        self._taken = self._put
        ending = self._ending or ("step" if self._stepped else "")
        after, self._after, self._stepped = self._after, "", False
        token, life_seconds = self.claim.token, self._life_seconds
        # Also with the end: what a log lives after it begins when it is saved.
        sent = log.Batch(self._message_id, token, frames, life_seconds, ending, after)
        if self._ending:
            self.last = sent
        return sent

    def settle(self, outcome: log.Appended | LogRefused) -> None:
        """Hear what became of it (the appender calls it)."""
        if isinstance(outcome, LogWentBack) and self._reopen is not None:
            self._appender.reopen(self)
            return  # what is put meanwhile waits as it does behind an append
        if isinstance(outcome, LogRefused):
            self._refuse(outcome)
            return
        self._in_flight = False
        self._stored = self._taken
        self.after_step = self.after_step or outcome.cancel_after_step
        if outcome.cancel_asked:
            self._stop(Stop.CANCELLED)
        self._log_bytes, self._in_flight_bytes = outcome.log_bytes, 0
        if outcome.log_bytes >= self._most_log_bytes:
            self._stop(Stop.LOG_FULL)
        if self._pending:
            self._in_flight = True
            self._appender.add(self)
        self._tell()

    def claimed(self, claim: Claim) -> None:
        """Go on under another claim of the message."""
        self.claim, self._next = claim, 0
        self.after_step = self.after_step or claim.cancel_after_step
        if claim.cancel_asked:
            self._stop(Stop.CANCELLED)

    async def reopen(self) -> None:
        """Open the log again, and send again what it lost (the appender calls it)."""
        try:
            if self._reopen is None:
                raise LogWentBack(self._message_id)  # noqa: TRY301  as where it cannot
            if self._ending:  # it goes alone, after what the log lost
                self._ending = ""
                self.story.cut(self._end_place)
            stand = await self._reopen(self)
        except LogRefused as refusal:
            self._refuse(refusal)
        except Exception:  # noqa: BLE001  a defect must stop this run, not wait for ever
            _log.exception("the log of %s could not be opened again", self._message_id)
            self._refuse(LogRefused(self._message_id))
        else:
            self._send_again(stand)

    def _send_again(self, stand: Reopened) -> None:
        self._pending, self._pending_bytes, self._in_flight_bytes = [], 0, 0
        self.open(stand.opening, stand.newest)
        lost, self._stepped = self.story.again(stand.told, self.claim.attempt, self._next)
        for frame in lost:
            self._send(frame)
        self._next += len(lost)
        self._appender.add(self)
        if self._called_step:
            self.note_call(self._called_step)

    def _refuse(self, refusal: LogRefused) -> None:
        self._in_flight, self.refused = False, refusal
        self._pending, self._pending_bytes = [], 0
        if not isinstance(refusal, CancelAsked):
            self._stop(Stop.LOG_REFUSED)
        self._tell()

    def _tell(self) -> None:
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None
