"""Takes a message in: Idempotency-Key, index, turn, record, queue; every dialect's way in.

Each write may be repeated, and what a crash leaves half done a retry with the same key finishes.
"""

import hashlib
import json
from typing import Final

from rejoin.api.bounds import redis_answers
from rejoin.api.context import Context
from rejoin.api.fallbacks import with_fallbacks
from rejoin.api.offer import Accepted, Offer, WaitingFor
from rejoin.api.origin import Origin, origin_of
from rejoin.api.storing import store, take_turn
from rejoin.shared import accepting, deleted, idempotency, queue, record
from rejoin.shared.errors import BadRequest, Busy, Conflict, NotFound, OverLimit, Unavailable
from rejoin.shared.idempotency import Reserved, Use
from rejoin.shared.ids import new_message_id
from rejoin.shared.record import Status

_TRIES: Final = 3  # each taken by another request that replaced the same stale key


async def accept(context: Context, offer: Offer) -> Accepted:
    """Store and queue a message, or return the one that its key was used for.

    Raises:
        BadRequest: 400, it resumes a message that its key does not name; 422, its parent, or the
            message to regenerate, is none of its conversation.
        NotFound: the conversation is unknown, or another owner's.
        Busy: the conversation has an open message, and the offer does not wait.
        Conflict: the key was used with another body.
        OverLimit: the queue is full; nothing is stored.
        Unavailable: Redis or the database is away, or not within 3.5 s; a repeat with the same
            key is safe.
    """
    async with redis_answers():
        if offer.resumes:
            return await _resume(context, offer)
        if offer.key is not None:
            return await _accept_once(context, offer, idempotency.key_name(offer.owner, offer.key))
        origin = await _origin(context, offer)
        use = Use(new_message_id(), origin.conversation_id, offer.digest)
        try:
            waiting_for = await store(context, offer, origin, use)
        except (NotFound, Busy):
            # Nobody else stores this message: nothing is to come, and nobody has to look for it.
            await queue.drop_index(context.redis, use.message_id)
            raise
        return Accepted(use.message_id, use.conversation_id, again=False, waiting_for=waiting_for)


async def _origin(context: Context, offer: Offer) -> Origin:
    origin = await origin_of(context, offer.owner, offer.conversation_id, offer.request)
    # Now: a message to regenerate may have told the model.
    request = await with_fallbacks(
        context.redis, context.file, origin.request, named=offer.names_fallbacks
    )
    return origin._replace(request=request)


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


async def _accept_once(context: Context, offer: Offer, name: str) -> Accepted:
    try:
        origin = await _origin(context, offer)
    except (NotFound, BadRequest):
        # What it named may be gone since the first answer, which is given again all the same.
        held = await idempotency.find(context.redis, name)
        if held is None:
            raise
        _same_body(held, offer)
        if (made := await _finish(context, offer, None, held, name)) is None:
            raise
        return made
    use = Use(new_message_id(), origin.conversation_id, offer.digest)
    stale = ""
    for _ in range(_TRIES):
        held = await idempotency.reserve(context.redis, name, use, instead_of=stale)
        if held.use.message_id == use.message_id:
            waiting_for = await _store_first(context, offer, origin, use, name)
            return Accepted(use.message_id, use.conversation_id, False, waiting_for)
        _same_body(held, offer)
        if (made := await _finish(context, offer, origin, held, name)) is not None:
            return made
        stale = held.use.message_id
    raise Unavailable("other requests with this Idempotency-Key came in between; try again")


async def _store_first(
    context: Context, offer: Offer, origin: Origin, use: Use, name: str
) -> WaitingFor | None:
    try:
        waiting_for = await store(context, offer, origin, use)
    except (OverLimit, NotFound, Busy):
        # Refused is not used: the key must not answer for a message that never was. The index
        # entry stays for a minute: a twin of this request may be about to store the message.
        await idempotency.forget(context.redis, name, use.message_id)
        raise
    await idempotency.confirm(context.redis, name, use, waiting_for=_told(waiting_for))
    return waiting_for


async def _finish(
    context: Context, offer: Offer, origin: Origin | None, held: Reserved, name: str
) -> Accepted | None:
    """See that the key's message is accepted; None where it never was and may not be now.

    An ended message is not queued again. A record that is gone never was, or lived and ended
    longer than a log's life ago: then the database has it, unless its conversation was deleted.
    """
    use, waiting_for = held.use, _waiting_for(held.waiting_for)
    if not held.accepted:
        found = await record.load(context.redis, use.message_id)
        if found is not None:
            if found.status is Status.QUEUED:
                waiting_for = await take_turn(context, offer, found, use)
        elif held.age_ms >= context.settings.log_ttl_seconds * 1000 and await _was(context, use):
            return Accepted(use.message_id, use.conversation_id, again=True)
        elif origin is not None and held.age_ms < accepting.WITHIN_MS:
            waiting_for = await store(context, offer, origin, use)
        else:
            return None
        await idempotency.confirm(context.redis, name, use, waiting_for=_told(waiting_for))
    return Accepted(use.message_id, use.conversation_id, True, waiting_for)


async def _was(context: Context, use: Use) -> bool:
    """Whether a message that Redis does not know was accepted once: saved, or deleted since."""
    if (await deleted.look(context.redis, use.conversation_id)).deleted:
        return True
    return await context.history.message(use.message_id) is not None


def _told(waiting_for: WaitingFor | None) -> str:
    return "" if waiting_for is None else " ".join(waiting_for)


def _waiting_for(told: str) -> WaitingFor | None:
    if not told:
        return None
    message_id, status = told.split(" ")
    return WaitingFor(message_id, Status(status))


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
    waiting_for = _waiting_for(held.waiting_for)
    return Accepted(held.use.message_id, held.use.conversation_id, True, waiting_for)


def _same_body(held: Reserved, offer: Offer) -> None:
    if held.use.digest != offer.digest:
        raise Conflict("this Idempotency-Key was used with another body")
