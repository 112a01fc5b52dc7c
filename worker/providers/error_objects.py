"""What a provider's error object, HTTP status or broken connection means, as a ProviderError."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.shared.rate_limits import RateLimits
from rejoin.worker.providers.rate_headers import rate_limits
from rejoin.worker.providers.scrub import scrub

# One table for all: OpenRouter and others pass on the words of the provider behind them.
# What the error object's `code` or `type` says, whatever the HTTP status beside it.
_SAYS: Final[Mapping[str, tuple[FailureCode, bool]]] = {
    "context_length_exceeded": (FailureCode.CONTEXT_LENGTH_EXCEEDED, False),
    "exceed_context_size_error": (FailureCode.CONTEXT_LENGTH_EXCEEDED, False),
    "content_filter": (FailureCode.CONTENT_FILTER, False),
    "content_policy_violation": (FailureCode.CONTENT_FILTER, False),
    "responsibleaipolicyviolation": (FailureCode.CONTENT_FILTER, False),
    "invalid_prompt": (FailureCode.CONTENT_FILTER, False),
    "data_inspection_failed": (FailureCode.CONTENT_FILTER, False),
    # No money left: waiting does not help, but like a 429 it is the account, not the request.
    "insufficient_quota": (FailureCode.RATE_LIMITED, False),
    "billing_hard_limit_reached": (FailureCode.RATE_LIMITED, False),
    "billing_not_active": (FailureCode.RATE_LIMITED, False),
    "rate_limit_exceeded": (FailureCode.RATE_LIMITED, True),
    "rate_limit_error": (FailureCode.RATE_LIMITED, True),
    "invalid_api_key": (FailureCode.AUTHENTICATION, False),
    "authentication_error": (FailureCode.AUTHENTICATION, False),
    "permission_error": (FailureCode.AUTHENTICATION, False),
    "billing_error": (FailureCode.RATE_LIMITED, False),  # Anthropic, as insufficient_quota
    "overloaded_error": (FailureCode.PROVIDER_UNAVAILABLE, True),
}
# The same for error objects in mid-stream, which have no status of their own.
_SAYS_IN_STREAM: Final[Mapping[str, tuple[FailureCode, bool]]] = {
    "invalid_request_error": (FailureCode.INVALID_REQUEST, False),
    "badrequesterror": (FailureCode.INVALID_REQUEST, False),
    "not_found_error": (FailureCode.INVALID_REQUEST, False),
    "request_too_large": (FailureCode.INVALID_REQUEST, False),
    "timeout": (FailureCode.PROVIDER_TIMEOUT, True),
    "timeout_error": (FailureCode.PROVIDER_TIMEOUT, True),
}
# Servers that have no code for it (vLLM, llama.cpp, many behind OpenRouter) say it in words.
_CONTEXT_LENGTH: Final = re.compile(
    r"maximum context length|context (?:length|window|size|limit)|prompt is too long"
    r"|input is too long|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)
# Anthropic has only its invalid_request_error for these two.
_NO_MONEY: Final = re.compile(
    r"credit balance is too low|specified (?:API )?usage limits", re.IGNORECASE
)
_FILTERED: Final = re.compile(r"blocked by (?:our )?content[- ]filter", re.IGNORECASE)
_BY_STATUS: Final[Mapping[int, tuple[FailureCode, bool]]] = {
    401: (FailureCode.AUTHENTICATION, False),
    402: (FailureCode.RATE_LIMITED, False),  # OpenRouter, DeepSeek: as insufficient_quota
    403: (FailureCode.AUTHENTICATION, False),
    408: (FailureCode.PROVIDER_UNAVAILABLE, True),
    409: (FailureCode.PROVIDER_UNAVAILABLE, True),
    429: (FailureCode.RATE_LIMITED, True),
}
_PLAINLY: Final[Mapping[FailureCode, str]] = {
    FailureCode.AUTHENTICATION: "the provider refused the key",
    FailureCode.RATE_LIMITED: "the provider's rate or spending limit is reached",
    FailureCode.CONTEXT_LENGTH_EXCEEDED: "the messages are longer than the model's context",
    FailureCode.CONTENT_FILTER: "the provider's content filter refused the request",
    FailureCode.INVALID_REQUEST: "the provider refused the request",
    FailureCode.PROVIDER_UNAVAILABLE: "the provider had an error",
    FailureCode.PROVIDER_TIMEOUT: "the provider took too long",
    FailureCode.PROVIDER_PROTOCOL: "the provider's answer makes no sense",
}


def from_body(
    body: object,
    secrets: Sequence[str] = (),
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProviderError:
    """Return what an error object means; without `status` it came within a stream.

    `body` is the object itself, or whatever text came in its place.
    """
    said = {} if not isinstance(body, dict) else body
    code, kind = (str(said.get(member) or "").lower() for member in ("code", "type"))
    if status is None and re.fullmatch("[45][0-9]{2}", code):
        status = int(code)  # OpenRouter: the status of the provider behind it
    words = _words(body)
    failure, retryable = _classify(status, code, kind, words)
    if status == 403 and _was_moderated(said):
        failure = FailureCode.CONTENT_FILTER
    if headers is None:
        return _error(failure, retryable, words, secrets, status=status)
    after, limits = retry_after(headers) if retryable else None, rate_limits(headers)
    return _error(failure, retryable, words, secrets, status=status, after=after, limits=limits)


def from_transport(error: Exception, secrets: Sequence[str] = ()) -> ProviderError:
    """Return what an exception of the HTTP client means; `secrets` are not left in the text."""
    match error:
        case httpx2.TimeoutException():
            return _error(FailureCode.PROVIDER_TIMEOUT, True, _cause(error), secrets)
        case httpx2.TransportError():
            return _error(FailureCode.PROVIDER_UNAVAILABLE, True, _cause(error), secrets)
        case httpx2.InvalidURL():
            return _error(FailureCode.INVALID_REQUEST, False, str(error), secrets)
    return _error(FailureCode.PROVIDER_PROTOCOL, True, str(error), secrets)


def from_connecting(error: Exception, secrets: Sequence[str] = (), *, late: bool) -> ProviderError:
    """Return what an SDK's connection error means; `late`: it took too long."""
    code = FailureCode.PROVIDER_TIMEOUT if late else FailureCode.PROVIDER_UNAVAILABLE
    return _error(code, True, _cause(error), secrets)


