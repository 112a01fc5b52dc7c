"""`@tool`: a function's schema, its arguments from JSON, and the function itself."""

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, BeforeValidator, Field

from rejoin.shared.json_schema import bounded, check_schema
from rejoin.worker.tools import Call, OnUnknownOutcome, ToolError, tool
from rejoin.worker.tools.function import FunctionTool
from tests.unit.worker.made_tool import made_call


class Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Place(BaseModel):
    """Where it is."""

    city: str
    country: str | None = None


@tool
def weather(
    place: Place,
    days: Annotated[list[date], Field(max_length=2)],
    unit: Unit = Unit.CELSIUS,
    detail: Literal["short", "long"] = "short",
) -> str:
    """Say what the weather will be.

    Knows the next ten days.

    Args:
        place: Where, as exactly
            as it is known.
        days (list of dates): Which ones.

    Returns:
        A sentence.
    """
    return f"{place.city} {[day.isoformat() for day in days]} {unit.name} {detail}"


async def run(made: FunctionTool[..., object], /, **arguments: object) -> object:
    async with asyncio.timeout(10):
        return await made.run(arguments, made_call())


def test_the_schema_is_of_the_type_hints_and_says_what_the_docstring_says() -> None:
    assert weather.name == "weather"
    assert weather.description == (
        "Say what the weather will be.\n\nKnows the next ten days.\n\nReturns:\n    A sentence."
    )
    assert weather.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["place", "days"],
        "properties": {
            "place": {"$ref": "#/$defs/Place", "description": "Where, as exactly as it is known."},
            "days": {
                "type": "array",
                "items": {"type": "string", "format": "date"},
                "maxItems": 2,
                "description": "Which ones.",
            },
            "unit": {"$ref": "#/$defs/Unit", "default": "celsius"},
            "detail": {"type": "string", "enum": ["short", "long"], "default": "short"},
        },
        "$defs": {
            "Place": {
                "type": "object",
                "description": "Where it is.",
                "properties": {
                    "city": {"type": "string"},
                    "country": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                },
                "required": ["city"],
            },
            "Unit": {"type": "string", "enum": ["celsius", "kelvin"]},
        },
    }


async def test_a_call_gives_the_function_what_its_hints_say() -> None:
    said = await run(weather, place={"city": "Rome"}, days=["2026-11-21"], unit="kelvin")
    assert said == "Rome ['2026-11-21'] KELVIN short"


def test_the_decorated_function_is_still_the_function() -> None:
    assert weather(Place(city="Rome"), [date(2026, 11, 21)]) == "Rome ['2026-11-21'] CELSIUS short"
    assert vars(weather)["__name__"] == "weather"
    assert weather.__doc__ is not None


def test_without_arguments_the_bounds_are_the_defaults() -> None:
    assert weather.timeout_seconds == 60
    assert not weather.needs_approval
    assert weather.on_unknown_outcome is OnUnknownOutcome.FAIL


def test_the_decorators_arguments_are_heeded() -> None:
    @tool(
        name="pay-out",
        description="  Pays.\n  At once.",
        timeout=1.5,
        needs_approval=True,
        on_unknown_outcome="ask",
    )
    def pay() -> None:
        """Something else."""

    assert (pay.name, pay.description, pay.timeout_seconds) == ("pay-out", "Pays.\nAt once.", 1.5)
    assert (pay.needs_approval, pay.on_unknown_outcome) == (True, OnUnknownOutcome.ASK)
    assert pay.parameters == {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"place": {"city": "Rome"}}, "days: "),
        ({"place": {"city": 1}, "days": []}, "place.city: "),
        ({"place": {"city": "Rome"}, "days": ["2026-11-21", "soon"]}, "days.1: "),
        ({"place": {"city": "Rome"}, "days": [], "unit": "rankine"}, "unit: "),
        ({"place": {"city": "Rome"}, "days": [], "others": 1}, "others: "),
        ({"place": {"city": "\ud800"}, "days": []}, ""),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_it_is_said_where(
    arguments: dict[str, object], where: str
) -> None:
    with pytest.raises(ToolError) as caught:
        weather.check(arguments)
    assert f"the arguments do not fit: {where}" in str(caught.value) or not where
    assert len(str(caught.value)) < 1000


async def test_a_run_checks_its_arguments_too() -> None:
    with pytest.raises(ToolError, match="days"):
        await run(weather, place={"city": "Rome"})


