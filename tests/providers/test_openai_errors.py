"""Errors of OpenAI and of those that resemble it, by status, code, type and words."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from rejoin.shared.events import FailureCode
from rejoin.worker.providers.error_objects import from_body, retry_after
from rejoin.worker.providers.openai import OpenAIProvider
from tests.providers.answers import failure
from tests.providers.conftest import KEY
from tests.support.provider_script import Answer, error_answer
from tests.support.provider_server import ProviderServer

C = FailureCode


@pytest.mark.parametrize(
    ("status", "error", "code", "retryable"),
    [
        (400, {}, C.INVALID_REQUEST, False),
        (400, {"code": "context_length_exceeded"}, C.CONTEXT_LENGTH_EXCEEDED, False),
        (400, {"type": "exceed_context_size_error"}, C.CONTEXT_LENGTH_EXCEEDED, False),
        (
            400,
            {"message": "This model's maximum context length is 4096 tokens.", "code": 400},
            C.CONTEXT_LENGTH_EXCEEDED,
            False,
        ),
        (413, {"message": "prompt is too long: 200001 tokens"}, C.CONTEXT_LENGTH_EXCEEDED, False),
        (413, {"message": "Request Entity Too Large"}, C.INVALID_REQUEST, False),
        (413, {"code": "rate_limit_exceeded", "type": "tokens"}, C.RATE_LIMITED, True),
        (400, {"code": "content_filter"}, C.CONTENT_FILTER, False),
        (400, {"code": "invalid_prompt"}, C.CONTENT_FILTER, False),
        (400, {"code": "billing_hard_limit_reached"}, C.RATE_LIMITED, False),
        (401, {"code": "invalid_api_key"}, C.AUTHENTICATION, False),
        (401, {}, C.AUTHENTICATION, False),
        (402, {"message": "Insufficient credits", "code": 402}, C.RATE_LIMITED, False),
        (403, {}, C.AUTHENTICATION, False),
        (403, {"metadata": {"flagged_input": "…"}}, C.CONTENT_FILTER, False),
        (404, {"code": "model_not_found"}, C.INVALID_REQUEST, False),
        (408, {}, C.PROVIDER_UNAVAILABLE, True),
        (409, {}, C.PROVIDER_UNAVAILABLE, True),
        (418, {}, C.INVALID_REQUEST, False),
        (422, {}, C.INVALID_REQUEST, False),
        (429, {"code": "rate_limit_exceeded"}, C.RATE_LIMITED, True),
        (429, {}, C.RATE_LIMITED, True),
        (429, {"code": "insufficient_quota"}, C.RATE_LIMITED, False),
        (429, {"type": "insufficient_quota", "code": None}, C.RATE_LIMITED, False),
        (500, {"type": "server_error"}, C.PROVIDER_UNAVAILABLE, True),
        (502, {}, C.PROVIDER_UNAVAILABLE, True),
        (504, {}, C.PROVIDER_UNAVAILABLE, True),
        (529, {"type": "overloaded_error"}, C.PROVIDER_UNAVAILABLE, True),
    ],
)
async def test_a_status_becomes_a_failed_code(
    server: ProviderServer,
    provider: OpenAIProvider,
    status: int,
    error: dict[str, Any],
    code: FailureCode,
    retryable: bool,
) -> None:
    server.play(error_answer(status, error.pop("message", "Words."), **error))
    caught = await failure(provider)
    assert (caught.code, caught.retryable, caught.status) == (code, retryable, status)


@pytest.mark.parametrize(
    ("error", "code", "retryable", "status"),
    [
        ({"code": 502, "message": "x"}, C.PROVIDER_UNAVAILABLE, True, 502),
        ({"code": "429", "message": "x"}, C.RATE_LIMITED, True, 429),
        ({"code": 1234, "message": "x"}, C.PROVIDER_UNAVAILABLE, True, None),
        ({"type": "server_error"}, C.PROVIDER_UNAVAILABLE, True, None),
        ({"type": "invalid_request_error"}, C.INVALID_REQUEST, False, None),
        ({"type": "timeout"}, C.PROVIDER_TIMEOUT, True, None),
        ({"code": "rate_limit_exceeded"}, C.RATE_LIMITED, True, None),
        ({"code": "content_filter"}, C.CONTENT_FILTER, False, None),
        ({"message": "exceeds the context size"}, C.CONTEXT_LENGTH_EXCEEDED, False, None),
        ("anything at all", C.PROVIDER_UNAVAILABLE, True, None),
        (["?"], C.PROVIDER_UNAVAILABLE, True, None),
    ],
)
def test_an_error_object_in_mid_stream_becomes_a_failed_code(
    error: object, code: FailureCode, retryable: bool, status: int | None
) -> None:
    made = from_body(error)
    assert (made.code, made.retryable, made.status) == (code, retryable, status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date_to_come() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = retry_after({"retry-after": date})
    assert seconds is not None
    assert 3500 < seconds <= 3600


@pytest.mark.parametrize(
    ("status", "error", "seconds"),
    [(429, {}, 7.0), (503, {}, 7.0), (429, {"code": "insufficient_quota"}, None), (400, {}, None)],
)
async def test_retry_after_is_passed_on_with_what_may_be_tried_again(
    server: ProviderServer,
    provider: OpenAIProvider,
    status: int,
    error: dict[str, Any],
    seconds: float | None,
) -> None:
    server.play(error_answer(status, "Slow down.", headers={"Retry-After": "7"}, **error))
    assert (await failure(provider)).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"The model `x` does not exist"}}', "The model `x` does not exist"),
        (b'{"object":"error","message":"vLLM says so"}', "vLLM says so"),
        (b'{"detail":"FastAPI says so"}', "FastAPI says so"),
        (b'{"error":"Ollama says so"}', "Ollama says so"),
        (b"plain words", "plain words"),
        (
            b'{"error":{"message":"Provider returned error","metadata":{"raw":"upstream said"}}}',
            "Provider returned error: upstream said",
        ),
    ],
)
async def test_the_providers_own_words_are_passed_on(
    server: ProviderServer, provider: OpenAIProvider, body: bytes, words: str
) -> None:
    server.play(Answer([body], 400, content_type="application/json"))
    assert str(await failure(provider)) == f"the provider refused the request: {words}"


@pytest.mark.parametrize("body", [b"<html><h1>502</h1></html>", b"", b"\xff\xfe", b"[]", b"null"])
async def test_a_body_without_words_still_gives_a_sentence(
    server: ProviderServer, provider: OpenAIProvider, body: bytes
) -> None:
    server.play(Answer([body], 502, content_type="text/html"))
    error = await failure(provider)
    assert str(error).startswith("the provider had an error")
    assert "<" not in str(error)


async def test_a_key_in_the_providers_words_is_hidden(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    server.play(
        error_answer(401, f"Incorrect API key provided: {KEY}. Authorization: Bearer abc.d-")
    )
    error = await failure(provider)
    assert KEY not in str(error)
    assert "abc.d-" not in str(error)
    assert "Incorrect API key provided: [hidden]" in str(error)
