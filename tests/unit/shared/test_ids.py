"""Event ids order as their events do and have one spelling; message ids are UUIDv7."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.ids import EventId, is_message_id, new_message_id

ids = st.builds(EventId, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))

NOT_IDS = (
    "",
    "-",
    "1",
    "1-",
    "-1",
    "1-1-1",
    "1--1",
    "+1-0",
    "1-+0",
    " 1-0",
    "1-0 ",
    "1-0\n",
    "01-0",
    "1-00",
    "1_0-0",
    "1.0-0",
    "0x1-0",
    "1-*",
    "$",
    "$-0",
    "(1-0",
    "\u0661-0",  # an Arabic-Indic one: \d would take it
    "1-\u00b2",
    "1-0\x00",
    "\ud800-0",
    "1" * 21 + "-0",
    "1" * 100_000,
)


@given(ids)
def test_an_id_reads_back_from_its_text_and_its_bytes(event_id: EventId) -> None:
    assert EventId.parse(str(event_id)) == event_id
    assert EventId.parse(bytes(event_id)) == event_id
    assert bytes(event_id) == str(event_id).encode()


@given(ids, ids)
def test_ids_order_by_attempt_and_then_by_sequence(one: EventId, other: EventId) -> None:
    assert (one < other) == ((one.attempt, one.sequence) < (other.attempt, other.sequence))


def test_sequences_order_as_numbers_not_as_text() -> None:
    assert EventId.parse("1-9") < EventId.parse("1-10") < EventId.parse("2-0")


@pytest.mark.parametrize("text", NOT_IDS, ids=lambda text: ascii(text)[:20])
def test_what_is_not_of_the_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="<attempt>-<sequence>"):
        EventId.parse(text)


@given(st.text())
def test_any_text_is_an_id_with_that_one_spelling_or_refused(text: str) -> None:
    try:
        parsed = EventId.parse(text)
    except ValueError:
        return
    assert str(parsed) == text


@given(st.binary())
def test_any_bytes_are_an_id_or_refused(raw: bytes) -> None:
    try:
        parsed = EventId.parse(raw)
    except ValueError:
        return
    assert bytes(parsed) == raw


def test_a_new_message_id_is_a_lower_case_uuid_of_version_7() -> None:
    message_id = new_message_id()
    parsed = uuid.UUID(message_id)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert message_id == str(parsed)
    assert len(message_id) == 36
    assert is_message_id(message_id)


def test_message_ids_are_unique_and_grow_with_time() -> None:
    made = [new_message_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert made == sorted(made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01980000-0000-7000-8000-00000000000",
        "01980000-0000-7000-8000-0000000000000",
        "01980000-0000-7000-8000-00000000000G",
        "01980000-0000-7000-8000-00000000000A",
        "01980000-0000-4000-8000-000000000000",
        "01980000-0000-7000-c000-000000000000",
        "01980000000070008000000000000000",
        "01980000-0000-7000-8000-000000000000\n",
        "{01980000-0000-7000-8000-000000000000}",
        "\u06601980000-0000-7000-8000-000000000000",
    ],
)
def test_another_spelling_is_no_message_id(text: str) -> None:
    assert not is_message_id(text)
