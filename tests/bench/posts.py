"""POSTs messages to Rejoin's API on one kept connection."""

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from tests.bench.child import Child
from tests.bench.samples import Spread, stamp

_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.015

Post = Callable[[str], str]


@contextmanager
def poster(port: int, **fields: object) -> Iterator[Post]:
    """Give a function that accepts a message for a model and returns its id.

    The message's text is the time of the POST; `fields` are in each body.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)) as connection:

        def post(model: str) -> str:
            connection.request(
                "POST",
                "/api/messages",
                json.dumps({"model": model, "input": stamp(), **fields}),
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 202:
                raise RuntimeError(f"a POST was answered by {answer.status}: {body!r}")
            return str(json.loads(body)["message_id"])

        yield post


def until_running(simulator: Child, count: int) -> None:
    """Wait until the provider has so many answers under way.

    Raises:
        RuntimeError: it has not, in time.
    """
    end = time.monotonic() + _SECONDS
    while (report := simulator.ask("report"))["running"] != count:
        if time.monotonic() > end:
            raise RuntimeError(f"not all generations run: {report}")
        time.sleep(0.1)


def sample_starts(post: Post, simulator: Child, samples: int) -> Spread:
    """From a POST to the provider's request, that of so many short messages.

    Raises:
        RuntimeError: some do not start, in time.
    """
    simulator.ask("reset")
    for _ in range(samples):
        post("openai/sim?words=3")
        time.sleep(random_seconds(_PAUSE_SECONDS))
    end = time.monotonic() + _SECONDS
    while (report := simulator.ask("report"))["asked"] != samples:
        if time.monotonic() > end:
            raise RuntimeError(f"not all of {samples} jobs started: {report}")
        time.sleep(0.05)
    return Spread(*report["latency"])  # type: ignore[misc]


def random_seconds(least: float) -> float:
    """Once to twice as long: no sample may beat together with a poll."""
    return least * (1 + random.random())
