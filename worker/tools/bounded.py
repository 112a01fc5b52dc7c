"""Runs one call of a tool within its bounds: time, size of the result, whatever it may raise."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from rejoin.shared.errors import ToolError
from rejoin.worker.tools.base import Call, Report, Tool
from rejoin.worker.tools.plain import NotPlain, plain

MOST_ERROR_CHARS: Final = 2000

_STOP_SECONDS: Final = 0.5  # to clean up in; a cancelled message is to end within a second
_MOST_NAME_CHARS: Final = 200

_log = logging.getLogger(__name__)

# Whatever does not heed its cancellation in time goes on here; asyncio alone would forget it.
_running: set[asyncio.Task["Outcome"]] = set()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: `error` is the text for the model, None where there is a result.

    `result` is plain JSON, and may be None too.
    """

    result: object = None
    error: str | None = None


async def run_bounded(
    tool: Tool, arguments: Mapping[str, object], call: Call, *, most_bytes: int
) -> Outcome:
    """Run a call and return how it ended, also where it failed, ran over its time or said too much.

    Cancelled, it cancels the tool and goes on half a second later at the latest; a tool that takes
    longer to stop is heard no more, neither its result nor its reports.
    """
    gate = _Gate(call.report, most_bytes)
    heard = replace(call, report=gate.report)
    task = asyncio.create_task(_run(tool, arguments, heard, most_bytes))
    _running.add(task)
    task.add_done_callback(_running.discard)
    try:
        await asyncio.wait([task], timeout=tool.timeout_seconds)
    except asyncio.CancelledError:
        gate.close()
        await _stop(task, tool)
        raise
    gate.close()
    if not task.done():
        await _stop(task, tool)
        return Outcome(error=f"timed out: no result within {tool.timeout_seconds:g} seconds")
    if task.cancelled():
        return Outcome(error="the tool cancelled itself")
    return task.result()


async def _run(tool: Tool, arguments: Mapping[str, object], call: Call, most_bytes: int) -> Outcome:
    try:
        returned = await tool.run(arguments, call)
    except asyncio.CancelledError:
        raise
    except ToolError as error:
        return Outcome(error=_text(error))
    except BaseException as error:  # noqa: BLE001  sys.exit() in a tool must not end the worker
        _log.warning("the tool %s failed (%s)", tool.name, call.idempotency_key, exc_info=error)
        return Outcome(error=_told(error))
    try:
        return Outcome(result=plain(returned, most_bytes=most_bytes))
    except NotPlain as error:
        return Outcome(error=f"the tool's result is {_text(error)}")
    except Exception as error:  # noqa: BLE001  a serializer of the tool's own may raise anything
        _log.warning("the result of the tool %s is unfit", tool.name, exc_info=error)
        return Outcome(error=f"the tool's result is not JSON: {_told(error)}")


async def _stop(task: asyncio.Task[Outcome], tool: Tool) -> None:
    # Once: a second one would interrupt what the tool does to clean up.
    task.cancel()
    await asyncio.wait([task], timeout=_STOP_SECONDS)
    if not task.done():
        _log.warning("the tool %s was told to stop and goes on, unheard", tool.name)


class _Gate:
    """Passes on what a call reports until the call is over; from any thread."""

    def __init__(self, report: Report, most_bytes: int) -> None:
        self._report = report
        self._most_bytes = most_bytes
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def close(self) -> None:
        """Drop whatever comes from now on."""
        self._open = False

    def report(self, name: str, value: object) -> None:
        """Tell clients of progress.

        Raises:
            ToolError: the name is no text of 1 to 200 characters, or the value is not JSON, or
                too long.
        """
        try:
            plain(name, most_bytes=self._most_bytes)
            held = plain(value, most_bytes=self._most_bytes)
        except NotPlain as error:
            raise ToolError(f"the tool's report {name!r:.200} is {error}") from error
        if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME_CHARS:
            raise ToolError(f"a report's name is a text of 1 to {_MOST_NAME_CHARS} characters")
        if threading.get_ident() == self._thread:
            self._pass(name, held)
            return
        with contextlib.suppress(RuntimeError):  # the worker has stopped: nobody listens
            self._loop.call_soon_threadsafe(self._pass, name, held)

    def _pass(self, name: str, value: object) -> None:
        if self._open:
            self._report(name, value)


def _told(error: BaseException) -> str:
    """An exception as the model is told of it: its class and its text; of a group, each one's."""
    if isinstance(error, BaseExceptionGroup):
        return _cut("; ".join(_told(inner) for inner in error.exceptions))
    text = _text(error)
    return _cut(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _text(error: BaseException) -> str:
    try:
        return _cut(str(error))
    except Exception:  # noqa: BLE001  its own __str__ may be broken
        return ""


def _cut(text: str) -> str:
    # Half a surrogate pair, as in a file's name, fits no log.
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MOST_ERROR_CHARS else f"{text[:MOST_ERROR_CHARS]} …"
