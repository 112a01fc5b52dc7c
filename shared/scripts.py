"""Loads the Lua scripts and runs them by EVALSHA."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

Argument = str | bytes | int | float

_sent_once: set[str] = set()  # by this process, to whichever server


class Call(NamedTuple):
    """A script with its keys and arguments, for `run_all`."""

    name: str
    keys: Sequence[str]
    arguments: Sequence[Argument]


class _Runner(Protocol):
    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Argument) -> object: ...

    async def script_load(self, script: str) -> object: ...


@cache
def source(name: str) -> str:
    """The text of a script, named as its file below lua/ ("log/append")."""
    return (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


@cache
def digest(name: str) -> str:
    """The script's SHA-1, as EVALSHA takes it."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


async def run(
    redis: Redis, name: str, keys: Sequence[str], arguments: Sequence[Argument] = ()
) -> object:
    """Run a script; load it first where Redis does not know it (a restart, SCRIPT FLUSH)."""
    runner = cast(_Runner, redis)
    try:
        return await runner.evalsha(digest(name), len(keys), *keys, *arguments)
    except NoScriptError:
        await load(redis, name)
        return await runner.evalsha(digest(name), len(keys), *keys, *arguments)


async def run_all(redis: Redis, calls: Sequence[Call], *, undivided: bool = False) -> list[object]:
    """Run scripts one after the other in one round trip; each bears being repeated.

    `undivided`: nobody sees anything between them (MULTI).

    One that fails does not stop those after it; the first failure is raised in the end.
    """
    await load_first(redis, calls)
    replies = await _send(redis, calls, undivided=undivided)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        for call in calls:
            await load(redis, call.name)
        replies = await _send(redis, calls, undivided=undivided)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def _send(redis: Redis, calls: Sequence[Call], *, undivided: bool) -> list[object]:
    pipeline = redis.pipeline(transaction=undivided)
    for call in calls:
        add(pipeline, call)
    return cast(list[object], await pipeline.execute(raise_on_error=False))


def add(pipeline: Pipeline, call: Call) -> None:
    """Let a pipeline run a script that Redis knows."""
    name, keys, arguments = call
    pipeline.execute_command("EVALSHA", digest(name), len(keys), *keys, *arguments)


async def load_first(redis: Redis, calls: Sequence[Call]) -> None:
    """Make Redis know those scripts that this process has sent to none yet.

    fakeredis closes a connection on whose pipeline it meets a script that it does not know.
    """
    for call in calls:
        if call.name not in _sent_once:
            await load(redis, call.name)


async def load(redis: Redis, name: str) -> None:
    """Make Redis know a script."""
    await cast(_Runner, redis).script_load(source(name))
    _sent_once.add(name)
