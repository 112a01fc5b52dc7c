"""kill -9 of the worker at every event of an agent: it goes on from the last checkpoint."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import stopping_agent
from tests.support.caller import Caller, assert_whole_log, caller, data_of, until, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import SseReader, open_tail

AGENTS = {"REJOIN_AGENTS": str(Path(stopping_agent.__file__))}
EVENTS = 4 * stopping_agent.PARTS
TEXT = "0a 0b 1a 1b 2a 2b "


async def until_known(api: Caller) -> None:
    """Wait until the worker has told of its agents."""

    async def known() -> bool:
        models = (await api.http.get("/api/models")).json()["models"]
        return any(model["id"] == "agent/parts" for model in models)

    await until(known)


async def test_it_is_called_again_with_its_last_checkpoint_at_whatever_event_it_was_killed(
    stack: Stack,
) -> None:
    stack.worker.terminate()
    worker = stack.new_worker(**AGENTS).start()
    async with caller(stack.url) as api, AsyncExitStack() as tails:
        await until_known(api)
        # One message for each event, all stopped there by the same kill, each with a reader.
        tail_of: dict[int, tuple[str, SseReader]] = {}
        for stop_at in range(EVENTS):
            posted = await api.post(model="agent/parts", metadata={"stop_at": str(stop_at)})
            assert posted.status_code == 202, posted.text
            message_id = posted.json()["message_id"]
            tail = await tails.enter_async_context(open_tail(api.events(message_id)))
            tail_of[stop_at] = message_id, tail
        for stop_at, (_, tail) in tail_of.items():
            await tail.read_n(stop_at + 1)
        worker.kill()
        worker.start()
        for stop_at, (message_id, tail) in tail_of.items():
            frames = await tail.read_until_end(within=30)
            assert_whole_log(frames)
            (reset,) = data_of(frames, "reset")
            steps = stop_at // 4
            assert reset["after"] == (f"1-{4 * steps}" if steps else None), stop_at
            said = f"{TEXT}from {steps} at {reset['attempt']}"
            assert visible_text(frames) == said, stop_at
            assert frames[-1].event == "done", stop_at
            assert (await api.snapshot(message_id))["text"] == said, stop_at


async def test_sigterm_hands_an_agent_over_within_its_grace(stack: Stack) -> None:
    stack.worker.terminate()
    worker = stack.new_worker(**AGENTS).start()
    other = stack.new_worker(**AGENTS)
    async with caller(stack.url) as api:
        await until_known(api)
        posted = await api.post(model="agent/parts", metadata={"stop_at": "5"})
        message_id = posted.json()["message_id"]

        async def there() -> bool:
            return len((await api.page(message_id))["events"]) == 6

        await until(there)
        assert worker.terminate() == 0
        other.start()
        frames = await api.log(message_id)
    assert visible_text(frames).startswith(f"{TEXT}from 1 at ")
    assert [reset["after"] for reset in data_of(frames, "reset")] == ["1-4"]


@pytest.mark.parametrize("wrong", ["no_such_file.py", "json"])
async def test_a_worker_without_the_agents_that_it_is_to_have_says_so_and_does_not_start(
    stack: Stack, wrong: str
) -> None:
    worker = stack.new_worker(REJOIN_AGENTS=wrong).launch()
    assert worker.wait() == 2
    assert "REJOIN_AGENTS" in worker.said()
