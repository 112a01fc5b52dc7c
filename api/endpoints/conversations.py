"""GET /api/conversations, and GET and DELETE /api/conversations/{id}."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api import conversation_list
from rejoin.api.answers import json_answer
from rejoin.api.bounds import both_answer
from rejoin.api.context import Context
from rejoin.api.conversation_view import about_conversation, view
from rejoin.api.deleting import delete_conversation
from rejoin.api.owner import owner_of
from rejoin.shared.errors import BadRequest

MOST: Final = 100
_PLAIN: Final = 20


class ConversationsEndpoints:
    """The endpoints."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        """Answer with a page of the caller's conversations."""
        query = request.query_params
        limit, cursor = _limit(query.get("limit")), query.get("cursor")
        owner = owner_of(request.scope)
        async with both_answer():
            page = await conversation_list.page(self._context, owner, limit=limit, cursor=cursor)
        return json_answer(
            {
                "conversations": [about_conversation(one) for one in page.conversations],
                "next_cursor": page.next_cursor,
            }
        )

    async def one(self, request: Request) -> Response:
        """Answer with a conversation, or delete it."""
        conversation_id = request.path_params["conversation_id"]
        owner = owner_of(request.scope)
        async with both_answer():
            if request.method != "DELETE":
                return json_answer(await view(self._context, conversation_id, owner))
            await delete_conversation(self._context, conversation_id, owner)
        return Response(status_code=204)


def _limit(text: str | None) -> int:
    if text is None:
        return _PLAIN
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 1 <= int(text) <= MOST):
        mend = f"limit is a whole number from 1 to {MOST}"
        raise BadRequest(mend, field=("query", "limit"))
    return int(text)
