"""Tools for REJOIN_TOOLS whose effect is a line in a file, one tool for each policy.

`EFFECTS` names the file. `HOLDS=1`: none returns after its effect. `PAUSE`: each waits up to so
many seconds before its effect and after it.
"""

import asyncio
import os
import random
from typing import Final

from rejoin.worker.tools import Call, tool

# What was written to it outlives a kill -9 of its writer, and no line is torn by another's.
_FILE: Final = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_HOLDS: Final = os.environ.get("HOLDS") == "1"
_PAUSE_SECONDS: Final = float(os.environ.get("PAUSE", "0"))
_LONG_SECONDS: Final = 600


@tool(timeout=_LONG_SECONDS)
async def fail(call: Call) -> str:
    """Never does it twice."""
    return await _act(call)


@tool(timeout=_LONG_SECONDS, on_unknown_outcome="retry")
async def retry(call: Call) -> str:
    """May do it twice."""
    return await _act(call)


@tool(timeout=_LONG_SECONDS, on_unknown_outcome="ask")
async def ask(call: Call) -> str:
    """Does it twice where a person says so."""
    return await _act(call)


async def _act(call: Call) -> str:
    await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS))
    os.write(_FILE, f"{call.idempotency_key}\n".encode())
    if _HOLDS:
        await asyncio.Event().wait()
    await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS))
    return "done"
