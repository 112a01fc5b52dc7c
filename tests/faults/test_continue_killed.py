"""A worker is killed at every tenth token: with `continue` the answer goes on from there.

Asked of servers that really go on with a part of their answer, in each wire format: nothing is
taken back, nothing comes twice and nothing is missing.
"""

import itertools
from collections.abc import Mapping
from typing import Final

import pytest

from rejoin.shared.ids import new_message_id
from tests.support.continuing_provider import ALL, TOLD
from tests.support.going_on import ASKED, PREFIXED, TEXT, WORDS, Staged, assert_went_on, kill_at
from tests.support.logs import data

CUTS: Final = (1, *range(10, WORDS + 1, 10))


def cuts_of(models: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """A message for each model and each place."""
    return {new_message_id(): cut for cut in itertools.product(models.values(), CUTS)}


async def test_killed_at_every_tenth_token_it_goes_on_by_the_providers_own_prefix(
    serving: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = cuts_of(PREFIXED)
    async with serving() as stage:
        await kill_at(stage, cuts, monkeypatch)
        for message_id, cut in cuts.items():
            frames = await stage.ended(message_id)
            assert_went_on(frames, TEXT, cut)
            assert data(frames, "reset")[0]["reason"] == "takeover"
        for server in stage.servers.values():
            pieces = server.pieces(TEXT)
            shown = ["".join(pieces[:texts]).rstrip() for texts in CUTS]
            assert sorted(server.prefixes) == sorted(shown)
            assert server.begun == len(CUTS)


@pytest.mark.parametrize("repeats", [TOLD, 0, 2, ALL])
async def test_killed_at_every_tenth_token_it_goes_on_as_a_turn_asks_for(
    serving: Staged, monkeypatch: pytest.MonkeyPatch, repeats: int | str
) -> None:
    models = ASKED if repeats == TOLD else {"openai": ASKED["openai"]}
    cuts = cuts_of(models)
    async with serving(wires=tuple(models), prefix="anew", repeats=repeats) as stage:
        await kill_at(stage, cuts, monkeypatch)
        for message_id, cut in cuts.items():
            assert_went_on(await stage.ended(message_id), TEXT, cut)
        for server in stage.servers.values():
            assert len(server.asked) == server.begun == len(CUTS)


async def test_killed_three_times_it_goes_on_from_all_of_its_text(
    serving: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = {new_message_id(): (model, 30) for model in PREFIXED.values()}
    async with serving() as stage:
        await kill_at(stage, cuts, monkeypatch, 10, 7)
        for message_id, cut in cuts.items():
            assert_went_on(await stage.ended(message_id), TEXT, cut, breaks=3)
        for server in stage.servers.values():
            pieces = server.pieces(TEXT)
            assert server.prefixes == ["".join(pieces[:n]).rstrip() for n in (30, 40, 47)]
