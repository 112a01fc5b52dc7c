"""GET /api/messages/{id}/events: the log as it is written, from any position."""

import asyncio
import contextlib
import json
import re
from datetime import datetime
from functools import partial

import pytest

from tests.support.caller import (
    UNKNOWN_ID,
    Caller,
    assert_problem,
    assert_whole_log,
    until,
    visible_text,
)
from tests.support.processes import Stack
from tests.support.sse_reader import RetryField, SseFrame, SseReader, open_tail, sse_request

TEXTS = [
    "plain words in a row",
    "a",
    "naïve café — “quotes” ¡olé!",
    "emoji 👩‍👩‍👧‍👦 flag 🇩🇪 skin 👍🏽 face 😀",
    "日本語 العربية עברית हिन्दी",
    "combining e\u0301 and \u1e9e",
    "lines\nand\r\nmore\rlines\n\n\nend\n",
    "separators\u2028and\u2029and\x85and\x0b\x0cend",
    "controls \x00\x01\x07\x1b\x7f end",
    "tabs\tand  many   spaces    ",
    '"quotes" and \\backslashes\\ and \\n and \\u0041 /slashes/',
    "\ufeffmark at the start and \ufffd in the middle \uffff\U0010ffff",
    "  leading white space",
    "data: x\nid: 9-9\nevent: done\n\nretry: 1\n\n: comment\n\n",
    "x" * 100_000,
    "😀" * 5000 + " " + "é " * 2000,
]


def joined(frames: list[SseFrame]) -> bytes:
    return b"".join(frame.raw for frame in frames)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_the_text_is_the_input_byte_for_byte(api: Caller, text: str) -> None:
    frames = await api.log(await api.accepted(text))
    assert_whole_log(frames)
    assert visible_text(frames).encode() == text.encode()
    assert frames[-1].data == {"finish_reason": "stop", "text_chars": len(text)}


async def test_text_is_not_escaped_to_ascii(api: Caller) -> None:
    frames = await api.log(await api.accepted("é日😀"))
    assert "é日😀".encode() in joined(frames)


async def test_a_log_is_start_text_step_usage_and_done(api: Caller) -> None:
    frames = await api.log(await api.accepted("one two"))
    names = [frame.event for frame in frames]
    assert names == ["start", "text", "text", "step", "usage", "done"]
    assert [frame.id for frame in frames] == [f"1-{n}" for n in range(6)]


async def test_start_says_what_it_is_the_start_of(api: Caller) -> None:
    accepted = (await api.post("a")).json()
    start = (await api.log(accepted["message_id"]))[0].data
    assert set(start) == {"message_id", "conversation_id", "model", "attempt", "created_at"}
    assert start["message_id"] == accepted["message_id"]
    assert start["conversation_id"] == accepted["conversation_id"]
    assert start["model"].startswith("demo/echo")
    assert start["attempt"] == 1
    assert datetime.fromisoformat(start["created_at"]).tzinfo is not None


async def test_step_and_usage_have_the_contracts_fields(api: Caller) -> None:
    *_, step, usage, _ = await api.log(await api.accepted("a b c"))
    assert step.data == {"step": 1, "finish_reason": "stop"}
    counts = {"input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens"}
    assert set(usage.data) == counts | {"cost_usd", "estimated"}
    assert all(type(usage.data[name]) is int and usage.data[name] >= 0 for name in counts)
    cost = usage.data["cost_usd"]
    assert cost is None or re.fullmatch(r"\d+(\.\d+)?", cost)
    assert usage.data["estimated"] is False


async def test_the_headers_keep_proxies_from_holding_events_back(api: Caller) -> None:
    async with open_tail(api.events(await api.accepted())) as tail:
        await tail.read_until_end()
    assert tail.headers["content-type"].startswith("text/event-stream")
    cache = {part.strip() for part in tail.headers["cache-control"].split(",")}
    assert {"no-cache", "no-transform"} <= cache
    assert tail.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in tail.headers


