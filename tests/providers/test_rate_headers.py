"""What the headers of each provider say of its key's limits."""

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from rejoin.shared.rate_limits import Limit, RateLimits
from rejoin.worker.providers.rate_headers import rate_limits


def said(**headers: str) -> RateLimits | None:
    return rate_limits(httpx2.Headers({name.replace("_", "-"): v for name, v in headers.items()}))


def test_openais_requests_and_tokens() -> None:
    limits = said(
        X_RateLimit_Limit_Requests="500",
        x_ratelimit_remaining_requests="499",
        x_ratelimit_reset_requests="120ms",
        x_ratelimit_limit_tokens="30000",
        x_ratelimit_remaining_tokens="29500",
        x_ratelimit_reset_tokens="6m1.5s",
    )
    assert limits == RateLimits(Limit(500, 499, 0.12), Limit(30000, 29500, 361.5))


def test_anthropics_limits_have_a_time() -> None:
    at = (datetime.now(UTC) + timedelta(seconds=30)).isoformat(timespec="seconds")
    limits = said(
        anthropic_ratelimit_requests_limit="50",
        anthropic_ratelimit_requests_remaining="0",
        anthropic_ratelimit_requests_reset=at.replace("+00:00", "Z"),
        anthropic_ratelimit_tokens_limit="40000",
        anthropic_ratelimit_tokens_remaining="39000",
        anthropic_ratelimit_tokens_reset=at,
    )
    assert limits is not None
    assert (limits.requests.most, limits.requests.left) == (50, 0)
    assert (limits.tokens.most, limits.tokens.left) == (40000, 39000)
    for limit in (limits.requests, limits.tokens):
        assert limit.reset_seconds is not None
        assert 25 < limit.reset_seconds <= 30


def test_of_anthropics_input_and_output_the_nearer_one_counts() -> None:
    limits = said(
        anthropic_ratelimit_input_tokens_limit="40000",
        anthropic_ratelimit_input_tokens_remaining="20000",
        anthropic_ratelimit_output_tokens_limit="8000",
        anthropic_ratelimit_output_tokens_remaining="700",
    )
    assert limits == RateLimits(tokens=Limit(8000, 700))


@pytest.mark.parametrize("unit", [1, 1000])
def test_openrouters_reset_is_a_time_since_the_epoch(unit: int) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=30)).timestamp()
    limits = said(
        X_RateLimit_Limit="20", X_RateLimit_Remaining="3", X_RateLimit_Reset=f"{at * unit:.0f}"
    )
    assert limits is not None
    assert (limits.requests.most, limits.requests.left) == (20, 3)
    assert limits.requests.reset_seconds is not None
    assert 25 < limits.requests.reset_seconds <= 31


def test_an_answer_that_says_nothing_says_nothing() -> None:
    assert said(content_type="text/event-stream", x_ratelimit_reset_requests="1s") is None


@pytest.mark.parametrize("rubbish", ["", "soon", "-5", "nan", "1e999", "9" * 40, "1x", "1s2"])
def test_what_cannot_be_read_is_not_said(rubbish: str) -> None:
    limits = said(
        x_ratelimit_limit_requests="60",
        x_ratelimit_remaining_requests=rubbish,
        x_ratelimit_reset_requests=rubbish,
    )
    assert limits is not None
    assert limits.requests.most == 60
    assert limits.requests.left is None
    assert limits.requests.reset_seconds in (None, 0.0) or rubbish == "9" * 40


def test_a_limit_of_nothing_is_none() -> None:
    limits = said(x_ratelimit_limit_requests="0", x_ratelimit_remaining_requests="0")
    assert limits == RateLimits(Limit(None, 0, None))


@pytest.mark.parametrize("reset", ["9" * 400 + "d", "1e300", "9" * 30])
def test_a_reset_that_lies_beyond_all_days_is_a_year_at_most(reset: str) -> None:
    limits = said(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=reset)
    assert limits is not None
    assert limits.requests.reset_seconds == 366 * 86_400
