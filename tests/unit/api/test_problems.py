"""Exceptions as application/problem+json."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rejoin.api import problems
from rejoin.api.unread import UnreadResponse
from rejoin.shared.errors import (
    BadRequest,
    Conflict,
    LogUnavailable,
    MessageMissing,
    NotFound,
    OverLimit,
    Unavailable,
)


def members(response: Response) -> dict[str, Any]:
    found = json.loads(bytes(response.body).decode())
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert found["status"] == response.status_code
    assert {"type", "title", "status", "detail"} <= set(found)
    return dict(found)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("x"), 422),
        (BadRequest("x", status=400), 400),
        (BadRequest("x", status=413), 413),
        (BadRequest("x", status=415), 415),
        (NotFound("x"), 404),
        (MessageMissing("x"), 404),
        (Conflict("x"), 409),
        (OverLimit("x"), 503),
        (Unavailable("x"), 503),
        (LogUnavailable("x"), 503),
        (HTTPException(404), 404),
        (HTTPException(418, "a teapot"), 418),
        (ZeroDivisionError("secret"), 500),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int) -> None:
    assert members(problems.response(error))["status"] == status


def test_what_nobody_meant_to_raise_tells_nothing_of_itself() -> None:
    assert b"secret" not in bytes(problems.response(ValueError("secret")).body)


def test_a_bad_field_is_named() -> None:
    error = BadRequest("is wrong", field=("messages", 0, "role"))
    told = members(problems.response(error))
    assert told["errors"] == [{"loc": ["messages", 0, "role"], "msg": "is wrong"}]


def test_a_body_that_is_wrong_as_a_whole_has_an_empty_loc() -> None:
    assert members(problems.response(BadRequest("x")))["errors"] == [{"loc": [], "msg": "x"}]


def test_later_is_told_in_whole_seconds() -> None:
    for error in (OverLimit("x", retry_after_seconds=2), Unavailable("x", retry_after_seconds=2)):
        assert problems.response(error).headers["retry-after"] == "2"


def test_a_field_name_that_is_no_text_is_told_all_the_same() -> None:
    told = members(problems.response(BadRequest("x", field=("metadata", "\ud800a"))))
    assert told["errors"][0]["loc"] == ["metadata", "\\ud800a"]


def test_long_names_and_long_lists_are_cut() -> None:
    class Body(BaseModel, extra="forbid"):
        pass

    with pytest.raises(ValidationError) as raised:
        Body.model_validate({f"{n}{'x' * 1000}": 1 for n in range(1000)})
    response = problems.response(raised.value)
    told = members(response)["errors"]
    assert (len(told), told[0]["msg"]) == (20, "there is no such field")
    assert len(bytes(response.body)) < 5000


def test_the_methods_there_are_are_told_in_order() -> None:
    response = problems.response(HTTPException(405, headers={"Allow": "POST, GET,HEAD"}))
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert members(response)["status"] == 405


def test_a_body_that_was_not_read_gets_an_answer_that_lingers() -> None:
    for status in (408, 413):
        assert isinstance(problems.response(BadRequest("x", status=status)), UnreadResponse)
    assert not isinstance(problems.response(BadRequest("x")), UnreadResponse)


def test_a_body_that_is_wrong_in_thousands_of_places_names_none_of_them() -> None:
    class Body(BaseModel):
        numbers: list[int]

    with pytest.raises(ValidationError) as raised:
        Body.model_validate({"numbers": ["x"] * 5000})
    found = members(problems.response(raised.value))
    assert found["status"] == 422
    assert found["errors"] == [{"loc": [], "msg": "it is wrong in 5000 places, too many to name"}]
