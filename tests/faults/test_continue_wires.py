"""A provider breaks off in mid-text, in each wire format: with `continue` the answer goes on there.

Asked of servers that really go on with a part of their answer: nothing is taken back, nothing
comes twice and nothing is missing. Where it cannot go on, the step is done again.
"""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared.ids import new_message_id
from rejoin.worker import asking
from tests.database.talk import Talk
from tests.support.breaking_provider import (
    ARGUMENTS,
    LOOKS,
    WON,
    WORDS,
    BreakingProvider,
    after,
    in_arguments,
)
from tests.support.caller import visible_text
from tests.support.continuing_provider import TOLD, text_of
from tests.support.going_on import ASKED, PREFIXED, TEXT, Stage, Staged, assert_went_on
from tests.support.in_process import worker_on
from tests.support.logs import as_read, data
from tests.support.provider_script import Drop, Hold, Part, Reset
from tests.support.tool_talk import results_in
from tests.support.tools import PlainTool
from tests.support.wire_answers import WIRES

AGAIN: Final = "ja ja ja, nein nein nein nein! " * 12 + "ja ja"  # it repeats itself
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
    serving: Staged, pieces: int
) -> None:
    async with serving() as stage, stage.worker(provider_retries=2):
        for message_id, case in (await ask_broken(stage, PREFIXED, pieces)).items():
            assert_went_on(await stage.ended(message_id), TEXT, case)


async def test_a_provider_that_stalls_in_mid_text_goes_on_from_there(serving: Staged) -> None:
    soon: dict[str, Any] = {"timeout_idle": 1.5, "provider_retries": 2}
    async with serving() as stage, stage.worker(**soon):
        cases = {}
        for wire, model in PREFIXED.items():
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, 40, how=Hold())
            cases[await stage.ask(model, message_id)] = model
        for message_id, case in cases.items():
            frames = await stage.ended(message_id)
            assert_went_on(frames, TEXT, case)
            assert data(frames, "reset")[0]["reason"] == "provider_timeout"


async def test_it_goes_on_as_often_as_it_breaks_off(serving: Staged) -> None:
    every_tenth = [10] * 9
    async with serving() as stage, stage.worker(provider_retries=10):
        for message_id, case in (await ask_broken(stage, PREFIXED, *every_tenth)).items():
            assert_went_on(await stage.ended(message_id), TEXT, case, breaks=9)


async def test_asked_by_a_turn_it_goes_on_as_often_as_it_breaks_off(serving: Staged) -> None:
    often = [10, 30, 30, 30]  # from its second call on it repeats what it was told to
    settings = {"prefix": "anew", "repeats": TOLD, "wires": tuple(ASKED), "piece_chars": 4}
    async with serving(**settings) as stage, stage.worker(provider_retries=10):
        for message_id, case in (await ask_broken(stage, ASKED, *often)).items():
            assert_went_on(await stage.ended(message_id), TEXT, case, breaks=4)


