"""POSTs messages to Rejoin's API on one kept connection."""

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from tests.bench.child import Child
from tests.bench.samples import stamp

_SECONDS: Final = 60.0

Post = Callable[[str], str]


@contextmanager
def poster(port: int) -> Iterator[Post]:
    """Give a function that accepts a message for a model and returns its id.

    The message's text is the time of the POST.
    """
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)) as connection:

        def post(model: str) -> str:
            connection.request(
                "POST",
                "/api/messages",
                json.dumps({"model": model, "input": stamp()}),
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


def random_seconds(least: float) -> float:
    """Once to twice as long: no sample may beat together with a poll."""
    return least * (1 + random.random())
