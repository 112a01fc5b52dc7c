"""OpenRouter against a server that speaks its wire format."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from rejoin.shared.events import FailureCode
from rejoin.shared.request import ResponseFormat
from rejoin.worker.providers.base import (
    Chunk,
    ListedModel,
    ModelRequest,
    TextChunk,
    ThinkingChunk,
    Tool,
    Turn,
    UsageChunk,
)
from rejoin.worker.providers.openrouter import OpenRouterProvider
from tests.providers.answers import SAMPLES, STOP, TOOL_SAMPLES, WIRE, answer, failure
from tests.providers.conftest import KEY
from tests.support.provider_script import Answer, choice, error_answer, sse
from tests.support.provider_server import ProviderServer

FINISH = sse({"choices": choice({}, "stop")})
TOOLS = [Tool("get_weather", "", {"type": "object"})]


@pytest.fixture
async def router(server: ProviderServer) -> AsyncIterator[OpenRouterProvider]:
    """The adapter, with a key."""
    environ = {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": server.base_url}
    provider = OpenRouterProvider(environ)
    yield provider
    await provider.aclose()


async def sent(
    server: ProviderServer, router: OpenRouterProvider, request: ModelRequest
) -> dict[str, object]:
    server.play(Answer([FINISH]))
    await answer(router, request)
    return (await server.request()).json


@pytest.mark.parametrize("split", [0, 1, 7])
async def test_its_stream_is_read(
    server: ProviderServer, router: OpenRouterProvider, split: int
) -> None:
    bodies = [(WIRE / f"{name}.txt").read_bytes() for name in ("openrouter", "openrouter_tools")]
    server.play(*(Answer([body], split=split) for body in bodies))
    assert await answer(router) == SAMPLES["openrouter"]
    asked = ModelRequest("m", [Turn("user", "Hi")], tools=TOOLS)
    assert await answer(router, asked) == TOOL_SAMPLES["openrouter_tools"]


async def test_a_request_asks_for_the_cost(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    request = ModelRequest("meta-llama/llama-3.3-70b-instruct", [Turn("user", "Hi")], max_tokens=9)
    body = await sent(server, router, request)
    assert body == {
        "model": "meta-llama/llama-3.3-70b-instruct",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
        "usage": {"include": True},
    }
    assert (await server.request()).headers["authorization"] == f"Bearer {KEY}"


async def test_an_effort_goes_in_its_own_member(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    body = await sent(server, router, ModelRequest("m", [], reasoning_effort="low"))
    assert body["reasoning"] == {"effort": "low"}
    assert "reasoning_effort" not in body


async def test_a_format_goes_only_to_servers_that_heed_it(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    wanted = ResponseFormat("a", {"type": "object"})
    body = await sent(server, router, ModelRequest("m", [], response_format=wanted))
    assert body["provider"] == {"require_parameters": True}
    schema = {"name": "a", "schema": {"type": "object"}}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}


async def test_thinking_goes_back_unchanged_and_that_of_others_does_not(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    own = [
        dict(chunk.block)
        for chunk in TOOL_SAMPLES["openrouter_tools"]
        if isinstance(chunk, ThinkingChunk)
    ]
    foreign = {"type": "thinking", "thinking": "So.", "signature": "s"}
    turns = [
        Turn("user", "Is it?"),
        Turn("assistant", "Yes.", thinking=[*own, foreign]),
        Turn("user", "And now?"),
        Turn("assistant", "No.", thinking=[foreign]),
    ]
    body: Any = await sent(server, router, ModelRequest("m", turns))
    assert body["messages"][1::2] == [
        {"role": "assistant", "content": "Yes.", "reasoning_details": own},
        {"role": "assistant", "content": "No."},
    ]


async def test_reasoning_that_is_only_in_the_details_is_told(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    detail = {"type": "reasoning.summary", "summary": "So."}
    server.play(Answer([sse({"choices": choice({"reasoning_details": [detail]})}), FINISH]))
    first, *rest = await answer(router)
    assert getattr(first, "text", None) == "So."
    assert rest == [ThinkingChunk(detail), STOP]


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.0123}, Decimal("0.0123")),
        ({"cost": 0}, Decimal(0)),
        ({}, None),
        (
            {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}},
            Decimal("0.021"),
        ),
        ({"cost": 0.001, "is_byok": True, "cost_details": None}, None),
        (
            {"cost": 0.02, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}},
            Decimal("0.02"),
        ),
    ],
    ids=["said", "free", "unsaid", "a key of one's own", "the same, half unsaid", "upstream's too"],
)
async def test_the_cost_is_its_own_word(
    server: ProviderServer,
    router: OpenRouterProvider,
    usage: dict[str, object],
    cost: Decimal | None,
) -> None:
    said = {"prompt_tokens": 3, "completion_tokens": 4, **usage}
    server.play(Answer([FINISH, sse({"choices": [], "usage": said})]))
    assert await answer(router) == [STOP, UsageChunk(3, 4, cost_usd=cost)]


async def test_text_is_delivered_before_an_error_in_mid_stream(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    server.play(Answer([(WIRE / "openrouter_error.txt").read_bytes()]))
    chunks: list[Chunk] = []
    error = await failure(router, into=chunks)
    assert chunks == [TextChunk("Once"), TextChunk(" upon")]
    assert (error.code, error.status) == (FailureCode.PROVIDER_UNAVAILABLE, 502)


NO_CREDITS = "Insufficient credits. Add more using https://openrouter.ai/settings/credits"


@pytest.mark.parametrize(
    "scripted",
    [
        error_answer(402, NO_CREDITS, code=402),
        Answer([sse({"error": {"code": 402, "message": NO_CREDITS}, "choices": []})]),
    ],
    ids=["before the stream", "within it"],
)
async def test_no_credits_are_a_limit_that_waiting_does_not_lift(
    server: ProviderServer, router: OpenRouterProvider, scripted: Answer
) -> None:
    server.play(scripted)
    error = await failure(router)
    assert (error.code, error.retryable, error.status) == (FailureCode.RATE_LIMITED, False, 402)
    assert "credits" in str(error)


LISTED = {
    "id": "anthropic/claude-sonnet-4.5",
    "canonical_slug": "anthropic/claude-4.5-sonnet-20250929",
    "name": "Anthropic: Claude Sonnet 4.5",
    "context_length": 1_000_000,
    "architecture": {
        "modality": "text+image->text",
        "input_modalities": ["text", "image", "file"],
        "output_modalities": ["text"],
        "tokenizer": "Claude",
        "instruct_type": None,
    },
    "pricing": {"prompt": "0.000003", "completion": "0.000015", "request": "0", "image": "0.0048"},
    "top_provider": {
        "context_length": 1_000_000,
        "max_completion_tokens": 64_000,
        "is_moderated": False,
    },
    "per_request_limits": None,
    "supported_parameters": ["tools", "reasoning", "structured_outputs", "max_tokens"],
}
ALL = frozenset({"tools", "vision", "json_schema", "reasoning"})
ONE = ListedModel(
    "anthropic/claude-sonnet-4.5", 1_000_000, 64_000, ALL, (Decimal("3.000000"), Decimal(15))
)


async def test_its_models_come_with_what_they_can_and_cost(
    server: ProviderServer, router: OpenRouterProvider
) -> None:
    draws = LISTED | {"architecture": {"output_modalities": ["image"]}}
    varies = {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}}
    free = {
        "id": "a/b:free",
        "pricing": {"prompt": "0", "completion": "0"},
        "supported_parameters": [],
    }
    odd = [{"id": 7}, "x", {"id": "c/d", "architecture": 1, "pricing": {"prompt": "x"}}]
    body = json.dumps({"data": [LISTED, draws, varies, free, *odd]}).encode()
    server.play(Answer([body], content_type="application/json"))
    assert await router.models() == [
        ONE,
        ListedModel("openrouter/auto"),
        ListedModel("a/b:free", capabilities=frozenset(), price=(Decimal(0), Decimal(0))),
        ListedModel("c/d"),
    ]
    assert (await server.request()).path == "/v1/models"
