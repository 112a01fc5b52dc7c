"""What is broken in a chaos run: Redis, a provider, APIs, workers, and proxies that cut."""

import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.chaos.plan import APIS, WORKERS
from tests.chaos.provider import chaos_provider
from tests.chaos.tool_plan import TOOL_WAIT_SECONDS
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.processes import Process, Stack, rejoin_stack
from tests.support.redis_server import RedisServer, need_binary

LEASE_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = 1.0
LOG_TTL_SECONDS: Final = 3000
UP_SECONDS: Final = 60.0  # what a start takes is no part of the test, where all start at once

SETTINGS: Final = {
    "REJOIN_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "REJOIN_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}",
    "REJOIN_LOG_TTL_SECONDS": str(LOG_TTL_SECONDS),
    "REJOIN_MAX_ATTEMPTS": "100000",
    "REJOIN_PROVIDER_RETRIES": "5",
    "REJOIN_KEEPALIVE_SECONDS": "1",
    "REJOIN_RETRY_MILLISECONDS": "100",
    "REJOIN_TIMEOUT_FIRST_TOKEN": "5",
    "REJOIN_TIMEOUT_IDLE": "4",
    "REJOIN_MAX_STREAM_SECONDS": "9",
    "REJOIN_TOOL_WAIT_SECONDS": f"{TOOL_WAIT_SECONDS:g}",
    "REJOIN_TOOLS": str(Path(__file__).parent / "tools.py"),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The processes of a run, the provider's root, and the file of what tools did."""

    redis: RedisServer
    stack: Stack
    provider: str
    effects: Path


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the APIs are reached: directly, and through proxies that cut."""

    direct: tuple[str, ...]
    proxies: tuple[CuttingProxy, ...]

    def choose(self, chance: random.Random, *, by_proxy: bool) -> str:
        """The root of any API."""
        roots = [proxy.url for proxy in self.proxies] if by_proxy else self.direct
        return chance.choice(roots)


@contextmanager
def cluster(keep_logs: Path | None = None) -> Iterator[Cluster]:
    """Run the processes; what they logged is copied to `keep_logs` at the end."""
    with ExitStack() as ends:
        redis = ends.enter_context(_durable_redis())
        provider = ends.enter_context(chaos_provider())
        folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="rejoin-chaos-tools-"))
        effects = Path(folder) / "effects"
        effects.touch()
        own = {"OPENAI_BASE_URL": f"{provider}/v1", "CHAOS_EFFECTS": str(effects)}
        settings = SETTINGS | own
        stack = ends.enter_context(rejoin_stack(redis, apis=0, workers=0, settings=settings))
        if keep_logs is not None:
            keep_logs.mkdir(parents=True, exist_ok=True)
            ends.callback(_copy_logs, stack, redis, keep_logs)
        for _ in range(APIS):
            port = lasting_port()
            stack.new_api(REJOIN_PORT=str(port)).port = port
        for _ in range(WORKERS):
            stack.new_worker()
        for process in (*stack.apis, *stack.workers):
            process.launch()
        for process in (*stack.apis, *stack.workers):
            process.until(partial(is_up, process), within=UP_SECONDS)
        yield Cluster(redis, stack, provider, effects)


def is_up(process: Process) -> bool:
    """Whether a process has said that it is up."""
    return times_up(process) > 0


def times_up(process: Process) -> int:
    """How many times a process has said that it is up: from then on it hears signals."""
    said = process.said()
    return said.count("messages at once") + said.count("Application startup complete")


@contextmanager
def _durable_redis() -> Iterator[RedisServer]:
    """A server that keeps all it acknowledged, also over a kill -9."""
    with tempfile.TemporaryDirectory(prefix="rejoin-chaos-", ignore_cleanup_errors=True) as name:
        server = RedisServer(need_binary(), Path(name), appendonly=True, appendfsync="always")
        server.port = lasting_port()
        try:
            yield server.start()
        finally:
            server.stop()


def _copy_logs(stack: Stack, redis: RedisServer, to: Path) -> None:
    for log in (redis.log, *(process.log for process in (*stack.apis, *stack.workers))):
        if log.exists():
            shutil.copy(log, to)


def lasting_port() -> int:
    """A free port below those that the kernel gives to outgoing connections.

    While its server is down, one of those could get the port, and even connect to itself.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@asynccontextmanager
async def open_doors(running: Cluster, seed: int) -> AsyncIterator[Doors]:
    """Put a cutting proxy before each API."""
    async with AsyncExitStack() as ends:
        proxies = [
            await ends.enter_async_context(cutting_proxy(api.port, _cuts(f"{seed} cuts {number}")))
            for number, api in enumerate(running.stack.apis)
        ]
        yield Doors(tuple(api.url for api in running.stack.apis), tuple(proxies))


def _cuts(seed: str) -> Iterator[Cut]:
    """Cut a quarter within the head or the first frames, others later."""
    chance = random.Random(seed)
    while True:
        least, most = (0, 500) if chance.random() < 0.25 else (500, 20_000)
        yield Cut(down=chance.randint(least, most), reset=chance.random() < 0.5)
