"""A tool's values as plain JSON: what JSON has comes through, the rest says what it is."""

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from rejoin.shared.events import dumps
from rejoin.worker.tools.plain import NotPlain, plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
)  # fmt: skip


class City(BaseModel):
    name: str
    founded: datetime


@dataclasses.dataclass
class Place:
    city: City
    marks: set[int]


class Colour(Enum):
    RED = "red"


class Size(StrEnum):
    BIG = "big"


@given(JSON)
def test_json_comes_through_as_it_is_and_its_length_is_that_of_its_text(value: object) -> None:
    length = len(dumps(value).encode())
    assert plain(value, most_bytes=length) == value
    with pytest.raises(NotPlain, match="longer"):
        plain(value, most_bytes=length - 1)


def test_models_dataclasses_and_their_like_become_json() -> None:
    rome = City(name="Rome", founded=datetime(2026, 11, 21, tzinfo=UTC))
    value = {
        "place": Place(rome, {1}),
        "cities": (rome,),
        "colour": Colour.RED,
        "size": Size.BIG,
        "id": UUID(int=1),
        "price": Decimal("1.10"),
    }
    city = {"name": "Rome", "founded": "2026-11-21T00:00:00Z"}
    assert plain(value, most_bytes=1000) == {
        "place": {"city": city, "marks": [1]},
        "cities": [city],
        "colour": "red",
        "size": "big",
        "id": "00000000-0000-0000-0000-000000000001",
        "price": "1.10",
    }


def cyclic() -> object:
    held: list[object] = []
    held.append(held)
    return held


def deep() -> object:
    held: object = 1
    for _ in range(100_000):
        held = [held]
    return held


@dataclasses.dataclass
class Measured:
    value: float


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "not JSON"),
        ([float("-inf")], "not JSON"),
        (Measured(float("nan")), "not JSON"),
        (object(), "it has no object"),
        (b"bytes", "it has no bytes"),
        (City, "it has no ModelMetaclass"),
        (count(), "it has no count"),
        ((n for n in count()), "it has no generator"),
        ({(1, 2): 3}, "not JSON"),
        ("\ud800", "Unicode"),
        ({"\udfff": 1}, "Unicode"),
        ([City.model_construct(name="\ud800", founded=None)], "Unicode|JSON"),
        (cyclic(), "not JSON: Circular"),
        (deep(), "too deep"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else "",
)
def test_what_json_has_not_is_refused_with_the_reason(value: object, why: str) -> None:
    with pytest.raises(NotPlain, match=why):
        plain(value, most_bytes=1_000_000)


def test_what_is_far_too_long_is_not_looked_at_to_its_end() -> None:
    class Counted(list[int]):
        seen = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in super().__iter__():
                Counted.seen += 1
                yield number

    with pytest.raises(NotPlain, match="longer"):
        plain(Counted(range(100_000)), most_bytes=100)
    assert Counted.seen < 100


def test_what_comes_out_shares_nothing_with_what_went_in() -> None:
    value = {"a": [1]}
    held = plain(value, most_bytes=100)
    value["a"].append(2)
    assert json.dumps(held) == '{"a": [1]}'
