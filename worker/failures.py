"""What became of a run as a `failed` event: the one place where exceptions get a code."""

from collections.abc import Sequence
from typing import Final

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import Failed, FailureCode
from rejoin.worker.stopping import Stop

_TOO_LATE: Final = {
    Stop.FIRST_TOKEN: "the provider gave no answer in time",
    Stop.IDLE: "the provider fell silent",
}

# What no model could do better: the request is bad, or the message is over.
_OF_ALL_MODELS: Final = frozenset(
    {
        FailureCode.INVALID_REQUEST,
        FailureCode.INVALID_OUTPUT,
        FailureCode.DEADLINE_EXCEEDED,
        FailureCode.ATTEMPTS_EXHAUSTED,
    }
)
# What the next message would meet as well. An answer that is refused for what was asked is none.
_OF_THE_MODEL: Final = frozenset(
    {
        FailureCode.PROVIDER_UNAVAILABLE,
        FailureCode.PROVIDER_TIMEOUT,
        FailureCode.PROVIDER_PROTOCOL,
        FailureCode.RATE_LIMITED,
    }
)
_OF_THE_MESSAGE: Final = frozenset(
    {
        FailureCode.CONTEXT_LENGTH_EXCEEDED,
        FailureCode.CONTENT_FILTER,
        FailureCode.INVALID_REQUEST,
    }
)
_NO_SUCH_MODEL: Final = 404

DEADLINE: Final = Failed(
    FailureCode.DEADLINE_EXCEEDED, "the message ran for too long", retryable=False
)
HISTORY_GONE: Final = Failed(
    FailureCode.INVALID_REQUEST,
    "a message that this one follows is not there any more: name another parent_id",
    retryable=False,
)
INTERNAL: Final = Failed(FailureCode.INTERNAL, "Rejoin failed; its log says how", retryable=True)


def failure_of(error: Exception) -> Failed:
    """The `failed` event for whatever a provider raised."""
    if isinstance(error, ProviderError):
        return Failed(FailureCode(error.code), str(error), error.retryable, error.status)
    return INTERNAL


def another_model_may(failure: Failed) -> bool:
    """Whether a fallback may do what this model could not; a bad request is bad for all."""
    return failure.retryable or failure.code not in _OF_ALL_MODELS or _no_such_model(failure)


def cools(failure: Failed) -> bool:
    """Whether all messages are to leave the model alone for a while, its tries being used up."""
    if failure.code is FailureCode.AUTHENTICATION:
        return failure.status is not None  # else this worker alone has no key
    return failure.code in _OF_THE_MODEL or _no_such_model(failure)


def is_of_the_message(failure: Failed) -> bool:
    """Whether the model refused this message alone, and so is there for others."""
    return failure.code in _OF_THE_MESSAGE and not _no_such_model(failure)


def _no_such_model(failure: Failed) -> bool:
    return failure.code is FailureCode.INVALID_REQUEST and failure.status == _NO_SUCH_MODEL


def may_do_better(failure: Failed) -> bool:
    """Whether the same model may fit its schema when it is shown how it did not."""
    return failure.code is FailureCode.INVALID_OUTPUT and failure.retryable


def timeout_of(reason: Stop) -> ProviderError | None:
    """The error of a provider that was too slow for a deadline; None for any other stop."""
    if reason not in _TOO_LATE:
        return None
    return ProviderError(_TOO_LATE[reason], code=FailureCode.PROVIDER_TIMEOUT, retryable=True)


def unknown_tools(names: Sequence[str]) -> Failed:
    """The `failed` event of a message whose request names tools that nothing stands behind."""
    said = ", ".join(names)
    text = f"no worker has the {'tool' if len(names) == 1 else 'tools'} {said} (REJOIN_TOOLS)"
    return Failed(FailureCode.INVALID_REQUEST, text, retryable=False)


def unknown_agent(model: str) -> Failed:
    """The `failed` event of a message whose agent this worker has not; another one may."""
    text = f"this worker has no {model} (REJOIN_AGENTS)"
    return Failed(FailureCode.INVALID_REQUEST, text, retryable=True)


def exhausted(runs: int) -> Failed:
    """The `failed` event of a message that lost too many workers."""
    one = runs == 1
    lost = f"{runs} {'run' if one else 'runs'} of this message {'was' if one else 'were'} lost with"
    text = f"{lost} {'its worker' if one else 'their workers'}"
    return Failed(FailureCode.ATTEMPTS_EXHAUSTED, text, retryable=True)
