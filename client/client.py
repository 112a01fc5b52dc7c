"""The Python client: send, tail, answer, cancel; every call bears lost connections by itself."""

import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self, TypedDict, Unpack

from rejoin.client.exchange import Exchange, parsed
from rejoin.client.replies import (
    Accepted,
    Conversation,
    ConversationPage,
    Model,
    Models,
    Snapshot,
)
from rejoin.client.tail import OnDrop, Tail
from rejoin.client.tool_answer import NO_RESULT, body_of
from rejoin.shared.errors import BadRequest
from rejoin.shared.ids import EventId

SEND_PATIENCE_SECONDS: Final = 30.0
TAIL_PATIENCE_SECONDS: Final = 120.0
LONGEST_WAIT_SECONDS: Final = 60.0

_JSON: Final = {"Content-Type": "application/json"}

IfBusy = Literal["enqueue", "interrupt", "reject"]


class Options(TypedDict, total=False):
    """How to answer, passed on in the provider's own form; `metadata` is kept with the message.

    `fallbacks`: models to go on with, in order, when the first one cannot. `tools`: names of
    registered ones, and `{"name", "description", "parameters"}` of those that you run yourself.
    """

    system: str
    temperature: float
    top_p: float
    max_tokens: int
    stop: list[str]
    reasoning_effort: str
    response_format: Mapping[str, object]
    fallbacks: list[str]
    tools: Sequence[str | Mapping[str, object]]
    metadata: dict[str, str]


class Client:
    """A client of the Rejoin server at `base_url`, an async context manager.

    Holds a pool of connections, so one object serves a whole process, from one event loop.

    Raises:
        BadRequest: `base_url` is no http(s) address.
    """

    def __init__(self, base_url: str, *, patience_seconds: float = SEND_PATIENCE_SECONDS) -> None:
        self._exchange = Exchange(base_url, patience_seconds=patience_seconds)

    async def send(
        self,
        turns: str | Sequence[Mapping[str, object]] | None = None,
        *,
        model: str | None = None,
        conversation_id: str | None = None,
        parent_id: str | None = None,
        if_busy: IfBusy | None = None,
        regenerate: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Accepted:
        """Send a message to be answered, and return once the server has taken it in.

        `turns`: the user's words, or the history as `{"role", "content"}`, the last the user's;
        none with `regenerate`, the id of an answer to give again in another way. `model` None:
        the server's REJOIN_DEFAULT_MODEL. `conversation_id` goes on with one, after its newest
        message or `parent_id`; `if_busy` None is `enqueue`. Sent again, under one
        Idempotency-Key, until a reply comes or the patience ends: a lost reply never makes a
        second message. Pass `idempotency_key` to bear a crash of your own.

        Raises:
            BadRequest: a field is wrong, named in `field`.
            NotFound: there is no such model or conversation.
            Busy: another message of it is running, and `if_busy` is `reject`.
            Conflict: `idempotency_key` was used for another message.
            OverLimit, Unavailable: no room, or Redis is away, up to the last try.
            Unreachable: no server answered.
            UnexpectedReply: what answers is no Rejoin server.
        """
        named = {
            "model": model,
            "conversation_id": conversation_id,
            "parent_id": parent_id,
            "if_busy": if_busy,
            "regenerate": regenerate,
        }
        body: dict[str, object] = {**options}
        body |= {name: value for name, value in named.items() if value is not None}
        if isinstance(turns, str):
            body["input"] = turns
        elif turns is not None:
            body["messages"] = [dict(turn) for turn in turns]
        headers = {
            **_JSON,
            "Accept": "application/json",
            "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
        }
        reply = await self._exchange.ask("POST", "messages", body=body, headers=headers)
        return parsed(Accepted, reply)

    def tail(
        self,
        message_id: str,
        after: EventId | str | None = None,
        *,
        patience_seconds: float | None = TAIL_PATIENCE_SECONDS,
        on_drop: OnDrop | None = None,
    ) -> Tail:
        """Return the message's events later than `after` (None: all), live ones as they come.

        Nothing is sent before it is iterated; see Tail for what iterating does and raises.

        Raises:
            BadRequest: `after` is no event id.
        """
        if isinstance(after, str):
            try:
                after = EventId.parse(after)
            except ValueError as error:
                raise BadRequest(str(error), field=("after",)) from error
        return Tail(
            self._exchange.http,
            self._exchange.url("messages", message_id, "events"),
            after,
            patience_seconds=patience_seconds,
            on_drop=on_drop,
        )

    async def answer_tool(
        self,
        message_id: str,
        tool_call_id: str,
        *,
        approve: bool | None = None,
        result: object = NO_RESULT,
        error: str | None = None,
    ) -> None:
        """Answer a call that waits, in one of three ways; the same answer again is one answer.

        `approve` where its `tool_waiting` needs `approval`; where it needs `result`, what the
        tool returned (anything that JSON has, None too) or the `error` that it failed with.

        Raises:
            BadRequest: not one of the three, or not what the call needs.
            Conflict: another answer stands, its deadline has passed, or the message has ended.
            NotFound: there is no such message, or no such call of it waits.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        path = ("messages", message_id, "tools", tool_call_id)
        body = body_of(approve=approve, result=result, error=error)
        await self._exchange.ask("POST", *path, body=body, headers=_JSON)

    async def cancel(self, message_id: str, *, after_step: bool = False) -> None:
        """Stop generating; the text so far stays. Asked twice it is one cancel.

        With `after_step` the model call that runs, and its tools, may end first.

        Raises:
            Conflict: the message has ended otherwise.
            NotFound: there is no such message.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        body = {"mode": "after_step"} if after_step else None
        headers = _JSON if after_step else None
        await self._exchange.ask(
            "POST", "messages", message_id, "cancel", body=body, headers=headers
        )

    async def snapshot(self, message_id: str, *, wait_seconds: float = 0) -> Snapshot:
        """Return the message so far, after its end or at most `wait_seconds` (60 at most).

        Raises:
            NotFound: there is no such message.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        seconds = min(max(wait_seconds, 0), LONGEST_WAIT_SECONDS)
        params = {"wait": f"{seconds:g}"} if seconds else {}
        reply = await self._exchange.ask(
            "GET", "messages", message_id, params=params, wait_seconds=seconds
        )
        return parsed(Snapshot, reply)

    async def conversations(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> ConversationPage:
        """Return a page of the caller's conversations, the last changed first.

        `cursor`: the `next_cursor` of the page before. `limit` None is the server's own.

        Raises:
            BadRequest: `limit` or `cursor` is wrong.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        asked = {"limit": None if limit is None else str(limit), "cursor": cursor}
        params = {name: value for name, value in asked.items() if value is not None}
        reply = await self._exchange.ask("GET", "conversations", params=params)
        return parsed(ConversationPage, reply)

    async def conversation(self, conversation_id: str) -> Conversation:
        """Return a conversation with its messages, queued ones too.

        Raises:
            NotFound: there is no such conversation.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        reply = await self._exchange.ask("GET", "conversations", conversation_id)
        return parsed(Conversation, reply)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation and its messages, for good. Asked twice it is one deletion.

        Raises:
            NotFound: there is no such conversation.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        await self._exchange.ask("DELETE", "conversations", conversation_id)

    async def models(self) -> list[Model]:
        """Return the catalogue.

        Raises:
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        return parsed(Models, await self._exchange.ask("GET", "models")).models

    async def aclose(self) -> None:
        """Close the connections, those of tails too."""
        await self._exchange.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
