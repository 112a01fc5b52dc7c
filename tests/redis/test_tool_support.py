"""Whether the tools of a request are there, and its models call any, as far as Redis knows."""

import pytest
from redis.asyncio import Redis

from rejoin.api.tool_support import check_tools
from rejoin.shared import catalogue, own_lists
from rejoin.shared.connections import open_redis
from rejoin.shared.errors import BadRequest, Unavailable
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.registered import publish
from rejoin.shared.request import StoredRequest, StoredTurn, ToolDefinition

OWN = ToolDefinition("own", "", {"type": "object"})
ABLE, UNABLE, SILENT = "ollama/able", "ollama/unable:1b", "ollama/silent"


def request(
    *tools: str | ToolDefinition, model: str = "demo/echo", fallbacks: tuple[str, ...] = ()
) -> StoredRequest:
    return StoredRequest(
        model, [StoredTurn("user", "a")], tools=list(tools), fallbacks=list(fallbacks)
    )


async def refused(redis: Redis, asked: StoredRequest) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        await check_tools(redis, asked)
    return raised.value


async def test_any_name_is_taken_while_nobody_knows(redis: Redis) -> None:
    await check_tools(redis, request("search"))


async def test_a_name_that_a_worker_told_is_taken(redis: Redis) -> None:
    await publish(redis, tools=["search"])
    await check_tools(redis, request("search", OWN))


async def test_a_name_that_none_told_is_refused_and_those_there_are_told(redis: Redis) -> None:
    await publish(redis, tools=["search", "pay"], agents=["serch"])
    error = await refused(redis, request(OWN, "search", "serch"))
    assert error.field == ("tools", 2)
    assert error.mend == "no worker has a tool called serch; there are pay, search"


async def test_where_no_worker_has_a_tool_the_setting_is_named(redis: Redis) -> None:
    await publish(redis)
    assert "REJOIN_TOOLS" in (await refused(redis, request("search"))).mend


async def test_of_many_tools_not_all_are_told(redis: Redis) -> None:
    await publish(redis, tools=[f"t{n:03}" for n in range(60)])
    assert (await refused(redis, request("search"))).mend.endswith("t049 and 10 more")


@pytest.fixture
async def lists(redis: Redis) -> None:
    models = [
        ListedModel("able", capabilities=frozenset({"tools"})),
        ListedModel("unable:1b", capabilities=frozenset({"vision"})),
        ListedModel("silent"),
    ]
    await own_lists.keep(redis, "ollama", models, life_seconds=60)


@pytest.mark.usefixtures("lists")
async def test_a_model_that_its_provider_lists_without_tools_is_refused(redis: Redis) -> None:
    error = await refused(redis, request(OWN, model=UNABLE))
    assert error.field == ("tools",)
    assert UNABLE in error.mend


@pytest.mark.usefixtures("lists")
async def test_a_fallback_that_its_provider_lists_without_tools_is_refused(redis: Redis) -> None:
    error = await refused(redis, request(OWN, model=ABLE, fallbacks=(SILENT, UNABLE)))
    assert error.field == ("fallbacks", 1)


@pytest.mark.usefixtures("lists")
async def test_a_model_of_which_nobody_says_so_is_asked(redis: Redis) -> None:
    for model in (ABLE, SILENT, "ollama/unlisted", "openai/unlisted", "agent/mine", ""):
        await check_tools(redis, request(OWN, model=model))


@pytest.mark.usefixtures("lists")
async def test_without_tools_nothing_is_asked(redis: Redis) -> None:
    await check_tools(redis, request(model=UNABLE))


async def test_a_redis_that_is_away_is_said_to_be(unused_tcp_port: int) -> None:
    redis = open_redis(f"redis://127.0.0.1:{unused_tcp_port}/0", retries=0)
    try:
        with pytest.raises(Unavailable):
            await check_tools(redis, request("search"))
    finally:
        await redis.aclose()


async def test_what_our_own_catalogue_says_goes_before_a_providers_list(redis: Redis) -> None:
    assert catalogue.find("openai/gpt-5-mini") is not None
    listed = ListedModel("gpt-5-mini", capabilities=frozenset())
    await own_lists.keep(redis, "openai", [listed], life_seconds=60)
    await check_tools(redis, request(OWN, model="openai/gpt-5-mini"))
