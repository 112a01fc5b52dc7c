"""Tools that heed no end: the message goes on without them, and the worker ends without them."""

import json
from pathlib import Path

from tests.support.caller import caller
from tests.support.processes import rejoin_stack
from tests.support.provider_script import Answer, choice, completion_chunk, sse
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import RedisServer

TOOLS = """
import asyncio
import sys
import threading

from rejoin.worker.tools import tool


@tool(timeout=0.3)
async def deaf() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@tool(timeout=0.3)
def hung() -> None:
    threading.Event().wait()


@tool
def leaves() -> None:
    sys.exit(3)
"""
NAMES = ["deaf", "hung", "leaves"]


def answer(reason: str, **delta: object) -> Answer:
    parts = [choice(delta), choice({}, reason)]
    chunks = [sse(completion_chunk("m", choices=each)) for each in parts]
    return Answer([*chunks, sse("[DONE]")])


def calls() -> list[dict[str, object]]:
    return [
        {"index": at, "id": f"call_{name}", "function": {"name": name, "arguments": "{}"}}
        for at, name in enumerate(NAMES)
    ]


async def test_a_message_and_a_worker_end_whatever_their_tools_do(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS, encoding="utf-8")
    async with ProviderServer(lists_models=True) as openai:
        openai.play(answer("tool_calls", tool_calls=calls()), answer("stop", content="So be it."))
        settings = {"OPENAI_BASE_URL": openai.base_url, "REJOIN_TOOLS": str(tools)}
        with rejoin_stack(own_redis, settings=settings) as stack:
            async with caller(stack.url) as api:
                message = await api.accepted("Do it.", model="openai/m", tools=NAMES)
                ended = (await api.http.get(f"/api/messages/{message}?wait=20")).json()
            assert (ended["status"], ended["text"]) == ("done", "So be it.")
            errors = {call["name"]: call["error"] for call in ended["tool_calls"]}
            late = "timed out: no result within 0.3 seconds"
            assert errors == {"deaf": late, "hung": late, "leaves": "SystemExit: 3"}
            assert stack.worker.terminate() == 0
            assert "do not heed their end" in stack.worker.said()
    told = json.loads(openai.requests[-1].body)["messages"]
    assert [turn["role"] for turn in told].count("tool") == len(NAMES)
