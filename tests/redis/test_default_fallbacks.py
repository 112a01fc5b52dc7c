"""The fallbacks that a message is stored with: its own, or the settings file's for its model."""

from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from rejoin.api.fallbacks import check_file, with_fallbacks
from rejoin.shared import own_lists
from rejoin.shared.content import ImagePart
from rejoin.shared.errors import SettingsError
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.request import ResponseFormat, StoredRequest, StoredTurn
from rejoin.shared.settings_file import SettingsFile, load

GUIDES: Final = Path(__file__).parents[2] / "docs" / "how-to"
MODEL: Final = "openai/gpt-5-mini"
OLD: Final = "openai/gpt-3.5-turbo"  # neither sees nor fits a schema
OLLAMA: Final = "ollama/mine"
FILE: Final = SettingsFile(
    fallbacks={MODEL: ["demo/echo", OLD, "demo/echo", OLLAMA], "demo/echo": [MODEL]}
)
IMAGE: Final = (ImagePart("data:image/png;base64,AA=="),)


async def stored(redis: Redis, model: str = MODEL, *, named: bool = False, **fields: Any) -> Any:
    turns = fields.pop("turns", [StoredTurn("user", "a")])
    request = StoredRequest(model, turns, **fields)
    return (await with_fallbacks(redis, FILE, request, named=named)).fallbacks


async def test_they_are_the_files_for_its_model_each_once(redis: Redis) -> None:
    assert await stored(redis) == ["demo/echo", OLD, OLLAMA]
    assert await stored(redis, "openai/other") == []


async def test_a_models_parameters_make_no_difference(redis: Redis) -> None:
    assert await stored(redis, "demo/echo?rate=5") == [MODEL]


async def test_a_request_that_names_some_or_none_has_those_alone(redis: Redis) -> None:
    assert await stored(redis, named=True) == []
    named = [OLD, MODEL, OLLAMA, OLD]
    assert await stored(redis, named=True, fallbacks=named) == [OLD, OLLAMA]


async def test_those_that_cannot_take_the_request_are_left_out(redis: Redis) -> None:
    schema = ResponseFormat("a", {"type": "object"})
    assert await stored(redis, response_format=schema) == ["demo/echo", OLLAMA]
    assert await stored(redis, turns=[StoredTurn("user", IMAGE)]) == [OLLAMA]
    await own_lists.keep(
        redis, "ollama", [ListedModel("mine", capabilities=frozenset())], life_seconds=60
    )
    assert OLLAMA not in await stored(redis, tools=["look"])
    assert OLLAMA not in await stored(redis, turns=[StoredTurn("user", IMAGE)])


@pytest.mark.parametrize("model", ["demo/other", "demo/echo?rate=x", "openai/a b"])
def test_a_file_with_a_model_that_nobody_could_use_is_refused(model: str) -> None:
    for fallbacks in ({MODEL: [model]}, {model: [MODEL]}):
        with pytest.raises(SettingsError, match="REJOIN_SETTINGS_FILE"):
            check_file(SettingsFile(fallbacks=fallbacks))
    check_file(FILE)


def test_the_file_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = (GUIDES / "fallbacks.md").read_text(encoding="utf-8")
    file = tmp_path / "rejoin.toml"
    file.write_text(guide.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    read = load(file)
    check_file(read)
    assert MODEL in read.fallbacks
