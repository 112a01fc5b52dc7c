"""Loads the Lua scripts and runs them by EVALSHA."""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int | float


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


async def load(redis: Redis, name: str) -> None:
    """Make Redis know a script."""
    await cast(_Runner, redis).script_load(source(name))
