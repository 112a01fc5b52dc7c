"""The models that providers list themselves, as a worker last asked; the API reads them here."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, cast

from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.connections import redis_or_away
from rejoin.shared.events import dumps

MOST_MODELS: Final = 5000


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the provider's own list; None where the list does not say."""

    name: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] | None = None
    price: tuple[Decimal, Decimal] | None = None  # US dollars per million tokens, in and out
    continues: bool = False  # its server goes on with a last turn that is the assistant's


async def keep(
    redis: Redis, provider: str, models: Sequence[ListedModel], *, life_seconds: int
) -> None:
    """Store a provider's list, the first MOST_MODELS of it, in place of an earlier one.

    Raises:
        LogUnavailable: Redis is away.
    """
    text = dumps([_plain(model) for model in models[:MOST_MODELS]])
    with redis_or_away():
        await redis.set(keys.own_list(provider), text, ex=life_seconds)


async def kept(redis: Redis, providers: Iterable[str]) -> dict[str, list[ListedModel]]:
    """Return the lists there are, by provider; one that another version wrote is left out.

    Raises:
        LogUnavailable: Redis is away.
    """
    names = list(providers)
    with redis_or_away():
        texts = cast(
            list[bytes | None], await redis.mget([keys.own_list(provider) for provider in names])
        )
    lists = {}
    for provider, text in zip(names, texts, strict=True):
        if text is None:
            continue
        try:
            lists[provider] = [_parse(fields) for fields in json.loads(text)]
        except (ValueError, TypeError, KeyError, InvalidOperation):
            continue
    return lists


def _plain(model: ListedModel) -> dict[str, object]:
    capabilities, price = model.capabilities, model.price
    return {
        "name": model.name,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": None if capabilities is None else sorted(capabilities),
        "price": None if price is None else [str(amount) for amount in price],
        "continues": model.continues,
    }


def _parse(fields: dict[str, object]) -> ListedModel:
    capabilities = cast(list[str] | None, fields["capabilities"])
    price = cast(list[str] | None, fields["price"])
    return ListedModel(
        name=str(fields["name"]),
        context_window=cast(int | None, fields["context_window"]),
        max_output_tokens=cast(int | None, fields["max_output_tokens"]),
        capabilities=None if capabilities is None else frozenset(capabilities),
        price=None if price is None else (Decimal(price[0]), Decimal(price[1])),
        continues=fields.get("continues") is True,
    )