def protocol(detail: str) -> ProviderError:
    """Return the error for an answer that breaks the wire format; another try may go well."""
    return ProviderError(detail, code=FailureCode.PROVIDER_PROTOCOL, retryable=True)


def not_a_stream(body: bytes, secrets: Sequence[str] = ()) -> ProviderError:
    """Return the error for a JSON body under status 200: its own, or that it is no stream."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and (said.get("error") or said.get("object") == "error"):
        return from_body(said.get("error") or said, secrets)
    return protocol("the answer is JSON, not a stream")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or Retry-After, seconds or date (RFC 9110, 10.2.3).

    None without such a header, or where it says neither; never negative.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):  # the latter: a year that no integer of C holds
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _classify(status: int | None, code: str, kind: str, words: str) -> tuple[FailureCode, bool]:
    for word in (code, kind):
        if word in _SAYS:
            return _SAYS[word]
    if said := _said_in_words(status, words):
        return said
    if status is None:
        for word in (code, kind):
            if word in _SAYS_IN_STREAM:
                return _SAYS_IN_STREAM[word]
        return FailureCode.PROVIDER_UNAVAILABLE, True
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return FailureCode.PROVIDER_UNAVAILABLE, True
    if status >= 400:
        return FailureCode.INVALID_REQUEST, False
    return FailureCode.PROVIDER_PROTOCOL, True


def _said_in_words(status: int | None, words: str) -> tuple[FailureCode, bool] | None:
    if status in {None, 400, 413, 422, 500} and _CONTEXT_LENGTH.search(words):
        return FailureCode.CONTEXT_LENGTH_EXCEEDED, False
    if status not in {None, 400}:
        return None
    if _NO_MONEY.search(words):
        return FailureCode.RATE_LIMITED, False
    return (FailureCode.CONTENT_FILTER, False) if _FILTERED.search(words) else None


def _was_moderated(said: Mapping[object, object]) -> bool:
    """Whether OpenRouter's 403 is about the input, not the key."""
    metadata = said.get("metadata")
    return isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata)


def _words(body: object) -> str:
    """Return the provider's own words, or "" where it has none that a person can read."""
    if isinstance(body, str):
        return "" if body.lstrip().startswith("<") else body
    if not isinstance(body, dict):
        return ""
    found = [body.get(member) for member in ("message", "detail", "error")]
    words = next((word for word in found if isinstance(word, str) and word), "")
    metadata = body.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{words}: {raw}" if isinstance(raw, str) and raw else words


def _cause(error: Exception) -> str:
    """Say what the HTTP client said: the SDK's own text is just "Connection error."."""
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__


def _error(
    code: FailureCode,
    retryable: bool,
    words: str,
    secrets: Sequence[str],
    *,
    status: int | None = None,
    after: float | None = None,
    limits: RateLimits | None = None,
) -> ProviderError:
    said = scrub(words, secrets)
    plainly = _PLAINLY[code]
    return ProviderError(
        f"{plainly}: {said}" if said else plainly,
        code=code,
        retryable=retryable,
        status=status,
        retry_after_seconds=after,
        limits=limits,
    )
