"""GET /api/messages/{id}/events: the log as a stream, or page by page."""

import logging
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rejoin.api import archive, archive_stream, problems, sse
from rejoin.api.event_pages import page_of_events
from rejoin.api.owner import owner_of
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.errors import BadRequest, LogUnavailable, NotFound, RejoinError, Unavailable
from rejoin.shared.ids import EventId, is_message_id

if TYPE_CHECKING:
    from rejoin.api.context import Context

EVENTS_PATH: Final = re.compile(r"/api/messages/(?P<message_id>[^/]+)/events")

_NOT_STORED: Final = {"cache-control": "no-store"}

_log = logging.getLogger(__name__)


class _Archived(NamedTuple):
    """A message that Redis does not know; `row` None: nor does anybody, the database is away."""

    message_id: str
    owner: str
    after: EventId | None
    row: StoredMessage | None


class EventsEndpoint:
    """The endpoint as plain ASGI: an idle tail costs one task and next to nothing of ours."""

    def __init__(self, context: "Context", *, frugal: bool = False) -> None:
        self._context = context
        self._frugal = frugal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is wrong with it becomes a problem."""
        headers = scope["headers"]
        try:
            answer = await self._answer(scope)
        except Exception as error:  # noqa: BLE001  as Starlette's handlers do for the others
            if not isinstance(error, RejoinError):
                _log.exception("the events of %r could not be had", scope["path"])
            answer = problems.response(error)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        if isinstance(answer, _Archived):
            await archive_stream.respond(
                scope, receive, send, context=self._context, **answer._asdict()
            )
            return
        message_id, owner, after = answer
        if self._frugal:
            _let_go(scope, headers)
        await sse.respond(
            scope,
            receive,
            send,
            hub=self._context.hub,
            message_id=message_id,
            owner=owner,
            after=after,
        )

    async def _answer(self, scope: Scope) -> Response | _Archived | tuple[str, str, EventId | None]:
        """Return the response, what to send of an archive, or whose tail to open from where."""
        if scope["method"] not in ("GET", "HEAD"):
            return problems.method_not_allowed("GET, HEAD")
        match = EVENTS_PATH.fullmatch(scope["path"])
        message_id = match["message_id"] if match else ""
        if not is_message_id(message_id):
            raise NotFound("no such message")
        headers = Headers(scope=scope)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        after = position(headers, query)
        owner = owner_of(scope)
        if _wants_json(headers):
            body = await page_of_events(self._context, message_id, owner, after, query)
            return Response(body, media_type="application/json", headers=_NOT_STORED)
        try:
            page = await self._context.hub.look(message_id, after, 1)
        except LogUnavailable:
            # Any status but 200 would stop an EventSource for good; the tail asks again.
            return message_id, owner, after
        if page.owner is None:
            return await self._archived(message_id, owner, after)
        if page.owner != owner:
            raise NotFound("no such message")
        if page.ended and after == page.newest:
            return Response(status_code=204)
        return message_id, owner, after

    async def _archived(
        self, message_id: str, owner: str, after: EventId | None
    ) -> Response | _Archived:
        try:
            row = await archive.load(self._context, message_id, owner)
        except Unavailable:
            # As above: 200, and the stream asks again.
            return _Archived(message_id, owner, after, None)
        if not archive.after(row, after):
            return Response(status_code=204)
        return _Archived(message_id, owner, after, row)


def position(headers: Headers, query: dict[str, str]) -> EventId | None:
    """The client's Last-Event-ID: the header, else the query parameter; None where neither is.

    The header wins, because an EventSource's URL is fixed while its header advances.

    Raises:
        BadRequest: 400, it is not of the form `<attempt>-<sequence>`.
    """
    # Some servers leave the white space behind a header's value to the application.
    text = headers.get("last-event-id", "").strip(" \t") or query.get("last_event_id")
    if not text:
        return None
    try:
        return EventId.parse(text)
    except ValueError as error:
        raise BadRequest(str(error), field=("Last-Event-ID",), status=400) from error


def _wants_json(headers: Headers) -> bool:
    accept = headers.get("accept", "").lower()
    return "application/json" in accept and "text/event-stream" not in accept


def _let_go(scope: Scope, headers: object) -> None:
    """Forget the request for as long as its tail lives; uvicorn still asks for the method.

    Not behind others' middlewares or an access log, which may look at it when the answer begins.
    """
    if isinstance(headers, list):
        headers.clear()  # the server's own list: its protocol holds it too
    method = scope["method"]
    scope.clear()
    scope["method"] = method
