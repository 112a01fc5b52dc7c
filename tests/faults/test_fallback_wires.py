"""A provider breaks anywhere in its answer, in each wire format: a model of each other one goes on.

The text is the winning model's, byte for byte; the log ends once; no tool ran on cut arguments.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.shared.fold import fold
from rejoin.shared.frames import Frame
from tests.support.breaking_provider import (
    ARGUMENTS,
    LOOKS,
    SPOKEN_ARGUMENTS,
    WON,
    Break,
    BreakingProvider,
    after,
    bad_line_after,
    bad_line_in_arguments,
    error_after,
    in_arguments,
)
from tests.support.caller import assert_whole_log, visible_text
from tests.support.in_process import RunningWorker, until_ended, worker_on
from tests.support.logs import as_read, data, names
from tests.support.messages import post
from tests.support.provider_script import Drop, Hold, Reset
from tests.support.tool_talk import results_in
from tests.support.tools import PlainTool
from tests.support.wire_answers import WIRES, refusal

GONE: Final = {"provider_unavailable", "provider_protocol"}
SOON_SECONDS: Final = 1.5


# By place, the ways to break there, and how the reset may call each.
BREAKS: Final[Mapping[str, Mapping[str, tuple[Break, set[str]]]]] = {
    "before the first token": {
        "nothing at all": (lambda _: [], {"provider_protocol"}),
        "closed": (lambda _: [Drop()], GONE),
        "closed at the beginning": (after(0, Drop()), GONE),
        "a clean end": (after(0), {"provider_protocol"}),
        "a bad line": (bad_line_after(0), {"provider_protocol"}),
        "an error": (error_after(0), {"provider_unavailable"}),
        "a page": (lambda _: [b"<html><body>Bad gateway</body></html>"], GONE),
    },
    "in its text": {
        "closed at 1": (after(1, Drop()), GONE),
        "closed at 40": (after(40, Drop()), GONE),
        "reset at 40": (after(40, Reset()), GONE),
        "a clean end at 40": (after(40), {"provider_protocol"}),
        "a bad line at 1": (bad_line_after(1), {"provider_protocol"}),
        "a bad line at 40": (bad_line_after(40), {"provider_protocol"}),
        "an error at 40": (error_after(40), {"provider_unavailable"}),
    },
    "in a call's arguments": {
        "before the first": (in_arguments(0, Drop()), GONE),
        "closed": (in_arguments(10, Drop()), GONE),
        "a clean end": (in_arguments(10), {"provider_protocol"}),
        "whole, and closed": (in_arguments(len(SPOKEN_ARGUMENTS), Drop()), GONE),
        "whole, and a clean end": (in_arguments(len(SPOKEN_ARGUMENTS)), {"provider_protocol"}),
        "of the second": (in_arguments(10, Drop(), first=False), GONE),
        "a bad line": (bad_line_in_arguments, {"provider_protocol"}),
    },
}
STALLS: Final[Mapping[str, Break]] = {
    "before the first token": after(0, Hold()),
    "at 1": after(1, Hold()),
    "at 40": after(40, Hold()),
    "in arguments": in_arguments(10, Hold()),
    "in the second's arguments": in_arguments(10, Hold(), first=False),
}
REFUSALS: Final[Mapping[str, tuple[int, str, str | None]]] = {
    "provider_unavailable": (529, "Overloaded", None),
    "rate_limited": (429, "Too many requests.", None),
    "authentication": (401, "That key is none.", "invalid_api_key"),
    "context_length_exceeded": (
        400,
        "prompt is too long: 200001 tokens > 200000 maximum",
        "context_length_exceeded",
    ),
    "content_filter": (400, "Output blocked by content filtering policy", "content_filter"),
    "invalid_request": (404, "There is no such model.", "model_not_found"),
}


class Stage:
    """Servers of all formats, a worker with a tool, and what became of its messages."""

    def __init__(
        self, redis: Redis, servers: Mapping[str, BreakingProvider], tool: PlainTool
    ) -> None:
        self.redis = redis
        self.servers = servers
        self.tool = tool

    async def ask(self, model: str, fallbacks: Sequence[str], **fields: Any) -> str:
        """Post a message; its id."""
        return await post(self.redis, "tell me", model=model, fallbacks=list(fallbacks), **fields)

    async def ended(self, message_id: str) -> list[Frame]:
        """Wait for a message's end: its whole log, which ends once."""
        frames = await until_ended(self.redis, message_id, within=20)
        assert_whole_log(as_read(frames))
        return frames

    def ran(self, message_id: str) -> list[Mapping[str, object]]:
        """The arguments with which the tool ran for a message."""
        runs = zip(self.tool.ran, self.tool.seen, strict=True)
        return [seen for call, seen in runs if call.message_id == message_id]


