"""What a message's log should tell, held by its writer for the case that Redis loses a part of it.

Only what no `reset` took back, without `start` and `reset` themselves. The oldest events are
forgotten when they are many: Redis loses its newest ones, or a whole log.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from rejoin.shared.fold import Message
from rejoin.shared.frames import Frame, id_of, numbered
from rejoin.shared.ids import EventId

MOST_BYTES: Final = 2_097_152  # of one message: twice what may wait for an append

_OPENINGS: Final = (b"event: start\n", b"event: reset\n")
_STEP: Final = b"event: step\n"


class Story:
    """Events in their order, each at its place, from 0. They are held as bytes: many are held."""

    def __init__(self, frames: Iterable[Frame] = ()) -> None:
        self._frames: list[bytes] = []
        self._notes: dict[int, bytes] = {}  # for workers alone, by the event's place
        self._bytes = 0
        self._forgotten = 0
        self._last_forgotten = b""
        self._told_as: dict[bytes, int] = {}  # places, by the ids of events told again since
        for frame in frames:
            self.add(frame.data, frame.private)

    def __len__(self) -> int:
        return self._forgotten + len(self._frames)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is forgotten."""
        return not self._forgotten

    def add(self, data: bytes, note: bytes) -> None:
        """Take the next event, as it is sent."""
        if note:
            self._notes[len(self)] = note
        self._frames.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._forget()

    def cut(self, place: int) -> None:
        """Take back every event from `place` on."""
        if place < self._forgotten:
            self._forgotten, self._last_forgotten = place, b""
        del self._frames[place - self._forgotten :]
        self._bytes = sum(map(len, self._frames))
        self._notes = {at: note for at, note in self._notes.items() if at < place}
        self._told_as = {told: at for told, at in self._told_as.items() if at < place}

    def common_with(self, frames: Sequence[Frame]) -> int | None:
        """Return how many of its first events a log has that tells `frames`; None: unknown."""
        if self._forgotten:
            last = self._forgotten - 1
            if len(frames) <= last or frames[last].data != self._last_forgotten:
                return None
        at = self._forgotten
        for held, frame in zip(self._frames, frames[at:], strict=False):
            # Told twice, it may be lost the second time alone: the log goes back beyond that.
            if held != frame.data and self._told_as.get(bytes(frame.id)) != at:
                break
            at += 1
        return at

    def again(self, place: int, attempt: int, first: int) -> tuple[list[Frame], bool]:
        """Number the events from `place` on anew, and return them for another append.

        They are `attempt`'s, from the sequence `first` on. And whether a `step` is among them.
        """
        start = place - self._forgotten
        self._told_as |= {id_of(data): at for at, data in enumerate(self._frames[start:], place)}
        made = [
            numbered(data, EventId(attempt, sequence), self._notes.get(at, b""))
            for at, (sequence, data) in enumerate(enumerate(self._frames[start:], first), place)
        ]
        self._frames[start:] = [frame.data for frame in made]
        self._bytes = sum(map(len, self._frames))
        return made, any(frame.data.startswith(_STEP) for frame in made)

    def _forget(self) -> None:
        """Forget the older half, for once in many events."""
        count, left = 0, self._bytes
        while left > MOST_BYTES // 2:
            left -= len(self._frames[count])
            count += 1
        self._last_forgotten = self._frames[count - 1]
        del self._frames[:count]
        self._forgotten, self._bytes = self._forgotten + count, left
        self._notes = {at: note for at, note in self._notes.items() if at >= self._forgotten}
        self._told_as = {told: at for told, at in self._told_as.items() if at >= self._forgotten}


def is_whole(frames: Sequence[Frame]) -> bool:
    """Whether a log has its beginning: an empty one, and one that was trimmed, has none."""
    return bool(frames) and frames[0].data.startswith(_OPENINGS[0])


def told(frames: Sequence[Frame], message: Message, after: EventId | None) -> list[Frame]:
    """Return the events of a log, folded to `message`, that stay where all after `after` goes."""
    if after is None:
        return []
    kept = {event.id for event in message.kept}
    return [
        frame
        for frame in frames
        if frame.id in kept and frame.id <= after and not frame.data.startswith(_OPENINGS)
    ]
