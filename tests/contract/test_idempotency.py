"""Idempotency-Key: one message however often the POST is sent."""

import asyncio
from typing import Any

import pytest

from tests.support.caller import Caller, as_json, assert_problem, visible_text
from tests.support.processes import Stack
from tests.support.sse_reader import SseReader, sse_request

JSON = {"Content-Type": "application/json"}


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


def queued(stack: Stack) -> int:
    with stack.redis.client() as client:
        return int(client.zcard("rejoin:queue"))


async def test_the_same_key_and_body_give_the_first_answer_and_queue_nothing(
    idle_api: Caller, shared_idle_stack: Stack
) -> None:
    first = await idle_api.post("a", headers=key("repeated"))
    before = queued(shared_idle_stack)
    again = await idle_api.post("a", headers=key("repeated"))
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert queued(shared_idle_stack) == before


async def test_the_first_answer_is_given_after_the_end_too(api: Caller) -> None:
    first = await api.post("a", headers=key("after the end"))
    assert (await api.snapshot(first.json()["message_id"], wait=10))["status"] == "done"
    again = await api.post("a", headers=key("after the end"))
    assert (again.status_code, again.json()) == (202, first.json())


async def test_bodies_are_compared_as_parsed_json(idle_api: Caller) -> None:
    bodies = [
        b'{"model":"demo/echo","input":"\xc3\xa9","metadata":{"a":"b","c":"d"}}',
        b'{ "metadata": {"c": "d", "a": "b"},\n "input": "\\u00e9", "model": "demo\\/echo" }',
    ]
    ids = set()
    for body in bodies:
        response = await idle_api.http.post(
            "/api/messages", content=body, headers=JSON | key("parsed")
        )
        assert response.status_code == 202, response.text
        ids.add(response.json()["message_id"])
    assert len(ids) == 1


@pytest.mark.parametrize("other", [{"input": "b"}, {"temperature": 1}, {"metadata": {"a": "b"}}])
async def test_the_same_key_with_another_body_is_409(
    idle_api: Caller, other: dict[str, Any]
) -> None:
    name = key(f"conflict {sorted(other)}")
    first = await idle_api.post("a", headers=name)
    assert_problem(await idle_api.post("a", headers=name, **other), 409)
    again = await idle_api.post("a", headers=name)
    assert again.json() == first.json()


async def test_other_keys_and_no_key_give_other_messages(idle_api: Caller) -> None:
    sent: list[dict[str, str]] = [key("one"), key("two"), key("One"), {}, {}]
    ids = {(await idle_api.post("a", headers=name)).json()["message_id"] for name in sent}
    assert len(ids) == 5


async def test_one_key_sent_many_times_at_once_is_one_message(
    idle_api: Caller, shared_idle_stack: Stack
) -> None:
    before = queued(shared_idle_stack)
    responses = await asyncio.gather(
        *(idle_api.post("a", headers=key("at once")) for _ in range(20))
    )
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["message_id"] for response in responses}) == 1
    assert queued(shared_idle_stack) == before + 1


async def test_one_key_sent_to_two_apis_at_once_is_one_message(
    api: Caller, other_api: Caller
) -> None:
    speakers = [api, other_api] * 10
    responses = await asyncio.gather(
        *(speaker.post("a", headers=key("two apis")) for speaker in speakers)
    )
    assert len({response.json()["message_id"] for response in responses}) == 1


async def test_a_key_at_once_with_two_bodies_takes_one_of_them(idle_api: Caller) -> None:
    responses = await asyncio.gather(
        *(idle_api.post(text, headers=key("two bodies")) for text in ("a", "b") * 5)
    )
    taken = [response for response in responses if response.status_code == 202]
    refused = [response for response in responses if response.status_code == 409]
    assert (len(taken), len(refused)) == (5, 5)
    assert len({response.json()["message_id"] for response in taken}) == 1


@pytest.mark.parametrize("strange", ["é".encode(), b"\xff\xfe", b"{}", b"a" * 2000, b"*", b"a\tb"])
async def test_a_strange_key_is_a_key_or_refused(idle_api: Caller, strange: bytes) -> None:
    answers = [
        await idle_api.http.post(
            "/api/messages",
            content=as_json({"model": "demo/echo", "input": "a"}),
            headers=[(b"Content-Type", b"application/json"), (b"Idempotency-Key", strange)],
        )
        for _ in range(2)
    ]
    if answers[0].status_code == 202:
        assert answers[1].json() == answers[0].json()
    else:
        assert answers[0].status_code in (400, 422)


async def stream_of(
    api: Caller, name: str, text: str, last_event_id: str | None = None
) -> SseReader:
    headers = key(name)
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    url = str(api.http.base_url.join("/api/messages"))
    body = as_json({"model": "demo/echo?rate=0", "input": text})
    async with sse_request("POST", url, headers=headers, body=body) as stream:
        await stream.read_until_end()
    return stream


async def test_a_repeated_post_for_a_stream_is_the_same_messages_stream(api: Caller) -> None:
    first = await stream_of(api, "streamed", "once and again")
    again = await stream_of(api, "streamed", "once and again")
    assert (again.status, again.log_bytes()) == (200, first.log_bytes())
    assert visible_text(again.frames) == "once and again"


async def test_a_repeated_post_for_a_stream_goes_on_from_the_last_event_id(api: Caller) -> None:
    whole = await stream_of(api, "resumed", "from the middle on")
    for n, frame in enumerate(whole.frames[:-1]):
        rest = await stream_of(api, "resumed", "from the middle on", frame.id)
        assert rest.status == 200
        assert rest.log_bytes() == b"".join(later.raw for later in whole.frames[n + 1 :])


async def test_a_repeated_post_of_a_client_that_saw_the_end_is_204(api: Caller) -> None:
    whole = await stream_of(api, "seen", "to the end")
    seen = {"Accept": "text/event-stream", "Last-Event-ID": whole.frames[-1].id or ""}
    answer = await api.http.post(
        "/api/messages",
        json={"model": "demo/echo?rate=0", "input": "to the end"},
        headers=key("seen") | seen,
    )
    # An empty stream without an end event would make it come back for ever.
    assert (answer.status_code, answer.content) == (204, b"")
    message_id = whole.frames[0].data["message_id"]
    assert answer.headers["location"] == f"/api/messages/{message_id}"


async def test_a_key_used_for_202_then_streams_the_same_message(api: Caller) -> None:
    accepted = await api.post("both ways", headers=key("both"))
    stream = await stream_of(api, "both", "both ways")
    assert stream.frames[0].data["message_id"] == accepted.json()["message_id"]


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_post_with_a_position_and_no_known_key_is_400(
    idle_api: Caller, shared_idle_stack: Stack, accept: str
) -> None:
    before = queued(shared_idle_stack)
    asked, named = {"Last-Event-ID": "1-0", "Accept": accept}, key(f"never seen, {accept}")
    assert_problem(await idle_api.post("a", headers=asked), 400)
    assert_problem(await idle_api.post("a", headers=asked | named), 400)
    assert queued(shared_idle_stack) == before
    # Nor did the refused POST use up the key.
    assert (await idle_api.post("b", headers=named)).status_code == 202


async def test_a_repeated_post_for_a_stream_with_another_body_is_409(api: Caller) -> None:
    await stream_of(api, "streamed conflict", "a")
    headers = key("streamed conflict") | {"Accept": "text/event-stream"}
    assert_problem(await api.post("b", headers=headers), 409)
