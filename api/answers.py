"""JSON answers: not escaped to ASCII, never stored by a cache."""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from rejoin.shared.events import dumps

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def json_answer(
    content: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    media_type: str = "application/json",
    kind: type[Response] = Response,
) -> Response:
    """Return `content` as JSON. Lone surrogates, which UTF-8 has not, go out as `?`."""
    body = dumps(content).encode("utf-8", "replace")
    return kind(body, status, {**_HEADERS, **(headers or {})}, media_type)
