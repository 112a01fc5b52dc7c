"""The list of models: our own file's, what providers list, and prices."""

from decimal import Decimal

import pytest

from rejoin.api.model_list import Entry, Price, entries
from rejoin.shared import catalogue
from rejoin.shared.catalogue import Capabilities, Model, ProviderState
from rejoin.shared.own_lists import ListedModel

OURS = Model("openai/gpt-4o-mini", "openai", "gpt-4o-mini", 7, None, Capabilities(vision=True))
MINI = Price("0.15", "0.6")
UNKNOWN = Capabilities()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "known", lambda: {OURS.id: OURS})
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def listed(*models: ListedModel, configured: bool = True) -> list[Entry]:
    state = ProviderState("openai", configured, "")
    return entries([state], {"openai": models} if models else {})


def test_our_own_files_models_stand_also_without_a_list() -> None:
    (entry,) = listed()
    assert entry == Entry(
        OURS.id, "openai", OURS.name, 7, None, OURS.capabilities, MINI, available=True
    )


def test_a_model_that_is_only_listed_has_what_the_list_says_and_no_more() -> None:
    named = ListedModel("new", 9, 8, frozenset({"tools"}), (Decimal("1.50"), Decimal(2)))
    _, bare, full = listed(ListedModel("bare"), named)
    assert bare == Entry("openai/bare", "openai", "bare", None, None, UNKNOWN, None, available=True)
    capabilities = Capabilities(tools=True, vision=False, json_schema=False, reasoning=False)
    assert full == Entry(
        "openai/new", "openai", "new", 9, 8, capabilities, Price("1.5", "2"), available=True
    )


def test_a_list_fills_what_our_own_file_leaves_open_and_changes_nothing_else() -> None:
    price = (Decimal(3), Decimal(4))
    (entry,) = listed(ListedModel(OURS.name, 9, 8, frozenset(), price))
    assert (entry.context_window, entry.max_output_tokens) == (7, 8)
    assert entry.capabilities == OURS.capabilities
    assert entry.price == Price("3", "4")


def test_a_provider_is_available_where_it_is_configured_or_has_listed() -> None:
    assert not listed(configured=False)[0].available
    assert listed(ListedModel("a"), configured=False)[0].available


def test_a_model_of_another_server_has_no_price_of_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert listed()[0].price is None
