"""A tail's client gets the log's bytes later than its position, each once: whatever happens."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from rejoin.api import batches, tail
from rejoin.api.tail import Tail
from rejoin.shared.frames import Frame
from tests.support.tails import MemoryHub, Socket, done, joined, memory_hub, opened, text, turns


@st.composite
def logs(draw: st.DrawFn) -> list[Frame]:
    """A log to its end: attempts that grow, not always by one, each without holes."""
    frames: list[Frame] = []
    attempt = 0
    for length in draw(st.lists(st.integers(1, 16), min_size=1, max_size=4)):
        attempt += draw(st.integers(1, 3))
        frames += [text(attempt, n, draw(st.integers(1, 120))) for n in range(length)]
    attempt, sequence = frames.pop().id
    return [*frames, done(attempt, sequence)]


class Story:
    """What happens to a tail while a writer goes on through `frames`.

    Where it is not `lossy` a publish is lost only with its connection, and nothing but the news of
    the reconnect tells of it: no check looks for more.
    """

    def __init__(
        self, hub: MemoryHub, socket: Socket, frames: Sequence[Frame], *, lossy: bool
    ) -> None:
        self._hub = hub
        self._socket = socket
        self._left = list(frames)
        self._held: list[Sequence[Frame]] = []
        self._lossy = lossy

    def _append(self, count: int) -> Sequence[Frame]:
        # One append is of one attempt.
        batch = [frame for frame in self._left[:count] if frame.id[0] == self._left[0].id[0]]
        del self._left[: len(batch)]
        self._hub.append(*batch)
        return batch

    async def write(self, count: int) -> None:
        """An append as it should be."""
        if batch := self._append(count):
            self._hub.publish(*batch)

    async def lose(self, count: int) -> None:
        """An append whose publish never comes."""
        if not self._lossy:
            await self.write(count)
        else:
            self._append(count)

    async def double(self, count: int) -> None:
        """An append that is published twice."""
        if batch := self._append(count):
            self._hub.publish(*batch)
            self._hub.publish(*batch)

    async def hold_back(self, count: int) -> None:
        """An append that is published later than its followers."""
        if not self._lossy:
            await self.write(count)
        elif batch := self._append(count):
            self._held.append(batch)

    async def release(self, _: int) -> None:
        """What was held back comes, the last first."""
        while self._held:
            self._hub.publish(*self._held.pop())

    async def gather(self, on: int) -> None:
        """Publishes come one by one, or lie in the socket."""
        self._hub.gather(bool(on))

    async def block(self, on: int) -> None:
        """The client reads, or does not."""
        if on:
            self._socket.block()
        else:
            self._socket.unblock()

    async def cut(self, on: int) -> None:
        """The subscription is lost, or back."""
        restored = self._hub.deaf and not on
        self._hub.deaf = bool(on)
        if restored:
            self._hub.lose_connection()

    async def away(self, on: int) -> None:
        """Redis answers, or does not."""
        self._hub.away = bool(on)

    async def slow(self, turns_a_look: int) -> None:
        """A look takes some time before and after it reads."""
        self._hub.before, self._hub.after = turns_a_look, 4 - turns_a_look

    async def check(self, _: int) -> None:
        """The tails are compared with the log."""
        if self._lossy:
            await self._hub.check_unless_away()

    async def comment(self, _: int) -> None:
        """A comment is due."""
        for one in tuple(self._hub.beats.tails):
            one.comment()

    async def to_the_end(self) -> None:
        """All is well again: the rest is written, and a check finds what was lost."""
        await self.block(on=0)
        await self.away(on=0)
        await self.gather(on=0)
        await self.cut(on=0)
        while self._left:
            await self.write(3)
        for _ in range(20):
            await turns(50)
            await self.check(0)


def deeds(*names: str, least: int, most: int) -> st.SearchStrategy[tuple[str, int]]:
    """One of the story's methods, and its number."""
    return st.tuples(st.sampled_from(names), st.integers(least, most))


ACTIONS = st.one_of(
    deeds("write", "write", "lose", "double", "hold_back", least=1, most=4),
    deeds("gather", "block", "cut", "away", least=0, most=1),
    deeds("release", "slow", "check", "comment", least=0, most=4),
    deeds("turn", least=1, most=12),
)


async def act(story: Story, what: str, value: int) -> None:
    """Do one deed, or nothing for a while."""
    if what == "turn":
        await turns(value)
    else:
        deed: Callable[[int], Awaitable[None]] = getattr(story, what)
        await deed(value)


def assert_bounded(one: Tail) -> None:
    """No more than the bound waits for a client."""
    assert sum(len(batch.frames) for batch in one._queue) <= tail.BOUND_BYTES


@settings(max_examples=300)
@given(
    frames=logs(),
    begun=st.integers(0, 8),
    start=st.integers(0, 8),
    needs_task=st.booleans(),
    small=st.booleans(),
    lossy=st.booleans(),
    actions=st.lists(ACTIONS, min_size=15, max_size=60),
)
async def test_the_client_gets_exactly_what_the_log_holds_after_its_position(
    frames: list[Frame],
    begun: int,
    start: int,
    needs_task: bool,
    small: bool,
    lossy: bool,
    actions: list[tuple[str, int]],
) -> None:
    begun %= len(frames)  # events that the log has when the tail is opened
    start %= begun + 1  # events that the client has already
    position = frames[start - 1].id if start else None
    few = {"PAGE": 3, "_FIRST_EVENTS": 2, "BOUND_BYTES": 400, "_PIECE_BYTES": 150}
    bounds: dict[str, Any] = few if small else {"PAGE": 500}
    with patch.multiple(tail, **bounds), patch.object(batches, "JOINED_BYTES", 300):
        async with memory_hub() as hub:
            socket = Socket(needs_task=needs_task)
            hub.append(*frames[:begun])
            story = Story(hub, socket, frames[begun:], lossy=lossy)
            with opened(hub, socket, position) as one:
                for what, value in actions:
                    await act(story, what, value)
                    assert_bounded(one)
                await story.to_the_end()
                assert socket.events == joined(frames[start:])
                assert socket.ended
