"""A message with tools is cancelled, or loses its worker, at any of its events: what follows in
its conversation is taken by servers that enforce their rules on calls and results.
"""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared import record
from rejoin.shared.db import schema
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import ToolError
from rejoin.shared.events import dumps
from rejoin.shared.fold import Message, fold
from rejoin.shared.ids import new_message_id
from rejoin.shared.tool_calls import calls_of, open_calls
from rejoin.worker.providers.registry import Providers
from rejoin.worker.tools.base import Call
from tests.database.talk import Talk
from tests.support import in_process
from tests.support.cutting import Cuts
from tests.support.in_process import RunningWorker, until_ended, worker_on
from tests.support.messages import until_true
from tests.support.tool_talk import ANSWERED, MODELS, ToolTalk, results_in
from tests.support.tools import PlainTool

CUTS: Final = 14  # more than a message has events
EVENTS: Final = {"start", "text", "tool_call", "tool_start", "tool_result", "tool_error", "step"}
OTHER: Final = dict.fromkeys(MODELS, "anthropic") | {"anthropic": "openai"}
LEASE_SECONDS: Final = 0.5


@pytest.fixture
async def servers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mapping[str, ToolTalk]]:
    """A server for each wire format; at the end none of them has refused anything."""
    async with AsyncExitStack() as stack:
        made = {name: await stack.enter_async_context(ToolTalk(name)) for name in MODELS}
        for server in made.values():
            monkeypatch.setenv(*server.environ())
        providers = Providers()
        for model in MODELS.values():
            providers.find(model)  # importing an SDK may take longer than a lease
        await providers.aclose()
        yield made
        assert [words for server in made.values() for words in server.refusals] == []


@pytest.fixture
async def database_url(tmp_path: Path) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path / 'rejoin.db'}"
    database = Database(url)
    await schema.migrate(database)
    await database.aclose()
    return url


async def _deaf(arguments: Mapping[str, object], call: Call) -> object:
    raise ToolError("nothing to be heard")


def tools() -> list[PlainTool]:
    return [PlainTool("look"), PlainTool("listen", act=_deaf)]


class Stage:
    """Conversations of one wire format, each with its first message cut at another event."""

    def __init__(self, redis: Redis, url: str, database_url: str, name: str) -> None:
        self.redis, self.url = redis, url
        self.model = MODELS[name]
        self.talks = [Talk(redis, url, database_url) for _ in range(CUTS)]
        self._settings: dict[str, Any] = {
            "database_url": database_url,
            "lease_seconds": LEASE_SECONDS,
        }

    @asynccontextmanager
    async def worker(self, name: str, **settings: Any) -> AsyncIterator[RunningWorker]:
        """A worker that has the tools."""
        plain = {"tools": tools(), **self._settings}
        async with worker_on(self.url, name=name, **plain | settings) as running:
            try:
                yield running
            finally:
                await running.kit.providers.aclose()

    async def begin(self, cuts: Cuts) -> list[str]:
        """Post the first messages, a conversation each; their ids."""
        firsts = [new_message_id() for _ in self.talks]
        cuts.at = {message_id: at for at, message_id in enumerate(firsts, 1)}
        for talk, message_id in zip(self.talks, firsts, strict=True):
            await self.post(talk, "tools", message_id=message_id)
        return firsts

    async def follow(self, parents: Sequence[str], text: str, **fields: Any) -> list[str]:
        """Post another message in each conversation, and see that each is answered; their ids."""
        posted = [
            await self.post(talk, text, parent_id=parent, **fields)
            for talk, parent in zip(self.talks, parents, strict=True)
        ]
        for message in await self.ended(posted):
            assert message.end is not None
            assert (message.end.name, message.text[-len(ANSWERED) :]) == ("done", ANSWERED)
        return posted

    async def post(self, talk: Talk, text: str, **fields: Any) -> str:
        """Post a message with both tools; its id."""
        plain = {"model": self.model, "tools": ["look", "listen"], "reasoning_effort": "low"}
        return await talk.ask(text, **plain | fields)

    async def ended(self, message_ids: Sequence[str]) -> list[Message]:
        """The messages once they have ended; none of their calls is open."""
        ended = [fold(await until_ended(self.redis, one, within=20)) for one in message_ids]
        assert [open_calls(message) for message in ended] == [[]] * len(ended)
        return ended


