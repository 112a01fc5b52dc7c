"""JSON schemas: which are none, and what is said of a text that does not fit one."""

import json
from typing import Any

import pytest
from referencing.exceptions import Unresolvable

from rejoin.shared.errors import BadRequest
from rejoin.shared.json_schema import (
    DEEPEST,
    MOST_CHARS,
    MOST_VALUES,
    bounded,
    check_schema,
    faults,
)

AT = ("s",)
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def refused(schema: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        check(schema)
    assert raised.value.status == 422
    return raised.value


def check(schema: dict[str, Any]) -> None:
    bounded(schema, at=AT)
    check_schema(schema, at=AT)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
        {"$schema": DRAFT_7, "definitions": {"a": {}}, "$ref": "#/definitions/a"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$id": "https://a.example/s", "$defs": {"a": True}, "items": {"$ref": "#/$defs/a"}},
        {"$defs": {"a": {"$anchor": "b"}}, "$ref": "#b"},
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"$ref": {"type": "string"}, "$id": {}, "const": {"$ref": "#"}}},
        {"const": {"$ref": "https://a.example/"}, "enum": [{"$id": "a"}]},
        {"unknown-keyword": 1, "format": "no such format"},
        nested(DEEPEST),
    ],
)
def test_a_schema_is_taken(schema: dict[str, Any]) -> None:
    assert json.loads(bounded(schema, at=AT)) == schema
    check_schema(schema, at=AT)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "strin"}, ["type"]),
        ({"type": 5}, ["type"]),
        ({"properties": []}, ["properties"]),
        ({"properties": {"a": {"minimum": "1"}}}, ["properties", "a", "minimum"]),
        ({"items": {"pattern": "["}}, ["items", "pattern"]),
        ({"required": ["a", "a"]}, ["required"]),
        ({"$schema": "https://a.example/schema"}, ["$schema"]),
        ({"$schema": 5}, ["$schema"]),
        ({"$ref": "https://a.example/s.json"}, ["$ref"]),
        ({"$ref": "http://127.0.0.1:1/s"}, ["$ref"]),
        ({"$ref": "file:///etc/passwd"}, ["$ref"]),
        ({"$ref": "other.json#/a"}, ["$ref"]),
        ({"$schema": DRAFT_7, "items": [{"$ref": DRAFT_7}]}, ["items", 0, "$ref"]),
        ({"$dynamicRef": "https://a.example/"}, ["$dynamicRef"]),
        ({"$ref": "#/$defs/none"}, ["$ref"]),
        ({"$ref": "#none"}, ["$ref"]),
        ({"properties": {"a": {"$ref": "#/title"}}, "title": "b"}, ["properties", "a", "$ref"]),
        ({"$defs": {"a": {"$id": "https://a.example/"}}}, ["$defs", "a", "$id"]),
    ],
)
def test_what_is_no_schema_is_named_by_its_place(schema: dict[str, Any], place: list[Any]) -> None:
    assert refused(schema).field == (*AT, *place)


def test_a_pattern_too_large_for_any_expression_is_refused() -> None:
    assert refused({"pattern": "a{99999999999999999999}"}).field[:1] == AT
    assert refused({"pattern": "(" * 5000}).field[:1] == AT


@pytest.mark.parametrize(
    "schema",
    [
        nested(DEEPEST + 1),
        nested(900),
        {"enum": [[] for _ in range(MOST_VALUES)]},
        {"title": "a" * MOST_CHARS},
    ],
)
def test_a_schema_is_bounded(schema: dict[str, Any]) -> None:
    assert refused(schema).field == AT


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"items": {"enum": [1, 2]}}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": 1, "b": [1, 2]}\n', '{"a": 1.0}'])
def test_a_text_that_fits_has_no_faults(text: str) -> None:
    assert faults(SCHEMA, text) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is not JSON"),
        ("hello", "it is not JSON"),
        ('```json\n{"a": 1}\n```', "it is not JSON"),
        ('{"a": 1} and more', "it is not JSON"),
        ('{"a": NaN}', "it is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "it is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "$: 'a' is a required property"),
        ('{"a": "x"}', "$.a: 'x' is not of type 'integer'"),
        ('{"a": 1, "b": [1, 3]}', "$.b[1]: 3 is not one of [1, 2]"),
        ('{"a": 1, "c": 1}', "$: Additional properties"),
    ],
)
def test_a_fault_is_told_with_its_place(text: str, told: str) -> None:
    (found,) = faults(SCHEMA, text)
    assert told in found


def test_faults_are_few_and_short() -> None:
    found = faults({"items": {"type": "null"}}, json.dumps(["a" * 10_000] * 1000))
    assert len(found) == 10
    assert max(map(len, found)) < 700


@pytest.mark.filterwarnings("ignore")
def test_a_reference_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def urlopen(*arguments: object) -> None:
        opened.append(arguments)
        raise OSError

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(Unresolvable):
        faults({"$ref": "http://127.0.0.1:1/s"}, "1")
    assert opened == []
