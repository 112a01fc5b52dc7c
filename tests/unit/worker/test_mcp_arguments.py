"""Arguments and an MCP tool's schema: at once where that is quick, else where it can be ended."""

from collections.abc import AsyncIterator

import pytest

from rejoin.shared.errors import BadRequest, ToolError
from rejoin.worker.tools.mcp_arguments import Arguments
from rejoin.worker.validation import Validation

NODE = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}, "value": {"type": "integer"}},
    "additionalProperties": False,
}
BOMB = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}


@pytest.fixture
async def validation() -> AsyncIterator[Validation]:
    made = Validation(0.5)
    yield made
    await made.aclose()


def of(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


def doubling(levels: int) -> dict[str, object]:
    """Schemas of which each applies the next one twice."""
    both = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(levels)}
    return {
        "type": "object",
        "allOf": [{"$ref": "#/$defs/d0"}],
        "$defs": {**both, f"d{levels}": {"type": "object"}},
    }


@pytest.mark.parametrize(
    "schema",
    [
        of(a={"type": "integer"}, b={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        of(pattern={"type": "string"}, uniqueItems={"type": "boolean"}),
        {**of(at={"$ref": "#/$defs/Place"}), "$defs": {"Place": of(x={"type": "number"})}},
        {**of(kind={"enum": ["a", "b"]}), "$schema": "http://json-schema.org/draft-07/schema#"},
        doubling(8),
    ],
    ids=["plain", "named so", "reference", "draft 7", "doubling"],
)
def test_most_schemas_are_checked_at_once(schema: dict[str, object]) -> None:
    assert Arguments(schema).quick


@pytest.mark.parametrize(
    "schema",
    [
        BOMB,
        NODE,
        doubling(40),
        of(a={"type": "array", "uniqueItems": True}),
        {"type": "object", "patternProperties": {"^(a+)+$": {}}},
        {**of(a={"type": "object"}), "unevaluatedProperties": False},
    ],
    ids=["bomb", "recursion", "doubling", "unique", "names", "unevaluated"],
)
async def test_what_may_take_long_is_left_to_a_process_that_can_be_ended(
    schema: dict[str, object], validation: Validation
) -> None:
    arguments = Arguments(schema)
    assert not arguments.quick
    arguments.check({"name": "a" * 64 + "b"})


async def test_a_regular_expression_without_end_fails_its_call_alone(
    validation: Validation,
) -> None:
    arguments = Arguments(BOMB)
    with pytest.raises(ToolError, match="could not be checked: it took longer"):
        await arguments.check_all({"name": "a" * 64 + "b"}, validation)
    await arguments.check_all({"name": "aaa"}, validation)


async def test_a_schema_within_itself_is_applied(validation: Validation) -> None:
    arguments = Arguments(NODE)
    await arguments.check_all({"next": {"next": {"value": 1}}}, validation)
    with pytest.raises(ToolError, match=r"\$\.next\.next\.value: 'x' is not of type 'integer'"):
        await arguments.check_all({"next": {"next": {"value": "x"}}}, validation)


def test_what_does_not_fit_is_told_by_its_place() -> None:
    arguments = Arguments({**of(a={"type": "integer"}), "required": ["a"]})
    with pytest.raises(ToolError, match=r"^the arguments do not fit: \$: 'a' is a required"):
        arguments.check({})
    arguments.check({"a": 1})


@pytest.mark.parametrize(
    "schema", [{}, {"type": "array"}, of(a={"type": "text"}), of(a={"$ref": "https://a/b"})]
)
def test_what_is_no_schema_of_arguments_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        Arguments(schema)
