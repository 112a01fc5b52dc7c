"""Rejoin below /rejoin in a Starlette application: `uvicorn mount_starlette:app`."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from rejoin.api.app import create_app

rejoin_api = create_app()  # its settings are the environment's REJOIN_*


async def hello(_: Request) -> PlainTextResponse:
    """Answer for the application around it."""
    return PlainTextResponse("hello")


app = Starlette(
    routes=[Route("/hello", hello), Mount("/rejoin", rejoin_api)],
    lifespan=lambda _: rejoin_api.lifespan(),
)
