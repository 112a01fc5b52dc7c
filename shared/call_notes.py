"""Notes in a message's record which model call its worker makes, should it be lost with it.

The log tells of a call only once that gives something; its provider bills the input all the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from rejoin.shared import keys, scripts
from rejoin.shared.connections import redis_or_away


class CallNote(NamedTuple):
    """The call of one attempt for one step, from 1; `token` is the claim's."""

    message_id: str
    token: str
    attempt: int
    step: int


async def note(redis: Redis, calls: Sequence[CallNote]) -> None:
    """Note the calls, in one round trip; one whose message is another's by now is not noted.

    Raises:
        LogUnavailable: Redis is away; a repeat is safe.
    """
    sent = [
        scripts.Call("log/note_call", [keys.record(call.message_id)], call[1:]) for call in calls
    ]
    with redis_or_away():
        await scripts.run_all(redis, sent)
