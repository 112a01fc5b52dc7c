"""An API in this process on a Redis and a database of the test's, and a caller of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from rejoin.api.app import Application, create_app
from rejoin.api.context import Context
from rejoin.api.saved_history import SavedHistory
from rejoin.shared.db.engine import Database
from rejoin.shared.settings import Settings

LOCAL = "local"  # the owner of whoever calls without authentication


@asynccontextmanager
async def calling(redis_url: str, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Call an API on these two. Its hub is not entered: nothing is followed live."""
    settings = Settings.model_construct(redis_url=redis_url, max_stream_seconds=2)
    made = create_app(settings).context
    context = Context(settings, made.redis, made.hub, database, SavedHistory(database))
    transport = httpx.ASGITransport(Application(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=20) as client:
        yield client
    await made.redis.aclose()
