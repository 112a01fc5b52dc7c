"""POST /api/messages/{id}/cancel: stop generating; the text so far stays."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import bodies
from rejoin.api.answers import json_answer
from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.api.endpoints.snapshot import owned
from rejoin.api.owner import owner_of
from rejoin.shared import queue, record
from rejoin.shared.ending import Ender, Lives, end_message
from rejoin.shared.errors import BadRequest, Conflict
from rejoin.shared.record import Record, Status

ENDER: Final = "api"  # the name in the record of an API that ends a message no worker runs


class CancelEndpoint:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context
        settings = context.settings
        lives = Lives(settings.open_ttl_seconds, settings.log_ttl_seconds)
        self._ender = Ender(context.redis, ENDER, lives)

    async def post(self, request: Request) -> Response:
        """Answer one request."""
        message_id = request.path_params["message_id"]
        owner = owner_of(request.scope)
        fields = await bodies.read_object(
            request.scope,
            request.receive,
            most_bytes=self._context.settings.max_body_bytes,
            optional=True,
        )
        _check(fields)
        async with redis_answers():
            status = await self._cancel(message_id, owner)
        return json_answer({"message_id": message_id, "status": status}, 202)

    async def _cancel(self, message_id: str, owner: str) -> Status:
        """Set the flag, and end the message here where no worker has it; return its status.

        Raises:
            Conflict: it has ended otherwise.
        """
        await owned(self._context, message_id, owner)
        ended = await record.cancel(self._context.redis, message_id)
        if ended is not None:
            if ended is not Status.CANCELLED:
                raise Conflict(f"the message has ended already: {ended}")
            return ended
        found = await owned(self._context, message_id, owner)
        if not found.ended and await self._nobody_runs(found):
            await end_message(self._ender, message_id)
            found = await owned(self._context, message_id, owner)
        return found.status

    async def _nobody_runs(self, found: Record) -> bool:
        # ENDER as its worker: an API that was about to end it, and could not.
        if found.status is Status.QUEUED or found.worker == ENDER:
            return True
        # Between two workers: in a deploy the next one may be long in coming.
        return await queue.is_due(self._context.redis, found.message_id)


def _check(fields: dict[str, object]) -> None:
    for name in fields:
        if name != "mode":
            raise BadRequest("there is no such field", field=(name,))
    if "mode" in fields:
        mend = "this version does not take it yet: it cancels at once"
        raise BadRequest(mend, field=("mode",))
