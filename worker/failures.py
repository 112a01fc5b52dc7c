"""What became of a run as a `failed` event: the one place where exceptions get a code."""

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import Failed, FailureCode
from rejoin.worker.stopping import Stop

_SAID = {
    Stop.FIRST_TOKEN: (FailureCode.PROVIDER_TIMEOUT, "the provider gave no answer in time"),
    Stop.IDLE: (FailureCode.PROVIDER_TIMEOUT, "the provider fell silent"),
    Stop.TOTAL: (FailureCode.DEADLINE_EXCEEDED, "the message ran for too long"),
}

INTERNAL = Failed(FailureCode.INTERNAL, "Rejoin failed; its log says how", retryable=True)


def failure_of(error: Exception) -> Failed:
    """The `failed` event for whatever a provider raised."""
    if isinstance(error, ProviderError):
        return Failed(FailureCode(error.code), str(error), error.retryable, error.status)
    return INTERNAL


def failure_of_stop(reason: Stop) -> Failed | None:
    """The `failed` event for a deadline; None for a stop that is no failure."""
    if reason not in _SAID:
        return None
    code, text = _SAID[reason]
    return Failed(code, text, retryable=code is FailureCode.PROVIDER_TIMEOUT)


def exhausted(runs: int) -> Failed:
    """The `failed` event of a message that lost too many workers."""
    text = f"{runs} runs of this message were lost with their workers"
    return Failed(FailureCode.ATTEMPTS_EXHAUSTED, text, retryable=True)
