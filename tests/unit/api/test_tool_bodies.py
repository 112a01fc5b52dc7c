"""`tools` of a body: names and definitions, and what is wrong with them, to the field."""

from typing import Any

import pytest
from pydantic import ValidationError

from rejoin.api.schemas import to_request
from rejoin.api.tool_bodies import MOST_SCHEMA_VALUES, check_definitions
from rejoin.shared.errors import BadRequest
from rejoin.shared.request import StoredRequest, ToolDefinition

NOTHING: dict[str, object] = {"type": "object", "properties": {}}
CITY: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


def referring(to: str) -> dict[str, object]:
    return {"type": "object", "properties": {"a": {"$ref": to}}}


def made(tools: Any) -> list[str | ToolDefinition]:
    body = {"model": "demo/echo", "input": "hi", "tools": tools}
    request = to_request(body, default_model=None)
    assert StoredRequest.decode(request.encode().encode()).tools == request.tools
    return request.tools


def refused(tools: Any) -> list[tuple[int | str, ...]]:
    with pytest.raises(ValidationError) as raised:
        made(tools)
    return [item["loc"] for item in raised.value.errors()]


def test_names_and_definitions_reach_the_worker() -> None:
    whole = {"name": "where", "description": "Find a city", "parameters": CITY}
    assert made(["search", whole, {"name": "now"}]) == [
        "search",
        ToolDefinition("where", "Find a city", CITY),
        ToolDefinition("now", "", NOTHING),
    ]


@pytest.mark.parametrize("nothing", [None, []])
def test_no_tools_are_none(nothing: object) -> None:
    assert made(nothing) == []


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_definition_without_parameters_takes_an_object_without_any(nothing: object) -> None:
    assert made([{"name": "now", "parameters": nothing}]) == [ToolDefinition("now", "", NOTHING)]


@pytest.mark.parametrize(
    ("tools", "at"),
    [
        ("search", ("tools",)),
        ({"name": "a"}, ("tools",)),
        ([5], ("tools", 0)),
        ([None], ("tools", 0)),
        (["a", "a b"], ("tools", 1)),
        (["a", ""], ("tools", 1)),
        (["x" * 65], ("tools", 0)),
        (["a\n"], ("tools", 0)),
        ([{}], ("tools", 0, "name")),
        ([{"name": "a.b"}], ("tools", 0, "name")),
        ([{"name": 5}], ("tools", 0, "name")),
        ([{"name": "a", "description": 5}], ("tools", 0, "description")),
        ([{"name": "a", "description": "x" * 8193}], ("tools", 0, "description")),
        ([{"name": "a", "parameters": []}], ("tools", 0, "parameters")),
        ([{"name": "a", "strict": True}], ("tools", 0, "strict")),
        ([{"type": "function", "name": "a"}], ("tools", 0, "type")),
        (["a", "b", "a"], ("tools", 2)),
        ([{"name": "a"}, "a"], ("tools", 1)),
        ([f"a{n}" for n in range(129)], ("tools",)),
    ],
)
def test_what_is_wrong_is_named(tools: Any, at: tuple[int | str, ...]) -> None:
    assert refused(tools) == [at]


def test_as_many_as_there_may_be_are_taken() -> None:
    assert len(made([f"a{n}" for n in range(128)])) == 128


@pytest.mark.parametrize(
    ("parameters", "at"),
    [
        ({"properties": {}}, ("type",)),
        ({"type": "string"}, ("type",)),
        ({"type": ["object", "null"]}, ("type",)),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, ("properties", "a", "type")),
        (referring("#/$defs/a"), ("properties", "a", "$ref")),
        (referring("https://a.example/b"), ("properties", "a", "$ref")),
        ({"type": "object", "description": "x" * 65_536}, ()),
    ],
)
async def test_parameters_that_are_no_schema_of_an_object_are_named(
    parameters: dict[str, object], at: tuple[str, ...]
) -> None:
    mine = (ToolDefinition("a", "", CITY), ToolDefinition("b", "", parameters))
    tools: list[str | ToolDefinition] = ["search", *mine]
    with pytest.raises(BadRequest) as raised:
        await check_definitions(tools)
    assert raised.value.field == ("tools", 2, "parameters", *at)


async def test_a_place_is_told_of_the_tool_that_has_it_each_time() -> None:
    wrong = ToolDefinition("a", "", {"type": "object", "required": "city"})
    for at in (0, 1):
        with pytest.raises(BadRequest) as raised:
            await check_definitions([*["search"] * at, wrong])
        assert raised.value.field == ("tools", at, "parameters", "required")


async def test_the_schemas_of_all_tools_are_bounded_together() -> None:
    properties = {f"p{n}": {"type": "string"} for n in range(1_000)}
    one: dict[str, object] = {"type": "object", "properties": properties}
    tools: list[str | ToolDefinition] = [ToolDefinition(f"a{n}", "", one) for n in range(6)]
    assert 6 * 1002 > MOST_SCHEMA_VALUES > 5 * 1002
    await check_definitions(tools[:5])
    with pytest.raises(BadRequest, match="all tools") as raised:
        await check_definitions(tools)
    assert raised.value.field == ("tools", 5, "parameters")
