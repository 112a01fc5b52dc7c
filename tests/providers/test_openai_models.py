"""The list of models of a server with OpenAI's API."""

import asyncio
import json

import pytest

from rejoin.shared.errors import ProviderError
from rejoin.shared.events import FailureCode
from rejoin.worker.providers import openai_compatible
from rejoin.worker.providers.base import ListedModel
from rejoin.worker.providers.openai import OpenAIProvider
from tests.support.provider_script import Answer, error_answer
from tests.support.provider_server import ProviderServer


def answered(body: bytes) -> Answer:
    return Answer([body], content_type="application/json")


async def error_of(provider: OpenAIProvider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async with asyncio.timeout(5):
            await provider.models()
    return caught.value


async def test_models_are_named_and_a_servers_context_is_kept(
    server: ProviderServer, provider: OpenAIProvider
) -> None:
    data = [
        {"id": "gpt-5-mini", "object": "model", "created": 1, "owned_by": "openai"},
        {"id": "qwen", "object": "model", "max_model_len": 32_768},
        {"id": ""},
        {"object": "model"},
        None,
    ]
    server.play(answered(json.dumps({"object": "list", "data": data}).encode()))
    assert await provider.models() == [ListedModel("gpt-5-mini"), ListedModel("qwen", 32_768)]
    assert (await server.request()).path == "/v1/models"


@pytest.mark.parametrize("body", [b"<html></html>", b"[]", b'{"data":null}', b"{}", b""])
async def test_what_is_no_list_is_an_error(
    server: ProviderServer, provider: OpenAIProvider, body: bytes
) -> None:
    server.play(answered(body))
    assert (await error_of(provider)).code == FailureCode.PROVIDER_PROTOCOL


async def test_a_refused_key_is_told(server: ProviderServer, provider: OpenAIProvider) -> None:
    server.play(error_answer(401, "no", code="invalid_api_key"))
    assert (await error_of(provider)).code == FailureCode.AUTHENTICATION


async def test_a_list_that_does_not_come_ends_in_time(
    server: ProviderServer, provider: OpenAIProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_compatible, "MODELS_SECONDS", 0.2)
    server.play(Answer(silent=True))
    assert (await error_of(provider)).code == FailureCode.PROVIDER_TIMEOUT
