"""What the anthropic SDK and its HTTP client raise, as a ProviderError with a `failed` code."""

import re
from collections.abc import Sequence
from typing import Final

import anthropic

from rejoin.shared.errors import ProviderError
from rejoin.worker.providers.error_objects import from_body, from_connecting, from_transport

_THOUGHTS: Final = re.compile(
    r"Invalid `(?:signature|data)` in `(?:redacted_)?thinking` block"
    r"|`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified"
)


def refuses_thoughts(error: anthropic.BadRequestError) -> bool:
    """Whether it is a thinking block of the history that the API does not take back."""
    return _THOUGHTS.search(str(error)) is not None


def translate(error: Exception, secrets: Sequence[str] = ()) -> ProviderError:
    """Return what an exception of the SDK or of its HTTP client means.

    `secrets` are the configured keys; none is left in the text.
    """
    match error:
        case anthropic.APIStatusError():
            headers = error.response.headers
            body = unwrapped(error.body)
            return from_body(body, secrets, status=error.status_code, headers=headers)
        case anthropic.APITimeoutError():
            return from_connecting(error, secrets, late=True)
        case anthropic.APIConnectionError():
            return from_connecting(error, secrets, late=False)
    return from_transport(error, secrets)


def unwrapped(body: object) -> object:
    """Return the error object within `{"type": "error", "error": {…}}`, or what came instead."""
    return body.get("error") or body if isinstance(body, dict) else body
