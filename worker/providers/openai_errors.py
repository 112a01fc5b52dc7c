"""What the openai SDK and its HTTP client raise, as a ProviderError with a `failed` code."""

import re
from collections.abc import Sequence
from typing import Final

import openai

from rejoin.shared.errors import ProviderError
from rejoin.worker.providers.error_objects import from_body, from_connecting, from_transport

# What the templates of Llama, Gemma, Mistral and Qwen say, behind whatever server, llama.cpp's
# with status 500, and what Mistral's own API does.
_ORDER: Final = re.compile(
    r"roles must alternate|Unexpected role '?\w+'? after role|(?i:system message) must be at the"
)


def refuses_order(error: openai.APIStatusError) -> bool:
    """Whether it is the order of roles that the server does not take."""
    return _ORDER.search(str(error)) is not None


def translate(error: Exception, secrets: Sequence[str] = ()) -> ProviderError:
    """Return what an exception of the SDK or of its HTTP client means.

    `secrets` are the configured keys; none is left in the text.
    """
    match error:
        case openai.APIStatusError():
            headers = error.response.headers
            return from_body(error.body, secrets, status=error.status_code, headers=headers)
        case openai.APITimeoutError():
            return from_connecting(error, secrets, late=True)
        case openai.APIConnectionError():
            return from_connecting(error, secrets, late=False)
        case openai.APIError() if error.body is not None:
            return from_body(error.body, secrets)
    return from_transport(error, secrets)
