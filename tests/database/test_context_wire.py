"""What a later message sends in the words of each API: history, an unanswered turn, thinking."""

from contextlib import aclosing
from typing import Any

from rejoin.worker.providers.anthropic import AnthropicProvider
from rejoin.worker.providers.openai import OpenAIProvider
from tests.database.talk import Talk
from tests.providers.anthropic_wire import BODIES, REDACTED, SIGNED
from tests.support.provider_script import Answer
from tests.support.provider_server import ProviderServer

OPENAI = Answer(
    [
        b'data: {"choices":[{"index":0,"delta":{"content":"fine"},"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]
)
ANTHROPIC = Answer([BODIES["anthropic_thinking"]])
REFUSED = Answer([b'{"error":{"message":"no"}}'], status=400, content_type="application/json")


async def through(talk: Talk, server: ProviderServer, opened: Any, played: Answer) -> Any:
    """Three messages, the second one refused; the body of the third call."""
    server.play(played, REFUSED, played)
    async with aclosing(opened) as provider:
        first, _ = await talk.told(provider, "one")
        await talk.saved(gone=[first])
        second, _ = await talk.told(provider, "two", first)
        _, message = await talk.told(provider, "three", second, system="be brief")
    assert message.end is not None
    assert message.end.name == "done"
    return server.requests[2].json


async def test_openai_is_sent_the_history_in_its_own_words(talk: Talk) -> None:
    async with ProviderServer() as server:
        provider = OpenAIProvider({"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "k"})
        body = await through(talk, server, provider, OPENAI)
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "two"},
        {"role": "user", "content": "three"},
    ]


async def test_anthropic_is_sent_the_history_with_its_signed_thinking(talk: Talk) -> None:
    async with ProviderServer() as server:
        url = server.base_url.removesuffix("/v1")
        provider = AnthropicProvider({"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "k"})
        body = await through(talk, server, provider, ANTHROPIC)

    def text(said: str) -> dict[str, str]:
        return {"type": "text", "text": said}

    assert body["system"] == "be brief"
    assert body["messages"] == [
        {"role": "user", "content": [text("one")]},
        {"role": "assistant", "content": [SIGNED, REDACTED, text("4")]},
        {"role": "user", "content": [text("two"), text("three")]},
    ]
