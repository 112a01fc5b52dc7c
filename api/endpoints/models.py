"""GET /api/models: the catalogue."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from rejoin.api.answers import json_answer
from rejoin.shared import catalogue


async def models(_: Request) -> Response:
    """Return every model that Rejoin knows, and whether its provider is configured here."""
    return json_answer({"models": [asdict(model) for model in catalogue.known()]})
