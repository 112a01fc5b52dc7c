"""What a message has used so far, as its log tells it: finished steps and calls that broke off."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from rejoin.shared import catalogue, token_count
from rejoin.shared.events import Fields, Usage
from rejoin.shared.fold import Message
from rejoin.shared.prices import Tokens, cost_of
from rejoin.shared.record import Record
from rejoin.shared.request import StoredRequest, shown_chars
from rejoin.shared.spending import Call

_NOTHING: Final = Usage()


class Unseen(NamedTuple):
    """A call that was lost before it gave anything: its attempt, model and about when.

    The model is `provider/name`.
    """

    attempt: int
    model: str
    at: datetime | None


def spent_of(message: Message, request: StoredRequest | None) -> Usage | None:
    """Return what all attempts so far used; None where none of them called a provider.

    A finished step says what the provider reported. A call that broke off is counted from its
    text, and so is one whose step was taken back: the provider bills it all the same. One that
    was lost before it gave anything has read its input.
    """
    return _sum_of(message, [*message.spending.all_calls, *_unseen(message)], request)


def seen_of(message: Message, request: StoredRequest | None) -> dict[int, Usage | None]:
    """Return the same by attempts, by their numbers, without the calls that are unseen."""
    used = _by_attempt(message, message.spending.all_calls, request)
    numbers = [int(str(attempt["attempt"])) for attempt in message.attempts]
    # Of an attempt whose whole log is lost there is what its worker said, and no number.
    return dict(zip(numbers or [0] * len(used), used, strict=True))


def unseen_of(message: Message) -> list[Unseen]:
    """Return the calls that were lost before they gave anything; an agent may have made none."""
    attempts = (message.attempts[place] for place in message.spending.unseen)
    calls = (
        Unseen(int(str(one["attempt"])), str(one["model"]), _time(one["started_at"]))
        for one in attempts
    )
    return [call for call in calls if not catalogue.is_agent(call.model)]


def told_of(message: Message, request: StoredRequest | None) -> Usage:
    """Return what a log tells of calls that are over; what it tells of none is nothing."""
    return _sum_of(message, message.spending.calls, request) or _NOTHING


def _sum_of(message: Message, calls: Iterable[Call], request: StoredRequest | None) -> Usage | None:
    return sum_of(_by_attempt(message, calls, request))


def take_over(
    message: Message, found: Record, request: StoredRequest | None
) -> tuple[Usage | None, Usage | None]:
    """Take the log's last attempt as over: handed over with a word of what it used, or lost.

    Returns what the next `reset` is to note for later attempts: what it used beyond what the log
    tells of, as its worker says, and what a call used that it left in the log, as counted here.
    """
    handed = found.handed
    last = int(str(message.attempts[-1]["attempt"])) if message.attempts else 0
    lost = _sum_of(message, message.spending.left, request)
    if handed is None or handed.attempt < last:
        step = len(message.named("step")) + 1
        if message.spending.to_call and found.called != (last, step):
            message.spending.to_call = False  # it had not called yet
            lost = _NOTHING  # which says so to later attempts
        message.spending.lose()
        return None, lost
    used = Usage(**handed.used)  # type: ignore[arg-type]  # as a worker wrote it
    if handed.attempt > last and lost is not None:  # of which nothing was written
        used = total(lost, used)
    message.spending.hear(asdict(used))
    return used, None


def attempts_of(
    message: Message, request: StoredRequest | None, finished_at: str | None
) -> list[Fields]:
    """Return the attempts as clients see them, each with the usage of its own calls that are over.

    A usage is None where there were none. `finished_at` is when the message ended.
    """
    attempts = [
        attempt | {"usage": None if used in (None, _NOTHING) else asdict(used)}
        for attempt, used in zip(
            message.attempts,
            _by_attempt(message, [*message.spending.calls, *_unseen(message)], request),
            strict=False,  # a log that lost its beginning tells of no attempt
        )
    ]
    if len(attempts) == 1 and message.usage not in (None, asdict(_NOTHING)):
        attempts[0]["usage"] = message.usage
    if finished_at is not None and attempts:
        attempts[-1]["finished_at"] = finished_at
    return attempts


def guessed(message: Message, calls: Iterable[Call]) -> set[str]:
    """Return the models of those calls that are to be counted from their text, or from none.

    For these the request is needed, and their prices.
    """
    return {
        str(message.attempts[call.attempt]["model"])
        for call in (*calls, *_unseen(message))
        if call.used is None and not _is_agents_own(message, call)
    }


def _unseen(message: Message) -> list[Call]:
    return [Call(place, None, 0, 0) for place in message.spending.unseen]


def _by_attempt(
    message: Message, calls: Iterable[Call], request: StoredRequest | None
) -> list[Usage | None]:
    shown = shown_chars(request) if request else 0
    calls = list(calls)
    places = max([len(message.attempts), *(call.attempt + 1 for call in calls)])
    spent: list[Usage | None] = [None] * places
    for call in calls:
        if _is_agents_own(message, call):
            continue
        if call.used is not None:
            used = Usage(**call.used)  # type: ignore[arg-type]  # as a worker wrote it
        else:
            attempt = message.attempts[call.attempt]
            used = estimated(
                shown if call.shown_chars is None else call.shown_chars,
                call.text_chars,
                call.reasoning_chars,
                model=str(attempt["model"]),
                at=_time(attempt["started_at"]),
                given=call.sample,
                input_tokens=call.shown_tokens,
            )
        spent[call.attempt] = total(spent[call.attempt], used)
    return spent


def _is_agents_own(message: Message, call: Call) -> bool:
    """Whether what was left is the words of an agent that was calling no model, which are free."""
    if call.used is not None or call.shown_chars is not None:
        return False
    return catalogue.is_agent(str(message.attempts[call.attempt]["model"]))


def estimated(
    input_chars: int,
    text_chars: int,
    reasoning_chars: int,
    *,
    model: str,
    at: datetime | None = None,
    given: str = "",
    input_tokens: int | None = None,
) -> Usage:
    """An approximation for a call that broke off before it reported (see token_count.py).

    `given` is what it gave, or the first of it; `input_tokens` is what it was shown, where that
    was counted. Its cost is what so many tokens of `provider/name` cost `at` the time (None: now).
    """
    if input_tokens is None:
        input_tokens = token_count.count(model, input_chars)
    tokens = Tokens(input_tokens, token_count.count(model, text_chars + reasoning_chars, given))
    cost = cost_of(model, tokens, at=at)
    return Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        reasoning_tokens=min(tokens.output, token_count.count(model, reasoning_chars, given)),
        cost_usd=None if cost is None else decimal_string(cost),
        estimated=True,
    )


def sum_of(parts: Iterable[Usage | None]) -> Usage | None:
    """What several used together; None where none of them called a provider."""
    spent: Usage | None = None
    for part in parts:
        spent = spent if part is None else total(spent, part)
    return spent


def total(spent: Usage | None, more: Usage) -> Usage:
    """What two calls used together; the cost is known only where both are."""
    if spent is None or spent == _NOTHING:
        return more
    if more == _NOTHING:
        return spent
    costs = [spent.cost_usd, more.cost_usd]
    known = [Decimal(cost) for cost in costs if cost is not None]
    return Usage(
        input_tokens=spent.input_tokens + more.input_tokens,
        output_tokens=spent.output_tokens + more.output_tokens,
        reasoning_tokens=spent.reasoning_tokens + more.reasoning_tokens,
        cached_tokens=spent.cached_tokens + more.cached_tokens,
        cost_usd=decimal_string(sum(known, Decimal(0))) if len(known) == len(costs) else None,
        estimated=spent.estimated or more.estimated,
    )


def less(all_of_it: Usage, part: Usage) -> Usage:
    """What is left of a sum without a part of it, and never less than nothing.

    It is estimated where the sum is; its cost is known where both are.
    """
    if part == _NOTHING:
        return all_of_it
    costs = [all_of_it.cost_usd, part.cost_usd]
    known = [Decimal(cost) for cost in costs if cost is not None]
    left = Usage(
        input_tokens=max(0, all_of_it.input_tokens - part.input_tokens),
        output_tokens=max(0, all_of_it.output_tokens - part.output_tokens),
        reasoning_tokens=max(0, all_of_it.reasoning_tokens - part.reasoning_tokens),
        cached_tokens=max(0, all_of_it.cached_tokens - part.cached_tokens),
        cost_usd=decimal_string(max(Decimal(0), known[0] - known[1])) if len(known) == 2 else None,
        estimated=all_of_it.estimated,
    )
    return left if left.input_tokens or left.output_tokens else _NOTHING


def decimal_string(amount: Decimal) -> str:
    """The amount without an exponent or trailing zeros: `0.0012`, `0`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(iso: object) -> datetime | None:
    return datetime.fromisoformat(iso) if isinstance(iso, str) else None
