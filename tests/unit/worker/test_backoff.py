"""How long a provider is left alone: doubling, bounded, spread, and by its own word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.worker.backoff import pause_seconds

LONGEST = {1: 0.5, 2: 1, 3: 2, 4: 4, 5: 8, 6: 8, 100: 8}


@pytest.mark.parametrize("failures", LONGEST)
def test_a_pause_doubles_from_half_a_second_to_eight(failures: int) -> None:
    pauses = [pause_seconds(failures, None) for _ in range(500)]
    longest = LONGEST[failures]
    assert max(pauses) <= longest
    assert max(pauses) > 0.9 * longest


@given(st.integers(1, 100))  # as many as REJOIN_PROVIDER_RETRIES may be
def test_jitter_takes_half_of_a_pause_at_the_most(failures: int) -> None:
    longest = min(8, 0.5 * 2 ** (failures - 1))
    assert longest / 2 <= pause_seconds(failures, None) <= longest


def test_those_who_failed_together_do_not_come_back_together() -> None:
    assert len({round(pause_seconds(3, None), 6) for _ in range(50)}) > 40
    assert len({round(pause_seconds(3, 5), 6) for _ in range(50)}) > 40


@given(st.integers(1, 100), st.floats(0, 10_000))
def test_the_providers_retry_after_wins(failures: int, said: float) -> None:
    assert said <= pause_seconds(failures, said) <= said + 0.25
