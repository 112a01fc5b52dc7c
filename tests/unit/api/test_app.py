"""The application as a whole: what wraps its routes."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from rejoin.api.app import Application, create_app
from rejoin.api.context import Context
from rejoin.shared.errors import SettingsError
from rejoin.shared.settings import Settings

MESSAGE = {"model": "demo/echo", "input": "hi"}


def client(app: object, **options: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, **options)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://api")


def test_without_a_redis_it_says_what_to_set(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="REJOIN_REDIS_URL"):
        create_app(settings.model_copy(update={"redis_url": None}))


@pytest.mark.parametrize("model", ["echo", "demo/nope", "nobody/model"])
def test_a_default_model_that_is_none_is_named(settings: Settings, model: str) -> None:
    with pytest.raises(SettingsError, match="REJOIN_DEFAULT_MODEL"):
        create_app(settings.model_copy(update={"default_model": model}))


async def test_below_a_prefix_its_addresses_have_the_prefix(context: Context) -> None:
    app = Starlette(routes=[Mount("/chat", Application(context))])
    async with client(app) as api:
        accepted = await api.post("/chat/api/messages", json=MESSAGE)
        assert accepted.status_code == 202
        links = accepted.json()["links"]
        assert accepted.headers["location"] == links["self"]
        assert links["self"].startswith("/chat/api/messages/")
        assert (await api.get(links["self"])).json()["status"] == "queued"
        pages = {"accept": "application/json"}
        assert (await api.get(links["events"], headers=pages)).json()["events"] == []
        assert (await api.post(links["cancel"])).status_code == 202
        assert (await api.get(links["events"], headers=pages)).json()["ended"] is True


async def test_its_lifespan_can_be_another_applications(settings: Settings) -> None:
    ours = create_app(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with ours.lifespan():
            yield

    app = Starlette(routes=[Mount("/chat", ours)], lifespan=lifespan)
    async with app.router.lifespan_context(app), client(app) as api:
        assert (await api.get("/chat/healthz")).status_code == 200


async def test_with_redis_away_it_starts_and_answers_503(away: httpx.AsyncClient) -> None:
    ready = await away.get("/readyz")
    posted = await away.post("/api/messages", json=MESSAGE)
    for answer in (ready, posted):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await away.get("/healthz")).json() == {"status": "ok"}


async def test_a_process_that_ends_is_not_ready(context: Context) -> None:
    async with client(Application(context)) as api:
        assert (await api.get("/readyz")).status_code == 200
        context.hub.drain()
        assert (await api.get("/readyz")).status_code == 503
        assert (await api.get("/healthz")).status_code == 200


async def test_a_bug_is_a_problem_and_is_raised_once_for_the_log(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rejoin.api.endpoints.messages.check_model", broken)
    async with client(Application(context), raise_app_exceptions=False) as api:
        answer = await api.post("/api/messages", json=MESSAGE)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    async with client(Application(context)) as api:
        with pytest.raises(ZeroDivisionError):
            await api.post("/api/messages", json=MESSAGE)
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_a_slash_too_many_is_no_redirect(context: Context) -> None:
    async with client(Application(context)) as api:
        assert (await api.get("/api/models/")).status_code == 404


async def test_nothing_is_compressed_or_cached_on_the_way(context: Context) -> None:
    async with client(Application(context)) as api:
        answer = await api.get("/api/models", headers={"accept-encoding": "gzip"})
    assert answer.headers["cache-control"] == "no-store"
    assert "content-encoding" not in answer.headers
