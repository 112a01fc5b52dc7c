"""Row: what a tool's call adds to a step, seen by the provider: its call's end to the next request.

In between a worker logs the call, its start (and waits until Redis has that), its result and the
step's end (and waits again), and asks the model anew. The last is no tool's: what it takes
without any is measured beside it.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest.mock import patch

import uvloop

from rejoin.worker.providers.base import (
    ModelRequest,
    Provider,
    Tool,
    ToolCall,
    ToolCallChunk,
    Turn,
)
from rejoin.worker.providers.registry import FACTORIES
from tests.bench import trivial_tool
from tests.bench.child import Child
from tests.bench.plan import Plan, say
from tests.bench.posts import poster
from tests.bench.samples import Spread, stamp
from tests.bench.table import Line
from tests.bench.targets import rejoin
from tests.support.redis_server import redis_server

_STEPS: Final = 20  # with a call each, of one message
_MODEL: Final = f"sim?steps={_STEPS}&tool=trivial"
_OWED_MS: Final = 5.0
_WAIT_SECONDS: Final = 60.0
_SAVING_SECONDS: Final = 0.2  # the worker ends the message and saves it: not beside the others


def tool_steps(plan: Plan) -> list[Line]:
    """The median and p99, a message at a time; beside each the same model calls alone."""
    with redis_server() as redis, Child("simulator") as simulator, Child("simulator") as beside:
        settings = {
            "OPENAI_BASE_URL": _url(simulator),
            "REJOIN_TOOLS": str(Path(trivial_tool.__file__)),
        }
        with (
            rejoin(redis, workers=1, settings=settings) as stack,
            poster(stack.api.port, tools=["trivial"]) as post,
            _adapter(_url(beside)) as call_alone,
        ):
            for messages in (3, plan.count(25, 5)):  # the first are for warmth
                say(f"tool steps: {messages} messages")
                simulator.ask("reset")
                beside.ask("reset")
                for number in range(messages):
                    post(f"openai/{_MODEL}")
                    found = _until_told(simulator, (number + 1) * _STEPS)
                    time.sleep(_SAVING_SECONDS)
                    call_alone()
            alone = _until_told(beside, messages * _STEPS)
    added = found.median_ms - alone.median_ms
    return [
        Line(
            "a step's tool call: from the end of the provider's answer to its next request,"
            f" {_STEPS} steps a message: p50 / p99",
            f"{found}: {added:.1f} ms more",
            f"the same model calls by the adapter alone, nothing logged: {alone}",
            owed=f"≤ {_OWED_MS:g} ms more (p50)",
            met=added <= _OWED_MS,
        )
    ]


def _url(simulator: Child) -> str:
    return f"http://127.0.0.1:{simulator.answer()['port']}/v1"


def _until_told(simulator: Child, results: int) -> Spread:
    """Wait until the provider was told so many results."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        told = Spread(*simulator.ask("report")["steps"])  # type: ignore[misc]
        if told.count == results:
            return told
        if time.monotonic() > end:
            raise RuntimeError(f"{told.count} of {results} results were told")
        time.sleep(0.05)


@contextmanager
def _adapter(base_url: str) -> Iterator[Callable[[], None]]:
    """Give what makes a message's model calls and calls its tool by our adapter, without a log."""
    with (
        patch.dict(os.environ, {"OPENAI_BASE_URL": base_url}),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        provider = FACTORIES["openai"]()
        try:
            yield lambda: runner.run(_alone(provider))
        finally:
            runner.run(provider.aclose())


async def _alone(provider: Provider) -> None:
    turns = [Turn("user", stamp())]
    while calls := await _called(provider, turns):
        turns.append(Turn("assistant", "", calls))
        for call in calls:
            told = await trivial_tool.trivial()
            turns.append(Turn("tool", told, tool_call_id=call.tool_call_id))


async def _called(provider: Provider, turns: list[Turn]) -> list[ToolCall]:
    tool = Tool("trivial", "Do nothing.", {"type": "object", "properties": {}})
    async with provider.stream(ModelRequest(_MODEL, turns, tools=[tool])) as chunks:
        return [chunk.call async for chunk in chunks if isinstance(chunk, ToolCallChunk)]
