"""What a message has used so far, as its log tells it: finished steps and calls that broke off."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Final

from rejoin.shared import catalogue
from rejoin.shared.events import Usage
from rejoin.shared.fold import Call, Fields, Message
from rejoin.shared.prices import Tokens, cost_of
from rejoin.shared.request import StoredRequest, shown_chars

_CHARACTERS_A_TOKEN: Final = 4  # the usual rule of thumb for English text
_NOTHING: Final = Usage()


def spent_of(message: Message, request: StoredRequest | None) -> Usage | None:
    """Return what all attempts so far used; None where none of them got anything of a provider.

    A finished step says what the provider reported. A call that broke off is counted from its
    text, and so is one whose step was taken back: the provider bills it all the same.
    """
    spent: Usage | None = None
    for used in _by_attempt(message, message.all_calls, request):
        spent = spent if used is None else total(spent, used)
    return spent


def attempts_of(
    message: Message, request: StoredRequest | None, finished_at: str | None
) -> list[Fields]:
    """Return the attempts as clients see them, each with the usage of its own calls that are over.

    A usage is None where there were none. `finished_at` is when the message ended.
    """
    attempts = [
        attempt | {"usage": None if used is None else asdict(used)}
        for attempt, used in zip(
            message.attempts, _by_attempt(message, message.calls, request), strict=True
        )
    ]
    if len(attempts) == 1 and message.usage is not None:
        attempts[0]["usage"] = message.usage
    if finished_at is not None and attempts:
        attempts[-1]["finished_at"] = finished_at
    return attempts


def guessed(message: Message, calls: Iterable[Call]) -> set[str]:
    """Return the models of those calls that are to be counted from their text.

    For these the request is needed, and their prices.
    """
    return {
        str(message.attempts[call.attempt]["model"])
        for call in calls
        if call.used is None and not _is_agents_own(message, call)
    }


def _by_attempt(
    message: Message, calls: Iterable[Call], request: StoredRequest | None
) -> list[Usage | None]:
    shown = shown_chars(request) if request else 0
    spent: list[Usage | None] = [None] * len(message.attempts)
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
) -> Usage:
    """An approximation for a call that broke off before it reported: four characters a token.

    Its cost is what so many tokens of `provider/name` cost `at` the time (None: now).
    """
    tokens = Tokens(_tokens(input_chars), _tokens(text_chars + reasoning_chars))
    cost = cost_of(model, tokens, at=at)
    return Usage(
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        reasoning_tokens=_tokens(reasoning_chars),
        cost_usd=None if cost is None else decimal_string(cost),
        estimated=True,
    )


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


def decimal_string(amount: Decimal) -> str:
    """The amount without an exponent or trailing zeros: `0.0012`, `0`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_A_TOKEN)


def _time(iso: object) -> datetime | None:
    return datetime.fromisoformat(iso) if isinstance(iso, str) else None
