"""POST /api/messages: every line of the contract's error list, and what else callers send."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.caller import (
    UNKNOWN_ID,
    Caller,
    assert_names,
    assert_problem,
    assert_try_later,
    caller,
    visible_text,
)
from tests.support.processes import rejoin_stack
from tests.support.redis_server import RedisServer
from tests.support.sse_reader import sse_request

JSON = {"Content-Type": "application/json"}
USER = {"role": "user", "content": "a"}


async def send(api: Caller, content: bytes, **headers: str) -> Any:
    return await api.http.post("/api/messages", content=content, headers=JSON | headers)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"   ",
        b"{",
        b'{"input": "a",}',
        b"{'input': 'a'}",
        b'{"input": "a"} x',
        b'{"input": "\x01"}',
        b'{"input": "a\nb"}',
        b'{"input": "\\x"}',
        b'{"model": "demo/echo", "input": "\xff\xfe"}',
        b'{"model": "demo/echo", "input": "\xed\xa0\x80"}',
        b'{"model": "demo/echo", "input": "a", "temperature": NaN}',
        b'{"model": "demo/echo", "input": "a", "temperature": Infinity}',
        b'{"model": "demo/echo", "input": "a", "temperature": -Infinity}',
        '{"model": "demo/echo", "input": "a"}'.encode("utf-16"),
    ],
)
async def test_malformed_json_is_400(idle_api: Caller, content: bytes) -> None:
    assert_problem(await send(idle_api, content), 400)


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [2000, 100_000])
async def test_deep_nesting_is_400(idle_api: Caller, depth: int, pair: tuple[str, str]) -> None:
    nested = pair[0] * depth + "1" + pair[1] * depth
    content = f'{{"model": "demo/echo", "input": {nested}}}'.encode()
    assert_problem(await send(idle_api, content), 400)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000, "1" + "0" * 400])
@pytest.mark.parametrize("field", ["temperature", "top_p", "max_tokens"])
async def test_numbers_beyond_any_measure_are_refused(
    idle_api: Caller, field: str, number: str
) -> None:
    content = f'{{"model": "demo/echo", "input": "a", "{field}": {number}}}'.encode()
    response = await send(idle_api, content)
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


@pytest.mark.parametrize(
    "field",
    [
        '"tools": [{"name": "a", "description": "b", "parameters": SCHEMA}]',
        '"response_format": {"type": "json_schema", "json_schema": {"name": "a","schema": SCHEMA}}',
    ],
)
async def test_numbers_that_no_json_could_pass_on_are_refused(idle_api: Caller, field: str) -> None:
    field = field.replace("SCHEMA", '{"minimum": -1e999}')
    content = f'{{"model": "demo/echo", "input": "a", {field}}}'.encode()
    assert_problem(await send(idle_api, content), 400)


@pytest.mark.parametrize("content", [b"[]", b'"a"', b"5", b"null", b"true", b"[{}]"])
async def test_json_that_is_no_object_is_refused(idle_api: Caller, content: bytes) -> None:
    response = await send(idle_api, content)
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


async def test_a_body_over_the_limit_is_413(idle_api: Caller) -> None:
    content = b'{"model": "demo/echo", "input": "' + b"a" * 2_000_000 + b'"}'
    assert_problem(await send(idle_api, content), 413)


async def test_a_body_over_the_limit_without_a_length_is_413(idle_api: Caller) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"model": "demo/echo", "input": "'
        for _ in range(200):
            yield b"a" * 10_000
        yield b'"}'

    response = await idle_api.http.post("/api/messages", content=parts(), headers=JSON)
    assert_problem(response, 413)


async def test_a_body_that_only_claims_to_be_large_is_413_at_once(idle_api: Caller) -> None:
    url = str(idle_api.http.base_url.join("/api/messages"))
    headers = {"Content-Length": "2000000", **JSON, "Accept": "*/*"}
    async with sse_request("POST", url, headers=headers, within=3) as response:
        assert response.status == 413


async def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(
    other_api: Caller,
) -> None:
    head, tail = b'{"input": "', b'"}'
    exact = head + b"a" * (2000 - len(head) - len(tail)) + tail
    assert (await send(other_api, exact)).status_code == 202
    assert_problem(await send(other_api, exact + b" "), 413)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "jsonx", None],
)
async def test_a_body_that_is_not_called_json_is_415(
    idle_api: Caller, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await idle_api.http.post(
        "/api/messages", content=b'{"model": "demo/echo", "input": "a"}', headers=headers
    )
    assert_problem(response, 415)


WRONG = [
    ("model", 5),
    ("model", ["demo/echo"]),
    ("model", {"name": "demo/echo"}),
    ("input", 5),
    ("input", True),
    ("input", {"text": "a"}),
    ("system", 5),
    ("system", ["a"]),
    ("temperature", "hot"),
    ("temperature", [1]),
    ("top_p", "much"),
    ("top_p", {}),
    ("max_tokens", "many"),
    ("max_tokens", 1.5),
    ("max_tokens", -1),
    ("stop", 5),
    ("stop", {"a": 1}),
    ("stop", [5]),
    ("reasoning_effort", 5),
    ("reasoning_effort", ["low"]),
    ("metadata", "a"),
    ("metadata", ["a"]),
    ("metadata", {"a": 1}),
    ("metadata", {"a": None}),
    ("metadata", {"a": {"b": "c"}}),
    ("fallbacks", "demo/echo"),
    ("fallbacks", [1]),
    ("fallbacks", ["demo/echo", "demo/echo?rate=x"]),
    ("fallbacks", ["demo/echo"] * 9),
    ("tools", "search"),
    ("tools", {"name": "search"}),
    ("tools", [5]),
    ("tools", ["no such"]),
    ("tools", ["search", "search"]),
    ("tools", [{"description": "without a name"}]),
    ("tools", [{"name": "search", "parameters": {"type": "string"}}]),
    ("tools", [{"name": "search", "parameters": {"type": "object", "required": 5}}]),
    ("tools", [{"name": f"search-{n}"} for n in range(129)]),
    ("if_busy", "wait"),
    ("conversation_id", 1),
    ("parent_id", UNKNOWN_ID),
    ("regenerate", UNKNOWN_ID),
    ("recover", "resume"),
    ("recover", True),
    ("no_such_field", 1),
    ("inputs", "a"),
    ("stream", True),
    ("__class__", "a"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
async def test_a_wrong_field_is_422_and_named(idle_api: Caller, field: str, value: Any) -> None:
    assert_names(assert_problem(await idle_api.post(**{field: value}), 422), field)


async def test_a_fallback_that_nobody_has_is_404(idle_api: Caller) -> None:
    assert_problem(await idle_api.post(fallbacks=["demo/echo", "nobody/has-it"]), 404)


@pytest.mark.parametrize(
    "turns",
    [
        "hello",
        {},
        5,
        [],
        [5],
        [{}],
        [{"role": "user"}],
        [{"content": "a"}],
        [{"role": "robot", "content": "a"}],
        [{"role": 5, "content": "a"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": "a", "no_such_field": 1}],
        [USER, {"role": "assistant", "content": "b"}],
        [USER, {"role": "system", "content": "b"}],
    ],
)
async def test_wrong_messages_are_422_and_named(idle_api: Caller, turns: Any) -> None:
    body = {"model": "demo/echo", "messages": turns}
    response = await idle_api.http.post("/api/messages", json=body)
    assert_names(assert_problem(response, 422), "messages")


async def test_input_and_messages_exclude_each_other(idle_api: Caller) -> None:
    assert_problem(await idle_api.post("a", messages=[USER]), 422)


async def test_without_input_and_messages_nothing_is_taken(idle_api: Caller) -> None:
    response = await idle_api.http.post("/api/messages", json={"model": "demo/echo"})
    assert_problem(response, 422)


async def test_every_wrong_field_is_named_at_once(idle_api: Caller) -> None:
    problem = assert_problem(await idle_api.post(temperature="hot", tools=[5], x=1), 422)
    for field in ("temperature", "tools", "x"):
        assert_names(problem, field)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("input", rb'{"model": "demo/echo", "input": "a\ud800b"}'),
        ("input", rb'{"model": "demo/echo", "input": "\udc00"}'),
        ("messages", rb'{"model": "demo/echo", "messages":[{"role":"user","content":"\ud83d"}]}'),
        ("system", rb'{"model": "demo/echo", "input": "a", "system": "\udfff"}'),
        ("metadata", rb'{"model": "demo/echo", "input": "a", "metadata": {"a": "\ud800"}}'),
        ("metadata", rb'{"model": "demo/echo", "input": "a", "metadata": {"\ud800": "a"}}'),
        ("stop", rb'{"model": "demo/echo", "input": "a", "stop": ["\ud800"]}'),
    ],
)
async def test_a_lone_surrogate_is_422_and_named(idle_api: Caller, field: str, body: bytes) -> None:
    assert_names(assert_problem(await send(idle_api, body), 422), field)


async def test_lone_surrogates_in_names_are_refused(idle_api: Caller) -> None:
    for body in (rb'{"model": "\ud800/echo", "input": "a"}', rb'{"\ud800": 1, "input": "a"}'):
        response = await send(idle_api, body)
        assert response.status_code in (404, 422)
        assert_problem(response, response.status_code)


async def test_an_escaped_pair_is_one_character(api: Caller) -> None:
    body = rb'{"model": "demo/echo?rate=0", "input": "a\ud83d\ude00b"}'
    response = await send(api, body)
    assert response.status_code == 202, response.text
    assert visible_text(await api.log(response.json()["message_id"])) == "a😀b"


@pytest.mark.parametrize("model", ["demo/nothing", "nobody/echo", "agent/none", "demo/echo/x"])
async def test_an_unknown_model_is_404(idle_api: Caller, model: str) -> None:
    assert_problem(await idle_api.post(model=model), 404)


@pytest.mark.parametrize(
    "model", ["", "/", "echo", "demo/", "/echo", "demo/echo?rate=fast", "demo/echo?rate=-1"]
)
async def test_a_model_that_cannot_be_is_refused(idle_api: Caller, model: str) -> None:
    response = await idle_api.post(model=model)
    assert response.status_code in (404, 422)
    assert_problem(response, response.status_code)


@pytest.mark.parametrize("rate", ["nan", "inf", "1e999", "0x10", "", "1&rate=2", "1_0"])
async def test_a_rate_that_is_no_number_of_chunks_is_refused(idle_api: Caller, rate: str) -> None:
    response = await idle_api.post(model=f"demo/echo?rate={rate}")
    assert response.status_code in (404, 422)
    assert_problem(response, response.status_code)


async def test_a_refused_post_queues_nothing(own_redis: RedisServer) -> None:
    with rejoin_stack(own_redis, workers=0) as stack, own_redis.client() as client:
        async with caller(stack.url) as api:
            before = set(client.keys("*"))
            assert_problem(await api.post(temperature="hot"), 422)
            assert_problem(await api.post(model="no/such"), 404)
            assert_problem(await send(api, b"{"), 400)
            assert set(client.keys("*")) == before


async def test_a_full_queue_is_503_until_there_is_room(own_redis: RedisServer) -> None:
    settings = {"REJOIN_MAX_QUEUE": "2"}
    with rejoin_stack(own_redis, workers=0, settings=settings) as stack:
        async with caller(stack.url) as api:
            key = {"Idempotency-Key": "first"}
            first = await api.post("0", headers=key)
            await api.accepted("1")
            for _ in range(2):
                assert_try_later(await api.post("2", headers={"Idempotency-Key": "late"}))
            again = await api.post("0", headers=key)
            assert (again.status_code, again.json()) == (202, first.json())
            stack.new_worker().start()
            await api.snapshot(first.json()["message_id"], wait=10)
            late = await api.post("2", headers={"Idempotency-Key": "late"})
            assert late.status_code == 202, late.text
            assert visible_text(await api.log(late.json()["message_id"])) == "2"
        stack.assert_no_traceback()


async def test_a_post_whose_caller_leaves_mid_body_harms_nothing(api: Caller) -> None:
    port = api.http.base_url.port
    for sent in (b"", b'{"model": "demo'):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /api/messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 100\r\n\r\n".encode() + sent)
        await writer.drain()
        writer.transport.abort()
    assert (await api.post()).status_code == 202
