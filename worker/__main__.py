"""`python -m rejoin.worker`: one worker process, until SIGTERM or SIGINT."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys

import uvloop
from arq.connections import ArqRedis

from rejoin.shared import catalogue, jobs, prices, redis_check, settings_file, token_count
from rejoin.shared.connections import open_redis
from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import SettingsError
from rejoin.shared.settings import Settings, load_settings, unheeded
from rejoin.shared.settings_file import SettingsFile
from rejoin.worker import check
from rejoin.worker.agents.loading import load_agents
from rejoin.worker.agents.registry import Agents
from rejoin.worker.appender import Appender
from rejoin.worker.arq_worker import LeasedWorker
from rejoin.worker.check_code import check_code
from rejoin.worker.kit import Kit
from rejoin.worker.leaving import leave
from rejoin.worker.providers.registry import Providers
from rejoin.worker.tools.loading import load_tools
from rejoin.worker.tools.registry import Tools

_log = logging.getLogger(__name__)


def main() -> int:
    """Run the worker, or only look whether it could. Returns the exit code."""
    asked = _arguments()
    try:
        settings = load_settings()
        if asked.check_providers:
            return uvloop.run(check.check_providers(asked.call))
        if asked.check_code:
            return check_code(settings)
        url = settings.redis_url_of("worker")
    except SettingsError as error:
        sys.stderr.write(f"rejoin worker: {error}\n")
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # arq tells each job's start and end at INFO; ours are told where they matter.
    logging.getLogger("arq").setLevel(logging.WARNING)
    # This one tells each request's URL at INFO, with the password that it may hold.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if asked.check:
        return uvloop.run(check.check(settings, url))
    for sentence in unheeded():
        _log.warning("%s", sentence)
    try:
        # Before the loop: what is imported may take its time, or run a loop of its own.
        file = settings_file.filled_in(settings_file.load(settings.settings_file))
        tools, agents = Tools(load_tools(settings.tools)), Agents(load_agents(settings.agents))
        uvloop.run(_serve(settings, url, file, tools, agents))
    except SettingsError as error:
        sys.stderr.write(f"rejoin worker: {error}\n")
        return 2
    return 0


async def _serve(
    settings: Settings, url: str, file: SettingsFile, tools: Tools, agents: Agents
) -> None:
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    redis = open_redis(url)
    arq_redis = ArqRedis(
        redis.connection_pool,
        job_serializer=jobs.encode,
        job_deserializer=jobs.decode,
        default_queue_name="",
    )
    blocking = open_redis(url, timeout_seconds=3, connections=2, retries=0)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(blocking.aclose)
        database = Database.of(settings)
        stack.push_async_callback(database.aclose)
        await schema.prepare(database)
        providers = Providers()
        providers.open_configured()
        models = [f"{state.name}/" for state in catalogue.providers() if state.configured]
        await prices.load_for(models)
        await token_count.load_for(models)
        stack.push_async_callback(providers.aclose)
        kit = Kit(
            settings,
            redis,
            Appender(redis),
            providers,
            worker_id,
            database,
            tools=tools,
            agents=agents,
            file=file,
        )
        stack.push_async_callback(kit.validation.aclose)
        worker = LeasedWorker(kit, arq_redis, blocking, url)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        if file.mcp:
            # Here: the SDK takes a second to import, and 20 MB.
            from rejoin.worker.tools.mcp_servers import serving

            await stack.enter_async_context(serving(file.mcp, tools, kit.validation))
        # What is there by now stays: no collection need look at all of it again.
        gc.collect()
        gc.freeze()
        if tools.names():
            _log.info("tools: %s", ", ".join(tools.names()))
        if agents.names():
            _log.info("agents: %s", ", ".join(agents.names()))
        _log.info("worker %s runs up to %d messages at once", worker_id, settings.max_jobs)
        await stack.enter_async_context(redis_check.warned_of(url))
        await worker.main()
        _log.info("worker %s has stopped", worker_id)
    await leave()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rejoin.worker", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="only look whether it could run")
    parser.add_argument(
        "--check-providers", action="store_true", help="only look whether they answer, in JSON"
    )
    parser.add_argument(
        "--check-code", action="store_true", help="only list the tools and agents it has, in JSON"
    )
    parser.add_argument("--call", metavar="MODEL", help="with that: ask it for one token")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
