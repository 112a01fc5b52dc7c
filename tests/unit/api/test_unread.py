"""Answers to bodies that are not read to their end."""

import asyncio
from typing import Any

import pytest

from rejoin.api import unread
from rejoin.api.unread import UnreadResponse


async def answered(*received: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """What was sent, and how many messages were still left to receive."""
    left = list(received)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        assert sent[-1]["body"] == b"why", "the whole answer goes first"
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await UnreadResponse(b"why", 413)({"type": "http"}, receive, send)
    return sent, len(left)


def part(*, more: bool = True, size: int = 1) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def test_the_answer_is_whole_before_the_rest_is_read_and_closes() -> None:
    sent, left = await answered(part(), part(), part(more=False), part())
    assert [message["type"] for message in sent] == ["http.response.start"] + [
        "http.response.body"
    ] * 2
    assert (b"connection", b"close") in sent[0]["headers"]
    assert (b"content-length", b"3") in sent[0]["headers"]
    assert [(message["body"], message["more_body"]) for message in sent[1:]] == [
        (b"why", True),
        (b"", False),
    ]
    assert left == 1


async def test_a_client_that_leaves_ends_it() -> None:
    sent, left = await answered(part(), {"type": "http.disconnect"}, part())
    assert (sent[-1]["more_body"], left) == (False, 1)


async def test_a_client_that_goes_on_sending_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "_LINGER_BYTES", 10)
    sent, left = await answered(*(part(size=4) for _ in range(5)))
    assert (sent[-1]["more_body"], left) == (False, 2)


async def test_a_client_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "_LINGER_SECONDS", 0.01)
    sent, _ = await answered(part())
    assert sent[-1]["more_body"] is False
