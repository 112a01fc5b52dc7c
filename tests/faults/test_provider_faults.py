"""A provider that breaks in each of its ways: the log always ends, and says which way it was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.caller import Caller, Stopwatch, assert_whole_log, caller, visible_text
from tests.support.processes import Stack, rejoin_stack
from tests.support.provider_script import simulated_text
from tests.support.provider_server import ProviderServer
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import SseFrame, open_tail

KEY = "sk-test-secret-0123456789abcdefghij"
PASSWORD = "a-word-that-passes"


@asynccontextmanager
async def provided(redis: RedisServer) -> AsyncIterator[tuple[Stack, Caller, ProviderServer]]:
    """A stack whose `openai` is a server of ours."""
    async with ProviderServer(lists_models=True) as server:
        settings = {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": KEY,
            "REJOIN_TIMEOUT_IDLE": "2",
            "REJOIN_TIMEOUT_FIRST_TOKEN": "2.5",
            "REJOIN_LEASE_SECONDS": "1",
            "REJOIN_PROVIDER_RETRIES": "1",  # what each failure is, not how often it is met
        }
        with rejoin_stack(redis, settings=settings) as stack:
            async with caller(stack.url) as api:
                yield stack, api, server
            stack.assert_no_traceback()
            for process in (stack.api, stack.worker):
                assert KEY not in process.said()


async def ask(api: Caller, options: str) -> str:
    return await api.accepted("tell me", model=f"openai/sim?{options}")


FAULTS = {
    "words=10&fault=eof": {"provider_protocol"},
    "words=10&fault=drop": {"provider_unavailable", "provider_protocol"},
    "words=10&fault=reset": {"provider_unavailable", "provider_protocol"},
    "words=10&fault=stall": {"provider_timeout"},
    "words=10&fault=junk": {"provider_protocol"},
    "words=10&fault=error": {"provider_unavailable"},
    "fault=silent": {"provider_timeout"},
    "fault=empty": {"provider_protocol"},
    "fault=html": {"provider_protocol", "provider_unavailable"},
    "fault=context": {"context_length_exceeded"},
    "fault=400": {"invalid_request"},
    "fault=401": {"authentication"},
    "fault=403": {"authentication"},
    "fault=404": {"invalid_request"},
    "fault=429": {"rate_limited"},
    "fault=500": {"provider_unavailable"},
    "fault=503": {"provider_unavailable"},
}


async def assert_fails(api: Caller, options: str) -> None:
    message_id = await ask(api, options)
    frames = await api.log(message_id, within=15)
    assert_whole_log(frames)
    end = frames[-1]
    assert end.event == "failed", options
    assert end.data["code"] in FAULTS[options], f"{options}: {end.data}"
    if "fault=4" in options or "fault=5" in options:
        assert end.data["status"] == int(options[-3:]), f"{options}: {end.data}"
    assert KEY not in end.raw.decode()
    assert frames[-2].event == "usage", options
    text = visible_text(frames)
    assert simulated_text(10).startswith(text)
    if "words=10" in options:
        assert text == simulated_text(5), options
    seen = await api.snapshot(message_id)
    assert (seen["status"], seen["text"]) == ("failed", text)


async def test_every_fault_ends_the_log_with_its_code(own_redis: RedisServer) -> None:
    async with provided(own_redis) as (_, api, _server):
        await asyncio.gather(*(assert_fails(api, options) for options in FAULTS))


async def test_a_whole_answer_comes_through(own_redis: RedisServer) -> None:
    async with provided(own_redis) as (_, api, _server):
        for options in ("words=30", "words=30&split=1", "words=30&split=7&reasoning=5"):
            frames = await api.log(await ask(api, options))
            assert_whole_log(frames)
            assert visible_text(frames) == simulated_text(30)
            usage, done = frames[-2:]
            assert (usage.data["input_tokens"], usage.data["output_tokens"]) == (7, 30)
            assert usage.data["estimated"] is False
            assert done.data["finish_reason"] == "stop"
            thoughts = [frame for frame in frames if frame.event == "reasoning"]
            assert len(thoughts) == (5 if "reasoning" in options else 0)


@pytest.mark.parametrize("options", ["fault=silent", "words=10&fault=stall", "words=500&rate=20"])
async def test_a_cancel_closes_the_providers_connection(
    own_redis: RedisServer, options: str
) -> None:
    async with provided(own_redis) as (_, api, server):
        message_id = await ask(api, options)
        async with open_tail(api.events(message_id)) as tail:
            request = await server.request()
            if "words" in options:
                await tail.read_n(4)
            watch = Stopwatch()
            assert (await api.cancel(message_id)).status_code == 202
            frames = await tail.read_until_end(within=3)
            assert watch.seconds < 1.5
            await asyncio.wait_for(request.disconnected.wait(), 2)
    assert_whole_log(frames)
    assert frames[-1].data["finish_reason"] == "cancelled"
    assert frames[-2].event == "usage"
    assert simulated_text(500).startswith(visible_text(frames))


async def test_nobody_listening_does_not_close_the_providers_connection(
    own_redis: RedisServer,
) -> None:
    async with provided(own_redis) as (_, api, _server):
        message_id = await ask(api, "words=40&rate=40")
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(3)
        frames: list[SseFrame] = await api.log(message_id)
        assert visible_text(frames) == simulated_text(40)


async def test_a_killed_workers_call_is_made_again_by_the_next(own_redis: RedisServer) -> None:
    async with provided(own_redis) as (stack, api, server):
        message_id = await ask(api, "words=60&rate=30")
        async with open_tail(api.events(message_id)) as tail:
            await tail.read_n(10)
            stack.worker.kill()
            await asyncio.to_thread(stack.worker.start)  # in a thread: our provider goes on
            frames = await tail.read_until_end(within=20)
        assert_whole_log(frames)
        assert frames[-1].event == "done", frames[-1]
        assert visible_text(frames) == simulated_text(60)
        assert len(server.requests) == 2
        usage = frames[-2].data
        # The provider bills both calls; the first never reported what it used.
        assert usage["estimated"] is True
        assert usage["input_tokens"] > 7
        assert usage["output_tokens"] > 60


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_a_password_in_the_providers_address_is_not_logged(
    own_redis: RedisServer, level: str
) -> None:
    async with ProviderServer() as server:
        address = server.base_url.replace("//", f"//somebody:{PASSWORD}@")
        settings = {"OPENAI_BASE_URL": address, "REJOIN_LOG_LEVEL": level}
        with rejoin_stack(own_redis, settings=settings) as stack:
            async with caller(stack.url) as api:
                frames = await api.log(await ask(api, "words=3"))
                assert frames[-1].event == "done"
            assert PASSWORD not in stack.worker.said()
