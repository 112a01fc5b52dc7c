"""Errors of Anthropic's API, by status, type and words, before the stream and within it."""

import json
from collections.abc import Mapping

import pytest

from rejoin.shared.events import FailureCode
from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.base import Chunk, TextChunk
from tests.providers.answers import failure
from tests.providers.anthropic_wire import ask, begin, error, text
from tests.providers.conftest import KEY
from tests.support.provider_script import Answer
from tests.support.provider_server import ProviderServer

C = FailureCode


def refusal(
    status: int, kind: str, message: str = "Words.", headers: Mapping[str, str] | None = None
) -> Answer:
    said = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return Answer([json.dumps(said).encode()], status, headers or {}, "application/json")


@pytest.mark.parametrize(
    ("status", "kind", "message", "code", "retryable"),
    [
        (400, "invalid_request_error", "messages: at least one", C.INVALID_REQUEST, False),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210532 tokens > 200000 maximum",
            C.CONTEXT_LENGTH_EXCEEDED,
            False,
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 199000 + 64000 > 200000",
            C.CONTEXT_LENGTH_EXCEEDED,
            False,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            C.RATE_LIMITED,
            False,
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            C.CONTENT_FILTER,
            False,
        ),
        (401, "authentication_error", "invalid x-api-key", C.AUTHENTICATION, False),
        (402, "billing_error", "Pay.", C.RATE_LIMITED, False),
        (403, "permission_error", "Not yours.", C.AUTHENTICATION, False),
        (404, "not_found_error", "model: claude-x", C.INVALID_REQUEST, False),
        (413, "request_too_large", "Request exceeds the maximum size", C.INVALID_REQUEST, False),
        (429, "rate_limit_error", "Slow down.", C.RATE_LIMITED, True),
        (500, "api_error", "Internal server error", C.PROVIDER_UNAVAILABLE, True),
        (503, "", "", C.PROVIDER_UNAVAILABLE, True),
        (504, "timeout_error", "Request timed out", C.PROVIDER_UNAVAILABLE, True),
        (529, "overloaded_error", "Overloaded", C.PROVIDER_UNAVAILABLE, True),
    ],
)
async def test_a_status_becomes_a_failed_code(
    server: ProviderServer,
    claude: AnthropicProvider,
    status: int,
    kind: str,
    message: str,
    code: FailureCode,
    retryable: bool,
) -> None:
    server.play(refusal(status, kind, message))
    caught = await failure(claude, ask())
    assert (caught.code, caught.retryable, caught.status) == (code, retryable, status)
    assert message in str(caught)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("kind", "message", "code", "retryable"),
    [
        ("overloaded_error", "Overloaded", C.PROVIDER_UNAVAILABLE, True),
        ("api_error", "Internal server error", C.PROVIDER_UNAVAILABLE, True),
        ("rate_limit_error", "Slow down.", C.RATE_LIMITED, True),
        ("timeout_error", "Too late.", C.PROVIDER_TIMEOUT, True),
        ("invalid_request_error", "No.", C.INVALID_REQUEST, False),
        ("invalid_request_error", "prompt is too long", C.CONTEXT_LENGTH_EXCEEDED, False),
        (
            "invalid_request_error",
            "Output blocked by content filtering policy",
            C.CONTENT_FILTER,
            False,
        ),
        ("authentication_error", "No.", C.AUTHENTICATION, False),
        ("permission_error", "No.", C.AUTHENTICATION, False),
        ("billing_error", "Pay.", C.RATE_LIMITED, False),
        ("not_found_error", "No.", C.INVALID_REQUEST, False),
        ("request_too_large", "No.", C.INVALID_REQUEST, False),
        ("of_a_later_version", "Hm.", C.PROVIDER_UNAVAILABLE, True),
    ],
)
async def test_an_error_event_becomes_a_failed_code_though_the_status_was_200(
    server: ProviderServer,
    claude: AnthropicProvider,
    kind: str,
    message: str,
    code: FailureCode,
    retryable: bool,
) -> None:
    server.play(Answer([begin() + text("a") + error(kind, message)]))
    chunks: list[Chunk] = []
    caught = await failure(claude, ask(), chunks)
    assert (caught.code, caught.retryable, caught.status) == (code, retryable, None)
    assert message in str(caught)
    assert chunks == [TextChunk("a")]


@pytest.mark.parametrize(
    ("status", "kind", "seconds"),
    [
        (429, "rate_limit_error", 7.0),
        (529, "overloaded_error", 7.0),
        (400, "invalid_request_error", None),
    ],
)
async def test_retry_after_is_passed_on_with_what_may_be_tried_again(
    server: ProviderServer,
    claude: AnthropicProvider,
    status: int,
    kind: str,
    seconds: float | None,
) -> None:
    server.play(refusal(status, kind, headers={"Retry-After": "7"}))
    assert (await failure(claude, ask())).retry_after_seconds == seconds


@pytest.mark.parametrize(
    "body", [b"<html><h1>502</h1></html>", b"", b"\xff\xfe", b"[]", b"null", b'{"error": null}']
)
async def test_a_body_without_words_still_gives_a_sentence(
    server: ProviderServer, claude: AnthropicProvider, body: bytes
) -> None:
    server.play(Answer([body], 502, content_type="text/html"))
    caught = await failure(claude, ask())
    assert str(caught).startswith("the provider had an error")
    assert "<" not in str(caught)


async def test_an_error_of_a_gateway_within_the_stream_is_told(
    server: ProviderServer, claude: AnthropicProvider
) -> None:
    server.play(Answer([b'data: {"error": {"message": "Upstream is away.", "code": 502}}\n\n']))
    caught = await failure(claude, ask())
    assert (caught.code, caught.status) == (C.PROVIDER_UNAVAILABLE, 502)
    assert "Upstream is away." in str(caught)


@pytest.mark.parametrize(
    "scripted",
    [
        refusal(401, "authentication_error", f"wrong key {KEY}, x-api-key: abc.d-1234567"),
        Answer([begin() + error("api_error", f"wrong key {KEY}, x-api-key: abc.d-1234567")]),
        Answer(
            [json.dumps({"error": f"wrong key {KEY}, x-api-key: abc.d-1234567"}).encode()],
            content_type="application/json",
        ),
        Answer([f"wrong key {KEY}, x-api-key: abc.d-1234567".encode()], 500),
    ],
    ids=["before the stream", "within it", "instead of it", "in plain words"],
)
async def test_a_key_in_the_providers_words_is_hidden(
    server: ProviderServer, claude: AnthropicProvider, scripted: Answer
) -> None:
    server.play(scripted)
    caught = await failure(claude, ask())
    assert KEY not in str(caught)
    assert "abc.d-1234567" not in str(caught)
    assert "wrong key [hidden]" in str(caught)
