"""The user's end: the Python client and the rejoin command.

    async with Client("http://127.0.0.1:8000") as client:
        accepted = await client.send("Hello", model="demo/echo")
        async with client.tail(accepted.message_id) as events:
            async for event in events:
                ...

Every error is a RejoinError of `rejoin.shared.errors`; `rejoin.client.errors` draws the tree.
"""

from rejoin.client.client import Client
from rejoin.client.errors import UnexpectedReply, Unreachable
from rejoin.client.replies import (
    Accepted,
    Conversation,
    ConversationPage,
    Links,
    Listed,
    Model,
    Snapshot,
    Turn,
    WaitingFor,
)
from rejoin.client.tail import Event, Tail
from rejoin.shared.errors import (
    BadRequest,
    Busy,
    Conflict,
    NotFound,
    OverLimit,
    RejoinError,
    Unavailable,
)
from rejoin.shared.fold import Message
from rejoin.shared.tool_calls import CallState, calls_of, open_calls

__all__ = [
    "Accepted",
    "BadRequest",
    "Busy",
    "CallState",
    "Client",
    "Conflict",
    "Conversation",
    "ConversationPage",
    "Event",
    "Links",
    "Listed",
    "Message",
    "Model",
    "NotFound",
    "OverLimit",
    "RejoinError",
    "Snapshot",
    "Tail",
    "Turn",
    "Unavailable",
    "UnexpectedReply",
    "Unreachable",
    "WaitingFor",
    "calls_of",
    "open_calls",
]
