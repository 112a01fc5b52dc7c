"""The guide's agents, as the guide has them."""

import re
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import log
from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from rejoin.worker.agents.loading import load_agents
from tests.support.in_process import until_ended, worker_on
from tests.support.logs import data, names
from tests.support.messages import LIFE, accept, claim, enqueue, post

GUIDE: Final = Path(__file__).parents[2] / "docs" / "how-to"
WRITER: Final = GUIDE / "agent_writer.py"
PYDANTIC_AI: Final = GUIDE / "agent_pydantic_ai.py"


@pytest.fixture(autouse=True)
def _python_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("rejoin_user_"):
            del sys.modules[name]


async def log_of(url: str, redis: Redis, file: Path, model: str, text: str) -> list[Frame]:
    """The log of a message that a guide's agent answers."""
    async with worker_on(url, agents=load_agents([str(file)])):
        return await until_ended(redis, await post(redis, text, model=model))


async def gone_on_with(
    url: str, redis: Redis, file: Path, model: str, before: Sequence[Frame]
) -> list[Frame]:
    """The log of a message whose first worker was lost after these events."""
    message_id = await accept(redis, "a city", model=model)
    claimed = await claim(redis, message_id, "lost")
    await log.append(redis, log.Batch(message_id, claimed.token, before, LIFE))
    await enqueue(redis, message_id)
    async with worker_on(url, agents=load_agents([str(file)])):
        return await until_ended(redis, message_id)


TEXT: Final = "Outline of a city. Draft of a city. Final version of a city. "


async def test_the_writer_writes_its_parts(clean_redis_url: str, redis: Redis) -> None:
    frames = await log_of(clean_redis_url, redis, WRITER, "agent/writer", "a city")
    assert fold(frames).text == TEXT
    assert [told["value"]["part"] for told in data(frames, "data")] == [
        "Outline", "Draft", "Final version",
    ]  # fmt: skip
    assert len(data(frames, "step")) == 4
    assert data(frames, "usage")[0]["cost_usd"] == "0"


async def test_the_writer_goes_on_from_any_event(clean_redis_url: str, redis: Redis) -> None:
    whole = await log_of(clean_redis_url, redis, WRITER, "agent/writer", "a city")
    steps = [at for at, name in enumerate(names(whole)) if name == "step"]
    for cut in (2, steps[0], steps[0] + 1, steps[1] + 2, steps[2] + 1):
        frames = await gone_on_with(clean_redis_url, redis, WRITER, "agent/writer", whole[:cut])
        assert fold(frames).text == TEXT, cut
        parts = [told["value"]["part"] for told in data(frames[cut:], "data")]
        assert parts == ["Outline", "Draft", "Final version"][names(whole[:cut]).count("step") :]


async def test_pydantic_ais_stream_is_passed_on(
    clean_redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(host: object, *_: object, **__: object) -> object:
        raise AssertionError(f"it looked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    frames = await log_of(clean_redis_url, redis, PYDANTIC_AI, "agent/assistant", "How many?")
    assert names(frames)[:5] == ["start", "tool_call", "tool_start", "tool_result", "step"]
    assert data(frames, "tool_call")[0]["name"] == "population"
    assert data(frames, "tool_result")[0]["result"] == 4253000
    assert fold(frames).text == '{"population":4253000}'
    assert names(frames).count("text") > 1
    (usage,) = data(frames, "usage")
    assert usage["output_tokens"] > 0
    assert usage["cost_usd"] is None


async def test_pydantic_ai_goes_on_after_its_tool(clean_redis_url: str, redis: Redis) -> None:
    whole = await log_of(clean_redis_url, redis, PYDANTIC_AI, "agent/assistant", "How many?")
    cut = names(whole).index("step") + 2
    frames = await gone_on_with(clean_redis_url, redis, PYDANTIC_AI, "agent/assistant", whole[:cut])
    assert fold(frames).text == '{"population":4253000}'
    assert names(frames).count("tool_call") == 1
    (reset,) = data(frames, "reset")
    assert reset["after"] == str(whole[cut - 2].id)


def test_the_guide_and_the_readme_show_what_is_tested() -> None:
    text = WRITER.read_text(encoding="utf-8")
    for page in (GUIDE / "agents.md", GUIDE.parents[1] / "README.md"):
        shown = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        assert any(block.strip() in text for block in shown if "@agent" in block), page.name
    written = [line for line in text.splitlines() if line.strip()]
    assert len(written) <= 20
