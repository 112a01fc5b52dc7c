"""Rejoin below /rejoin in a FastAPI application: `uvicorn mount_fastapi:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from rejoin.api.app import create_app

rejoin_api = create_app()  # its settings are the environment's REJOIN_*


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open and close what the application around it has of its own, and Rejoin within."""
    async with rejoin_api.lifespan():
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/rejoin", rejoin_api)


@app.get("/hello")
async def hello() -> str:
    """Answer for the application around it."""
    return "hello"
