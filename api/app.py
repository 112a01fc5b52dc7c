"""The ASGI application: its routes, its lifespan, what wraps them."""

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rejoin.api import problems
from rejoin.api.context import Context
from rejoin.api.drain import drain_on_signal
from rejoin.api.endpoints.cancel import CancelEndpoint
from rejoin.api.endpoints.conversations import ConversationsEndpoints
from rejoin.api.endpoints.events import EVENTS_PATH, EventsEndpoint
from rejoin.api.endpoints.health import HealthEndpoints
from rejoin.api.endpoints.messages import MessagesEndpoint
from rejoin.api.endpoints.models import ModelsEndpoint
from rejoin.api.endpoints.page import StaticPage
from rejoin.api.endpoints.snapshot import SnapshotEndpoint
from rejoin.api.endpoints.tools import ToolsEndpoint
from rejoin.api.fallbacks import check_file
from rejoin.api.hub import Hub
from rejoin.api.openapi import openapi
from rejoin.api.saved_history import SavedHistory
from rejoin.shared import redis_check, settings_file
from rejoin.shared.catalogue import check_model
from rejoin.shared.connections import open_redis
from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import BadRequest, NotFound, SettingsError
from rejoin.shared.settings import Settings, load_settings

_CORS_ALLOWED: Final = ("Content-Type", "Idempotency-Key", "Last-Event-ID")
_CORS_EXPOSED: Final = ("Location", "Retry-After")
_CLOSED: Final = (
    "Rejoin's API does not run: the application that it is mounted in has to run its lifespan,"
    " for example Starlette(routes=..., lifespan=lambda _: rejoin_api.lifespan())"
)

_log = logging.getLogger(__name__)


class Application:
    """Rejoin's API. Mounted in another application, its `lifespan` belongs into that one's.

    `opened`: whoever made the context has opened it; else `lifespan` has to run before a request.
    """

    def __init__(self, context: Context, *, frugal: bool = False, opened: bool = True) -> None:
        self.context = context
        self._frugal = frugal
        self._opened = opened
        self._has_run = False
        self._events = EventsEndpoint(context, frugal=frugal)
        self._others = Starlette(
            routes=_routes(context),
            exception_handlers=dict(problems.HANDLERS),
            lifespan=lambda _: self.lifespan(),
        )
        self._others.router.redirect_slashes = False
        self._app: ASGIApp = self._dispatch
        if origins := context.settings.cors_origins:
            self._app = CORSMiddleware(
                self._dispatch,
                allow_origins=origins,
                allow_methods=("GET", "HEAD", "POST", "DELETE"),
                allow_headers=_CORS_ALLOWED,
                expose_headers=_CORS_EXPOSED,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        # A coroutine function, or servers take it for an application of ASGI 2 (uvicorn does).
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Keep the subscription while the application runs; never waits for Redis.

        The default SQLite file is brought up to date first. A database that is away is waited for
        a few seconds at most. It runs once.

        Raises:
            SettingsError: the database is behind this version, or its file cannot be made.
            RuntimeError: it has run before.
        """
        if self._has_run:
            raise RuntimeError("this application has run: make another one by create_app()")
        self._has_run = True
        try:
            if not self._frugal:
                await schema.prepare(self.context.database)
            url = self.context.settings.redis_url or ""
            async with self.context.hub as hub, redis_check.warned_of(url):
                with drain_on_signal(hub.drain):
                    self._opened = True
                    yield
        finally:
            self._opened = False
            await self.context.redis.aclose()
            await self.context.database.aclose()

    def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Tails go past Starlette, and without a coroutine here: a tail's memory is all frames.
        if scope["type"] == "http":
            if not self._opened:
                # Else all would seem well, but for streams that nothing new ever reaches.
                _log.error("%s", _CLOSED)
                return problems.problem(500, _CLOSED)(scope, receive, send)
            root, path = scope.get("root_path", ""), scope["path"]
            if root and path.startswith(f"{root}/"):
                path = path[len(root) :]
            if EVENTS_PATH.fullmatch(path) is not None:
                if root or self.context.settings.cors_origins:
                    # The tail lets its headers go; CORS reads its own when the answer begins.
                    scope = {**scope, "path": path, "headers": [*scope["headers"]]}
                return self._events(scope, receive, send)
        return self._others(scope, receive, send)


def create_app(settings: Settings | None = None, *, frugal: bool = False) -> Application:
    """Return the application; without `settings` those of the environment.

    `frugal`: `python -m rejoin.api` is around it, which has looked at the database; and uvicorn
    alone, without an access log, so that a tail lets its request go.

    Raises:
        SettingsError: a setting, or the settings file, is wrong, or no Redis is named.
    """
    settings = settings or load_settings()
    if settings.redis_url is None:
        raise SettingsError(
            "REJOIN_REDIS_URL is not set: name a Redis, redis://127.0.0.1:6379/0 for example,"
            " or run `rejoin dev`, which starts its own"
        )
    if settings.default_model is not None:
        try:
            check_model(settings.default_model)
        except (BadRequest, NotFound) as error:
            raise SettingsError(f"REJOIN_DEFAULT_MODEL: {error}") from error
    # As it is written: the variables that it names are for the workers, who start the servers.
    file = settings_file.load(settings.settings_file)
    check_file(file)
    redis = open_redis(settings.redis_url)
    hub = Hub(
        redis,
        settings.redis_url,
        keepalive_seconds=settings.keepalive_seconds,
        retry_milliseconds=settings.retry_milliseconds,
        max_stream_seconds=settings.max_stream_seconds,
    )
    database = Database.of(settings)
    context = Context(settings, redis, hub, database, SavedHistory(database), file)
    return Application(context, frugal=frugal, opened=False)


def _routes(context: Context) -> list[BaseRoute]:
    health = HealthEndpoints(context)
    conversations = ConversationsEndpoints(context)
    static = StaticPage()
    message = "/api/messages/{message_id}"
    return [
        Route("/api/messages", MessagesEndpoint(context), methods=["POST"]),
        Route(message, SnapshotEndpoint(context).get, methods=["GET"]),
        Route(f"{message}/cancel", CancelEndpoint(context).post, methods=["POST"]),
        Route(f"{message}/tools/{{tool_call_id}}", ToolsEndpoint(context).post, methods=["POST"]),
        Route("/api/conversations", conversations.list, methods=["GET"]),
        Route("/api/conversations/{conversation_id}", conversations.one, methods=["GET", "DELETE"]),
        Route("/api/models", ModelsEndpoint(context).get, methods=["GET"]),
        Route("/healthz", health.healthz, methods=["GET"]),
        Route("/readyz", health.readyz, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/", static.index, methods=["GET"]),
        Mount("/static", static),
    ]
