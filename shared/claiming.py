"""Claims a message, reads it and asks whose turn it is, in one round trip: how a run begins."""

from typing import cast

from redis.asyncio import Redis

from rejoin.shared import record, stored, turns
from rejoin.shared.record import Claim
from rejoin.shared.stored import Stored


async def claim_and_load(
    redis: Redis,
    message_id: str,
    conversation_id: str,
    *,
    token: str,
    worker_id: str,
    life_seconds: int,
    seen_attempt: int,
    held: Claim | None,
) -> tuple[Claim, Stored, str]:
    """Return the claim (see `record.claim`), the message, and whose turn it is.

    In this order: what an earlier owner wrote, and who was first, may change up to the claim.
    Where `conversation_id` is not the message's, which the claim tells, one more asks for the turn.

    Raises:
        MessageMissing, LogEnded, Fenced, LogUnavailable: as `record.claim`.
    """
    claiming = record.claiming(message_id, token, worker_id, life_seconds, seen_attempt, held)
    asking = turns.asking(conversation_id, life_seconds)
    claimed, found, head = await stored.load_between(redis, message_id, claiming, asking)
    claim = record.claimed(message_id, token, claimed)
    if claim.conversation_id == conversation_id:
        return claim, found, cast(bytes, head).decode()
    first = await turns.first(redis, claim.conversation_id, life_seconds=life_seconds)
    return claim, found, first
