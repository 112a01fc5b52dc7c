"""Agents for `REJOIN_AGENTS`: one that its first run stops at a given event, for a kill to come."""

import asyncio
from collections.abc import AsyncGenerator

from rejoin.worker.agents import Data, Run, Said, Step, agent

PARTS = 3


@agent
async def parts(run: Run) -> AsyncGenerator[Said, None]:
    """Says three parts of three events each; `stop_at` is how many events its first run says."""
    left = int(run.metadata.get("stop_at", "100")) if run.attempt == 1 else 100
    done = run.checkpoint or 0
    assert isinstance(done, int)
    for part in range(done, PARTS):
        for said in (Data("part", part), f"{part}a ", f"{part}b ", Step(part + 1)):
            if not left:
                await asyncio.Event().wait()
            left -= 1
            yield said
    yield f"from {done} at {run.attempt}"
