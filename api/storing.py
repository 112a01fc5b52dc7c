"""Stores a message and gives it its turn: what a POST writes, step after step."""

import asyncio
from dataclasses import replace
from typing import Final

from rejoin.api.cancelling import cancel_message
from rejoin.api.context import Context
from rejoin.api.offer import Offer, WaitingFor
from rejoin.api.origin import Origin
from rejoin.shared import queue, turns
from rejoin.shared.clock import now_ms
from rejoin.shared.errors import Busy, MessageMissing, NotFound
from rejoin.shared.idempotency import Use
from rejoin.shared.record import Record, Status
from rejoin.shared.request import StoredRequest
from rejoin.shared.turns import IfBusy, Placed

_RECORD_TRIES: Final = 10  # for the record of a message that is accepted at this instant
_RECORD_PAUSE_SECONDS: Final = 0.05


async def store(context: Context, offer: Offer, origin: Origin, use: Use) -> WaitingFor | None:
    """Index, turn, record, queue: in this order a crash leaves nothing that runs unrecorded.

    Returns what the message waits for in its conversation. May be repeated.

    Raises:
        NotFound: the conversation is unknown, or another owner's; nothing but the index is written.
        Busy: it has an open message, and the offer does not wait; the same.
        OverLimit: the queue is full; nothing is written.
        Unavailable: Redis or the database is away, or too much time has passed.
    """
    settings, redis = context.settings, context.redis
    life_seconds = settings.open_ttl_seconds
    indexed_at = await queue.index(redis, use.message_id, most_due=settings.max_queue)
    request = origin.request
    if origin.is_new:
        new = _new_record(offer, request, use)
        await turns.accept_in_new(
            redis, new, request, indexed_at=indexed_at, life_seconds=life_seconds
        )
        return None
    placed = await _place(context, offer, request, use)
    request = replace(request, parent_id=placed.parent_id)
    new = _new_record(offer, request, use)
    first = await turns.accept(
        redis, new, request, indexed_at=indexed_at, life_seconds=life_seconds
    )
    if offer.if_busy is IfBusy.INTERRUPT:
        first = await _interrupt(context, use, placed)
    return await _queue(context, use, first)


async def take_turn(context: Context, offer: Offer, found: Record, use: Use) -> WaitingFor | None:
    """Do what follows the record in a `store` that broke off.

    Raises:
        Unavailable: Redis is away; a repeat is safe.
    """
    life_seconds = context.settings.open_ttl_seconds
    placed = await turns.place_again(context.redis, found, life_seconds=life_seconds)
    first = placed.first
    if offer.if_busy is IfBusy.INTERRUPT:
        first = await _interrupt(context, use, placed)
    return await _queue(context, use, first)


def _new_record(offer: Offer, request: StoredRequest, use: Use) -> Record:
    return Record(
        message_id=use.message_id,
        owner=offer.owner,
        conversation_id=use.conversation_id,
        model=request.model,
        created_at=now_ms(),
        status=Status.QUEUED,
        attempt=0,
        worker=None,
        cancel_asked=False,
        started_at=None,
        finished_at=None,
    )


async def _place(context: Context, offer: Offer, request: StoredRequest, use: Use) -> Placed:
    """Place the message in a conversation that Redis knows, or else the history.

    Raises:
        NotFound, Busy: see `accept`.
    """
    conversation_id, life_seconds = use.conversation_id, context.settings.open_ttl_seconds

    async def place(*, make: bool = False, newest: str | None = None) -> Placed:
        return await turns.place(
            context.redis,
            conversation_id,
            use.message_id,
            owner=offer.owner,
            if_busy=offer.if_busy,
            parent_id=request.parent_id,
            life_seconds=life_seconds,
            make=make,
            newest=newest,
        )

    try:
        return await place()
    except NotFound:
        known = await context.history.conversation(conversation_id)
        if known is None or known.owner != offer.owner:
            raise
        return await place(make=True, newest=known.newest_id)
    except Busy as busy:
        # Its client may have seen the end before its worker has passed the turn.
        first, _ = await turns.first_open(
            context.redis, conversation_id, busy.active_message_id, life_seconds=life_seconds
        )
        if first == busy.active_message_id:
            raise
        return await place()


async def _interrupt(context: Context, use: Use, placed: Placed) -> str:
    """Cancel the message that was first when this one was placed; return whose turn it is then."""
    ahead = placed.first_before
    for _ in range(_RECORD_TRIES if ahead is not None else 0):
        try:
            await cancel_message(context, ahead or "")
            break
        except MessageMissing:
            # It is accepted at this same instant, or was and is gone: then its turn is passed on.
            await asyncio.sleep(_RECORD_PAUSE_SECONDS)
    return await turns.first(
        context.redis, use.conversation_id, life_seconds=context.settings.open_ttl_seconds
    )


async def _queue(context: Context, use: Use, first: str) -> WaitingFor | None:
    """Queue a stored message if it is first; else return what it waits for."""
    redis, life_seconds = context.redis, context.settings.open_ttl_seconds
    ahead = None
    if first != use.message_id:
        first, ahead = await turns.first_open(
            redis, use.conversation_id, first, life_seconds=life_seconds
        )
    if first == use.message_id:
        await queue.enqueue(
            redis,
            first,
            life_seconds=life_seconds,
            now_ms=now_ms(),
            conversation_id=use.conversation_id,
        )
    elif first:
        return WaitingFor(first, Status.QUEUED if ahead is None else ahead.status)
    return None
