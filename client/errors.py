"""What the client raises: the server's refusals in shared's words, and two errors of its own.

RejoinError (rejoin.shared.errors)
├── BadRequest, NotFound, Conflict, Busy, OverLimit, Unavailable    the server said so
├── Unavailable
│   └── Unreachable         no server answered, for as long as the client was to try
└── UnexpectedReply         what answered does not speak Rejoin's protocol
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import httpx

from rejoin.shared.errors import (
    BadRequest,
    Busy,
    Conflict,
    NotFound,
    OverLimit,
    RejoinError,
    Unavailable,
)

# A proxy's own words for a server that is restarting or overloaded; 429 and 503 are also ours.
TRY_AGAIN: Final = frozenset({429, 502, 503, 504})

_LONGEST_DETAIL: Final = 500


class Unreachable(Unavailable):
    """No server answered at the base URL, for as long as the client was to try."""


class UnexpectedReply(RejoinError):
    """Whatever answered does not keep to the contract: another server, or a proxy's own page."""


def refusal(response: httpx.Response, retry_after_seconds: float | None) -> RejoinError:
    """Return the error that a reply other than a success stands for; its body has been read."""
    status = response.status_code
    problem = _problem(response)
    detail = str(problem.get("detail") or problem.get("title") or _plain(response))
    if status in (400, 413, 415, 422):
        return BadRequest(detail, field=_field(problem), status=status)
    if status == 404:
        return NotFound(detail)
    if status == 409:
        active = problem.get("active_message_id")
        return Busy(active) if isinstance(active, str) else Conflict(detail)
    seconds = max(1, round(retry_after_seconds or 1))
    if status == 429:
        return OverLimit(detail, retry_after_seconds=seconds)
    if status in TRY_AGAIN:
        return Unavailable(detail, retry_after_seconds=seconds)
    return UnexpectedReply(f"{status} from {response.request.url}: {detail}")


def _problem(response: httpx.Response) -> Mapping[str, object]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _field(problem: Mapping[str, object]) -> tuple[str | int, ...]:
    errors = problem.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    loc = first.get("loc") if isinstance(first, dict) else None
    return tuple(loc) if isinstance(loc, list) else ()


def _plain(response: httpx.Response) -> str:
    if "text/plain" in response.headers.get("content-type", "") and response.text.strip():
        return response.text.strip()[:_LONGEST_DETAIL]
    try:
        return HTTPStatus(response.status_code).phrase
    except ValueError:
        return "no reason given"
