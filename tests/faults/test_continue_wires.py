"""A worker is killed, or its provider breaks off, in mid-text: the answer goes on from there.

Asked of servers that really go on with a part of their answer, in each wire format: nothing is
taken back, nothing comes twice and nothing is missing.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared.frames import Frame
from rejoin.shared.ids import new_message_id
from rejoin.worker import asking
from rejoin.worker.models import Lists
from rejoin.worker.providers.registry import Providers
from tests.database.talk import Talk
from tests.support import in_process
from tests.support.breaking_provider import (
    ARGUMENTS,
    LOOKS,
    WON,
    BreakingProvider,
    in_arguments,
)
from tests.support.caller import assert_whole_log, visible_text
from tests.support.continuing_provider import ALL, TOLD, ContinuingProvider, text_of
from tests.support.cutting import Cuts
from tests.support.in_process import RunningWorker, until_ended, worker_on
from tests.support.logs import as_read, data
from tests.support.messages import post, until_true
from tests.support.provider_script import Drop, Hold, Part, Reset, simulated_words
from tests.support.tools import PlainTool
from tests.support.wire_answers import WIRES

WORDS: Final = 100
# Each word tells its place; paragraphs end within the text.
TEXT: Final = "".join(
    word.replace(" ", "\n\n") if place % 15 == 14 else word
    for place, word in enumerate(simulated_words(WORDS))
)
AGAIN: Final = "ja ja ja, nein nein nein nein! " * 12 + "ja ja"  # it repeats itself
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
CUTS: Final = (1, *range(10, WORDS + 1, 10))
LEASE_SECONDS: Final = 0.5

Servers = Mapping[str, ContinuingProvider]


class Stage:
    """The servers, and messages that are to go on where they break off."""

    def __init__(self, redis: Redis, url: str, servers: Servers) -> None:
        self.redis, self.url, self.servers = redis, url, servers

    @asynccontextmanager
    async def worker(self, name: str = "worker-1", **settings: Any) -> AsyncIterator[RunningWorker]:
        """A worker that knows what the servers list."""
        plain = {"lease_seconds": LEASE_SECONDS}
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


Staged = Callable[..., Any]


@pytest.fixture
def staged(redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Staged:
    """Makes a stage whose servers of these `wires` have all the same settings."""
    # As often as it breaks off, and without a pause: how long those are is tried elsewhere.
    monkeypatch.setattr(asking, "pause_seconds", lambda *_: 0.0)

    @asynccontextmanager
    async def stage(
        text: str = TEXT, wires: Sequence[str] = WIRES, **settings: Any
    ) -> AsyncIterator[Stage]:
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
            yield Stage(redis, clean_redis_url, servers)
            for server in servers.values():
                assert server.strays == []
                assert server.refusals == []

    return stage


def assert_went_on(frames: Sequence[Frame], text: str, case: object, *, breaks: int = 1) -> None:
    """Check that a log has the text, once, and that after so many breaks nothing was taken back.

    A break that came before anything was given, or all of it lost by a reset of TCP, is a `retry`.
    """
    read = as_read(frames)
    assert visible_text(read) == text, case
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
        assert reached.over == set()
    async with stage.worker("worker-last"):
        for message_id in cuts:
            await stage.ended(message_id)


def cuts_of(models: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """A message for each model and each place."""
    return {new_message_id(): cut for cut in itertools.product(models.values(), CUTS)}


async def test_killed_at_every_tenth_token_it_goes_on_by_the_providers_own_prefix(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = cuts_of(PREFIXED)
    async with staged() as stage:
        await kill_at(stage, cuts, monkeypatch)
        for message_id, cut in cuts.items():
            frames = await stage.ended(message_id)
            assert_went_on(frames, TEXT, cut)
            assert data(frames, "reset")[0]["reason"] == "takeover"
        for server in stage.servers.values():
            pieces = server.pieces(TEXT)
            shown = ["".join(pieces[:texts]).rstrip() for texts in CUTS]
            assert sorted(server.prefixes) == sorted(shown)
            assert server.begun == len(CUTS)


@pytest.mark.parametrize("repeats", [TOLD, 0, 2, ALL])
async def test_killed_at_every_tenth_token_it_goes_on_as_a_turn_asks_for(
    staged: Staged, monkeypatch: pytest.MonkeyPatch, repeats: int | str
) -> None:
    models = ASKED if repeats == TOLD else {"openai": ASKED["openai"]}
    cuts = cuts_of(models)
    async with staged(wires=tuple(models), prefix="anew", repeats=repeats) as stage:
        await kill_at(stage, cuts, monkeypatch)
        for message_id, cut in cuts.items():
            assert_went_on(await stage.ended(message_id), TEXT, cut)
        for server in stage.servers.values():
            assert len(server.asked) == server.begun == len(CUTS)


async def test_killed_three_times_it_goes_on_from_all_of_its_text(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = {new_message_id(): (model, 30) for model in PREFIXED.values()}
    async with staged() as stage:
        await kill_at(stage, cuts, monkeypatch, 10, 7)
        for message_id, cut in cuts.items():
            assert_went_on(await stage.ended(message_id), TEXT, cut, breaks=3)
        for server in stage.servers.values():
            pieces = server.pieces(TEXT)
            assert server.prefixes == ["".join(pieces[:n]).rstrip() for n in (30, 40, 47)]


BREAKS: Final[Mapping[str, Part | None]] = {
    "a clean end": None,
    "closed": Drop(),
    "reset": Reset(),
}


async def ask_broken(stage: Stage, models: Mapping[str, str], *after_pieces: int) -> dict[str, str]:
    """Post a message for each model and each way to break off after so many pieces; the cases."""
    cases = {}
    for (wire, model), (name, how) in itertools.product(models.items(), BREAKS.items()):
        message_id = new_message_id()
        stage.servers[wire].break_off(message_id, *after_pieces, how=how)
        cases[await stage.ask(model, message_id)] = f"{model}: {name}"
    return cases


@pytest.mark.parametrize("pieces", [1, 40])
async def test_broken_off_by_its_provider_it_goes_on_with_the_same_worker(
    staged: Staged, pieces: int
) -> None:
    async with staged() as stage, stage.worker(provider_retries=2):
        for message_id, case in (await ask_broken(stage, PREFIXED, pieces)).items():
            assert_went_on(await stage.ended(message_id), TEXT, case)


async def test_a_provider_that_stalls_in_mid_text_goes_on_from_there(staged: Staged) -> None:
    soon = {"timeout_idle": 1.2, "provider_retries": 2}
    async with staged() as stage, stage.worker(**soon):
        cases = {}
        for wire, model in PREFIXED.items():
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, 40, how=Hold())
            cases[await stage.ask(model, message_id)] = model
        for message_id, case in cases.items():
            frames = await stage.ended(message_id)
            assert_went_on(frames, TEXT, case)
            assert data(frames, "reset")[0]["reason"] == "provider_timeout"


async def test_it_goes_on_as_often_as_it_breaks_off(staged: Staged) -> None:
    every_tenth = [10] * 9
    async with staged() as stage, stage.worker(provider_retries=10):
        for message_id, case in (await ask_broken(stage, PREFIXED, *every_tenth)).items():
            assert_went_on(await stage.ended(message_id), TEXT, case, breaks=9)


async def test_asked_by_a_turn_it_goes_on_as_often_as_it_breaks_off(staged: Staged) -> None:
    often = [10, *[25] * 6]  # in its second call and later it repeats what it was told to
    settings = {"prefix": "anew", "repeats": TOLD, "wires": tuple(ASKED), "piece_chars": 4}
    async with staged(**settings) as stage, stage.worker(provider_retries=10):
        for message_id, case in (await ask_broken(stage, ASKED, *often)).items():
            assert_went_on(await stage.ended(message_id), TEXT, case, breaks=7)


@pytest.mark.parametrize("chars", [1, 3])
async def test_cut_within_words_it_goes_on_within_them(staged: Staged, chars: int) -> None:
    some = TEXT[:90]
    cuts = range(1, -(-len(some) // chars), 2 * (4 - chars))
    async with staged(some, piece_chars=chars) as stage, stage.worker(provider_retries=2):
        cases = {}
        for (wire, model), cut in itertools.product(PREFIXED.items(), cuts):
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, cut)
            cases[await stage.ask(model, message_id)] = model, cut
        for message_id, case in cases.items():
            assert_went_on(await stage.ended(message_id), some, case)


async def test_by_a_prefix_a_text_that_repeats_itself_loses_none_of_it(staged: Staged) -> None:
    async with staged(AGAIN) as stage, stage.worker(provider_retries=2):
        cases = {}
        for (wire, model), cut in itertools.product(PREFIXED.items(), range(1, 14)):
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, cut)
            cases[await stage.ask(model, message_id)] = model, cut
        for message_id, case in cases.items():
            assert_went_on(await stage.ended(message_id), AGAIN, case)


async def test_told_to_repeat_its_last_words_a_text_that_repeats_itself_loses_none_of_it(
    staged: Staged,
) -> None:
    models = {"openai": ASKED["openai"]}
    settings = {"prefix": "anew", "repeats": TOLD, "wires": tuple(models)}
    async with staged(AGAIN, **settings) as stage, stage.worker(provider_retries=2):
        cases = {}
        for cut in range(1, 40):
            message_id = new_message_id()
            stage.servers["openai"].break_off(message_id, cut)
            cases[await stage.ask(models["openai"], message_id)] = cut
        for message_id, case in cases.items():
            assert_went_on(await stage.ended(message_id), AGAIN, case)


async def test_after_white_space_alone_there_is_nothing_that_a_model_could_be_shown(
    staged: Staged,
) -> None:
    text = "\n\n  Und\n"
    async with staged(text, piece_chars=1) as stage, stage.worker(provider_retries=2):
        cases = {}
        for (wire, model), cut in itertools.product(PREFIXED.items(), range(1, 5)):
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, cut)
            cases[await stage.ask(model, message_id)] = model, cut
        for message_id, case in cases.items():
            frames = await stage.ended(message_id)
            assert visible_text(as_read(frames)) == text, case


@pytest.mark.parametrize("first", WIRES)
async def test_a_fallback_of_another_format_goes_on_with_the_first_ones_text(
    staged: Staged, first: str
) -> None:
    async with staged() as stage, stage.worker():
        cases = {}
        for other in WIRES:
            if other != first:
                message_id = new_message_id()
                stage.servers[first].break_off(message_id, 33)
                model = f"{PREFIXED[first]}?n={other}"
                asked = await stage.ask(model, message_id, fallbacks=[PREFIXED[other]])
                cases[asked] = PREFIXED[other]
        for message_id, winner in cases.items():
            frames = await stage.ended(message_id)
            assert_went_on(frames, TEXT, winner)
            assert data(frames, "reset")[0]["model"] == winner


async def test_where_the_prefix_is_refused_the_step_is_done_again(staged: Staged) -> None:
    async with staged(prefix="refuse") as stage, stage.worker(provider_retries=2):
        for message_id, case in (await ask_broken(stage, PREFIXED, 40)).items():
            frames = await stage.ended(message_id)
            assert visible_text(as_read(frames)) == TEXT, case
            assert data(frames, "reset")[-1]["after"] is None, case


async def test_without_recover_the_step_is_done_again(staged: Staged) -> None:
    async with staged() as stage, stage.worker(provider_retries=2):
        cases = {}
        for wire, model in PREFIXED.items():
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, 40)
            cases[await stage.ask(model, message_id, recover="restart")] = model
        for message_id, case in cases.items():
            frames = await stage.ended(message_id)
            assert visible_text(as_read(frames)) == TEXT, case
            assert [reset["after"] for reset in data(frames, "reset")] == [None], case
        assert [server.prefixes for server in stage.servers.values()] == [[]] * len(WIRES)


async def test_the_next_message_is_shown_the_joined_text_as_one_answer(
    staged: Staged, tmp_path: Any
) -> None:
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'rejoin.db'}"
    async with staged() as stage, stage.worker(provider_retries=2) as worker:
        for wire, model in PREFIXED.items():
            talk = Talk(stage.redis, stage.url, database_url)
            first = new_message_id()
            stage.servers[wire].break_off(first, 40)
            await talk.ask("tell me", model=model, message_id=first, recover="continue")
            assert_went_on(await stage.ended(first), TEXT, wire)
            second = await talk.ask("and?", first, model=model)
            await stage.ended(second)
            asked = stage.servers[wire].requests[-1].json["messages"]
            assert isinstance(asked, list)
            told = [text_of(one) for one in asked if one["role"] == "assistant"]
            assert told == [TEXT], wire
            # Its answer to a history is of no interest: this server takes it for a part.
            stage.servers[wire].strays.clear()
        assert not worker.dead


@pytest.mark.parametrize("wire", WIRES)
async def test_where_a_call_was_open_the_step_is_done_again(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    breaks = {
        "in arguments": in_arguments(10, Drop()),
        "in the second's": in_arguments(10, Drop(), first=False),
        "in the first's, a clean end": in_arguments(3),
    }
    tool = PlainTool()
    async with BreakingProvider(wire) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        async with worker_on(clean_redis_url, tools=[tool]) as worker:
            stage = Stage(redis, clean_redis_url, {})
            cases = {}
            for number, (name, broken) in enumerate(breaks.items()):
                model = server.breaks(f"m{number}", broken)
                fields = {"fallbacks": [f"{wire}/w"], "tools": ["look"]}
                cases[await stage.ask(model, **fields)] = name
            for message_id, case in cases.items():
                frames = await stage.ended(message_id)
                assert visible_text(as_read(frames)) == "".join((*LOOKS, *WON)), case
                assert [reset["after"] for reset in data(frames, "reset")] == [None], case
                runs = zip(tool.ran, tool.seen, strict=True)
                assert [seen for call, seen in runs if call.message_id == message_id] == [ARGUMENTS]
            await worker.kit.providers.aclose()
        assert server.refusals == []