async def test_a_stream_says_once_and_first_when_to_come_back(api: Caller) -> None:
    async with open_tail(api.events(await api.accepted())) as tail:
        await tail.read_until_end()
    assert tail.retries == [RetryField(1000)]
    first_event = next(n for n, item in enumerate(tail.items) if isinstance(item, SseFrame))
    assert RetryField(1000) in tail.items[:first_event]


async def test_silence_is_filled_with_comments(idle_api: Caller) -> None:
    async with open_tail(idle_api.events(await idle_api.accepted())) as tail:
        await tail.read_comments(3, within=4)
        assert tail.frames == []


async def test_events_come_while_the_message_is_written(api: Caller) -> None:
    async with api.tailed("live " * 100, rate=10) as (message_id, tail):
        await tail.read_n(3)
        assert (await api.snapshot(message_id))["status"] == "streaming"
    await api.cancel(message_id)


async def test_many_tails_of_one_message_get_the_same_bytes(api: Caller) -> None:
    message_id = await api.accepted("many eyes on one text " * 3, rate=50)
    logs = await asyncio.gather(*(api.log(message_id) for _ in range(30)))
    assert len({joined(log) for log in logs}) == 1
    assert joined(await api.log(message_id)) == joined(logs[0])


async def test_from_every_position_exactly_the_rest_is_sent(api: Caller) -> None:
    message_id = await api.accepted("some words\nto go on from, é and 😀")
    whole = await api.log(message_id)
    for n, frame in enumerate(whole[:-1]):
        async with open_tail(api.events(message_id), last_event_id=frame.id) as tail:
            await tail.read_until_end()
        assert tail.log_bytes() == joined(whole[n + 1 :])
        url = f"{api.events(message_id)}?last_event_id={frame.id}"
        async with open_tail(url) as tail:
            await tail.read_until_end()
        assert tail.log_bytes() == joined(whole[n + 1 :])


async def test_a_position_before_the_first_event_is_the_start(api: Caller) -> None:
    message_id = await api.accepted()
    whole = await api.log(message_id)
    async with open_tail(api.events(message_id), last_event_id="0-7") as tail:
        assert joined(await tail.read_until_end()) == joined(whole)


async def test_the_header_wins_over_the_query(api: Caller) -> None:
    message_id = await api.accepted()
    whole = await api.log(message_id)
    url = f"{api.events(message_id)}?last_event_id=1-0"
    async with open_tail(url, last_event_id="1-2") as tail:
        assert joined(await tail.read_until_end()) == joined(whole[3:])


RUBBISH = ["x", "1", "1-", "-1", "1-0-0", "1-x", "1_0", "1.0-0", "+1-0", "0x1-0", "1- 0", "$", "*"]


@pytest.mark.parametrize("rubbish", [*RUBBISH, "9" * 4000, "1-0;1-1", "%00", "null"])
async def test_a_position_of_another_form_is_400(api: Caller, rubbish: str) -> None:
    message_id = await api.accepted()
    for accept in ("text/event-stream", "application/json"):
        address = f"/api/messages/{message_id}/events"
        header = {"Accept": accept, "Last-Event-ID": rubbish}
        assert_problem(await api.http.get(address, headers=header), 400)
        query = await api.http.get(
            address, params={"last_event_id": rubbish}, headers={"Accept": accept}
        )
        assert_problem(query, 400)


async def test_white_space_around_the_header_is_none_of_the_position(api: Caller) -> None:
    message_id = await api.accepted()
    await api.log(message_id)
    headers = {"Last-Event-ID": "  1-1 \t "}
    async with sse_request("GET", api.events(message_id), headers=headers) as tail:
        assert tail.status == 200
        assert (await tail.read_until_end())[0].id == "1-2"


async def test_bytes_that_are_no_text_are_no_position(api: Caller) -> None:
    message_id = await api.accepted()
    for raw in (b"\xff\xfe", "\uff11-\uff10".encode(), b"1-\xb2"):
        response = await api.http.get(
            f"/api/messages/{message_id}/events", headers=[(b"Last-Event-ID", raw)]
        )
        assert_problem(response, 400)


