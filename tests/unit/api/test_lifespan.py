"""What the application's lifespan does, and what it says where nobody ran it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from rejoin.api.app import create_app
from rejoin.shared.db import schema
from rejoin.shared.db.engine import FILE
from rejoin.shared.errors import SettingsError
from rejoin.shared.settings import Settings
from tests.unit.api.conftest import NOWHERE

UNKNOWN = "01980000-0000-7000-8000-000000000000"
ORIGIN = "http://a.example"


@pytest.fixture
def fresh(tmp_path: Path) -> Settings:
    """Settings whose default database file is not there yet."""
    return Settings.model_construct(redis_url=NOWHERE, data_dir=tmp_path / "new")


def client(app: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/api/models", f"/api/messages/{UNKNOWN}/events", "/healthz"])
async def test_without_its_lifespan_every_request_says_what_is_missing(
    settings: Settings, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async with client(Starlette(routes=[Mount("/chat", create_app(settings))])) as api:
        answer = await api.get(f"/chat{path}")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "lifespan" in answer.json()["detail"]
    assert "lifespan" in caplog.text


async def test_the_default_file_is_made_and_brought_up_to_date(fresh: Settings) -> None:
    app = create_app(fresh)
    async with app.lifespan():
        assert not await schema.is_behind(app.context.database)


async def test_a_default_file_of_an_earlier_version_is_brought_up_to_date(
    settings: Settings,
) -> None:
    # What its last migration adds stays away, as a file of its first version has it.
    with sqlite3.connect(settings.data_dir / FILE) as file:
        file.execute("DROP TABLE IF EXISTS alembic_version")
        for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            file.execute(f'DROP TABLE IF EXISTS "{name}"')
    app = create_app(settings)
    assert await schema.is_behind(app.context.database)
    async with app.lifespan():
        assert not await schema.is_behind(app.context.database)


async def test_another_database_that_is_behind_ends_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'theirs.db'}"
    app = create_app(settings.model_copy(update={"database_url": url}))
    with pytest.raises(SettingsError, match="rejoin migrate"):
        async with app.lifespan():
            pytest.fail("it started")


async def test_a_database_that_is_away_is_not_waited_for(settings: Settings) -> None:
    url = "postgresql+asyncpg://somebody@127.0.0.1:1/nothing"
    app = create_app(settings.model_copy(update={"database_url": url}))
    async with asyncio.timeout(8), app.lifespan(), client(app) as api:
        assert (await api.get("/healthz")).status_code == 200


async def test_it_runs_once_and_says_so(settings: Settings) -> None:
    app = create_app(settings)
    async with app.lifespan():
        pass
    with pytest.raises(RuntimeError, match="create_app"):
        async with app.lifespan():
            pytest.fail("it ran again")


async def test_its_cors_headers_are_sent_once_below_another_cors_middleware(
    settings: Settings,
) -> None:
    app = create_app(settings.model_copy(update={"cors_origins": (ORIGIN,)}))
    outer = Starlette(
        routes=[Mount("/chat", app)],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
    )
    async with app.lifespan(), client(outer) as api:
        for path in ("/chat/api/models", f"/chat/api/messages/{UNKNOWN}/events?wait=0"):
            headers = {"origin": ORIGIN, "accept": "application/json"}
            answer = await api.get(path, headers=headers)
            assert len(answer.headers.get_list("access-control-allow-origin")) == 1
            assert "Location" in answer.headers["access-control-expose-headers"]


async def test_two_of_them_in_one_process_end_without_each_other(settings: Settings) -> None:
    first, second = create_app(settings), create_app(settings)

    @asynccontextmanager
    async def both(_: Starlette) -> AsyncIterator[None]:
        async with first.lifespan(), second.lifespan():
            yield

    outer = Starlette(routes=[Mount("/a", first), Mount("/b", second)], lifespan=both)
    async with client(outer) as api:
        async with outer.router.lifespan_context(outer):
            for prefix in ("/a", "/b"):
                assert (await api.get(f"{prefix}/healthz")).status_code == 200
            first.context.hub.drain()
            assert second.context.hub.draining is False
        for prefix in ("/a", "/b"):
            assert (await api.get(f"{prefix}/healthz")).status_code == 500