async def cut_off(stage: Stage, ending: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Bring the first messages to their ends, each by way of its cut; at which event each was."""

    async def cancel(message_id: str) -> object:
        return await record.cancel(stage.redis, message_id)

    cuts = Cuts(cancel) if ending == "cancelled" else Cuts(freeze=True)
    firsts = await stage.begin(cuts)
    with monkeypatch.context() as patched:
        patched.setattr(in_process, "Appender", cuts.appender)
        async with stage.worker("worker-1") as worker:
            await until_true(cuts.all_reached, within=20)
            if ending != "cancelled":
                await worker.die()
            else:
                await stage.ended(firsts)
    most = {"max_attempts": 1} if ending == "lost" else {}
    async with stage.worker("worker-2", **most):
        await stage.ended(firsts)
    return {message_id: cuts.names.get(message_id, "") for message_id in firsts}


def expected(message: Message) -> list[str]:
    """What a later model is shown of a message's tools."""
    said = [call.result if call.error is None else call.error for call in calls_of(message)]
    return [result if isinstance(result, str) else dumps(result) for result in said]


@pytest.mark.parametrize(
    ("name", "ending", "where"),
    [
        *itertools.product(MODELS, ["cancelled", "taken_over", "lost"], ["log"]),
        ("anthropic", "cancelled", "database"),
        ("openai", "taken_over", "database"),
    ],
)
async def test_a_conversation_goes_on_after_a_message_cut_at_any_event(
    servers: Mapping[str, ToolTalk],
    redis: Redis,
    clean_redis_url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    ending: str,
    where: str,
) -> None:
    stage = Stage(redis, clean_redis_url, database_url, name)
    cut = await cut_off(stage, ending, monkeypatch)
    assert set(cut.values()) >= EVENTS
    firsts = await stage.ended(list(cut))
    async with stage.worker("worker-3"):
        if where == "database":
            await stage.talks[0].saved(gone=list(cut))
        seconds = await stage.follow(list(cut), "tools")
        servers[name].down = True
        thirds = await stage.follow(seconds, "and?", fallbacks=[MODELS[OTHER[name]]], tools=[])
    for first, second, third in zip(firsts, seconds, thirds, strict=True):
        shown = expected(first)
        assert results_in(servers[name].asked(second)[0]) == shown
        both = [*shown, *results_in(servers[name].asked(second)[-1])[-2:]]
        assert results_in(servers[OTHER[name]].asked(third)[0]) == both


async def test_a_server_that_insists_on_the_order_of_roles_gets_it(
    servers: Mapping[str, ToolTalk],
    redis: Redis,
    clean_redis_url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = servers["openai"]
    stage = Stage(redis, clean_redis_url, database_url, "openai")
    cut = await cut_off(stage, "cancelled", monkeypatch)
    server.insist()
    async with stage.worker("worker-2"):
        seconds = await stage.follow(list(cut), "tools")
        refused = len(server.refusals)
        assert refused > 0
        await stage.follow(seconds, "and?")
        assert len(server.refusals) == refused  # its order is known by now
    server.refusals.clear()


@pytest.mark.parametrize("name", MODELS)
async def test_a_fallback_goes_on_with_the_calls_of_another_providers_model(
    servers: Mapping[str, ToolTalk],
    redis: Redis,
    clean_redis_url: str,
    database_url: str,
    name: str,
) -> None:
    stage = Stage(redis, clean_redis_url, database_url, name)
    other = OTHER[name]

    async def break_down(arguments: Mapping[str, object], call: Call) -> object:
        servers[name].down = True
        return "seen"

    broken = [PlainTool("look", act=break_down), PlainTool("listen", act=_deaf)]
    async with stage.worker("worker-1", tools=broken):
        fields: dict[str, Any] = {"fallbacks": [MODELS[other]]}
        first = await stage.post(stage.talks[0], "tools", **fields)
        (message,) = await stage.ended([first])
    assert message.end is not None
    assert (message.end.name, message.text[-len(ANSWERED) :]) == ("done", ANSWERED)
    assert results_in(servers[other].asked(first)[0]) == ["seen", "nothing to be heard"]