async def test_rubbish_in_the_header_is_400_whatever_the_query_says(api: Caller) -> None:
    message_id = await api.accepted()
    response = await api.http.get(
        f"/api/messages/{message_id}/events?last_event_id=1-0", headers={"Last-Event-ID": "x"}
    )
    assert_problem(response, 400)


@pytest.mark.parametrize(
    "message_id",
    [UNKNOWN_ID, "abc", "0", "*", "%00", "%ff", "..%2f..", "{x}", UNKNOWN_ID + "0", "a" * 3000],
)
async def test_an_unknown_message_is_404(api: Caller, message_id: str) -> None:
    for accept in ("text/event-stream", "application/json"):
        response = await api.http.get(
            f"/api/messages/{message_id}/events", headers={"Accept": accept}
        )
        assert_problem(response, 404)


async def test_a_client_that_saw_the_end_gets_204(api: Caller) -> None:
    message_id = await api.accepted()
    end = (await api.log(message_id))[-1].id
    assert end is not None
    address = f"/api/messages/{message_id}/events"
    by_header = await api.http.get(address, headers={"Last-Event-ID": end})
    by_query = await api.http.get(address, params={"last_event_id": end})
    assert (by_header.status_code, by_header.content) == (204, b"")
    assert (by_query.status_code, by_query.content) == (204, b"")


async def assert_position_unknown(api: Caller, message_id: str, position: str) -> None:
    async with open_tail(api.events(message_id), last_event_id=position) as tail:
        reset, *rest = await tail.read_until_end()
    assert (reset.event, reset.id) == ("reset", None)
    assert (reset.data["after"], reset.data["reason"]) == (None, "position_unknown")
    assert joined(rest) == joined(await api.log(message_id))


@pytest.mark.parametrize(
    "position", ["1-6", "1-999", "2-0", "7-3", f"{2**64 - 1}-{2**64 - 1}", f"1-{2**64 - 1}"]
)
async def test_a_position_later_than_the_log_is_reset_and_all_is_sent(
    api: Caller, position: str
) -> None:
    await assert_position_unknown(api, await api.accepted("one two"), position)


async def test_another_messages_position_is_reset_where_it_is_later(api: Caller) -> None:
    longer = await api.log(await api.accepted("a longer one than the other message is"))
    shorter = await api.accepted("short")
    last = longer[-1].id
    assert last is not None
    await assert_position_unknown(api, shorter, last)


async def test_a_position_beyond_what_redis_can_hold_is_refused_or_reset(api: Caller) -> None:
    message_id = await api.accepted()
    for position in (f"{2**64}-0", f"1-{2**64}", "9" * 20 + "-0"):
        async with sse_request(
            "GET", api.events(message_id), headers={"Last-Event-ID": position}
        ) as tail:
            assert tail.status in (200, 400)
            if tail.status == 200:
                assert (await tail.read_n(1))[0].data["reason"] == "position_unknown"


async def test_a_position_later_than_a_running_log_is_reset_at_once(api: Caller) -> None:
    async with api.tailed("still running " * 20, rate=20) as (message_id, first):
        await first.read_n(3)
        async with open_tail(api.events(message_id), last_event_id="1-5000") as tail:
            reset, start = await tail.read_n(2, within=1)
            assert (reset.id, reset.data["reason"]) == (None, "position_unknown")
            assert start.event == "start"
            await api.cancel(message_id)
            rest = (await tail.read_until_end())[1:]
    assert joined(rest) == joined(await api.log(message_id))


