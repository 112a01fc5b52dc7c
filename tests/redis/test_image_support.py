"""Whether a request's models see its images, as far as their providers' own lists say so."""

import pytest
from redis.asyncio import Redis

from rejoin.api.part_support import check_images
from rejoin.shared import own_lists
from rejoin.shared.content import Content, FilePart, ImagePart, TextPart
from rejoin.shared.errors import BadRequest
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.request import StoredRequest, StoredTurn

SEEING, BLIND, SILENT = "ollama/seeing", "ollama/blind:1b", "ollama/silent"
SHOWN = (TextPart("what is it?"), ImagePart("data:image/png;base64,AA=="))
PAPER = (FilePart("a.pdf", "data:application/pdf;base64,AA=="),)


def request(model: str, *fallbacks: str, content: Content = SHOWN) -> StoredRequest:
    return StoredRequest(model, [StoredTurn("user", content)], fallbacks=list(fallbacks))


@pytest.fixture(autouse=True)
async def lists(redis: Redis) -> None:
    models = [
        ListedModel("seeing", capabilities=frozenset({"vision"})),
        ListedModel("blind:1b", capabilities=frozenset({"tools"})),
        ListedModel("silent"),
    ]
    await own_lists.keep(redis, "ollama", models, life_seconds=60)


async def refused(redis: Redis, asked: StoredRequest, *, single: bool) -> BadRequest:
    with pytest.raises(BadRequest, match=r"blind:1b takes no images") as raised:
        await check_images(redis, asked, single=single)
    return raised.value


async def test_an_image_for_a_model_that_its_provider_lists_as_blind_is_named(redis: Redis) -> None:
    assert (await refused(redis, request(BLIND), single=True)).field == ("input", 1)
    error = await refused(redis, request(BLIND), single=False)
    assert error.field == ("messages", 0, "content", 1)


async def test_a_fallback_that_its_provider_lists_as_blind_is_named(redis: Redis) -> None:
    error = await refused(redis, request(SEEING, SILENT, BLIND), single=True)
    assert error.field == ("fallbacks", 1)


async def test_a_model_of_which_nobody_says_so_is_asked(redis: Redis) -> None:
    for model in (SEEING, SILENT, "ollama/unlisted", "openai/gpt-5-mini", "agent/mine", ""):
        await check_images(redis, request(model), single=True)


async def test_text_and_papers_are_the_providers_to_judge(redis: Redis) -> None:
    for content in ("text", PAPER):
        await check_images(redis, request(BLIND, content=content), single=True)
