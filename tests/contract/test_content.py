"""Content parts and response_format over HTTP: what is taken, and each 422 by its place."""

import base64
from typing import Any

import httpx
import pytest

from tests.support.caller import Caller, assert_problem, visible_text

TEXT = {"type": "text", "text": "a"}
PIXEL = base64.b64encode(b"\x89PNG").decode()
UNKNOWN_MODEL = "openai/nobody-has-heard-of-it"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(data: str) -> dict[str, Any]:
    return {"type": "file", "file": {"filename": "a", "file_data": data}}


IMAGE = image(f"data:image/png;base64,{PIXEL}")
FILE = file("data:text/plain;base64,YQ==")


def formatted(schema: Any, **more: Any) -> dict[str, Any]:
    held = {"name": "a", "schema": schema, **more}
    return {"type": "json_schema", "json_schema": held}


async def asked(api: Caller, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await api.http.post(
        "/api/messages", json={"model": "demo/echo?rate=0"} | body, headers=headers
    )


def locations(response: httpx.Response) -> list[list[str | int]]:
    return [error["loc"] for error in assert_problem(response, 422)["errors"]]


async def test_parts_of_text_are_echoed(api: Caller) -> None:
    turns = [{"role": "user", "content": [TEXT, {"type": "text", "text": "b c"}]}]
    for body in ({"input": turns[0]["content"]}, {"messages": turns}):
        response = await asked(api, body | {"system": [TEXT]})
        assert response.status_code == 202, response.text
        assert visible_text(await api.log(response.json()["message_id"])) == "a\nb c"


async def test_of_a_model_that_is_not_in_the_catalogue_the_provider_decides(
    idle_api: Caller,
) -> None:
    parts = [TEXT, IMAGE, image("https://a.example/b.png"), FILE]
    assert (await asked(idle_api, {"model": UNKNOWN_MODEL, "input": parts})).status_code == 202


@pytest.mark.parametrize("part", [IMAGE, image("https://a.example/b.png"), FILE])
async def test_a_part_that_the_model_cannot_take_is_422_with_its_index(
    idle_api: Caller, part: dict[str, Any]
) -> None:
    turns = [{"role": "user", "content": [TEXT, TEXT, part]}]
    assert locations(await asked(idle_api, {"messages": turns})) == [["messages", 0, "content", 2]]
    assert locations(await asked(idle_api, {"input": [part]})) == [["input", 0]]


async def test_a_fallback_that_cannot_take_a_part_is_422_and_named(idle_api: Caller) -> None:
    body = {"model": UNKNOWN_MODEL, "input": [IMAGE], "fallbacks": [UNKNOWN_MODEL, "demo/echo"]}
    assert locations(await asked(idle_api, body)) == [["fallbacks", 1]]


@pytest.mark.parametrize(
    ("part", "below"),
    [
        ("a", []),
        ({"type": "audio"}, ["type"]),
        ({"type": "text"}, ["text"]),
        ({**TEXT, "no_such_field": 1}, ["no_such_field"]),
        (image("http://a.example/b.png"), ["image_url", "url"]),
        (image("data:image/png;base64,"), ["image_url", "url"]),
        (image("data:image/png;base64,not base64"), ["image_url", "url"]),
        (image(f"data:image/bmp;base64,{PIXEL}"), ["image_url", "url"]),
        (file("https://a.example/b.pdf"), ["file", "file_data"]),
        (file(f"data:application/zip;base64,{PIXEL}"), ["file", "file_data"]),
        (file("data:application/pdf;base64,"), ["file", "file_data"]),
    ],
)
async def test_a_wrong_part_is_422_and_named(idle_api: Caller, part: Any, below: list[str]) -> None:
    body = {"model": UNKNOWN_MODEL, "messages": [{"role": "user", "content": [TEXT, part]}]}
    assert locations(await asked(idle_api, body)) == [["messages", 0, "content", 1, *below]]


@pytest.mark.parametrize("role", ["system", "assistant"])
async def test_only_the_users_turns_take_images(idle_api: Caller, role: str) -> None:
    turns = [{"role": role, "content": [IMAGE]}, {"role": "user", "content": "a"}]
    body = {"model": UNKNOWN_MODEL, "messages": turns}
    assert locations(await asked(idle_api, body)) == [["messages", 0, "content", 0]]


async def test_no_parts_are_no_content(idle_api: Caller) -> None:
    assert locations(await asked(idle_api, {"input": []})) == [["input"]]


async def test_half_a_surrogate_pair_in_a_part_or_a_schema_is_422(idle_api: Caller) -> None:
    part = rb'"messages":[{"role":"user","content":[{"type":"text","text":"\ud800"}]}]'
    schema = rb'"schema":{"properties":{"a":{"not":{"enum":["\ud800"]}}}}'
    wanted = b'"response_format":{"type":"json_schema","json_schema":{"name":"a",' + schema + b"}}"
    for fields in (part, b'"input":"a",' + wanted):
        body = b'{"model":"demo/echo",' + fields + b"}"
        response = await idle_api.http.post(
            "/api/messages", content=body, headers={"Content-Type": "application/json"}
        )
        assert_problem(response, 422)


async def test_an_image_over_the_bodys_limit_is_413(idle_api: Caller) -> None:
    large = image(f"data:image/png;base64,{'A' * 1_100_000}")
    assert_problem(await asked(idle_api, {"model": UNKNOWN_MODEL, "input": [large]}), 413)


async def test_the_same_parts_with_the_same_key_are_the_same_message(idle_api: Caller) -> None:
    body = {"model": UNKNOWN_MODEL, "input": [TEXT, IMAGE], "response_format": formatted({})}
    key = {"Idempotency-Key": "parts"}
    first = await asked(idle_api, body, **key)
    again = await asked(idle_api, dict(reversed(body.items())), **key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert_problem(await asked(idle_api, body | {"input": [IMAGE, TEXT]}, **key), 409)


SCHEMA = ["response_format", "json_schema", "schema"]


@pytest.mark.parametrize(
    ("wanted", "loc"),
    [
        ("json_schema", ["response_format"]),
        ({}, ["response_format", "type"]),
        ({"type": "json_object"}, ["response_format", "type"]),
        ({"type": "json_schema"}, ["response_format", "json_schema"]),
        (formatted({}, strict="yes"), ["response_format", "json_schema", "strict"]),
        (formatted({}, no_such_field=1), ["response_format", "json_schema", "no_such_field"]),
        (formatted({}, name="two words"), ["response_format", "json_schema", "name"]),
        (formatted([]), SCHEMA),
        (formatted(True), SCHEMA),
        (formatted({"type": "strin"}), [*SCHEMA, "type"]),
        (
            formatted({"properties": {"a": {"minimum": "1"}}}),
            [*SCHEMA, "properties", "a", "minimum"],
        ),
        (formatted({"items": {"pattern": "["}}), [*SCHEMA, "items", "pattern"]),
        (formatted({"$ref": "https://a.example/schema"}), [*SCHEMA, "$ref"]),
        (formatted({"$ref": "#/$defs/none"}), [*SCHEMA, "$ref"]),
        (formatted({"$schema": "https://a.example/"}), [*SCHEMA, "$schema"]),
        (formatted({"title": "a" * 70_000}), SCHEMA),
    ],
)
async def test_a_wrong_response_format_is_422_and_named(
    idle_api: Caller, wanted: Any, loc: list[str | int]
) -> None:
    for _ in range(2):
        response = await asked(idle_api, {"input": "a", "response_format": wanted})
        assert loc in locations(response)


async def test_a_schema_that_is_nested_too_deeply_is_422(idle_api: Caller) -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"not": schema}
    response = await asked(idle_api, {"input": "a", "response_format": formatted(schema)})
    assert locations(response) == [SCHEMA]


async def test_an_answer_that_fits_its_schema_is_done_and_another_is_failed(api: Caller) -> None:
    wanted = formatted({"required": ["a"]}, strict=True, description="An object with an a")
    for text, end in (('{"a": 1}', "done"), ('{"b": 1}', "failed")):
        response = await asked(api, {"input": text, "response_format": wanted})
        assert response.status_code == 202, response.text
        frames = await api.log(response.json()["message_id"])
        assert frames[-1].event == end
    assert frames[-1].data["code"] == "invalid_output"
    assert [frame.data["reason"] for frame in frames if frame.event == "reset"] == [
        "invalid_output"
    ]
