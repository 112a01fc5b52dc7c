"""Row: how fast a finished message comes to one client."""

import socket
import time
from statistics import median
from typing import Final

from tests.bench.child import Child
from tests.bench.plan import Plan, say
from tests.bench.table import Line
from tests.bench.targets import rejoin, xread_server
from tests.support.redis_server import redis_server

_EVENTS: Final = 10_000
_OWED: Final = 200_000
_BUFFER_BYTES: Final = 1 << 18
_SECONDS: Final = 20.0


def replay(plan: Plan) -> list[Line]:
    """The whole log of 10,000 events of 120 bytes, again and again."""
    times = plan.count(15, 3)
    with (
        redis_server() as redis,
        rejoin(redis, workers=0) as stack,
        xread_server(redis) as (port, _),
        Child("publisher", redis.url) as publisher,
    ):
        message_id = str(publisher.ask("finished", events=_EVENTS)["message_id"])
        say("replay: Rejoin")
        ours = median(_once(stack.api.port, message_id) for _ in range(times))
        say("replay: XREAD")
        baseline = median(_once(port, message_id) for _ in range(times))
    return [
        Line(
            "a finished message of 10,000 events replayed to one client",
            f"{ours:,.0f} events/s",
            f"XREAD a client {baseline:,.0f} events/s",
            "",
            f"≥ {_OWED:,} events/s",
            ours >= _OWED,
        )
    ]


def _once(port: int, message_id: str) -> float:
    """Events a second, from the request to the last event."""
    buffer = bytearray(_BUFFER_BYTES)
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
        began = time.perf_counter()
        connection.sendall(
            f"GET /api/messages/{message_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        while b"event: done\n" not in received[-1024:]:
            size = connection.recv_into(buffer)
            if size == 0:
                break
            received += buffer[:size]
        took = time.perf_counter() - began
    events = received.count(b"\nid: ")
    if events != _EVENTS:
        raise RuntimeError(f"{events} of {_EVENTS} events were replayed")
    return events / took
