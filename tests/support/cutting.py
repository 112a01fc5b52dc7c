"""An appender that stores event by event, and cuts a message off, or cancels it, after any."""

from collections import Counter
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.errors import LogRefused
from rejoin.worker.appender import Appender, Sender
from rejoin.worker.writer import Writer

Act = Callable[[str], Awaitable[object]]


class Cuts:
    """At which of its events each message is cut, from 1, and which of them were.

    `act` is done with a message's id right after that event is stored. With `freeze` nothing
    that its worker writes afterwards is stored, as if that had been killed then.
    """

    def __init__(self, act: Act | None = None, *, freeze: bool = False) -> None:
        self.at: dict[str, int] = {}
        self.names: dict[str, str] = {}  # the event at which it was cut, by message
        self.over: set[str] = set()  # those that ended before their cut
        self._act = act
        self._freeze = freeze
        self._stored: Counter[str] = Counter()

    def frozen(self, message_id: str) -> bool:
        """Whether nothing more of it is stored."""
        return self._freeze and message_id in self.names

    async def stored(self, message_id: str, frames: int, name: str) -> None:
        """Note that so many of its events were stored, the last of this name."""
        self._stored[message_id] += frames
        reached = message_id in self.at and self._stored[message_id] >= self.at[message_id]
        if name in ("done", "failed"):
            self.over.add(message_id)
        elif reached and message_id not in self.names:
            if self._act is not None:
                await self._act(message_id)
            self.names[message_id] = name

    def all_reached(self) -> bool:
        """Whether each message was cut, or has ended before it could be."""
        return self.at.keys() <= self.names.keys() | self.over

    def appender(self, redis: Redis) -> Appender:
        """An appender that cuts so."""
        return _Cutter(redis, self)


class _Cutter(Appender):
    def __init__(self, redis: Redis, cuts: Cuts) -> None:
        super().__init__(redis)
        self._cuts = cuts

    def add(self, writer: Sender) -> None:
        if not (isinstance(writer, Writer) and self._cuts.frozen(writer._message_id)):
            super().add(writer)

    async def _append(self, batches: list[log.Batch]) -> list[log.Appended | LogRefused]:
        return [await self._append_one(batch) for batch in batches]

    async def _append_one(self, batch: log.Batch) -> log.Appended | LogRefused:
        for part in _parts(batch):
            (outcome,) = await super()._append([part])
            if isinstance(outcome, LogRefused):
                return outcome
            await self._cuts.stored(batch.message_id, len(part.frames), part.frames[-1].name)
            if self._cuts.frozen(batch.message_id):
                break
        return outcome


def _parts(batch: log.Batch) -> list[log.Batch]:
    """Event by event, but for an end, which goes in one piece."""
    if batch.ending not in ("", "step"):
        return [batch]
    singles = [batch._replace(frames=[frame], ending="") for frame in batch.frames]
    singles[-1] = singles[-1]._replace(ending=batch.ending)
    # What the log's last event was is told with the first one alone.
    return [singles[0], *(single._replace(after="") for single in singles[1:])]
