"""What a message used: reported as reported, estimated from what was seen."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.events import Usage
from rejoin.shared.spent import decimal_string
from rejoin.worker.providers.base import ModelRequest, Turn, UsageChunk
from rejoin.worker.usage import Priced, broken_usage, estimated_usage, usage_event

UNKNOWN = Priced("script/x")
HAIKU = Priced("anthropic/claude-haiku-4-5")


def test_a_report_is_passed_on_as_it_is() -> None:
    chunk = UsageChunk(1, 2, 3, 4, Decimal("0.00120"))
    assert usage_event(chunk, UNKNOWN) == Usage(1, 2, 3, 4, "0.0012", estimated=False)


def test_a_report_without_a_price_has_none() -> None:
    assert usage_event(UsageChunk(1, 2), UNKNOWN).cost_usd is None
    assert usage_event(UsageChunk(cost_usd=Decimal(0)), UNKNOWN).cost_usd == "0"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0.000", "0"),
        ("0E-10", "0"),
        ("1E+2", "100"),
        ("100", "100"),
        ("1E-7", "0.0000001"),
        ("12.3400", "12.34"),
    ],
)
def test_money_has_neither_exponent_nor_trailing_zeros(amount: str, text: str) -> None:
    assert decimal_string(Decimal(amount)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**9))
def test_money_keeps_its_value(amount: Decimal) -> None:
    text = decimal_string(amount)
    assert Decimal(text) == amount
    assert "E" not in text.upper()


def test_an_estimate_says_so_and_takes_four_characters_for_a_token() -> None:
    request = ModelRequest("m", [Turn("system", "abcd"), Turn("user", "efgh")])
    assert estimated_usage(request, 8, 4, UNKNOWN) == Usage(2, 3, 1, 0, None, estimated=True)


@given(st.text(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_estimate_of_something_is_never_nothing(shown: str, text: int, reasoning: int) -> None:
    usage = estimated_usage(ModelRequest("m", [Turn("user", shown)]), text, reasoning, UNKNOWN)
    assert (usage.input_tokens > 0) == bool(shown)
    assert (usage.output_tokens > 0) == bool(text or reasoning)
    assert usage.reasoning_tokens <= usage.output_tokens


def test_a_report_without_a_cost_is_priced_with_what_came_from_and_went_to_a_cache() -> None:
    chunk = UsageChunk(1_000_000, 100_000, 50_000, 500_000, cache_write_tokens=200_000)
    # 0.3 at 1, 0.5 at 0.1, 0.2 at 1.25 and 0.1 at 5 dollars a million
    assert usage_event(chunk, HAIKU).cost_usd == "1.1"


def test_the_providers_own_word_on_the_cost_wins() -> None:
    chunk = UsageChunk(1_000_000, 100_000, cost_usd=Decimal("0.01"))
    assert usage_event(chunk, HAIKU).cost_usd == "0.01"


def test_the_rest_of_a_call_that_broke_off_after_a_first_report_is_counted_from_its_text() -> None:
    request = ModelRequest("m", [Turn("user", "abcd")])
    usage = broken_usage(UsageChunk(1000, 1), request, 4000, 400, HAIKU)
    # 1000 tokens at 1 and 1100 at 5 dollars a million
    assert usage == Usage(1000, 1100, 100, 0, "0.0065", estimated=True)


def test_a_first_report_of_more_than_was_seen_stands() -> None:
    request = ModelRequest("m", [Turn("user", "abcd")])
    usage = broken_usage(UsageChunk(1000, 1), request, 0, 0, HAIKU)
    assert usage == Usage(1000, 1, 0, 0, "0.001005", estimated=False)
