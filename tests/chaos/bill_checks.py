"""The bills of a run's messages against the provider's own ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from tests.chaos.ledger import Entry
from tests.chaos.senders import Message
from tests.support.sse_reader import SseFrame

MOST_APART: Final = 0.02  # where something had to be guessed, in the sum over all of a run
_BILLED: Final = "openai/"
_NAMES: Final = ("input_tokens", "output_tokens")


@dataclass(slots=True)
class Bills:
    """What was compared: messages, and the tokens of those where something was guessed."""

    exact: int = 0
    guessed: int = 0
    cut: int = 0  # amid a burst
    stalled: int = 0  # with a worker that stood still
    rows: list[str] = field(default_factory=list)  # of what was guessed, for a close look
    ours: Counter[str] = field(default_factory=Counter)
    theirs: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        sums = "; ".join(
            f"{name} {self.ours[name]:,} billed, {self.theirs[name]:,} in the ledger"
            for name in _NAMES
        )
        return (
            f"{self.exact} exact, {self.guessed} guessed ({sums}), {self.cut} cut amid a burst,"
            f" {self.stalled} with a worker that stood still"
        )


def wrong_bills(
    messages: Sequence[Message],
    logs: Mapping[str, Sequence[SseFrame]],
    entries: Iterable[Entry],
    bills: Bills,
) -> Iterator[str]:
    """Say which bills are not what the provider's ledger has; `bills` counts them.

    A bill that says it is exact must be so, and so must that of a message whose every answer was
    sent with its usage to one worker. All others agree in sum.
    """
    by_message = defaultdict[int, list[Entry]](list)
    for entry in entries:
        by_message[entry.number].append(entry)
    for message in messages:
        own, frames = by_message.pop(message.plan.number, []), logs.get(message.id, ())
        usage = next((frame.data for frame in frames if frame.event == "usage"), None)
        if usage is not None and message.plan.model.startswith(_BILLED):
            sent = _undisturbed(own, frames)
            yield from _wrong_bill(message, usage, own, bills, exact=sent or not usage["estimated"])
    for number, strange in by_message.items():
        yield f"the ledger has answers for message {number}, which there is not: {strange}"
    for name, sent_tokens in bills.theirs.items():
        if abs(bills.ours[name] - sent_tokens) > MOST_APART * sent_tokens:
            yield f"the guessed bills' {name} are {bills.ours[name]}, the ledger's {sent_tokens}"


def _wrong_bill(
    message: Message, usage: Mapping[str, object], own: Sequence[Entry], bills: Bills, exact: bool
) -> Iterator[str]:
    ours = {name: int(str(usage[name])) for name in _NAMES}
    sums = (sum(entry.input for entry in own), sum(entry.output for entry in own))
    theirs = dict(zip(_NAMES, sums, strict=True))
    if exact:
        bills.exact += 1
        if usage["estimated"] or ours != theirs:
            yield f"{message}: billed {usage}, the ledger has {theirs} of {own}"
        return
    # What was on its way when a burst was cut, a thousand tokens and more, nobody can know; nor
    # what is sent to a worker that stands still while another one has its message.
    cut = any(entry.at_once and entry.left for entry in own)
    if cut or _overlap(own):
        bills.cut, bills.stalled = bills.cut + cut, bills.stalled + (not cut)
        if ours["output_tokens"] > theirs["output_tokens"] * (1 + MOST_APART) + len(own):
            yield f"{message}: billed {usage}, the ledger has only {theirs} of {own}"
    else:
        bills.guessed += 1
        bills.rows.append(f"{ours} {theirs} {message} {own}")
        bills.ours.update(ours)
        bills.theirs.update(theirs)


def _overlap(own: Sequence[Entry]) -> bool:
    """Whether an answer was still sent when the next one was asked for."""
    by_time = sorted(own, key=lambda entry: entry.began)
    return any(one.sent > other.began for one, other in pairwise(by_time))


def _undisturbed(own: Sequence[Entry], frames: Sequence[SseFrame]) -> bool:
    """Whether each answer came whole to one worker, which stayed to the end."""
    stayed = all(frame.event != "reset" for frame in frames)
    ended = frames[-1].data.get("finish_reason") == "stop"
    return stayed and ended and all(entry.reported or not entry.input for entry in own)
