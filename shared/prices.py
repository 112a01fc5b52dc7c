"""What models cost: `genai-prices`, by the data it comes with, which it is never asked to renew.

Its import takes about 0.1 s and 30 MB, so it comes with the first price that is asked for;
`load_for` fetches it in a thread, for a process whose loop must not wait.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_FREE: Final = frozenset({"demo"})
# Where each provider is called when its variable names nothing else. A server of another address
# has prices of its own: those of the seller whom genai-prices knows by that address, or none.
_ADDRESSES: Final = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "openrouter": "OPENROUTER_BASE_URL",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call took: those from and to a cache are among `input`, reasoning among `output`."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0


class Price(NamedTuple):
    """US dollars for a million tokens, without any from a cache."""

    input: Decimal
    output: Decimal


def cost_of(
    model: str,
    tokens: Tokens,
    *,
    at: datetime | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Decimal | None:
    """Return what a call of `provider/name` that began `at` (None: now) costs, in US dollars.

    None where the price is not known: of a model, of a server, or of numbers that cannot be.
    """
    seller, _, name = model.partition("/")
    if seller in _FREE:
        return Decimal(0)
    found = _model_of(seller, name, _address(seller, environ))
    if found is None:
        return None
    from genai_prices import Usage

    provider, info = found
    at = at or datetime.now(UTC)
    if _plain(info.get_prices(at)) is None:
        return None  # genai-prices would take what it has no price for as free
    try:
        usage = Usage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cached,
            cache_write_tokens=tokens.cache_write,
        )
        return info.calc_price(usage, provider, genai_request_timestamp=at).total_price
    except ValueError:
        return None  # more from the cache than there was, for example


def price_of(
    model: str, *, at: datetime | None = None, environ: Mapping[str, str] = os.environ
) -> Price | None:
    """Return what a million tokens of `provider/name` cost; None where it is not known.

    Where long prompts cost more, it is the price of short ones.
    """
    seller, _, name = model.partition("/")
    if seller in _FREE:
        return Price(Decimal(0), Decimal(0))
    found = _model_of(seller, name, _address(seller, environ))
    return None if found is None else _plain(found[1].get_prices(at or datetime.now(UTC)))


async def load_for(models: Iterable[str]) -> None:
    """Import the prices in a thread where one of the models has any: no later call waits then."""
    if any(model.partition("/")[0] in _ADDRESSES for model in models):
        await asyncio.to_thread(price_of, "openai/", environ={})


def _address(seller: str, environ: Mapping[str, str]) -> str | None:
    return environ.get(_ADDRESSES.get(seller, ""), "").strip() or None


@lru_cache(maxsize=4096)
def _model_of(seller: str, name: str, address: str | None) -> "tuple[Provider, ModelInfo] | None":
    if seller not in _ADDRESSES:
        return None
    from genai_prices.data_snapshot import get_snapshot

    known_as = None if address else seller
    try:
        return get_snapshot().find_provider_model(name, None, known_as, address)
    except LookupError:
        return None


def _plain(price: "ModelPrice") -> Price | None:
    """The price of text in and text out, where the model has both."""
    amounts = (getattr(price, name, None) for name in ("input_mtok", "output_mtok"))
    first, second = (getattr(amount, "base", amount) for amount in amounts)
    if isinstance(first, Decimal) and isinstance(second, Decimal):
        return Price(first, second)
    return None
