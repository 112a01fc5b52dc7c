"""The log as JSON pages, for places where streams are buffered."""

import time
from typing import TYPE_CHECKING, Final

from rejoin.api import archive
from rejoin.api.bounds import redis_answers
from rejoin.shared import log, record
from rejoin.shared.errors import BadRequest, NotFound
from rejoin.shared.frames import id_of, split
from rejoin.shared.ids import EventId
from rejoin.shared.opening import position_unknown

if TYPE_CHECKING:
    from rejoin.api.context import Context

MOST_EVENTS: Final = 1000
MOST_WAIT_SECONDS: Final = 60


async def page_of_events(
    context: "Context", message_id: str, owner: str, after: EventId | None, query: dict[str, str]
) -> bytes:
    """Return `{"events", "next", "ended"}` for the events later than `after`, encoded.

    `query` may hold `limit` (1 to 1000) and `wait` (0 to 60 seconds, until there is something
    new). The events' JSON is passed on as the worker encoded it.

    Raises:
        NotFound: no such message, or another owner's.
        BadRequest: a `limit` or `wait` out of its bounds.
        Unavailable: Redis is away, or the database where it is needed.
    """
    limit = int(_number(query, "limit", default=log.PAGE, least=1, most=MOST_EVENTS, whole=True))
    wait_seconds = _number(query, "wait", default=0, least=0, most=MOST_WAIT_SECONDS)
    page = await _look(context, message_id, owner, after, limit)
    if page is not None and wait_seconds and _nothing_new(page, after):
        page = await _wait(context, message_id, owner, after, limit, wait_seconds)
    if page is None:
        return await _archived_page(context, message_id, owner, after, limit)
    events = []
    if after is not None and (page.newest is None or page.newest < after):
        async with redis_answers():
            found = await record.load(context.redis, message_id)
        events.append(_event(position_unknown(found)))
        after = None
        page = await _look(context, message_id, owner, None, limit) or page
    events += [_event(frame) for frame in page.frames]
    last = page.last or after
    following = b"" if last is None else bytes(last)
    return _encoded(events, following, ended=page.ended and last == page.newest)


async def _wait(
    context: "Context",
    message_id: str,
    owner: str,
    after: EventId | None,
    limit: int,
    wait_seconds: float,
) -> log.Page | None:
    until = time.monotonic() + wait_seconds
    # Watch first: what is published between the look and the wait would be lost else.
    async with context.hub.watch(message_id) as watch:
        while True:
            page = await _look(context, message_id, owner, after, limit)
            if page is None or not _nothing_new(page, after):
                return page  # None: Redis forgot it meanwhile, so it has ended
            left = until - time.monotonic()
            if left <= 0 or context.hub.draining:
                return page
            await watch.changed(left)


def _nothing_new(page: log.Page, after: EventId | None) -> bool:
    unknown = after is not None and (page.newest is None or page.newest < after)
    return not page.frames and not page.ended and not unknown


async def _look(
    context: "Context", message_id: str, owner: str, after: EventId | None, limit: int
) -> log.Page | None:
    """Read a page; None where Redis does not know the message (any more)."""
    async with redis_answers():
        page = await log.look(context.redis, message_id, after, limit)
    if page.owner is None:
        return None
    if page.owner != owner:
        raise NotFound("no such message")
    return page


async def _archived_page(
    context: "Context", message_id: str, owner: str, after: EventId | None, limit: int
) -> bytes:
    row = await archive.load(context, message_id, owner)
    frames = archive.after(row, after)
    # The `reset` without an id does not count: a page with it alone would lead nowhere.
    unnumbered = 1 if frames and not id_of(frames[0]) else 0
    some = frames[: limit + unnumbered]
    following = id_of(some[-1]) if some else bytes(after or b"")
    return _encoded([_event(frame) for frame in some], following, ended=len(some) == len(frames))


def _encoded(events: list[bytes], following: bytes, *, ended: bool) -> bytes:
    return b'{"events":[%s],"next":%s,"ended":%s}' % (
        b",".join(events),
        b'"%s"' % following if following else b"null",
        b"true" if ended else b"false",
    )


def _event(frame: bytes) -> bytes:
    name, fields = split(frame)
    event_id = id_of(frame)
    quoted = b'"%s"' % event_id if event_id else b"null"
    return b'{"id":%s,"event":"%s","data":%s}' % (quoted, name, fields)


def _number(
    query: dict[str, str],
    name: str,
    *,
    default: float,
    least: float,
    most: float,
    whole: bool = False,
) -> float:
    text = query.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = most + 1
    if not least <= number <= most or (whole and number != int(number)):
        kind = "a whole number" if whole else "a number"
        raise BadRequest(f"{name} is {kind} from {least:g} to {most:g}", field=("query", name))
    return number