async def test_a_position_in_a_queued_message_is_reset_at_once(idle_api: Caller) -> None:
    message_id = await idle_api.accepted()
    async with open_tail(idle_api.events(message_id), last_event_id="1-3") as tail:
        (reset,) = await tail.read_n(1, within=2)
        assert (reset.id, reset.data["after"]) == (None, None)
        assert reset.data["reason"] == "position_unknown"
        assert (await idle_api.cancel(message_id)).status_code == 202
        frames = await tail.read_until_end()
    assert [frame.event for frame in frames] == ["reset", "start", "usage", "done"]


async def test_a_head_request_opens_no_stream(idle_api: Caller, shared_idle_stack: Stack) -> None:
    message_id = await idle_api.accepted()
    async with asyncio.timeout(3):
        response = await idle_api.http.head(f"/api/messages/{message_id}/events")
    assert response.status_code in (200, 204, 405)
    with shared_idle_stack.redis.client() as client:
        channel = f"rejoin:{{{message_id}}}:live"
        assert client.pubsub_numsub(channel) == [(channel.encode(), 0)]


async def test_a_head_request_for_an_unknown_message_is_not_200(api: Caller) -> None:
    response = await api.http.head(f"/api/messages/{UNKNOWN_ID}/events")
    assert response.status_code in (404, 405)
    assert response.content == b""


async def test_a_client_that_left_is_not_listened_for(
    idle_api: Caller, shared_idle_stack: Stack
) -> None:
    message_id = await idle_api.accepted()
    channel = f"rejoin:{{{message_id}}}:live"
    with shared_idle_stack.redis.client() as client:

        async def listened(times: int) -> bool:
            return bool(client.pubsub_numsub(channel) == [(channel.encode(), times)])

        async with open_tail(idle_api.events(message_id)):
            await until(lambda: listened(1))
        await until(lambda: listened(0))


async def test_a_stream_may_end_early_with_a_retry_and_is_gone_on_with(
    other_api: Caller,
) -> None:
    text = "longer than one stream may be " * 5
    message_id = await other_api.accepted(text, rate=20)
    frames: list[SseFrame] = []
    streams = 0
    while not frames or frames[-1].event != "done":
        streams += 1
        assert streams < 10
        position = frames[-1].id if frames else None
        async with open_tail(other_api.events(message_id), last_event_id=position) as tail:
            frames += await tail.read_until_end(within=5)
        if not tail.saw_end:
            assert len(tail.retries) == 2
            assert isinstance(tail.items[-1], RetryField)
    assert streams > 1
    assert_whole_log(frames)
    assert visible_text(frames) == text


async def test_a_slow_reader_gets_everything(api: Caller) -> None:
    """2 MB, far more than waits for one client: its queue is dropped and read from the log."""
    text = ("x" * 999 + " ") * 1000
    async with api.tailed(text[:900_000]) as (message_id, tail):
        await tail.read_n(1)
        await api.snapshot(message_id, wait=10)  # the reader reads nothing meanwhile
        frames = await tail.read_until_end()
    assert_whole_log(frames)
    assert visible_text(frames) == text[:900_000]


async def test_frames_hold_one_line_of_compact_or_spaced_json(api: Caller) -> None:
    for frame in await api.log(await api.accepted("a\nb c")):
        _, data, _ = frame.raw.decode().removesuffix("\n\n").split("\n")
        assert json.loads(data.removeprefix("data: ")) == frame.data


def has_three(tail: SseReader) -> bool:
    """Whether a tail has read three events."""
    return len(tail.frames) >= 3


async def test_tails_that_are_cut_and_come_back_often_lose_nothing(api: Caller) -> None:
    text = "again and again and again " * 10
    message_id = await api.accepted(text, rate=50)
    frames: list[SseFrame] = []
    async with asyncio.timeout(20):
        while not frames or frames[-1].event != "done":
            position = frames[-1].id if frames else None
            async with open_tail(api.events(message_id), last_event_id=position) as tail:
                with contextlib.suppress(TimeoutError):
                    await tail.until(partial(has_three, tail), within=0.1)
            frames += tail.frames
    assert joined(frames) == joined(await api.log(message_id))
    assert visible_text(frames) == text
