"""Asks API and worker, as processes of their own, what `rejoin doctor` cannot see itself."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from rejoin.client.commands.children import module
from rejoin.shared.redis_check import Finding, Grade

_CHECK_SECONDS: Final = 20
_PROVIDERS_SECONDS: Final = 45  # a list has 10, a call 30


async def processes(redis_url: str) -> AsyncIterator[tuple[str, Finding]]:
    """Ask API and worker whether they could run with this Redis."""
    environment = dict(os.environ) | {"REJOIN_REDIS_URL": redis_url}
    for name in ("api", "worker"):
        command = (f"rejoin.{name}", "--check")
        code, output, errors = await _run(command, environment, within_seconds=_CHECK_SECONDS)
        if code is None:
            yield name, Finding(Grade.BROKEN, f"did not answer within {_CHECK_SECONDS} s")
        elif code == 0 and (said := _last_line(output)):
            yield name, Finding(Grade.OK, said)
        else:
            yield name, Finding(Grade.BROKEN, _failed(code, errors or output))


async def configured_providers(call: str | None) -> AsyncIterator[tuple[str, Finding]]:
    """Ask a worker whether each configured provider answers; `call` is a model to be asked too."""
    command = ["rejoin.worker", "--check-providers", *([] if call is None else [f"--call={call}"])]
    async for found in _told("providers", command, within_seconds=_PROVIDERS_SECONDS):
        yield found


async def own_code() -> AsyncIterator[tuple[str, Finding]]:
    """Ask a worker whether it can load the operator's tools and agents, and which these are."""
    command = ("rejoin.worker", "--check-code")
    async for found in _told("tools and agents", command, within_seconds=_CHECK_SECONDS):
        yield found


async def _told(
    area: str, command: Sequence[str], *, within_seconds: float
) -> AsyncIterator[tuple[str, Finding]]:
    """Run a module that tells what it finds, a line of JSON each."""
    code, output, errors = await _run(command, os.environ, within_seconds=within_seconds)
    if code is None:
        yield area, Finding(Grade.BROKEN, f"no answer within {within_seconds:g} s")
    elif code != 0 or not output:
        yield area, Finding(Grade.BROKEN, _failed(code, errors))
    for line in output.splitlines():
        told = json.loads(line)
        yield told["area"], Finding(Grade(told["grade"]), told["sentence"])


async def _run(
    command: Sequence[str], environment: Mapping[str, str], *, within_seconds: float
) -> tuple[int | None, str, str]:
    """Run a module; its exit code (None: killed after that time), stdout and stderr."""
    name, *arguments = command
    process = await asyncio.create_subprocess_exec(
        *module(name),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    try:
        async with asyncio.timeout(within_seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None, "", ""
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else ""


def _failed(code: int, said: str) -> str:
    return f"exit code {code}: {_last_line(said) or 'it says nothing'}"
