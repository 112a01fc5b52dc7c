"""Messages that are to go on where they break off, asked of servers that really go on."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.worker import asking
from rejoin.worker.models import Lists
from rejoin.worker.providers.registry import Providers
from tests.support import in_process
from tests.support.caller import assert_whole_log, visible_text
from tests.support.continuing_provider import ContinuingProvider
from tests.support.cutting import Cuts
from tests.support.in_process import RunningWorker, until_ended, worker_on
from tests.support.logs import as_read, data
from tests.support.messages import post, until_true
from tests.support.provider_script import simulated_words
from tests.support.wire_answers import WIRES

WORDS: Final = 100
# Each word tells its place; paragraphs end within the text.
TEXT: Final = "".join(
    word.replace(" ", "\n\n") if place % 15 == 14 else word
    for place, word in enumerate(simulated_words(WORDS))
)
PREFIXED: Final = {
    "openai": "openai/served",  # by a vLLM
    "anthropic": "anthropic/claude-haiku-4-5",
    "openrouter": "openrouter/meta-llama/llama-3.3-70b-instruct",
    "ollama": "ollama/llama3.2",
}
ASKED: Final = {
    "openai": "openai/gpt-5-mini",
    "anthropic": "anthropic/claude-opus-5-5",
    "openrouter": "openrouter/openai/gpt-5-mini",
}

_LEASE_SECONDS: Final = 10.0  # a machine that stalls is not to take one from a living worker


class Stage:
    """The servers, and messages that are to go on where they break off."""

    def __init__(self, redis: Redis, url: str, servers: Mapping[str, ContinuingProvider]) -> None:
        self.redis, self.url, self.servers = redis, url, servers

    @asynccontextmanager
    async def worker(self, name: str = "worker-1", **settings: Any) -> AsyncIterator[RunningWorker]:
        """A worker that knows what the servers list."""
        plain = {"lease_seconds": _LEASE_SECONDS}
        async with worker_on(self.url, name=name, **plain | settings) as running:
            await Lists(running.kit).ask()
            try:
                yield running
            finally:
                await running.kit.providers.aclose()

    async def ask(self, model: str, message_id: str | None = None, **fields: Any) -> str:
        """Post a message; its id."""
        fields = {"recover": "continue"} | fields
        return await post(self.redis, "tell me", model=model, message_id=message_id, **fields)

    async def ended(self, message_id: str) -> list[Frame]:
        """Wait for a message's end: its whole log, which ends once."""
        frames = await until_ended(self.redis, message_id, within=20)
        assert_whole_log(as_read(frames))
        return frames


Staged = Callable[..., AbstractAsyncContextManager[Stage]]


@asynccontextmanager
async def staged(
    redis: Redis,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    text: str = TEXT,
    wires: Sequence[str] = WIRES,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """Run a server of each of the `wires`, all with the same settings; none meets a stray."""
    # How long the pauses are is tried elsewhere.
    monkeypatch.setattr(asking, "pause_seconds", lambda *_: 0.0)
    async with AsyncExitStack() as stack:
        servers = {}
        for wire in wires:
            models = [PREFIXED[wire].partition("/")[2]]
            server = ContinuingProvider(wire, text, models=models, **settings)
            servers[wire] = await stack.enter_async_context(server)
            for name, value in server.environ().items():
                monkeypatch.setenv(name, value)
        providers = Providers()
        for wire in wires:
            providers.of(wire)  # importing an SDK may take longer than a lease
        await providers.aclose()
        yield Stage(redis, url, servers)
        for server in servers.values():
            assert server.strays == []
            assert server.refusals == []


def assert_went_on(frames: Sequence[Frame], text: str, case: object, *, breaks: int = 1) -> None:
    """Check that a log has the text, once, and that after so many breaks nothing was taken back.

    A break that came before anything was given, or all of it lost by a reset of TCP, is a `retry`.
    """
    read = as_read(frames)
    assert visible_text(read) == fold(frames).text == text, case
    assert "".join(frame.data["text"] for frame in read if frame.event == "text") == text, case
    assert read[-1].data == {"finish_reason": "stop", "text_chars": len(text)}, case
    resets = [place for place, frame in enumerate(read) if frame.event == "reset"]
    assert len(resets) + len(data(frames, "retry")) == breaks, case
    for place in resets:
        assert read[place].data["after"] == read[place - 1].id, case


async def kill_at(
    stage: Stage,
    cuts: Mapping[str, tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    *later: int,
) -> None:
    """Kill a worker once each message, of a model each, has so many texts; let another go on.

    `later`: kill that one too, and so on, after so many more each.
    """
    for message_id, (model, _) in cuts.items():
        await stage.ask(model, message_id)
    first = {message_id: 1 + texts for message_id, (_, texts) in cuts.items()}
    rounds = [first, *(dict.fromkeys(cuts, 1 + texts) for texts in later)]
    for number, at in enumerate(rounds):
        reached = Cuts(freeze=True)
        reached.at = at
        with monkeypatch.context() as patched:
            patched.setattr(in_process, "Appender", reached.appender)
            async with stage.worker(f"worker-{number}") as worker:
                await until_true(reached.all_reached, within=20)
                await worker.die()
        now_ms = time.time_ns() // 1_000_000
        await stage.redis.zadd(keys.QUEUE, dict.fromkeys(cuts, now_ms), xx=True)  # leases lapse
        assert reached.over == set()
    async with stage.worker("worker-last"):
        for message_id in cuts:
            await stage.ended(message_id)
