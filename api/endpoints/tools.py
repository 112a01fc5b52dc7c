"""POST /api/messages/{id}/tools/{tool_call_id}: answer a tool call that waits."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import archive, bodies
from rejoin.api.answers import json_answer
from rejoin.api.bodies import Fields
from rejoin.api.bounds import both_answer
from rejoin.api.context import Context
from rejoin.api.endpoints.snapshot import owned_in_redis
from rejoin.api.owner import owner_of
from rejoin.shared import queue, waiting, waking
from rejoin.shared.asks import Answer, Kind
from rejoin.shared.errors import BadRequest, Conflict, NotFound

_ONE_OF_THEM: Final = "send one of `approve`, `result` and `error`"


class ToolsEndpoint:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def post(self, request: Request) -> Response:
        """Answer one request."""
        message_id = request.path_params["message_id"]
        tool_call_id = request.path_params["tool_call_id"]
        fields = await bodies.read_object(
            request.scope,
            request.receive,
            most_bytes=self._context.settings.max_body_bytes,
        )
        said = _answer_of(fields)
        async with both_answer():
            await self._answer(message_id, tool_call_id, said, owner_of(request.scope))
        return json_answer({"message_id": message_id, "tool_call_id": tool_call_id}, 202)

    async def _answer(self, message_id: str, tool_call_id: str, said: Answer, owner: str) -> None:
        """Answer a call of a message of this owner, and let the message go on.

        Raises:
            NotFound: no such call waits, or waited; or the message is not this owner's.
            BadRequest: it waits for an answer of another kind.
            Conflict: another answer stands, or it is too late for any.
        """
        redis = self._context.redis
        if await owned_in_redis(self._context, message_id, owner) is None:
            row = await archive.load(self._context, message_id, owner)
            if all(call.tool_call_id != tool_call_id for call in row.tool_calls):
                raise NotFound("the message has no such call")
            raise Conflict("the message has ended")
        await waking.note(redis, message_id)
        all_answered = await waiting.answer(
            redis,
            message_id,
            tool_call_id,
            said,
            life_seconds=self._context.settings.open_ttl_seconds,
        )
        if all_answered:
            await queue.wake(redis, message_id)


def _answer_of(fields: Fields) -> Answer:
    """Read a body.

    Raises:
        BadRequest: it is not one of the three, or not of its kind.
    """
    known = [name for name in fields if name in (Kind.APPROVE, Kind.RESULT, Kind.ERROR)]
    for name in fields:
        if name not in known:
            raise BadRequest("there is no such field", field=(name,))
    if len(known) != 1:
        raise BadRequest(_ONE_OF_THEM, field=(known[1] if known else Kind.APPROVE.value,))
    said = Answer(Kind(known[0]), fields[known[0]])
    if said.kind is Kind.APPROVE and not isinstance(said.value, bool):
        raise BadRequest("approve is true or false", field=("approve",))
    if said.kind is Kind.ERROR and not (isinstance(said.value, str) and said.value.strip()):
        raise BadRequest("error is a text that says what went wrong", field=("error",))
    try:
        said.to_json()
    except RecursionError as error:
        raise BadRequest("the result is nested too deeply", field=("result",)) from error
    return said