def test_many_faults_are_not_all_told() -> None:
    @tool
    def sums(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(ToolError, match="and 90 more"):
        sums.check({"numbers": ["x"] * 100})


def test_a_validator_that_fails_is_an_error_for_the_model() -> None:
    def fails(_: object) -> object:
        raise RuntimeError("broken")

    @tool
    def takes(value: Annotated[int, BeforeValidator(fails)]) -> None:
        """Take it."""

    with pytest.raises(ToolError, match="RuntimeError: broken"):
        takes.check({"value": 1})


async def test_the_call_is_given_to_who_asks_for_it_and_no_model_hears_of_it() -> None:
    told: list[object] = []

    @tool
    async def works(call: Call, steps: int) -> str:
        """Work."""
        call.report("progress", steps)
        return call.idempotency_key

    assert list(works.parameters["properties"]) == ["steps"]  # type: ignore[call-overload]
    call = Call("message", "conversation", 2, "call_1", {}, lambda name, value: told.append(value))
    assert await works.run({"steps": 3}, call) == "message:2:call_1"
    assert told == [3]
    with pytest.raises(ToolError, match="call: "):
        works.check({"steps": 3, "call": {}})


async def test_a_function_that_blocks_runs_in_a_thread_and_a_coroutine_in_the_loop() -> None:
    @tool
    def blocks() -> int:
        return threading.get_ident()

    @tool
    async def awaits() -> int:
        return threading.get_ident()

    async def no_thread(_: object) -> None:
        pytest.fail("a coroutine needs no thread")

    awaits._threads.run = no_thread  # type: ignore[method-assign, assignment]
    here = threading.get_ident()
    assert await run(blocks) != here
    assert await run(awaits) == here


async def test_a_function_that_a_decorator_wraps_is_a_tool_all_the_same() -> None:
    def twice(function: Callable[[int], Awaitable[int]]) -> Callable[[int], Awaitable[int]]:
        @functools.wraps(function)
        def wrapper(number: int) -> Awaitable[int]:
            return function(number * 2)

        return wrapper

    @tool
    @twice
    async def echoes(number: int) -> int:
        return number

    assert await run(echoes, number=2) == 4


async def test_arguments_may_be_called_what_models_may_not() -> None:
    @tool
    def takes(_hidden: int, copy: int, model_config: int, schema: int = 4) -> list[int]:
        return [_hidden, copy, model_config, schema]

    assert await run(takes, _hidden=1, copy=2, model_config=3) == [1, 2, 3, 4]


async def test_a_default_is_the_functions_own() -> None:
    held: list[int] = []  # pydantic would copy it

    @tool
    def takes(value: list[int] = held) -> bool:
        return value is held

    assert await run(takes) is True


async def test_a_hint_is_looked_up_where_the_function_was_written() -> None:
    @tool
    def takes(unit: "Unit") -> "NotKnownHere":  # type: ignore[name-defined]  # noqa: F821
        return unit.name

    assert await run(takes, unit="celsius") == "CELSIUS"


async def test_a_hint_of_a_wrapped_function_is_looked_up_where_that_was_written() -> None:
    elsewhere: dict[str, Callable[[Callable[..., str]], Callable[..., str]]] = {}
    exec(
        "import functools\n"
        "def plain(function):\n"
        "    return functools.wraps(function)(lambda **given: function(**given))\n",
        elsewhere,
    )

    @tool
    @elsewhere["plain"]
    def takes(unit: "Unit") -> str:
        return unit.name

    assert await run(takes, unit="celsius") == "CELSIUS"


@dataclass
class Bag:
    tags: set[str]
    owner: Place | None = None


async def test_dataclasses_and_sets_are_filled_from_json() -> None:
    @tool
    def takes(bag: Bag) -> list[str]:
        return [*sorted(bag.tags), bag.owner.city if bag.owner else "-"]

    assert await run(takes, bag={"tags": ["b", "a"], "owner": {"city": "Rome"}}) == [
        *("a", "b"),
        "Rome",
    ]


def positional(value: int, /) -> None: ...
def any_number(*values: int) -> None: ...
def any_name(**values: int) -> None: ...
def of_a_class(self) -> None: ...  # type: ignore[no-untyped-def]
def takes_a_function(value: Callable[[], None]) -> None: ...
def takes_a_lock(value: threading.Event) -> None: ...
def field_default(value: int = Field(1)) -> None: ...
def unknown_hint(value: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def yields() -> Iterator[int]:
    yield 1


async def yields_async() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (positional, "the tool positional: .*positional only"),
        (any_number, "any number"),
        (any_name, "any name"),
        (of_a_class, "method"),
        (takes_a_function, "value|no JSON schema"),
        (takes_a_lock, "the type of `value` is no type that JSON has"),
        (field_default, "Annotated"),
        (unknown_hint, "Nowhere"),
        (yields, "returns one value"),
        (yields_async, "returns one value"),
        (Place, "takes a function"),
        (print, "takes a function"),
        (weather, "takes a function"),
    ],
)
def test_what_no_model_can_call_is_refused_as_it_is_decorated(
    function: Callable[..., object], why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        tool(function)


@pytest.mark.parametrize(
    "settings",
    [
        *({"name": name} for name in ("", "a b", "ä", "x" * 65, "a.b", "a\n")),
        *({"timeout": seconds} for seconds in (0, -1, float("nan"), float("inf"), True)),
        {"on_unknown_outcome": "maybe"},
    ],
)
def test_settings_that_are_wrong_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the tool "):
        tool(**settings)(positional)  # type: ignore[call-overload]


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.none(),
)
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "count": st.one_of(st.integers(-5, 15), ANY),
            "names": st.one_of(st.lists(st.text(max_size=3), max_size=3), ANY),
            "unit": st.one_of(st.sampled_from(["celsius", "kelvin"]), ANY),
            "place": st.one_of(st.fixed_dictionaries({"city": st.text(max_size=3)}), ANY),
            "more": ANY,
        },
    )
)
def test_whatever_the_schema_allows_fits_and_comes_out_as_it_went_in(
    arguments: dict[str, object],
) -> None:
    seen: dict[str, object] = {}

    @tool
    async def takes(
        count: Annotated[int, Field(ge=0, le=10)],
        names: list[str] | None = None,
        unit: Unit = Unit.CELSIUS,
        place: Place | None = None,
    ) -> None:
        if names is not None:
            seen["names"] = names
        seen.update(count=count, unit=unit.value)
        if place is not None:
            seen["place"] = place.model_dump(exclude_unset=True)

    schema = dict(takes.parameters)
    bounded(schema, at=())
    check_schema(schema, at=())
    fits = Draft202012Validator(schema).is_valid(json.loads(json.dumps(arguments)))
    try:
        asyncio.run(takes.run(arguments, made_call()))
    except ToolError:
        assert not fits
        return
    if fits:
        expected = {"unit": "celsius"} | {
            name: value for name, value in arguments.items() if value is not None
        }
        assert seen == expected
