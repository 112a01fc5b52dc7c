"""What a message used: reported as reported, estimated from what was seen."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.events import Usage
from rejoin.worker.providers.base import ModelRequest, Turn, UsageChunk
from rejoin.worker.usage import decimal_string, estimated_usage, usage_event


def test_a_report_is_passed_on_as_it_is() -> None:
    chunk = UsageChunk(1, 2, 3, 4, Decimal("0.00120"))
    assert usage_event(chunk) == Usage(1, 2, 3, 4, "0.0012", estimated=False)


def test_a_report_without_a_price_has_none() -> None:
    assert usage_event(UsageChunk(1, 2)).cost_usd is None
    assert usage_event(UsageChunk(cost_usd=Decimal(0))).cost_usd == "0"


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
    assert estimated_usage(request, 8, 4) == Usage(2, 3, 1, 0, None, estimated=True)


@given(st.text(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_estimate_of_something_is_never_nothing(shown: str, text: int, reasoning: int) -> None:
    usage = estimated_usage(ModelRequest("m", [Turn("user", shown)]), text, reasoning)
    assert (usage.input_tokens > 0) == bool(shown)
    assert (usage.output_tokens > 0) == bool(text or reasoning)
    assert usage.reasoning_tokens <= usage.output_tokens
