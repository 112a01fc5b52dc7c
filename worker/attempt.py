"""One attempt at a message: its claim, its log, its last events."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rejoin.shared.ending import close_calls
from rejoin.shared.events import Done, Failed, FinishReason, Step, Usage
from rejoin.shared.record import Claim, Record
from rejoin.shared.request import StoredRequest
from rejoin.shared.spent import (
    Unseen,
)
from rejoin.shared.tool_calls import CallState
from rejoin.worker.takeover import (
    Takeover,
    usage_note,
)
from rejoin.worker.writer import Entry, Writer


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
