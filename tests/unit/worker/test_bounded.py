"""A call of a tool within its bounds: whatever it does, it ends, in a result or in an error."""

import asyncio
import contextlib
import logging
import sys
import threading

import pytest

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.base import Call
from rejoin.worker.tools.bounded import MOST_ERROR_CHARS, Outcome, run_bounded
from tests.unit.worker.made_tool import MadeTool, made_call

BOUND_SECONDS = 10


async def outcome(tool: MadeTool, call: Call | None = None, most_bytes: int = 1000) -> Outcome:
    async with asyncio.timeout(BOUND_SECONDS):
        return await run_bounded(tool, {}, call or made_call(), most_bytes=most_bytes)


def returning(value: object) -> MadeTool:
    async def does(_: Call) -> object:
        return value

    return MadeTool(does)


def raising(error: BaseException) -> MadeTool:
    async def does(_: Call) -> object:
        raise error

    return MadeTool(does)


async def test_what_a_tool_returns_is_the_result() -> None:
    assert await outcome(returning({"a": [1, "ü"]})) == Outcome(result={"a": [1, "ü"]})


async def test_nothing_is_a_result_too() -> None:
    assert await outcome(returning(None)) == Outcome(result=None, error=None)


async def test_a_result_of_just_the_bytes_allowed_is_taken() -> None:
    assert await outcome(returning("ü" * 4), most_bytes=10) == Outcome(result="üüüü")


async def test_a_result_of_more_bytes_is_an_error_that_says_how_many_are_allowed() -> None:
    said = await outcome(returning("ü" * 5), most_bytes=10)
    assert said.error == "the tool's result is longer than the 10 bytes of JSON that are allowed"


async def test_a_result_that_is_no_json_is_an_error_that_says_so() -> None:
    said = await outcome(returning(float("nan")))
    assert said.error is not None
    assert said.error.startswith("the tool's result is not JSON")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (KeyError(), "KeyError"),
        (ToolError("the city is closed"), "the city is closed"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (StopIteration("x"), "RuntimeError: coroutine raised StopIteration"),
        (ExceptionGroup("two", [ValueError("a"), TypeError("b")]), "ValueError: a; TypeError: b"),
        (OSError("half: \ud800"), "OSError: half: ?"),
        (TimeoutError("its own"), "TimeoutError: its own"),
        (asyncio.CancelledError(), "the tool cancelled itself"),
    ],
)
async def test_what_a_tool_raises_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, text: str
) -> None:
    # Half a pair in what pytest captured of a log is more than pytest-xdist can send.
    monkeypatch.setattr(logging.getLogger("rejoin.worker.tools.bounded"), "disabled", True)
    assert await outcome(raising(error)) == Outcome(error=text)


async def test_an_exception_that_cannot_say_what_it_is_has_its_class_told() -> None:
    class Dumb(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert await outcome(raising(Dumb())) == Outcome(error="Dumb")


async def test_a_long_error_is_cut() -> None:
    said = await outcome(raising(ValueError("x" * 100_000)))
    assert said.error is not None
    assert said.error.startswith("ValueError: xxx")
    assert len(said.error) <= MOST_ERROR_CHARS + 2


async def test_the_traceback_goes_to_the_log_and_not_to_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        said = await outcome(raising(ValueError("told")))
    assert "Traceback" in caplog.text
    assert "Traceback" not in str(said.error)


async def test_a_refusal_of_the_tools_own_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await outcome(raising(ToolError("closed")))
    assert caplog.text == ""


async def test_a_tool_that_takes_too_long_is_stopped_and_told_of() -> None:
    stopped = asyncio.Event()

    async def does(_: Call) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    said = await outcome(MadeTool(does, timeout_seconds=0.05))
    assert said == Outcome(error="timed out: no result within 0.05 seconds")
    assert stopped.is_set()


class Deaf:
    """A tool that swallows every cancellation until it is let go."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.told: list[object] = []

    async def does(self, call: Call) -> str:
        self.began.set()
        while not self.go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.go.wait()
        call.report("late", 1)
        self.ended.set()
        return "late"

    def heard(self) -> Call:
        return made_call(lambda name, value: self.told.append(name))


async def test_a_tool_that_swallows_its_cancellation_holds_nobody_and_is_heard_no_more() -> None:
    deaf = Deaf()
    try:
        said = await outcome(MadeTool(deaf.does, timeout_seconds=0.05), deaf.heard())
        assert str(said.error).startswith("timed out")
    finally:
        deaf.go.set()
    async with asyncio.timeout(BOUND_SECONDS):
        await deaf.ended.wait()
    assert deaf.told == []


async def test_a_cancelled_call_does_not_wait_for_a_tool_that_swallows_it() -> None:
    deaf = Deaf()
    running = asyncio.create_task(
        run_bounded(MadeTool(deaf.does), {}, deaf.heard(), most_bytes=1000)
    )
    async with asyncio.timeout(BOUND_SECONDS):
        await deaf.began.wait()
        running.cancel()
        await asyncio.wait([running], timeout=BOUND_SECONDS / 2)
        try:
            assert running.cancelled()
        finally:
            deaf.go.set()
        await deaf.ended.wait()
    assert deaf.told == []


async def test_a_cancelled_call_lets_its_tool_clean_up() -> None:
    began, cleaned = asyncio.Event(), asyncio.Event()

    async def does(_: Call) -> None:
        try:
            began.set()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    running = asyncio.create_task(run_bounded(MadeTool(does), {}, made_call(), most_bytes=1000))
    async with asyncio.timeout(BOUND_SECONDS):
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert cleaned.is_set()


async def test_a_tool_reports_plain_values_in_order_from_any_thread() -> None:
    told: list[tuple[str, object]] = []
    threads = set()

    def heard(name: str, value: object) -> None:
        threads.add(threading.get_ident())
        told.append((name, value))

    async def does(call: Call) -> None:
        held = [1]
        call.report("own", held)
        held.append(2)
        await asyncio.to_thread(call.report, "thread", (1, 2))

    await outcome(MadeTool(does), made_call(heard))
    assert threads == {threading.get_ident()}
    assert told == [("own", [1]), ("thread", [1, 2])]


@pytest.mark.parametrize("value", [float("inf"), object(), "\ud800", "x" * 1001])
async def test_a_report_that_is_no_json_or_too_long_fails_where_it_is_made(value: object) -> None:
    told: list[object] = []

    async def does(call: Call) -> str:
        call.report("progress", value)
        return "not reached"

    said = await outcome(MadeTool(does), made_call(lambda name, value: told.append(value)))
    assert str(said.error).startswith("the tool's report 'progress' is ")
    assert told == []


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800"])
async def test_a_report_without_a_proper_name_fails(name: str) -> None:
    async def does(call: Call) -> None:
        call.report(name, 1)

    assert "report" in str((await outcome(MadeTool(does))).error)


async def test_a_tool_hears_of_an_exit_it_asked_for_only_as_an_error() -> None:
    async def does(_: Call) -> None:
        sys.exit("enough")

    assert await outcome(MadeTool(does)) == Outcome(error="SystemExit: enough")