@pytest.mark.parametrize("chars", [1, 3])
async def test_cut_within_words_it_goes_on_within_them(serving: Staged, chars: int) -> None:
    some = TEXT[:90]
    cuts = range(1, -(-len(some) // chars), 3 * (4 - chars))
    async with serving(text=some, piece_chars=chars) as stage, stage.worker(provider_retries=2):
        cases = {}
        for (wire, model), cut in itertools.product(PREFIXED.items(), cuts):
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, cut)
            cases[await stage.ask(model, message_id)] = model, cut
        for message_id, case in cases.items():
            assert_went_on(await stage.ended(message_id), some, case)


async def test_by_a_prefix_a_text_that_repeats_itself_loses_none_of_it(serving: Staged) -> None:
    async with serving(text=AGAIN) as stage, stage.worker(provider_retries=2):
        cases = {}
        for (wire, model), cut in itertools.product(PREFIXED.items(), range(1, 14, 3)):
            message_id = new_message_id()
            stage.servers[wire].break_off(message_id, cut)
            cases[await stage.ask(model, message_id)] = model, cut
        for message_id, case in cases.items():
            assert_went_on(await stage.ended(message_id), AGAIN, case)


async def test_told_to_repeat_its_last_words_a_text_that_repeats_itself_loses_none_of_it(
    serving: Staged,
) -> None:
    models = {"openai": ASKED["openai"]}
    settings = {"prefix": "anew", "repeats": TOLD, "wires": tuple(models)}
    async with serving(text=AGAIN, **settings) as stage, stage.worker(provider_retries=2):
        cases = {}
        for cut in range(1, 40, 2):
            message_id = new_message_id()
            stage.servers["openai"].break_off(message_id, cut)
            cases[await stage.ask(models["openai"], message_id)] = cut
        for message_id, case in cases.items():
            assert_went_on(await stage.ended(message_id), AGAIN, case)


async def test_after_white_space_alone_there_is_nothing_that_a_model_could_be_shown(
    serving: Staged,
) -> None:
    text = "\n\n  Und\n"
    async with serving(text=text, piece_chars=1) as stage, stage.worker(provider_retries=2):
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
    serving: Staged, first: str
) -> None:
    async with serving() as stage, stage.worker():
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


async def test_where_the_prefix_is_refused_the_step_is_done_again(serving: Staged) -> None:
    async with serving(prefix="refuse") as stage, stage.worker(provider_retries=2):
        for message_id, case in (await ask_broken(stage, PREFIXED, 40)).items():
            frames = await stage.ended(message_id)
            assert visible_text(as_read(frames)) == TEXT, case
            assert data(frames, "reset")[-1]["after"] is None, case


async def test_without_recover_the_step_is_done_again(serving: Staged) -> None:
    async with serving() as stage, stage.worker(provider_retries=2):
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
    serving: Staged, tmp_path: Path
) -> None:
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'rejoin.db'}"
    async with serving() as stage, stage.worker(provider_retries=2) as worker:
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
async def test_a_later_step_goes_on_behind_what_its_tools_returned(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    monkeypatch.setattr(asking, "pause_seconds", lambda *_: 0.0)
    tool = PlainTool()
    async with BreakingProvider(wire) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        async with worker_on(clean_redis_url, tools=[tool], provider_retries=2) as worker:
            stage = Stage(redis, clean_redis_url, {})
            names = {
                models[wire].partition("/")[2] for models in (PREFIXED, ASKED) if wire in models
            }
            for name in names:
                model = server.breaks(name, after(40, Drop()), from_call=2, times=1)
                message_id = await stage.ask(model, tools=["look"])
                frames = await stage.ended(message_id)
                assert_went_on(frames, "".join((*LOOKS, *WORDS[:40], *WON)), name)
                asked = server.asked(message_id)[-1].json
                assert [json.loads(said) for said in results_in(asked)] == [ARGUMENTS], name
                assert isinstance(asked["messages"], list)
                texts = [text_of(one) for one in asked["messages"] if one["role"] == "assistant"]
                assert texts[-1].rstrip() == "".join(WORDS[:40]).rstrip(), name
            assert len(tool.ran) == len(names)
            await worker.kit.providers.aclose()
        assert server.refusals == []


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
                fields: dict[str, Any] = {"fallbacks": [f"{wire}/w"], "tools": ["look"]}
                cases[await stage.ask(model, **fields)] = name
            for message_id, case in cases.items():
                frames = await stage.ended(message_id)
                assert visible_text(as_read(frames)) == "".join((*LOOKS, *WON)), case
                assert [reset["after"] for reset in data(frames, "reset")] == [None], case
                runs = zip(tool.ran, tool.seen, strict=True)
                assert [seen for call, seen in runs if call.message_id == message_id] == [ARGUMENTS]
            await worker.kit.providers.aclose()
        assert server.refusals == []
