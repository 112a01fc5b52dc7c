"""`rejoin doctor`: looks at everything Rejoin needs, and says what to mend."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import httpx
from rich.console import Console
from rich.text import Text

from rejoin.client.commands import installation, redis_binaries
from rejoin.client.commands.children import module
from rejoin.client.commands.embedded import EmbeddedRedis
from rejoin.client.commands.watching import server_url
from rejoin.shared import redis_check
from rejoin.shared.catalogue import check_model, providers
from rejoin.shared.errors import RejoinError, SettingsError
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings import Settings, load_settings, unheeded

_CHECK_SECONDS: Final = 20
_MARKS: Final = {
    Grade.OK: ("ok", "green"),
    Grade.WARNING: ("warning", "yellow"),
    Grade.BROKEN: ("broken", "bold red"),
}


@click.command()
def command() -> None:
    """Check Python, the settings, Redis, API, worker and providers; say what to mend.

    The exit code is 1 if anything is broken. A provider without a key is not.
    """
    sys.exit(asyncio.run(_examine()))


async def _examine() -> int:
    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    async for area, finding in _findings():
        mark, style = _MARKS[finding.grade]
        console.print(Text.assemble((f"{mark:<8}", style), f"{area}: {finding.sentence}"))
        broken += finding.grade is Grade.BROKEN
    console.print(Text(f"{broken} to mend" if broken else "nothing to mend"))
    return 1 if broken else 0


async def _findings() -> AsyncIterator[tuple[str, Finding]]:
    for finding in installation.look():
        yield "installation", finding
    try:
        settings = load_settings()
    except SettingsError as error:
        yield "settings", Finding(Grade.BROKEN, str(error))
        return  # nothing else can start with them
    yield "settings", Finding(Grade.OK, "every REJOIN_* that is heeded is right")
    for sentence in unheeded():
        yield "settings", Finding(Grade.WARNING, sentence)
    if settings.redis_url is None:
        async for found in _with_embedded(settings):
            yield found
    else:
        for finding in await redis_check.look(settings.redis_url):
            yield "redis", finding
        async for found in _processes(settings.redis_url):
            yield found
    yield "server", await _server(settings)
    for found in _providers(settings):
        yield found


async def _with_embedded(settings: Settings) -> AsyncIterator[tuple[str, Finding]]:
    """Start the Redis that `rejoin dev` would, in a directory that is removed again."""
    choice, passed_over = redis_binaries.choose()
    for sentence in passed_over:
        yield "redis", Finding(Grade.WARNING, sentence)
    grade = Grade.OK if choice.path else Grade.WARNING
    sentence = f"REJOIN_REDIS_URL is not set: `rejoin dev` starts {choice.said}"
    yield "redis", Finding(grade, sentence)
    if not _writable(settings.data_dir):
        sentence = f"REJOIN_DATA_DIR={settings.data_dir} cannot be written"
        yield "redis", Finding(Grade.BROKEN, sentence)
    with TemporaryDirectory(prefix="rejoin-doctor-") as directory:
        try:
            async with EmbeddedRedis(choice, Path(directory)) as redis:
                async for found in _processes(redis.url):
                    yield found
        except RejoinError as error:
            yield "redis", Finding(Grade.BROKEN, str(error))


async def _processes(redis_url: str) -> AsyncIterator[tuple[str, Finding]]:
    """Ask API and worker themselves whether they could run."""
    environment = dict(os.environ) | {"REJOIN_REDIS_URL": redis_url}
    for name in ("api", "worker"):
        process = await asyncio.create_subprocess_exec(
            *module(f"rejoin.{name}"),
            "--check",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            yield name, Finding(Grade.BROKEN, f"did not answer within {_CHECK_SECONDS} s")
            continue
        said = output.decode(errors="replace").strip().splitlines()
        if process.returncode == 0:
            yield name, Finding(Grade.OK, said[-1] if said else "could run")
        else:
            last = said[-1] if said else "it says nothing"
            yield name, Finding(Grade.BROKEN, f"exit code {process.returncode}: {last}")


async def _server(settings: Settings) -> Finding:
    if settings.port == 0:
        return Finding(Grade.OK, "REJOIN_PORT=0: whether one runs cannot be seen from here")
    url = server_url(None, settings)
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        try:
            response = await http.get(f"{url}/readyz")
        except httpx.ConnectError:
            return Finding(Grade.OK, f"none runs at {url}: `rejoin dev` starts one")
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            return Finding(Grade.BROKEN, f"what listens at {url} does not answer: {reason}")
    if response.status_code == httpx.codes.OK:
        return Finding(Grade.OK, f"runs at {url} and is ready")
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return Finding(Grade.BROKEN, f"runs at {url}, but its Redis is away")
    return Finding(
        Grade.BROKEN,
        f"what listens at {url} is no Rejoin server ({response.status_code} for /readyz):"
        " set REJOIN_PORT",
    )


def _providers(settings: Settings) -> list[tuple[str, Finding]]:
    states = providers()
    found = []
    for state in states:
        configured = "configured" if state.configured else "not set up"
        finding = Finding(Grade.OK, f"{configured}. {state.hint}")
        found.append((f"provider {state.name}", finding))
    model = settings.default_model
    if model is None:
        return found
    try:
        check_model(model)
    except RejoinError as error:
        return [*found, ("settings", Finding(Grade.BROKEN, f"REJOIN_DEFAULT_MODEL: {error}"))]
    unset = {state.name for state in states if not state.configured}
    if model.partition("/")[0] in unset:
        sentence = f"REJOIN_DEFAULT_MODEL={model} is of a provider that is not set up"
        found.append(("settings", Finding(Grade.WARNING, sentence)))
    return found


def _writable(directory: Path) -> bool:
    """Whether it can be written, or made below the nearest folder that is there."""
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
