"""POST /api/messages: what is taken, and what the answer says."""

import asyncio

import pytest

from tests.support.caller import (
    MESSAGE_ID,
    Caller,
    Stopwatch,
    as_json,
    assert_names,
    assert_problem,
    assert_whole_log,
    visible_text,
)
from tests.support.sse_reader import Comment, sse_request

SSE = {"Accept": "text/event-stream"}


async def test_an_accepted_message_says_where_it_is(idle_api: Caller) -> None:
    response = await idle_api.post("hello")
    assert response.status_code == 202
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"message_id", "conversation_id", "status", "links"}
    assert MESSAGE_ID.fullmatch(body["message_id"])
    assert isinstance(body["conversation_id"], str)
    assert body["conversation_id"]
    assert body["status"] == "queued"
    assert set(body["links"]) == {"self", "events", "cancel"}


async def test_its_links_and_location_lead_to_it(idle_api: Caller) -> None:
    response = await idle_api.post("hello")
    body = response.json()
    http = idle_api.http
    for address in (body["links"]["self"], response.headers["location"]):
        found = await http.get(address)
        assert (found.status_code, found.json()["id"]) == (200, body["message_id"])
    page = await http.get(body["links"]["events"], headers={"Accept": "application/json"})
    assert page.json() == {"events": [], "next": None, "ended": False}
    assert (await http.post(body["links"]["cancel"])).status_code == 202


async def test_each_message_has_ids_of_its_own(idle_api: Caller) -> None:
    bodies = [(await idle_api.post("same")).json() for _ in range(5)]
    assert len({body["message_id"] for body in bodies}) == 5
    assert len({body["conversation_id"] for body in bodies}) == 5


async def test_later_messages_have_later_ids(idle_api: Caller) -> None:
    """UUIDv7: they sort by time, as far as a millisecond tells them apart."""
    ids = [await idle_api.accepted() for _ in range(5)]
    times = [message_id[:13] for message_id in ids]
    assert times == sorted(times)


async def test_the_input_is_echoed(api: Caller) -> None:
    message_id = await api.accepted("tell me")
    assert visible_text(await api.log(message_id)) == "tell me"


async def test_the_last_user_turn_of_messages_is_echoed(api: Caller) -> None:
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": "second"},
    ]
    response = await api.http.post(
        "/api/messages", json={"model": "demo/echo?rate=0", "messages": turns}
    )
    assert response.status_code == 202, response.text
    assert visible_text(await api.log(response.json()["message_id"])) == "second"


async def test_an_empty_input_gets_a_text_of_the_echos_own(api: Caller) -> None:
    message_id = await api.accepted("")
    assert visible_text(await api.log(message_id)).strip()


async def test_the_echo_sends_a_chunk_a_word_with_its_white_space(api: Caller) -> None:
    message_id = await api.accepted("one two  three\n\nfour\t five")
    frames = await api.log(message_id)
    texts = [frame.data["text"] for frame in frames if frame.event == "text"]
    assert texts == ["one ", "two  ", "three\n\n", "four\t ", "five"]


async def test_every_field_of_this_version_is_taken(api: Caller) -> None:
    message_id = await api.accepted(
        "all of it",
        system="be kind",
        temperature=0.5,
        top_p=0.9,
        max_tokens=100,
        stop=["END"],
        reasoning_effort="low",
        metadata={"a": "b", "c": "é"},
    )
    assert_whole_log(await api.log(message_id))


async def test_content_types_with_a_charset_are_json(idle_api: Caller) -> None:
    response = await idle_api.http.post(
        "/api/messages",
        content=as_json({"model": "demo/echo", "input": "a"}),
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert response.status_code == 202, response.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, */*;q=0.1"])
async def test_who_does_not_ask_for_a_stream_gets_202(idle_api: Caller, accept: str) -> None:
    assert (await idle_api.post(headers={"Accept": accept})).status_code == 202


async def test_without_a_model_and_without_a_default_the_model_is_named(
    idle_api: Caller,
) -> None:
    response = await idle_api.http.post("/api/messages", json={"input": "a"})
    assert_names(assert_problem(response, 422), "model")


async def test_without_a_model_the_default_answers(other_api: Caller) -> None:
    response = await other_api.http.post("/api/messages", json={"input": "by default"})
    assert response.status_code == 202, response.text
    assert visible_text(await other_api.log(response.json()["message_id"])) == "by default"


async def test_a_post_that_asks_for_a_stream_gets_the_stream(api: Caller) -> None:
    body = as_json({"model": "demo/echo?rate=0", "input": "streamed at once"})
    url = str(api.http.base_url.join("/api/messages"))
    async with sse_request("POST", url, headers=SSE, body=body) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        frames = await stream.read_until_end()
    assert_whole_log(frames)
    assert visible_text(frames) == "streamed at once"
    message_id = frames[0].data["message_id"]
    found = await api.http.get(stream.headers["location"])
    assert found.json()["id"] == message_id
    again = await api.log(message_id)
    assert [frame.raw for frame in again] == [frame.raw for frame in frames]


async def test_a_posted_stream_says_something_while_the_message_is_queued(
    idle_api: Caller,
) -> None:
    body = as_json({"model": "demo/echo", "input": "nobody comes"})
    url = str(idle_api.http.base_url.join("/api/messages"))
    watch = Stopwatch()
    async with sse_request("POST", url, headers=SSE, body=body) as stream:
        assert (stream.status, stream.frames) == (200, [])
        location = stream.headers["location"]
        await stream.read_comments(1, within=0.4)  # the first keep-alive comes after 0.5 s
        assert isinstance(stream.comments[0], Comment)
    assert watch.seconds < 2
    found = (await idle_api.http.get(location)).json()
    assert found["status"] == "queued"


async def test_leaving_a_posted_stream_cancels_nothing(api: Caller) -> None:
    text = "this goes on without you " * 4
    body = as_json({"model": "demo/echo?rate=50", "input": text})
    url = str(api.http.base_url.join("/api/messages"))
    async with sse_request("POST", url, headers=SSE, body=body) as stream:
        (start, *_) = await stream.read_n(3)
    frames = await api.log(start.data["message_id"])
    assert_whole_log(frames)
    assert visible_text(frames) == text
    assert frames[-1].data["finish_reason"] == "stop"


async def test_many_posts_at_once_are_all_answered(api: Caller) -> None:
    ids = await asyncio.gather(*(api.accepted(f"number {n}") for n in range(40)))
    logs = await asyncio.gather(*(api.log(message_id) for message_id in ids))
    assert [visible_text(log) for log in logs] == [f"number {n}" for n in range(40)]
