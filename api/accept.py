"""Takes a message in: Idempotency-Key, room in the queue, record, queue; every dialect's way in.

Each write may be repeated, and what a crash leaves half done a retry with the same key finishes.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.shared import idempotency, queue, record
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import BadRequest, Conflict, OverLimit, Unavailable
from rejoin.shared.idempotency import Reserved, Use
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Record, Status
from rejoin.shared.request import StoredRequest

_TRIES: Final = 3  # each taken by another request that replaced the same stale key


@dataclass(frozen=True, slots=True)
class Offer:
    """A message to take in, as a caller sent it.

    `key` is its Idempotency-Key, `digest` that of its body, `resumes` whether it came with a
    Last-Event-ID: then it must be known already.
    """

    owner: str
    request: StoredRequest
    key: str | None
    digest: str
    resumes: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """The message that answers an offer; `again`: an earlier offer with the same key made it."""

    message_id: str
    conversation_id: str
    again: bool


async def accept(context: Context, offer: Offer) -> Accepted:
    """Store and queue a message, or return the one that its key was used for.

    Raises:
        BadRequest: 400, it resumes a message that its key does not name.
        Conflict: the key was used with another body.
        OverLimit: the queue is full; nothing is stored.
        Unavailable: Redis is away, or not within 3.5 s; a repeat with the same key is safe.
    """
    async with redis_answers():
        if offer.resumes:
            return await _resume(context, offer)
        use = Use(new_message_id(), new_message_id(), offer.digest)
        if offer.key is None:
            await _store(context, offer, use)
            return Accepted(use.message_id, use.conversation_id, again=False)
        return await _accept_once(context, offer, use, idempotency.key_name(offer.owner, offer.key))


def digest_of(body: object) -> str:
    """The digest of parsed JSON: order of names and 1 or 1.0 make no difference, true is not 1."""
    text = json.dumps(_canonical(body), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> object:
    if isinstance(value, dict):
        return {name: _canonical(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_canonical(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def _store(context: Context, offer: Offer, use: Use) -> None:
    """Index, record, queue: in this order a crash leaves nothing that runs unrecorded."""
    settings, redis, message_id = context.settings, context.redis, use.message_id
    indexed_at = await queue.index(redis, message_id, most_due=settings.max_queue)
    await record.accept(
        redis,
        Record(
            message_id=message_id,
            owner=offer.owner,
            conversation_id=use.conversation_id,
            model=offer.request.model,
            created_at=now_ms(),
            status=Status.QUEUED,
            attempt=0,
            worker=None,
            cancel_asked=False,
            started_at=None,
            finished_at=None,
        ),
        offer.request,
        indexed_at=indexed_at,
        life_seconds=settings.open_ttl_seconds,
    )
    await _enqueue(context, message_id)


async def _enqueue(context: Context, message_id: str) -> None:
    life_seconds = context.settings.open_ttl_seconds
    await queue.enqueue(context.redis, message_id, life_seconds=life_seconds, now_ms=now_ms())


async def _accept_once(context: Context, offer: Offer, use: Use, name: str) -> Accepted:
    stale = ""
    for _ in range(_TRIES):
        held = await idempotency.reserve(context.redis, name, use, instead_of=stale)
        if held.use.message_id == use.message_id:
            await _store_first(context, offer, use, name)
            return Accepted(use.message_id, use.conversation_id, again=False)
        _same_body(held, offer)
        if await _finish(context, offer, held, name):
            return Accepted(held.use.message_id, held.use.conversation_id, again=True)
        stale = held.use.message_id
    raise Unavailable("other requests with this Idempotency-Key came in between; try again")


async def _store_first(context: Context, offer: Offer, use: Use, name: str) -> None:
    try:
        await _store(context, offer, use)
    except OverLimit:
        # Refused is not used: the key must not answer for a message that never was.
        await idempotency.forget(context.redis, name, use.message_id)
        raise
    await idempotency.confirm(context.redis, name, use)


async def _finish(context: Context, offer: Offer, held: Reserved, name: str) -> bool:
    """See that the key's message is queued; False where it was never accepted and may not be now.

    An ended message is not queued again. A record that is gone either never was, or lived and
    ended longer than a log's life ago: only before that is it safe to say which.
    """
    if held.accepted:
        return True
    found = await record.load(context.redis, held.use.message_id)
    if found is not None:
        if found.status is Status.QUEUED:
            await _enqueue(context, held.use.message_id)
    elif held.age_ms >= context.settings.log_ttl_seconds * 1000:
        return True
    elif held.age_ms < record.ACCEPT_WITHIN_MS:
        await _store(context, offer, held.use)
    else:
        return False
    await idempotency.confirm(context.redis, name, held.use)
    return True


async def _resume(context: Context, offer: Offer) -> Accepted:
    """Return the message that the key names; never a second one."""
    held = None
    if offer.key is not None:
        name = idempotency.key_name(offer.owner, offer.key)
        held = await idempotency.find(context.redis, name)
    if held is None:
        raise BadRequest(
            "a POST with Last-Event-ID goes on with an earlier one: send that one's"
            " Idempotency-Key, or GET the events at its Location",
            field=("Last-Event-ID",),
            status=400,
        )
    _same_body(held, offer)
    return Accepted(held.use.message_id, held.use.conversation_id, again=True)


def _same_body(held: Reserved, offer: Offer) -> None:
    if held.use.digest != offer.digest:
        raise Conflict("this Idempotency-Key was used with another body")
