"""The chaos run's registered tools: each has an effect outside the program, in a file of lines.

A worker loads this file through REJOIN_TOOLS; CHAOS_EFFECTS names the file of effects. A line is
written by one call of the kernel, which a kill -9 leaves whole or leaves out.
"""

import asyncio
import json
import os
import random
import time

from rejoin.worker.tools import Call, ToolError, tool

_SECONDS = (0.0, 0.4)  # before the effect, and from there to the result


def _effect(call: Call, name: str, mark: str) -> dict[str, object]:
    line = {"key": call.idempotency_key, "tool": name, "mark": mark}
    file = os.open(os.environ["CHAOS_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{json.dumps(line)}\n".encode())
    finally:
        os.close(file)
    return {"key": call.idempotency_key, "mark": mark}


async def _act(
    call: Call, name: str, mark: str, seconds: tuple[float, float] = _SECONDS
) -> dict[str, object]:
    await asyncio.sleep(random.uniform(*_SECONDS))
    done = _effect(call, name, mark)
    await asyncio.sleep(random.uniform(*seconds))
    return done


@tool
async def pay(call: Call, mark: str) -> dict[str, object]:
    """Do what nobody may do twice: on_unknown_outcome is `fail`."""
    return await _act(call, "pay", mark)


@tool(on_unknown_outcome="retry")
async def fetch(call: Call, mark: str) -> dict[str, object]:
    """Do what may be done twice."""
    return await _act(call, "fetch", mark, (0.0, 1.0))


@tool(on_unknown_outcome="ask")
async def book(call: Call, mark: str) -> dict[str, object]:
    """Do what a person decides on where it may have been done."""
    return await _act(call, "book", mark, (0.3, 1.5))


@tool
async def crawl(call: Call, mark: str) -> dict[str, object]:
    """Take long, and tell of it."""
    done = _effect(call, "crawl", mark)
    for number in range(10):
        call.report("progress", {"mark": mark, "done": number})
        await asyncio.sleep(random.uniform(0.05, 0.4))
    return done


@tool(on_unknown_outcome="retry")
def grind(call: Call, mark: str) -> dict[str, object]:
    """Take long in a thread, which nobody can stop."""
    done = _effect(call, "grind", mark)
    time.sleep(random.uniform(0.2, 1.5))
    return done


@tool
async def trip(call: Call, mark: str) -> dict[str, object]:
    """Fail after all is done."""
    await _act(call, "trip", mark)
    raise ToolError(f"tripped over {mark}")


@tool(timeout=0.7)
async def hang(call: Call, mark: str) -> None:
    """Never return."""
    _effect(call, "hang", mark)
    await asyncio.sleep(3600)


@tool(needs_approval=True)
async def send(call: Call, mark: str) -> dict[str, object]:
    """Do what a person has to consent to."""
    return await _act(call, "send", mark)


@tool(needs_approval=True, on_unknown_outcome="retry")
async def tell(call: Call, mark: str) -> dict[str, object]:
    """Do what a person has to consent to, again if need be."""
    return await _act(call, "tell", mark)
