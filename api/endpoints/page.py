"""GET /: the chat page, and the static files it is made of."""

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).parent.parent / "static"

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again with its ETag: an upgrade shows at once
}


class StaticPage(StaticFiles):
    """The files below static/, each with the page's security headers."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC, check_dir=False)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, or 304."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response

    async def index(self, request: Request) -> Response:
        """Return the chat page."""
        return await self.get_response("index.html", request.scope)
