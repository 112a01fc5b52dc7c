"""Turns exceptions into `application/problem+json` (RFC 9457), only here."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from rejoin.api.answers import json_answer
from rejoin.api.unread import UnreadResponse
from rejoin.shared.errors import (
    BadRequest,
    Busy,
    Conflict,
    MessageMissing,
    NotFound,
    OverLimit,
    RejoinError,
    Unavailable,
)

MEDIA_TYPE: Final = "application/problem+json"

# RFC 9110's words; Python's own changed with 3.13.
_TITLES: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
_WORDS: Final = {"extra_forbidden": "there is no such field"}
_MOST_ERRORS: Final = 20
_MOST_LISTED: Final = 1000  # pydantic lists all or none, 6 µs each
_LONGEST_NAME: Final = 100  # of a field's name, which is the caller's own text

Location = Sequence[str | int]


def problem(
    status: int,
    detail: str,
    *,
    errors: Sequence[tuple[Location, str]] | None = None,
    headers: Mapping[str, str] | None = None,
    kind: type[Response] = Response,
    more: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem; `errors` are the wrong fields of a body, each with what is wrong.

    `more` are members of its own.
    """
    members: dict[str, object] = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": detail,
        **(more or {}),
    }
    if errors is not None:
        members["errors"] = [{"loc": _shown(loc), "msg": _text(msg)} for loc, msg in errors]
    return json_answer(members, status, headers, media_type=MEDIA_TYPE, kind=kind)


def response(error: Exception) -> Response:
    """Return the problem that tells a client of `error`; 500 for what nobody meant to raise."""
    match error:
        case BadRequest():
            return _bad_request(error)
        case ValidationError():
            return _bad_body(error)
        case NotFound() | MessageMissing():
            return problem(
                404, "no such message" if not isinstance(error, NotFound) else f"{error}"
            )
        case Busy():
            return problem(409, str(error), more={"active_message_id": error.active_message_id})
        case Conflict():
            return problem(409, str(error))
        case OverLimit() | Unavailable():
            # The one limit that exists is the queue's, and a full queue is the server's trouble.
            retry_after = {"Retry-After": str(error.retry_after_seconds)}
            return problem(503, str(error), headers=retry_after)
        case HTTPException(status_code=405):
            return method_not_allowed((error.headers or {}).get("Allow", "GET, HEAD"))
        case HTTPException(status_code=404):
            return problem(404, "there is nothing at this address")
        case HTTPException():
            return problem(error.status_code, str(error.detail), headers=error.headers)
    return problem(500, "Rejoin failed at this request; its log says why")


def method_not_allowed(allow: str) -> Response:
    """Return the 405 that names the methods there are, `GET, HEAD` for example."""
    methods = ", ".join(sorted(method.strip() for method in allow.split(",")))
    return problem(405, f"this address takes {methods}", headers={"Allow": methods})


async def _answer(_: Request, error: Exception) -> Response:
    return response(error)


async def _nobody_listens(_: Request, __: Exception) -> Response:
    return Response(status_code=400)


HANDLERS: Final[Mapping[object, ExceptionHandler]] = {
    RejoinError: _answer,
    ValidationError: _answer,
    HTTPException: _answer,
    ClientDisconnect: _nobody_listens,
    Exception: _answer,
}


def _bad_request(error: BadRequest) -> Response:
    named = [(error.field, error.mend)] if error.field or error.status == 422 else None
    kind = UnreadResponse if error.status in (408, 413) else Response
    return problem(error.status, error.mend, errors=named, kind=kind)


def _bad_body(error: ValidationError) -> Response:
    if (count := error.error_count()) > _MOST_LISTED:
        mend = f"it is wrong in {count} places, too many to name"
        return problem(422, f"the body: {mend}", errors=[((), mend)])
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors: list[tuple[Location, str]] = [
        (item["loc"], _WORDS.get(item["type"], item["msg"])) for item in found
    ]
    loc, msg = errors[0]
    where = ".".join(str(part) for part in _shown(loc))
    return problem(422, _text(f"{where}: {msg}"), errors=errors[:_MOST_ERRORS])


def _shown(loc: Location) -> list[str | int]:
    return [part if isinstance(part, int) else _text(part)[:_LONGEST_NAME] for part in loc]


def _text(text: str) -> str:
    """Spell lone surrogates as their escapes, so that the answer is UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _title(status: int) -> str:
    try:
        return _TITLES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Error"
