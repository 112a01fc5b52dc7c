"""What models cost, by the price package's own data."""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from rejoin.shared import prices
from rejoin.shared.prices import Price, Tokens, cost_of, price_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NO_NET = """
import socket, sys
def refuse(*_): sys.exit("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from decimal import Decimal
from rejoin.shared.prices import Tokens, cost_of
assert "genai_prices" not in sys.modules
assert cost_of("demo/echo", Tokens(1, 1)) == 0
assert "genai_prices" not in sys.modules
assert cost_of("openai/gpt-4o-mini", Tokens(1, 0), environ={}) == Decimal("0.00000015")
"""


def cost(model: str, tokens: Tokens, **environ: str) -> Decimal | None:
    return cost_of(model, tokens, at=NOW, environ=environ)


@pytest.mark.parametrize(
    ("model", "tokens", "dollars"),
    [
        ("openai/gpt-4o-mini", Tokens(1000, 200), "0.00027"),
        ("openai/gpt-4o-mini", Tokens(1000, 200, cached=400), "0.00024"),
        ("openai/gpt-4o-mini", Tokens(0, 0), "0"),
        ("openai/gpt-5-mini", Tokens(7, 3), "0.00000775"),
        ("anthropic/claude-haiku-4-5", Tokens(1000, 100), "0.0015"),
        ("anthropic/claude-haiku-4-5", Tokens(1000, 100, 300, 500), "0.001355"),
        ("anthropic/claude-haiku-4-5-20251001", Tokens(1000, 100), "0.0015"),
        ("openrouter/anthropic/claude-sonnet-4.5", Tokens(1000, 50, 100, 100), "0.003555"),
        ("demo/echo?rate=0", Tokens(1000, 100), "0"),
    ],
)
def test_a_known_price_gives_an_exact_cost(model: str, tokens: Tokens, dollars: str) -> None:
    assert cost(model, tokens) == Decimal(dollars)


@pytest.mark.parametrize(
    "model",
    [
        "openai/nothing-like-it",
        "openai/gpt-4o-mini-of-my-own",
        "openai/text-embedding-3-small",  # no price of what comes out
        "openai/omni-moderation-latest",
        "openrouter/nobody/nothing",
        "openrouter/deepseek/deepseek-r1:free",  # in its data, without a price
        "ollama/llama3.2",
        "script/x",
        "gpt-4o-mini",
        "",
    ],
)
def test_an_unknown_price_is_none_and_never_nothing(model: str) -> None:
    assert cost(model, Tokens(1000, 100)) is None
    assert price_of(model, at=NOW, environ={}) is None


def test_numbers_that_cannot_be_have_no_cost() -> None:
    assert cost("openai/gpt-4o-mini", Tokens(1, 1, cached=2)) is None


def test_a_long_prompt_costs_more_a_token_where_its_seller_says_so() -> None:
    short, long = (cost("openai/gpt-5.4", Tokens(n, 0)) for n in (200_000, 300_000))
    assert (short, long) == (Decimal("0.5"), Decimal("1.5"))


def test_the_price_is_that_of_the_time_of_the_call() -> None:
    tokens = Tokens(1_000_000, 0)
    before, after = (
        cost_of("openai/o3", tokens, at=at, environ={})
        for at in (datetime(2025, 6, 1, tzinfo=UTC), NOW)
    )
    assert (before, after) == (Decimal(10), Decimal(2))


def test_another_server_has_prices_of_its_own() -> None:
    tokens = Tokens(1000, 200)
    assert cost("openai/gpt-4o-mini", tokens, OPENAI_BASE_URL="http://127.0.0.1:9/v1") is None
    own = cost("openai/gpt-4o-mini", tokens, OPENAI_BASE_URL="https://api.openai.com/v1")
    assert own == Decimal("0.00027")
    other = cost(
        "openai/anthropic/claude-sonnet-4.5", tokens, OPENAI_BASE_URL="https://openrouter.ai/api/v1"
    )
    assert other == Decimal("0.006")
    assert cost("anthropic/claude-haiku-4-5", tokens, ANTHROPIC_BASE_URL="http://127.0.0.1") is None


def test_a_price_is_that_of_a_million_tokens_of_a_short_prompt() -> None:
    assert price_of("openai/gpt-5.4", at=NOW, environ={}) == Price(Decimal("2.5"), Decimal(15))
    assert price_of("demo/echo") == Price(Decimal(0), Decimal(0))


async def test_prices_are_loaded_for_models_that_have_any(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(prices, "price_of", lambda model, **_: asked.append(model))
    await prices.load_for(["demo/echo", "ollama/x"])
    assert asked == []
    await prices.load_for(["demo/echo", "anthropic/x"])
    assert len(asked) == 1


def test_the_data_comes_with_the_package_and_only_when_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_NET], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
