"""`rejoin dev`: the API, a worker, the page and a Redis, in one command with nothing to set up."""

import asyncio
import os
import signal
import sys

import click

from rejoin.client.commands import redis_binaries
from rejoin.client.commands.banner import show
from rejoin.client.commands.embedded import EmbeddedRedis
from rejoin.client.commands.migrate import migrate
from rejoin.client.commands.ports import free_port
from rejoin.client.commands.supervisor import Supervisor, note
from rejoin.shared.errors import DatabaseUnavailable
from rejoin.shared.settings import Settings, load_settings, unheeded


@click.command()
def command() -> None:
    """Run everything on this machine: API, one worker, page, and a Redis unless one is set.

    Its data is in REJOIN_DATA_DIR (./data). Ctrl-C ends everything in order, a second one at once.
    """
    settings = load_settings()
    for sentence in unheeded():
        note(sentence)
    sys.exit(asyncio.run(_run(settings)))


async def _run(settings: Settings) -> int:
    """Run until a signal, or until the API ends: its exit code, 0 after a signal."""
    supervisor = Supervisor(settings.host, free_port(settings.host, settings.port))
    stop = asyncio.Event()

    def end() -> None:
        if stop.is_set():
            supervisor.kill()
        else:
            note("ending everything; Ctrl-C again kills it")
        stop.set()

    loop = asyncio.get_running_loop()
    # A closed terminal (SIGHUP) ends everything in order too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup, or a shell that runs us in the background
        loop.add_signal_handler(number, end)
    serving = asyncio.create_task(_serve(settings, supervisor))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return serving.result() if serving.done() else 0
    finally:
        for task in (serving, stopping):
            task.cancel()
        await asyncio.gather(serving, stopping, return_exceptions=True)
        await supervisor.aclose()


async def _serve(settings: Settings, supervisor: Supervisor) -> int:
    """Start everything, say so, and keep it running until the API ends."""
    environment = dict(os.environ) | {"REJOIN_PORT": str(supervisor.port)}
    if settings.redis_url is not None:
        redis_said = "the one of REJOIN_REDIS_URL"
    else:
        choice, passed_over = redis_binaries.choose()
        for sentence in passed_over:
            note(sentence)
        redis = EmbeddedRedis(choice, settings.data_dir)
        await supervisor.start_redis(redis)
        environment["REJOIN_REDIS_URL"] = redis.url
        redis_said = f"{choice.said}, data in {redis.directory}" if choice.path else choice.said
    if settings.database_url is not None:
        try:
            await migrate(settings)
        except DatabaseUnavailable as error:
            note(f"{error}; messages are kept in Redis until it is back")
    code = await supervisor.start(environment)
    if code is not None:
        return code
    show(supervisor.url, redis_said)
    return await supervisor.keep()
