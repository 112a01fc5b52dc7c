"""The Python client: send, tail, cancel, look; every call bears lost connections by itself."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from rejoin.client.backoff import Backoff, Patience, parse_retry_after
from rejoin.client.errors import TRY_AGAIN, UnexpectedReply, Unreachable, refusal
from rejoin.client.replies import Accepted, Model, Models, Snapshot
from rejoin.client.tail import OnDrop, Tail
from rejoin.shared.errors import BadRequest, RejoinError
from rejoin.shared.events import dumps
from rejoin.shared.ids import EventId
from rejoin.shared.settings import is_loopback

SEND_PATIENCE_SECONDS: Final = 30.0
TAIL_PATIENCE_SECONDS: Final = 120.0
LONGEST_WAIT_SECONDS: Final = 60.0

_REPLY_SECONDS: Final = 15.0  # the server answers 503 within 5 when its Redis is away

Reply = TypeVar("Reply", bound=BaseModel)


class Options(TypedDict, total=False):
    """How to answer, passed on in the provider's own form; `metadata` is kept with the message."""

    system: str
    temperature: float
    top_p: float
    max_tokens: int
    stop: list[str]
    reasoning_effort: str
    metadata: dict[str, str]


class Client:
    """A client of the Rejoin server at `base_url`, an async context manager.

    Holds a pool of connections, so one object serves a whole process, from one event loop.

    Raises:
        BadRequest: `base_url` is no http(s) address.
    """

    def __init__(self, base_url: str, *, patience_seconds: float = SEND_PATIENCE_SECONDS) -> None:
        self._root = _checked(base_url)
        self._patience_seconds = patience_seconds
        self._http = httpx.AsyncClient(
            timeout=_REPLY_SECONDS,
            # Each tail holds a connection: httpx's own bound of 100 would stall the 101st.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            # A proxy named in the environment cannot reach this machine's own loopback.
            trust_env=not is_loopback(self._root.host),
        )

    async def send(
        self,
        turns: str | Sequence[Mapping[str, str]],
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Accepted:
        """Send a message to be answered, and return once the server has taken it in.

        `turns`: the user's words, or the history as `{"role", "content"}`, the last the user's;
        `model` None: the server's REJOIN_DEFAULT_MODEL. Sent again, under one Idempotency-Key,
        until a reply comes or the patience ends: a lost reply never makes a second message.
        Pass `idempotency_key` to bear a crash of your own.

        Raises:
            BadRequest: a field is wrong, named in `field`.
            NotFound: there is no such model.
            Conflict: `idempotency_key` was used for another message.
            OverLimit, Unavailable: no room, or Redis is away, up to the last try.
            Unreachable: no server answered.
            UnexpectedReply: what answers is no Rejoin server.
        """
        body: dict[str, object] = {**options}
        if model is not None:
            body["model"] = model
        if isinstance(turns, str):
            body["input"] = turns
        else:
            body["messages"] = [dict(turn) for turn in turns]
        request = self._http.build_request(
            "POST",
            self._url("/api/messages"),
            content=_encoded(body),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
            },
        )
        return _parsed(Accepted, await self._reply(request))

    def tail(
        self,
        message_id: str,
        after: EventId | str | None = None,
        *,
        patience_seconds: float | None = TAIL_PATIENCE_SECONDS,
        on_drop: OnDrop | None = None,
    ) -> Tail:
        """Return the message's events later than `after` (None: all), live ones as they come.

        Nothing is sent before it is iterated; see Tail for what iterating does and raises.

        Raises:
            BadRequest: `after` is no event id.
        """
        if isinstance(after, str):
            try:
                after = EventId.parse(after)
            except ValueError as error:
                raise BadRequest(str(error), field=("after",)) from error
        return Tail(
            self._http,
            self._url(f"/api/messages/{quote(message_id, safe='')}/events"),
            after,
            patience_seconds=patience_seconds,
            on_drop=on_drop,
        )

    async def cancel(self, message_id: str) -> None:
        """Stop generating; the text so far stays. Asked twice it is one cancel.

        Raises:
            Conflict: the message has ended otherwise.
            NotFound: there is no such message.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        path = f"/api/messages/{quote(message_id, safe='')}/cancel"
        await self._reply(self._http.build_request("POST", self._url(path)))

    async def snapshot(self, message_id: str, *, wait_seconds: float = 0) -> Snapshot:
        """Return the message so far, after its end or at most `wait_seconds` (60 at most).

        Raises:
            NotFound: there is no such message.
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        wait_seconds = min(max(wait_seconds, 0), LONGEST_WAIT_SECONDS)
        request = self._http.build_request(
            "GET",
            self._url(f"/api/messages/{quote(message_id, safe='')}"),
            params={"wait": f"{wait_seconds:g}"} if wait_seconds else None,
            timeout=_REPLY_SECONDS + wait_seconds,
        )
        return _parsed(Snapshot, await self._reply(request))

    async def models(self) -> list[Model]:
        """Return the catalogue.

        Raises:
            Unavailable, Unreachable, UnexpectedReply: as `send`.
        """
        request = self._http.build_request("GET", self._url("/api/models"))
        return _parsed(Models, await self._reply(request)).models

    async def aclose(self) -> None:
        """Close the connections, those of tails too."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _url(self, path: str) -> str:
        return f"{str(self._root).rstrip('/')}{path}"

    async def _reply(self, request: httpx.Request) -> httpx.Response:
        """Send until there is a reply; every request here may be repeated."""
        patience, backoff = Patience(self._patience_seconds), Backoff()
        while True:
            asked_seconds = None
            failure: RejoinError
            try:
                response = await self._http.send(request)
            except httpx.TransportError as error:
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


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise BadRequest(f"{base_url!r} is no address: {error}", field=("base_url",)) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise BadRequest(f"write {base_url!r} as http://HOST:PORT", field=("base_url",))
    return url


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return dumps(body).encode()
    except UnicodeEncodeError as error:
        raise BadRequest("the text holds half a surrogate pair", field=("input",)) from error
    except ValueError as error:
        raise BadRequest(f"JSON has no such number: {error}") from error


def _parsed(kind: type[Reply], response: httpx.Response) -> Reply:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        where = response.request.url
        raise UnexpectedReply(f"{where} does not answer as a Rejoin server does") from error
