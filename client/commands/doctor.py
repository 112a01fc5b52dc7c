"""`rejoin doctor`: looks at everything Rejoin needs, and says what to mend."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
import httpx
from rich.console import Console
from rich.text import Text

from rejoin.client.commands import (
    cooling_check,
    database_check,
    installation,
    process_checks,
    quota_check,
    redis_binaries,
)
from rejoin.client.commands.embedded import EmbeddedRedis
from rejoin.client.commands.watching import server_url
from rejoin.shared import redis_check, settings_file
from rejoin.shared.catalogue import check_model, providers
from rejoin.shared.errors import RejoinError, SettingsError
from rejoin.shared.redis_check import Finding, Grade
from rejoin.shared.settings import Settings, load_settings, unheeded

Found = tuple[str, Finding]

_MARKS: Final = {
    Grade.OK: ("ok", "green"),
    Grade.WARNING: ("warning", "yellow"),
    Grade.BROKEN: ("broken", "bold red"),
}


@click.command()
@click.option(
    "--call",
    metavar="MODEL",
    is_flag=False,
    flag_value="",
    help="Ask this model, or REJOIN_DEFAULT_MODEL, for one token too.",
)
def command(call: str | None) -> None:
    """Check Python, settings, Redis, database, API, worker, tools, providers; say what to mend.

    Providers are asked for their models, which costs nothing. The exit code is 1 if anything is
    broken. A provider without a key is not.
    """
    sys.exit(asyncio.run(_examine(call)))


async def _examine(call: str | None) -> int:
    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    async for area, finding in _findings(call):
        mark, style = _MARKS[finding.grade]
        console.print(Text.assemble((f"{mark:<8}", style), f"{area}: {finding.sentence}"))
        broken += finding.grade is Grade.BROKEN
    console.print(Text(f"{broken} to mend" if broken else "nothing to mend"))
    return 1 if broken else 0


async def _findings(call: str | None) -> AsyncIterator[Found]:
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
    yield "database", await database_check.look(settings)
    if settings.redis_url is None:
        async for found in _with_embedded(settings):
            yield found
    else:
        async for found in _with_redis(settings.redis_url, settings):
            yield found
    async for found in _own_code(settings):
        yield found
    async for found in _served(settings):
        yield found
    async for found in _providers(settings, call):
        yield found


async def _with_redis(url: str, settings: Settings) -> AsyncIterator[Found]:
    """Look at the Redis that is named, at who works with it, and at what they noted there."""
    for finding in await redis_check.look(url):
        yield "redis", finding
    async for found in process_checks.processes(url):
        yield found
    async for found in cooling_check.look(url):
        yield found
    with suppress(SettingsError):  # which the worker tells of
        quotas = settings_file.load(settings.settings_file).quota
        async for found in quota_check.look(url, quotas):
            yield found


async def _with_embedded(settings: Settings) -> AsyncIterator[Found]:
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
                async for found in process_checks.processes(redis.url):
                    yield found
        except RejoinError as error:
            yield "redis", Finding(Grade.BROKEN, str(error))


async def _own_code(settings: Settings) -> AsyncIterator[Found]:
    if settings.tools or settings.agents or settings.settings_file:
        async for found in process_checks.own_code():
            yield found
    else:
        none = Finding(Grade.OK, "none: REJOIN_TOOLS and REJOIN_AGENTS are not set")
        yield "tools and agents", none


async def _served(settings: Settings) -> AsyncIterator[Found]:
    yield "server", await _server(settings)
    if settings.redis_url is None and settings.port:
        async for found in cooling_check.ask(server_url(None, settings)):
            yield found


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


async def _providers(settings: Settings, call: str | None) -> AsyncIterator[Found]:
    states = providers()
    for state in states:
        if not state.configured:
            yield f"provider {state.name}", Finding(Grade.OK, f"not set up. {state.hint}")
    unset = {state.name for state in states if not state.configured}
    model = settings.default_model
    if model is not None:
        if sentence := _unusable(model):
            yield "settings", Finding(Grade.BROKEN, f"REJOIN_DEFAULT_MODEL: {sentence}")
        elif model.partition("/")[0] in unset:
            sentence = f"REJOIN_DEFAULT_MODEL={model} is of a provider that is not set up"
            yield "settings", Finding(Grade.WARNING, sentence)
    if call == "" and model is None:
        yield "model", Finding(Grade.BROKEN, "name one: --call MODEL, or set REJOIN_DEFAULT_MODEL")
    async for found in process_checks.configured_providers(call or (model if call == "" else None)):
        yield found


def _unusable(model: str) -> str:
    try:
        check_model(model)
    except RejoinError as error:
        return str(error)
    return ""


def _writable(directory: Path) -> bool:
    """Whether it can be written, or made below the nearest folder that is there."""
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
