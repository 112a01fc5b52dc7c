"""What workers alone are told with an agent's events: what its model calls used, whose calls."""

import json
from collections.abc import Mapping

from rejoin.worker.bill import Bill
from rejoin.worker.takeover import private_note


def told(bill: Bill, name: str) -> dict[str, object]:
    """What the log does not tell yet of the bill, under a name; the caller writes it."""
    used = bill.tell()
    return {} if used is None else {name: json.loads(used.json())}


def call_note(bill: Bill, whose: str, more: Mapping[str, object]) -> bytes:
    """What a `tool_call` tells: that it is an agent's.

    What was used has another name there: `usage` would say that a model's call is over with it.
    """
    return private_note({"agent": whose, **told(bill, "used"), **more})
