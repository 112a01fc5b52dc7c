"""How each adapter shows its model a part of its own answer, and of which models it knows that."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.base import ListedModel, ModelRequest, Provider, TextChunk, Turn
from rejoin.worker.providers.demo import DemoProvider
from rejoin.worker.providers.ollama import OllamaProvider
from rejoin.worker.providers.openai import OpenAIProvider
from rejoin.worker.providers.openrouter import OpenRouterProvider
from tests.providers.answers import answer
from tests.providers.conftest import KEY
from tests.support.provider_script import Answer, choice, completion_chunk, sse
from tests.support.provider_server import ProviderServer

PART = [Turn("user", "Hi"), Turn("assistant", "Grüße, ")]
ASKED = [*PART, Turn("user", "Go on.")]
FINISH = sse(completion_chunk("m", choices=choice({}, "stop")))
OPEN_END = {"continue_final_message", "add_generation_prompt"}

Made = Callable[[Mapping[str, str]], Provider]


def openai_at(url: str) -> OpenAIProvider:
    return OpenAIProvider({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url})


PROVIDERS: dict[str, Provider] = {
    "openai": OpenAIProvider({"OPENAI_API_KEY": KEY}),
    "azure": openai_at("https://x.openai.azure.com/openai/v1"),
    "local": openai_at("http://127.0.0.1:8080/v1"),
    "mistral": openai_at("https://api.mistral.ai/v1"),
    "deepseek": openai_at("https://api.deepseek.com/v1"),
    "deepseek beta": openai_at("https://api.deepseek.com/beta"),
    "anthropic": AnthropicProvider({"ANTHROPIC_API_KEY": KEY}),
    "openrouter": OpenRouterProvider({"OPENROUTER_API_KEY": KEY}),
    "ollama": OllamaProvider({"OLLAMA_HOST": "127.0.0.1"}),
    "demo": DemoProvider(),
}
CONTINUES = {
    "openai": (),
    "azure": (),
    "local": (),
    "mistral": ("mistral-large-latest",),
    "deepseek": (),
    "deepseek beta": ("deepseek-chat",),
    "anthropic": (
        "claude-3-5-haiku-20241022",
        "claude-3-haiku",
        "claude-2.1",
        "claude-opus-4-20250514",
        "claude-opus-4-1",
        "claude-opus-4-5-20251101",
        "claude-sonnet-4-5",
        "claude-haiku-4-5-20251001",
    ),
    "openrouter": (
        "anthropic/claude-3.5-haiku",
        "anthropic/claude-opus-4.1",
        "anthropic/claude-sonnet-4.5",
        "anthropic/claude-sonnet-4",
        "deepseek/deepseek-chat-v3",
        "google/gemma-3-27b-it",
        "meta-llama/llama-3.3-70b-instruct",
        "mistralai/mistral-large",
        "qwen/qwen-2.5-72b-instruct:free",
    ),
    "ollama": ("llama3.2", "qwen3:8b"),
    "demo": ("echo", "echo?rate=0"),
}
BEGINS_ANEW = {
    "openai": ("gpt-5-mini",),
    "azure": ("gpt-5",),
    "local": ("some",),
    "deepseek": ("deepseek-chat",),
    "anthropic": (
        "claude-opus-4-6",
        "claude-sonnet-4-6",
        "claude-opus-4-10",
        "claude-opus-5",
        "claude-sonnet-5-20260601",
        "claude-haiku-5",
        "glm-4.6",
    ),
    "openrouter": (
        "anthropic/claude-opus-4.6",
        "anthropic/claude-opus-4.5:thinking",
        "anthropic/claude-sonnet-5",
        "google/gemini-3.5-flash",
        "openai/gpt-5-mini",
        "openrouter/auto",
        "x-ai/grok-4",
    ),
}


def test_it_is_known_which_models_go_on_with_a_part_of_their_answer() -> None:
    for name, models in CONTINUES.items():
        assert [model for model in models if not PROVIDERS[name].continues(model)] == [], name
    for name, models in BEGINS_ANEW.items():
        assert [model for model in models if PROVIDERS[name].continues(model)] == [], name


async def sent(server: ProviderServer, made: Made, turns: list[Turn], model: str = "m") -> Any:
    """The body of a call with these turns."""
    server.play(Answer([FINISH]))
    origin = server.base_url.removesuffix("/v1")
    environ = {
        "OPENAI_BASE_URL": server.base_url,
        "OPENROUTER_BASE_URL": server.base_url,
        "OLLAMA_HOST": origin,
    }
    provider = made(environ)
    await answer(provider, ModelRequest(model, turns))
    await provider.aclose()
    return server.requests[-1].json


@pytest.mark.parametrize("made", [OpenRouterProvider, OllamaProvider, OpenAIProvider])
async def test_the_part_is_the_last_message_as_it_is(server: ProviderServer, made: Made) -> None:
    body = await sent(server, made, PART)
    assert body["messages"][-1] == {"role": "assistant", "content": "Grüße, "}
    body = await sent(server, made, ASKED)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert OPEN_END.isdisjoint(body)


async def test_a_server_of_open_models_is_told_to_leave_the_last_message_open(
    server: ProviderServer,
) -> None:
    body = await sent(server, OpenAIProvider, PART)
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    for made in (OpenRouterProvider, OllamaProvider):
        assert OPEN_END.isdisjoint(await sent(server, made, PART))


@pytest.mark.parametrize("name", ["mistral", "deepseek beta"])
def test_a_prefix_is_marked_where_the_api_wants_that(name: str) -> None:
    provider = PROVIDERS[name]
    assert isinstance(provider, OpenAIProvider)
    messages: Any = provider.body(ModelRequest("m", PART))["messages"]
    assert messages[-1] == {"role": "assistant", "content": "Grüße, ", "prefix": True}
    assert all("prefix" not in message for message in messages[:-1])
    messages = provider.body(ModelRequest("m", ASKED))["messages"]
    assert all("prefix" not in message for message in messages)


@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "openai", None])
async def test_a_list_of_models_tells_a_server_that_goes_on(
    server: ProviderServer, owner: str | None
) -> None:
    listed = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]}
    server.play(Answer([json.dumps(listed).encode()], content_type="application/json"))
    provider = openai_at(server.base_url)
    known = owner in ("vllm", "sglang", "llamacpp")
    assert await provider.models() == [ListedModel("m", continues=known)]
    await provider.aclose()


@pytest.mark.parametrize(
    ("part", "rest"),
    [
        ("one", " two three"),
        ("one tw", "o three"),
        ("one two three", ""),
        ("else", "one two three"),
    ],
)
async def test_the_echo_says_the_rest(part: str, rest: str) -> None:
    turns = [Turn("user", "one two three"), Turn("assistant", part)]
    chunks = await answer(DemoProvider(), ModelRequest("echo?rate=0", turns))
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk)) == rest
