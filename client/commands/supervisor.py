"""Keeps the processes of `rejoin dev` running, and ends them in order."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final, NoReturn

import click
import httpx

from rejoin.client.backoff import Backoff
from rejoin.client.commands.children import Child, Command, describe, module
from rejoin.client.commands.embedded import EmbeddedRedis

READY_SECONDS: Final = 30.0

_LOOK_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 10.0
_STEADY_SECONDS: Final = 30.0  # whoever ran for so long begins with short waits again


class Supervisor:
    """The API, a worker and perhaps a Redis. One owner, who calls `aclose`."""

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._redis: EmbeddedRedis | None = None
        self._api: Child | None = None
        self._worker: Child | None = None

    async def start_redis(self, redis: EmbeddedRedis) -> None:
        """Start the embedded Redis. Raises as its `start` does."""
        self._redis = redis
        await redis.start()
        for sentence in redis.notes:
            note(sentence)

    async def start(self, environment: Mapping[str, str]) -> int | None:
        """Start API and worker and wait until they can be used: None, or the exit code."""
        self._api = Child(Command("the API", module("rejoin.api"), environment))
        self._worker = Child(Command("the worker", module("rejoin.worker"), environment))
        await self._api.start()
        await self._worker.start()
        ended = asyncio.create_task(self._api.wait())
        try:
            return await self._until_ready(ended)
        finally:
            ended.cancel()

    async def _until_ready(self, ended: "asyncio.Task[int]") -> int | None:
        end = time.monotonic() + READY_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            while True:
                if ended.done():
                    note(f"the API ended with {describe(ended.result())} before it was ready")
                    return _exit_code(ended.result())
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == httpx.codes.OK:
                        return None
                except httpx.TransportError:
                    pass  # it does not listen yet
                if time.monotonic() > end:
                    note(f"{self.url}/readyz was not ready within {READY_SECONDS:g} s")
                    return 1
                await asyncio.wait({ended}, timeout=_LOOK_SECONDS)

    async def keep(self) -> int:
        """Start again what ends, the API excepted: return the exit code for its end."""
        assert self._api is not None and self._worker is not None  # noqa: S101, PT018
        api = asyncio.create_task(self._api.wait())
        tasks: list[asyncio.Task[int]] = [api, asyncio.create_task(_keep(self._worker))]
        if self._redis is not None:
            tasks.append(asyncio.create_task(_keep(self._redis.child)))
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            code = ended.pop().result()  # of the API: the others end by an error alone
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        note(f"the API ended with {describe(code)}")
        return _exit_code(code)

    async def aclose(self) -> None:
        """End API and worker, then Redis, which they need to end well; each wait is bounded."""
        running = [child for child in (self._api, self._worker) if child is not None]
        ended = await asyncio.gather(*(child.stop(_STOP_SECONDS) for child in running))
        for child, by_itself in zip(running, ended, strict=True):
            if not by_itself:
                note(f"{child.command.name} did not end in time and was killed")
        if self._redis is not None:
            await self._redis.aclose()

    def kill(self) -> None:
        """End everything at once."""
        for child in (self._api, self._worker):
            if child is not None:
                child.kill()
        if self._redis is not None:
            self._redis.kill()


async def _keep(child: Child) -> NoReturn:
    backoff = Backoff(first_seconds=0.5)
    while True:
        began = time.monotonic()
        code = await child.wait()
        if time.monotonic() - began > _STEADY_SECONDS:
            backoff.reset()
        seconds = backoff.next()
        name = child.command.name
        note(f"{name} ended with {describe(code)}; it is started again in {seconds:.1f} s")
        await asyncio.sleep(seconds)
        await child.start()


def _exit_code(code: int) -> int:
    """What a shell makes of it: 128 and the number for a signal; an end unasked for is no 0."""
    return 128 - code if code < 0 else code or 1


def note(sentence: str) -> None:
    """Say something about the processes, apart from what they say themselves."""
    click.echo(f"rejoin: {sentence}", err=True)
