"""Times as RFC 3339 in UTC, to the millisecond."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.shared.clock import iso, now_ms


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_795_253_400_125, "2026-11-21T09:30:00.125Z"),
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
    ],
)
def test_a_time_is_spelt_so(ms: int, text: str) -> None:
    assert iso(ms) == text


@given(st.integers(0, 4_102_444_800_000))
def test_a_time_reads_back_to_the_millisecond(ms: int) -> None:
    read = datetime.strptime(iso(ms), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert read - datetime.fromtimestamp(0, UTC) == timedelta(milliseconds=ms)


@given(st.integers(0, 4_102_444_800_000), st.integers(0, 4_102_444_800_000))
def test_times_order_as_their_texts_do(one: int, other: int) -> None:
    assert (one < other) == (iso(one) < iso(other))


def test_now_is_this_machines_clock_in_milliseconds() -> None:
    before = time.time()
    now = now_ms()
    assert before * 1000 - 1 <= now <= time.time() * 1000 + 1
