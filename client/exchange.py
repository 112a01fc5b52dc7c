"""One request and its reply: sent again until a server answers, checked, and read."""

import asyncio
from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from rejoin.client.backoff import Backoff, Patience, parse_retry_after
from rejoin.client.errors import TRY_AGAIN, UnexpectedReply, Unreachable, refusal
from rejoin.shared.errors import BadRequest, RejoinError
from rejoin.shared.events import dumps
from rejoin.shared.settings import is_loopback

_REPLY_SECONDS: Final = 15.0  # the server answers 503 within 5 when its Redis is away

Reply = TypeVar("Reply", bound=BaseModel)


class Exchange:
    """A pool of connections to the server at `base_url`; whoever opens it calls `aclose`.

    Raises:
        BadRequest: `base_url` is no http(s) address, or the environment's proxy is none.
    """

    def __init__(self, base_url: str, *, patience_seconds: float) -> None:
        self._root = _checked(base_url)
        self._patience_seconds = patience_seconds
        try:
            self.http = httpx.AsyncClient(
                timeout=_REPLY_SECONDS,
                # Each tail holds a connection: httpx's own bound of 100 would stall the 101st.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                # A proxy named in the environment cannot reach this machine's own loopback.
                trust_env=not is_loopback(self._root.host),
            )
        except (ImportError, ValueError) as error:
            raise BadRequest(f"the environment's proxy cannot be used: {error}") from error

    def url(self, *path: str) -> str:
        """The address of a path below /api; each part is one segment, whatever it holds."""
        segments = "/".join(quote(part, safe="") for part in path)
        return f"{str(self._root).rstrip('/')}/api/{segments}"

    async def ask(
        self,
        method: str,
        *path: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_seconds: float = 0,
    ) -> httpx.Response:
        """Send until there is a reply, and return the successful one; it must bear a repeat.

        `wait_seconds`: how long the server itself may wait before it answers.

        Raises:
            BadRequest, NotFound, Conflict: the server refuses it.
            OverLimit, Unavailable: no room, or Redis is away, up to the last try.
            Unreachable: no server answered.
            UnexpectedReply: what answers is no Rejoin server.
        """
        request = self.http.build_request(
            method,
            self.url(*path),
            params=params or None,
            content=None if body is None else _encoded(body),
            headers=dict(headers or {}),
            timeout=_REPLY_SECONDS + wait_seconds,
        )
        patience, backoff = Patience(self._patience_seconds), Backoff()
        while True:
            asked_seconds = None
            failure: RejoinError
            try:
                response = await self.http.send(request)
            except (httpx.TransportError, httpx.DecodingError) as error:
                reason = str(error) or type(error).__name__
                failure = Unreachable(f"no Rejoin server answers at {self._root}: {reason}")
                failure.__cause__ = error
            else:
                if response.is_success:
                    return response
                asked_seconds = parse_retry_after(response.headers.get("retry-after"))
                failure = refusal(response, asked_seconds)
                if response.status_code not in TRY_AGAIN:
                    raise failure
            seconds = backoff.next(asked_seconds or 0)
            if not patience.allows(seconds):
                raise failure
            await asyncio.sleep(seconds)


def parsed(kind: type[Reply], response: httpx.Response) -> Reply:
    """Return what a reply holds.

    Raises:
        UnexpectedReply: it is of another form.
    """
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        where = response.request.url
        raise UnexpectedReply(f"{where} does not answer as a Rejoin server does") from error


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise BadRequest(f"{base_url!r} is no address: {error}", field=("base_url",)) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise BadRequest(f"write {base_url!r} as http://HOST:PORT", field=("base_url",))
    if url.port is not None and not 0 < url.port < 65536:
        raise BadRequest(f"{base_url!r}: a port is 1 to 65535", field=("base_url",))
    if url.query or url.fragment:
        raise BadRequest(f"{base_url!r} has more than an address", field=("base_url",))
    return url


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return dumps(body).encode()
    except UnicodeEncodeError as error:
        raise BadRequest("the text holds half a surrogate pair", field=("input",)) from error
    except ValueError as error:
        raise BadRequest(f"JSON has no such number: {error}") from error
