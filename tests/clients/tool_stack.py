"""Processes with tools of their own, and a provider whose model calls them."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_script import Answer, choice, completion_chunk, sse
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import free_port, redis_server

SETTINGS: Final = {"REJOIN_KEEPALIVE_SECONDS": "0.5", "REJOIN_RETRY_MILLISECONDS": "50"}
MODEL: Final = "openai/sim"
TOOLS: Final = '''
import asyncio
from pathlib import Path

from rejoin.worker.tools import Call, tool

HERE = Path(__file__).parent

@tool(needs_approval=True)
async def buy(what: str, call: Call) -> dict[str, str]:
    """Buys something."""
    call.report("progress", {"of": what, "part": 0.5})
    with (HERE / "bought").open("a") as bought:
        bought.write(what + "\\n")
    while not (HERE / "delivered").exists():
        await asyncio.sleep(0.02)
    return {"bought": what}

@tool
def price(what: str) -> int:
    """Says what something costs."""
    return len(what)
'''


class ToolStack(NamedTuple):
    """The processes, the provider, and the directory of the tools, where `buy` writes `bought`."""

    stack: Stack
    provider: ProviderServer
    directory: Path

    def deliver(self) -> None:
        """Let `buy` return."""
        (self.directory / "delivered").touch()

    @property
    def bought(self) -> list[str]:
        """What was bought, in order."""
        file = self.directory / "bought"
        return file.read_text().splitlines() if file.exists() else []

    def given(self) -> list[object]:
        """What the model was told of the tools in its last request."""
        turns = self.provider.requests[-1].json["messages"]
        assert isinstance(turns, list)
        return [turn["content"] for turn in turns if turn["role"] == "tool"]


class ToolProcesses(NamedTuple):
    """An API and a worker with the tools above in `directory`, whose provider has this port."""

    stack: Stack
    directory: Path
    provider_port: int


@contextmanager
def tool_processes(directory: Path) -> Iterator[ToolProcesses]:
    """Run them for the block."""
    (directory / "my_tools.py").write_text(TOOLS)
    port = free_port()
    settings = {
        **SETTINGS,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OPENAI_API_KEY": "x",
        "REJOIN_TOOLS": str(directory / "my_tools.py"),
    }
    with redis_server() as redis, rejoin_stack(redis, settings=settings) as stack:
        yield ToolProcesses(stack, directory, port)


@asynccontextmanager
async def tool_stack(processes: ToolProcesses) -> AsyncIterator[ToolStack]:
    """Run the provider for one test, which begins with nothing bought."""
    stack, directory, port = processes
    for name in ("bought", "delivered"):
        (directory / name).unlink(missing_ok=True)
    async with ProviderServer(port, lists_models=True) as provider:
        yield ToolStack(stack, provider, directory)
        stack.assert_no_traceback()


def calling(*calls: tuple[str, str, dict[str, object]]) -> Answer:
    """A model that calls these tools: id, name and arguments of each."""
    pieces = [
        {
            "index": at,
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for at, (call_id, name, arguments) in enumerate(calls)
    ]
    return _answer([choice({"role": "assistant", "tool_calls": pieces})], "tool_calls")


def saying(text: str) -> Answer:
    """A model that says this."""
    return _answer([choice({"role": "assistant", "content": text})], "stop")


def _answer(choices: Sequence[list[object]], reason: str) -> Answer:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return Answer(
        [
            *(sse(completion_chunk("sim", choices=one)) for one in choices),
            sse(completion_chunk("sim", choices=choice({}, reason))),
            sse(completion_chunk("sim", usage=usage)),
            sse("[DONE]"),
        ]
    )
