"""Workers in the test's own process that ask a limited provider, under one scaled quota."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.settings_file import Quota, SettingsFile
from tests.support.in_process import RunningWorker, worker_on
from tests.support.limited_provider import LimitedProvider


@asynccontextmanager
async def workers_of(
    url: str,
    server: LimitedProvider,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    *,
    quota: Quota | None = None,
    **settings: Any,
) -> AsyncIterator[list[RunningWorker]]:
    """Run so many workers for the block, each known to the server by its name, `w0` and on."""
    file = SettingsFile(quota={server.wire: quota} if quota is not None else {})
    own: dict[str, Any] = {
        "provider_retries": 6,
        "quota_seconds": server.window_seconds,
        "file": file,
    }
    async with AsyncExitStack() as stack:
        workers = []
        for number in range(count):
            name = f"w{number}"
            for variable, value in server.environ(name).items():
                monkeypatch.setenv(variable, value)
            worker = await stack.enter_async_context(worker_on(url, name=name, **own | settings))
            stack.push_async_callback(worker.kit.providers.aclose)
            worker.kit.providers.of(server.wire)  # opened while the environment is its own
            workers.append(worker)
        yield workers


async def all_ended(redis: Redis) -> bool:
    """Whether no message is open any more."""
    return not await redis.zcard(keys.OPEN)
