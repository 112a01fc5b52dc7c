"""POST /api/messages: take a message in; answer 202, or with the stream itself."""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rejoin.api import accept, archive, archive_stream, bodies, sse
from rejoin.api.abilities import check_abilities
from rejoin.api.agent_support import check_agents
from rejoin.api.answers import json_answer
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.api.endpoints.events import position
from rejoin.api.formats import check_format
from rejoin.api.offer import Accepted, Offer
from rejoin.api.owner import owner_of
from rejoin.api.part_support import check_images, check_parts
from rejoin.api.prefix import prefix_of
from rejoin.api.schemas import conversation_of, to_request
from rejoin.api.tool_bodies import check_definitions
from rejoin.api.tool_support import check_tools
from rejoin.shared import log
from rejoin.shared.catalogue import check_model
from rejoin.shared.errors import BadRequest, NotFound
from rejoin.shared.ids import EventId

_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")


class MessagesEndpoint:
    """The endpoint as plain ASGI: where it streams, nothing of the request is kept meanwhile."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope)
        after = position(headers, {})
        owner = owner_of(scope)
        accepted = await self._accept(scope, receive, owner, resumes=after is not None)
        path = f"{prefix_of(scope)}/api/messages/{accepted.message_id}"
        if prefers_stream(headers):
            await self._stream(scope, receive, send, accepted, owner, after, path)
            return
        links = {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel"}
        body: dict[str, object] = {
            "message_id": accepted.message_id,
            "conversation_id": accepted.conversation_id,
            "status": "queued",
            "links": links,
        }
        if accepted.waiting_for is not None:
            body["waiting_for"] = accepted.waiting_for._asdict()
        answer = json_answer(body, 202, {"Location": path})
        await answer(scope, receive, send)

    async def _accept(
        self, scope: Scope, receive: Receive, owner: str, *, resumes: bool
    ) -> Accepted:
        settings = self._context.settings
        key = idempotency_key(scope)
        fields = await bodies.read_object(scope, receive, most_bytes=settings.max_body_bytes)
        request = to_request(fields, default_model=settings.default_model)
        if request.model:
            check_model(request.model)
        for at, model in enumerate(request.fallbacks):
            _check_fallback(model, at)
        single = "messages" not in fields
        check_parts(request, single=single)
        check_abilities(request)
        await check_format(request.response_format)
        await check_definitions(request.tools)
        await check_images(self._context.redis, request, single=single)
        await check_tools(self._context.redis, request)
        await check_agents(self._context.redis, request)
        digest = accept.digest_of(fields) if key is not None else ""
        conversation_id, if_busy = conversation_of(fields)
        named = fields.get("fallbacks") is not None
        offer = Offer(owner, request, key, digest, resumes, conversation_id, if_busy, named)
        return await accept.accept(self._context, offer)

    async def _stream(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        accepted: Accepted,
        owner: str,
        after: EventId | None,
        path: str,
    ) -> None:
        location = [(b"location", path.encode())]
        if accepted.again:
            async with redis_answers():
                page = await log.look(self._context.redis, accepted.message_id, after, 1)
            if page.owner is None:
                row = await archive.load(self._context, accepted.message_id, owner)
                seen = not archive.after(row, after)
            else:
                row = None
                seen = page.ended and after == page.newest
            if seen:
                # An empty stream has no end event: the client would come back without an end.
                await Response(status_code=204, headers={"Location": path})(scope, receive, send)
                return
            if row is not None:
                await archive_stream.respond(
                    scope,
                    receive,
                    send,
                    context=self._context,
                    message_id=accepted.message_id,
                    owner=owner,
                    after=after,
                    row=row,
                    headers=location,
                )
                return
        await sse.respond(
            scope,
            receive,
            send,
            hub=self._context.hub,
            message_id=accepted.message_id,
            owner=owner,
            after=after,
            headers=location,
        )


def _check_fallback(model: str, at: int) -> None:
    try:
        check_model(model)
    except BadRequest as error:
        raise BadRequest(error.mend, field=("fallbacks", at)) from error
    except NotFound as error:
        raise NotFound(f"fallbacks.{at}: {error}") from error


def idempotency_key(scope: Scope) -> str | None:
    """The request's Idempotency-Key, or None.

    Raises:
        BadRequest: 400, not one key of 1 to 255 printable ASCII characters.
    """
    found = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not found:
        return None
    if len(found) > 1 or _KEY.fullmatch(found[0]) is None:
        raise BadRequest(
            "send one Idempotency-Key of 1 to 255 printable ASCII characters",
            field=("Idempotency-Key",),
            status=400,
        )
    return str(found[0], "ascii")


def prefers_stream(headers: Headers) -> bool:
    """Whether Accept names text/event-stream, and not with less weight than JSON.

    A wildcard asks for no stream: every plain HTTP client sends one.
    """
    weights: dict[str, float] = {}
    for part in ",".join(headers.getlist("accept")).lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        weights[media_type] = _weight(parameters)
    stream = weights.get("text/event-stream", 0)
    return stream > 0 and stream >= weights.get("application/json", 0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0
    return 1
