"""POST /api/messages/{id}/cancel: stop generating; the text so far stays."""

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import archive, bodies
from rejoin.api.answers import json_answer
from rejoin.api.bounds import both_answer
from rejoin.api.cancelling import cancel_message
from rejoin.api.context import Context
from rejoin.api.endpoints.snapshot import owned_in_redis
from rejoin.api.owner import owner_of
from rejoin.shared.errors import BadRequest, Conflict
from rejoin.shared.record import ENDED, Status


class CancelEndpoint:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context

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
        async with both_answer():
            status = await self._cancel(message_id, owner, after_step="mode" in fields)
        return json_answer({"message_id": message_id, "status": status}, 202)

    async def _cancel(self, message_id: str, owner: str, *, after_step: bool) -> Status:
        """Cancel a message of this owner; return its status.

        Raises:
            Conflict: it has ended otherwise.
        """
        if await owned_in_redis(self._context, message_id, owner) is None:
            status = (await archive.load(self._context, message_id, owner)).status
        else:
            status = await cancel_message(self._context, message_id, after_step=after_step)
        if status in ENDED and status is not Status.CANCELLED:
            raise Conflict(f"the message has ended already: {status}")
        return status


def _check(fields: dict[str, object]) -> None:
    for name in fields:
        if name != "mode":
            raise BadRequest("there is no such field", field=(name,))
    if "mode" in fields and fields["mode"] != "after_step":
        mend = "after_step lets the present step end first; leave it out to cancel at once"
        raise BadRequest(mend, field=("mode",))
