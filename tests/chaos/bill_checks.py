"""The bills of a run's messages against the provider's own ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from tests.chaos.ledger import Entry
from tests.chaos.senders import Message
from tests.chaos.tally import Tally
from tests.support.sse_reader import SseFrame

MOST_APART: Final = 0.02  # where something had to be guessed, in the sum over all of a run
ENOUGH: Final = 50  # messages, for a sum that no single one of them decides
RECONNECT_SECONDS: Final = 2.0  # until a worker has written what waited for Redis
_BILLED: Final = "openai/"
_NAMES: Final = ("input_tokens", "output_tokens")
_TIMEOUT: Final = "provider_timeout"
_CODES: Final = frozenset({"takeover", "answered", "cancelled", "log_lost"})


class Kind(StrEnum):
    """How well a bill can be known."""

    EXACT = "exact"  # every answer's usage was sent, to a worker that lived
    GUESSED = "guessed"
    # What nobody alive has ever seen:
    BURST = "lost amid a burst"  # a thousand tokens and more that were on their way
    AWAY = "lost while Redis was away"  # what a worker could not write, and took along
    STILL = "lost while standing still"  # what was sent to a stopped worker
    UNHEARD = "cancelled as it was called"  # whether the provider read the call it never answered


@dataclass(slots=True)
class Bills:
    """What was compared: messages, and the tokens of those where something was guessed."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)
    theirs: Counter[str] = field(default_factory=Counter)
    rows: list[str] = field(default_factory=list)  # for a close look

    def __str__(self) -> str:
        sums = "; ".join(
            f"{name} {self.ours[name]:,} billed, {self.theirs[name]:,} in the ledger"
            for name in _NAMES
        )
        kinds = ", ".join(f"{self.kinds[kind]} {kind}" for kind in Kind)
        return f"{kinds} (guessed: {sums})"


def wrong_bills(
    messages: Sequence[Message],
    logs: Mapping[str, Sequence[SseFrame]],
    entries: Iterable[Entry],
    bills: Bills,
    tally: Tally,
    *,
    enough: int = ENOUGH,
) -> Iterator[str]:
    """Say which bills are not what the provider's ledger has; `bills` counts them.

    Where every usage was sent they are the same. Those where something had to be guessed agree in
    sum, where they are `enough`, and of what nobody can know no bill has more than there was.
    `tally` has the times of outages and pauses.
    """
    by_message = defaultdict[int, list[Entry]](list)
    for entry in entries:
        by_message[entry.number].append(entry)
    for message in messages:
        own, frames = by_message.pop(message.plan.number, []), logs.get(message.id, ())
        usage = next((frame.data for frame in frames if frame.event == "usage"), None)
        if usage is not None and message.plan.model.startswith(_BILLED):
            kind = _kind(message, usage, own, frames, tally)
            yield from _wrong_bill(message, usage, own, bills, kind)
    for number, strange in by_message.items():
        yield f"the ledger has answers for message {number}, which there is not: {strange}"
    if bills.kinds[Kind.GUESSED] < enough:
        return
    for name, sent_tokens in bills.theirs.items():
        if abs(bills.ours[name] - sent_tokens) > MOST_APART * sent_tokens:
            yield f"the guessed bills' {name} are {bills.ours[name]}, the ledger's {sent_tokens}"


def _wrong_bill(
    message: Message, usage: Mapping[str, object], own: Sequence[Entry], bills: Bills, kind: Kind
) -> Iterator[str]:
    ours = {name: int(str(usage[name])) for name in _NAMES}
    sums = (sum(entry.input for entry in own), sum(entry.output for entry in own))
    theirs = dict(zip(_NAMES, sums, strict=True))
    bills.kinds[kind] += 1
    bills.rows.append(f"{kind.name} {ours} {theirs} {message} {own}")
    if kind is Kind.EXACT:
        if usage["estimated"] or ours != theirs:
            yield f"{message}: billed {usage}, the ledger has {theirs} of {own}"
    elif kind is Kind.GUESSED:
        bills.ours.update(ours)
        bills.theirs.update(theirs)
    elif ours["output_tokens"] > theirs["output_tokens"] * (1 + MOST_APART) + len(own):
        yield f"{message}: billed {usage}, the ledger has only {theirs} of {own}"


def _kind(
    message: Message,
    usage: Mapping[str, object],
    own: Sequence[Entry],
    frames: Sequence[SseFrame],
    tally: Tally,
) -> Kind:
    resets = [frame.data["reason"] for frame in frames if frame.event == "reset"]
    taken_over = any(reason in _CODES for reason in resets)
    whole = frames[-1].data.get("finish_reason") == "stop"
    retries = [frame.data["reason"] for frame in frames if frame.event == "retry"]
    undisturbed = whole and not resets and not retries
    sent = bool(own) and all(entry.reported or not entry.input for entry in own)
    if not taken_over and (not usage["estimated"] or (undisturbed and sent)):
        return Kind.EXACT
    if any(entry.at_once for entry in own):
        return Kind.BURST
    if not own:
        return Kind.UNHEARD
    # Also one that was lost before its first call, for which it needs Redis.
    first = replace(own[0], began=message.created_at, sent=own[0].began)
    if any(_overlap(entry, outage) for entry in (first, *own) for outage in tally.outages):
        return Kind.AWAY
    # Whoever wakes up in time tells what it used; its own clock may have run out before it reads.
    timed_out = _TIMEOUT in (*resets, *retries)
    late = [
        pause
        for pause in tally.pauses
        if timed_out or message.ended_at < pause[1] + RECONNECT_SECONDS
    ]
    if any(_overlap(entry, pause) for entry in own for pause in late):
        return Kind.STILL
    return Kind.GUESSED


def _overlap(entry: Entry, during: tuple[float, float]) -> bool:
    began, ended = during
    return entry.began < ended + RECONNECT_SECONDS and began < entry.sent
