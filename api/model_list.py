"""The list of models: our own file's, with what the providers' lists and the prices add to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from rejoin.shared import catalogue, prices
from rejoin.shared.catalogue import Capabilities
from rejoin.shared.clock import iso
from rejoin.shared.cooling import Cooling
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.spent import decimal_string


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens, as decimal strings."""

    input: str
    output: str

    @classmethod
    def of(cls, model: str, told: ListedModel) -> Self | None:
        """What its provider's list says, else what the price package knows; None: neither does."""
        amounts = told.price or prices.price_of(model)
        return None if amounts is None else cls(*map(decimal_string, amounts))


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """Until when no message that has a fallback asks a model, and the code it failed with."""

    until: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of `GET /api/models`: `dataclasses.asdict` gives the contract's object.

    `available`: its provider is configured, here or in the worker that asked it for its list.
    `cooling`: it failed and is left alone, None: it is not.
    """

    id: str
    provider: str
    name: str
    context_window: int | None
    max_output_tokens: int | None
    capabilities: Capabilities
    price: Price | None
    available: bool
    cooling: LeftAlone | None = None


def entries(
    states: Sequence[catalogue.ProviderState], lists: Mapping[str, Sequence[ListedModel]]
) -> list[Entry]:
    """Return every model, provider by provider, our own file's first.

    What our file knows of a model stands; its provider's list fills what it leaves open. Takes a
    second at the worst, of a thread: the prices of long lists are looked up.
    """
    found = []
    for state in states:
        available = state.configured or state.name in lists
        listed = {model.name: model for model in lists.get(state.name, ())}
        ours = {
            model.name: model
            for model in catalogue.known().values()
            if model.provider == state.name
        }
        names = [*ours, *(name for name in listed if name not in ours)]
        found += [
            _entry(state.name, name, ours.get(name), listed.get(name), available=available)
            for name in names
        ]
    return found


def with_cooling(found: Iterable[Entry], cooling: Mapping[str, Cooling]) -> list[Entry]:
    """Return the entries with what is known of those that failed."""
    told = {model: LeftAlone(iso(one.until_ms), one.reason) for model, one in cooling.items()}
    return [replace(one, cooling=told[one.id]) if one.id in told else one for one in found]


def agents(names: Iterable[str]) -> list[Entry]:
    """Return the agents that workers have, as models; what they can do and cost is their own."""
    return [
        Entry(
            id=f"{catalogue.AGENTS}/{name}",
            provider=catalogue.AGENTS,
            name=name,
            context_window=None,
            max_output_tokens=None,
            capabilities=Capabilities(),
            price=None,
            available=True,
        )
        for name in sorted(names)
    ]


def _entry(
    provider: str,
    name: str,
    ours: catalogue.Model | None,
    listed: ListedModel | None,
    *,
    available: bool,
) -> Entry:
    model = f"{provider}/{name}"
    told = listed or ListedModel(name)
    capabilities = Capabilities.of(told.capabilities)
    known = ours or catalogue.Model(model, provider, name, None, None, capabilities)
    return Entry(
        id=model,
        provider=provider,
        name=name,
        context_window=known.context_window or told.context_window,
        max_output_tokens=known.max_output_tokens or told.max_output_tokens,
        capabilities=known.capabilities,
        price=Price.of(model, told),
        available=available,
    )
