"""A tail on its socket: headers, the first bytes, and the wait for the client's end."""

from collections.abc import Sequence
from typing import Final

from starlette.types import Receive, Scope, Send

from rejoin.api.hub import Hub
from rejoin.api.tail import Tail
from rejoin.shared.ids import EventId

# no-transform and X-Accel-Buffering: proxies compress or buffer streams else (nginx, Cloudflare).
HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


async def respond(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    hub: Hub,
    message_id: str,
    owner: str,
    after: EventId | None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer with the message's events later than `after`, to their end or the client's.

    Where the message is not `owner`'s the stream ends without an event.
    """
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    # A comment at once: it carries the headers through proxies that wait for a body.
    first = b"retry: %d\n: open\n\n" % hub.retry_milliseconds
    tail = Tail(hub, send, message_id, owner, after)
    tail.open({"type": "http.response.body", "body": first, "more_body": True})
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        tail.close()