@asynccontextmanager
async def staged(
    redis: Redis, url: str, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Stage]:
    """Run the servers and the worker for the block; no server may refuse what it is asked."""
    async with AsyncExitStack() as stack:
        servers = {wire: await stack.enter_async_context(BreakingProvider(wire)) for wire in WIRES}
        for server in servers.values():
            for name, value in server.environ().items():
                monkeypatch.setenv(name, value)
        tool = PlainTool()
        worker = await stack.enter_async_context(worker_on(url, tools=[tool], **settings))
        stack.push_async_callback(worker.kit.providers.aclose)
        _open_all(worker)
        yield Stage(redis, servers, tool)
        assert [said for server in servers.values() for said in server.refusals] == []


@pytest.fixture
async def stage(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    async with staged(redis, clean_redis_url, monkeypatch) as stage:
        yield stage


@pytest.fixture
async def impatient(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """One whose worker does not wait long."""
    soon = {"timeout_first_token": SOON_SECONDS, "timeout_idle": SOON_SECONDS}
    async with staged(redis, clean_redis_url, monkeypatch, **soon) as stage:
        yield stage


def _open_all(worker: RunningWorker) -> None:
    for wire in WIRES:
        worker.kit.providers.of(wire)  # importing an SDK may take longer than a first token


def assert_won(
    frames: Sequence[Frame], text: str, model: str, reasons: set[str], case: str
) -> None:
    """Check that a log has the text alone, and one reset, to the model that gave it."""
    assert frames[-1].name == "done", (case, frames[-1])
    assert visible_text(as_read(frames)) == fold(frames).text == text, case
    (done,) = data(frames, "done")
    assert done == {"finish_reason": "stop", "text_chars": len(text)}, case
    (reset,) = data(frames, "reset")
    assert reset["model"] == model, case
    assert reset["reason"] in reasons, (case, reset)


async def assert_the_winners_text_alone(
    stage: Stage, wire: str, breaks: Mapping[str, tuple[Break, set[str]]], tools: list[str]
) -> None:
    """Break in each of these ways, with a fallback of each other format."""
    cases: dict[str, tuple[str, str, set[str]]] = {}
    for name, (broken, reasons) in breaks.items():
        for other in WIRES:
            if other != wire:
                loser = stage.servers[wire].breaks(f"m{len(cases)}", broken)
                winner = f"{other}/w{len(cases)}"
                case = f"{name}, then {other}"
                cases[await stage.ask(loser, [winner], tools=tools)] = case, winner, reasons
    text = "".join((*LOOKS, *WON) if tools else WON)
    for message_id, (case, winner, reasons) in cases.items():
        frames = await stage.ended(message_id)
        assert_won(frames, text, winner, reasons, case)
        assert data(frames, "reset")[0]["after"] is None
        assert stage.ran(message_id) == ([ARGUMENTS] if tools else []), case
        assert len(stage.servers[wire].asked(message_id)) == 1, case


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("place", BREAKS)
async def test_the_text_is_the_winning_models_wherever_the_first_one_broke(
    stage: Stage, wire: str, place: str
) -> None:
    tools = ["look"] if "arguments" in place else []
    await assert_the_winners_text_alone(stage, wire, BREAKS[place], tools)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_model_that_stalls_is_left_for_one_that_does_not(
    impatient: Stage, wire: str
) -> None:
    stalls = {name: (stall, {"provider_timeout"}) for name, stall in STALLS.items()}
    await assert_the_winners_text_alone(impatient, wire, stalls, ["look"])
    asked = [one for one in impatient.servers[wire].requests if one.method == "POST"]
    assert len(asked) == len(stalls) * (len(WIRES) - 1)
    for lost in asked:
        await asyncio.wait_for(lost.disconnected.wait(), 5)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_fallback_goes_on_with_what_is_another_models_alone(
    stage: Stage, wire: str
) -> None:
    cases: dict[str, tuple[str, str]] = {}
    for code, (status, said, own_code) in REFUSALS.items():
        for other in WIRES:
            if other != wire:
                refused = refusal(wire, status, said, code=own_code)
                loser = stage.servers[wire].refuses(f"m{len(cases)}", refused)
                winner = f"{other}/w{len(cases)}"
                cases[await stage.ask(loser, [winner])] = code, winner
    for message_id, (code, winner) in cases.items():
        frames = await stage.ended(message_id)
        assert_won(frames, "".join(WON), winner, {code}, code)
        assert names(frames)[:2] == ["start", "reset"]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_bad_request_is_asked_of_no_other_model(stage: Stage, wire: str) -> None:
    refused = refusal(wire, 400, "temperature: Input should be at most 1", code="invalid_value")
    loser = stage.servers[wire].refuses("m", refused)
    others = [other for other in WIRES if other != wire]
    message_id = await stage.ask(loser, [f"{other}/w" for other in others])
    frames = await stage.ended(message_id)
    (failed,) = data(frames, "failed")
    assert (failed["code"], failed["status"]) == ("invalid_request", 400)
    assert data(frames, "reset") == []
    assert [stage.servers[other].asked(message_id) for other in others] == [[]] * len(others)


@pytest.mark.parametrize("wire", WIRES)
async def test_a_step_that_is_finished_stays_when_the_next_one_breaks(
    stage: Stage, wire: str
) -> None:
    cases: dict[str, tuple[str, str, set[str]]] = {}
    for name in ("closed at 40", "a bad line at 1"):
        broken, reasons = BREAKS["in its text"][name]
        for other in WIRES:
            if other != wire:
                loser = stage.servers[wire].breaks(f"m{len(cases)}", broken, from_call=2)
                winner = f"{other}/w{len(cases)}"
                case = f"{name}, then {other}"
                cases[await stage.ask(loser, [winner], tools=["look"])] = case, winner, reasons
    for message_id, (case, winner, reasons) in cases.items():
        frames = await stage.ended(message_id)
        assert_won(frames, "".join((*LOOKS, *WON)), winner, reasons, case)
        (first_step, _) = [frame for frame in frames if frame.name == "step"]
        assert data(frames, "reset")[0]["after"] == str(first_step.id), case
        assert stage.ran(message_id) == [ARGUMENTS], case
        (asked,) = stage.servers[winner.partition("/")[0]].asked(message_id)
        assert [json.loads(said) for said in results_in(asked.json)] == [ARGUMENTS], case


async def test_models_that_break_one_after_the_other_leave_nothing_in_the_last_ones_text(
    stage: Stage,
) -> None:
    ways: list[Break] = [after(40, Drop()), in_arguments(10, Reset()), bad_line_after(1)]
    asked = []
    for turned in range(len(WIRES)):
        *losers, last = [*WIRES[turned:], *WIRES[:turned]]
        models = [
            stage.servers[wire].breaks(f"m{turned}", way)
            for wire, way in zip(losers, ways, strict=True)
        ]
        models.append(f"{last}/w{turned}")
        asked.append((await stage.ask(models[0], models[1:], tools=["look"]), models))
    for message_id, models in asked:
        frames = await stage.ended(message_id)
        assert visible_text(as_read(frames)) == "".join((*LOOKS, *WON))
        assert [reset["model"] for reset in data(frames, "reset")] == models[1:]
        assert stage.ran(message_id) == [ARGUMENTS]
