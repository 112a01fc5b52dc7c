"""A run that failed: the contract's code, and no word of what went wrong inside."""

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import Failed, FailureCode
from rejoin.worker.failures import DEADLINE, INTERNAL, exhausted, failure_of, timeout_of
from rejoin.worker.stopping import Stop


@pytest.mark.parametrize("code", FailureCode)
def test_a_providers_error_keeps_its_code_and_words(code: FailureCode) -> None:
    error = ProviderError("the model said no", code=code, retryable=True, status=418)
    assert failure_of(error) == Failed(code, "the model said no", retryable=True, status=418)


def test_a_code_given_as_plain_text_is_as_good() -> None:
    error = ProviderError("slow down", code="rate_limited", retryable=True, status=429)
    assert failure_of(error).code is FailureCode.RATE_LIMITED


@pytest.mark.parametrize(
    "error", [ValueError("sk-secret"), KeyError("sk-secret"), RuntimeError("sk-secret")]
)
def test_a_defect_is_internal_and_gives_nothing_away(error: Exception) -> None:
    failed = failure_of(error)
    assert failed == INTERNAL
    assert failed.code is FailureCode.INTERNAL
    assert "sk-secret" not in failed.json()


@pytest.mark.parametrize("reason", [Stop.FIRST_TOKEN, Stop.IDLE])
def test_a_provider_that_is_too_slow_may_be_asked_again(reason: Stop) -> None:
    error = timeout_of(reason)
    assert error is not None
    assert (error.code, error.retryable) == (FailureCode.PROVIDER_TIMEOUT, True)


def test_any_other_stop_is_no_slow_provider() -> None:
    slow = {Stop.FIRST_TOKEN, Stop.IDLE}
    assert {reason for reason in Stop if timeout_of(reason) is not None} == slow


def test_a_message_out_of_time_is_not_worth_another_try() -> None:
    assert (DEADLINE.code, DEADLINE.retryable) == (FailureCode.DEADLINE_EXCEEDED, False)


def test_a_message_that_lost_too_many_workers_says_how_many() -> None:
    failed = exhausted(5)
    assert failed.code is FailureCode.ATTEMPTS_EXHAUSTED
    assert "5" in failed.message
