"""The validator process: what it says, and that no schema holds it, or us, for long."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from rejoin.worker.validation import Unfit, Validation

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ENDLESS = {"pattern": "^(a+)+$"}
LONG = f'"{"a" * 60}!"'


@pytest.fixture
async def validation() -> AsyncIterator[Validation]:
    made = Validation(seconds=0.5)
    yield made
    await made.aclose()


async def test_a_text_that_fits_has_no_faults(validation: Validation) -> None:
    assert await validation.faults(SCHEMA, ' {"a": 1}\n') == []


async def test_one_process_serves_many_at_once_and_mixes_nothing_up(validation: Validation) -> None:
    texts = [f'{{"a": "{n}"}}' for n in range(20)]
    found = await asyncio.gather(*(validation.faults(SCHEMA, text) for text in texts))
    assert found == [[f"$.a: '{n}' is not of type 'integer'"] for n in range(20)]


async def test_a_long_text_passes_through(validation: Validation) -> None:
    assert await validation.faults({}, f'"{"日" * 1_000_000}"') == []


async def test_a_pattern_without_an_end_is_ended_and_the_loop_runs_on(
    validation: Validation,
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with asyncio.timeout(15):
        with pytest.raises(Unfit, match=r"longer than 0\.5 seconds"):
            await validation.faults(ENDLESS, LONG)
    ticking.cancel()
    assert ticks > 10
    assert await validation.faults(SCHEMA, '{"a": 1}') == []


async def test_a_schema_that_refers_to_itself_for_ever_is_told(validation: Validation) -> None:
    with pytest.raises(Unfit, match="refers to itself"):
        await validation.faults({"$ref": "#"}, "1")
    assert await validation.faults(SCHEMA, '{"a": 1}') == []


async def test_a_schema_that_breaks_the_validator_is_told(validation: Validation) -> None:
    with pytest.raises(Unfit):
        await validation.faults({"type": 5}, "1")


async def test_an_answer_that_nobody_waited_for_is_not_the_next_ones(
    validation: Validation,
) -> None:
    assert await validation.faults(SCHEMA, '{"a": 1}') == []
    late = asyncio.create_task(validation.faults(SCHEMA, "no JSON"))
    await asyncio.sleep(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert await validation.faults(SCHEMA, '{"a": 1}') == []


async def test_a_process_that_was_killed_is_an_error_and_the_next_one_serves(
    validation: Validation,
) -> None:
    await validation.faults(SCHEMA, '{"a": 1}')
    process = validation._process
    assert process is not None
    asked = asyncio.create_task(validation.faults(ENDLESS, LONG))
    await asyncio.sleep(0)
    process.kill()
    with pytest.raises(OSError, match="validator process"):
        await asked
    assert await validation.faults(SCHEMA, '{"a": 1}') == []
