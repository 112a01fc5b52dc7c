"""Waits for a worker to renew its leases, so that a measurement begins at a known moment."""

import time
from typing import Final

import redis as redis_py

from rejoin.shared import keys

LEASE_SECONDS: Final = 5.0  # the default
BEAT_SECONDS: Final = LEASE_SECONDS / 3

_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01


def until_renewed(client: "redis_py.Redis", message_id: str) -> None:
    """Return just after a message's lease was renewed.

    Raises:
        RuntimeError: it was not, in time.
    """
    lease_end = client.zscore(keys.QUEUE, message_id)
    end = time.monotonic() + _SECONDS
    while client.zscore(keys.QUEUE, message_id) == lease_end:
        if time.monotonic() > end:
            raise RuntimeError(f"nobody renews the lease of {message_id}")
        time.sleep(_POLL_SECONDS)
