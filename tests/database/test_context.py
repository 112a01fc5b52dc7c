"""What a later message shows its model, wherever the messages before it are by then."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from rejoin.shared import keys, log, own_lists, record, turns
from rejoin.shared.content import ImagePart, TextPart
from rejoin.shared.db import messages, schema
from rejoin.shared.db.engine import Database
from rejoin.shared.errors import DatabaseUnavailable, ProviderError
from rejoin.shared.events import FailureCode, FinishReason
from rejoin.shared.fold import Message, fold
from rejoin.shared.ids import new_message_id
from rejoin.shared.own_lists import ListedModel
from rejoin.shared.turns import IfBusy
from rejoin.worker.providers.base import FinishChunk, ModelRequest, ThinkingChunk
from rejoin.worker.save import Saver
from tests.database.talk import Talk
from tests.support.in_process import until_ended, until_events, worker_on
from tests.support.messages import LIFE, MODEL
from tests.support.postgres_server import PostgresServer
from tests.support.scripted_provider import SILENCE, Line, ScriptedProvider, answer, texts

AWAY = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
BROKE = ProviderError("broke", code=FailureCode.PROVIDER_UNAVAILABLE, retryable=True)
BLOCK = {"type": "thinking", "thinking": "hm", "signature": "s"}

Shown = list[tuple[str, object]]


@pytest.fixture
def no_saver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gets into the database."""

    async def nothing_due(_: object) -> int:
        return 0

    monkeypatch.setattr(Saver, "save_due", nothing_due)


def shown(request: ModelRequest) -> Shown:
    """The turns of a call, each by its role and content."""
    return [(turn.role, turn.content) for turn in request.turns]


def failed_code(message: Message) -> object:
    assert message.end is not None
    return message.end.fields.get("code")


async def test_a_later_message_brings_what_only_the_database_has(talk: Talk) -> None:
    provider = ScriptedProvider(answer("fine"))
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask("how are you?")
        await until_ended(talk.redis, first)
        second = await talk.ask("and now?", first)
        await until_ended(talk.redis, second)
        await talk.saved(gone=[first, second])
        await until_ended(talk.redis, await talk.ask("still?", second, system="be brief"))
    assert shown(provider.calls[1]) == [
        ("user", "how are you?"), ("assistant", "fine"), ("user", "and now?"),
    ]  # fmt: skip
    assert shown(provider.calls[2]) == [
        ("system", "be brief"),
        ("user", "how are you?"), ("assistant", "fine"),
        ("user", "and now?"), ("assistant", "fine"),
        ("user", "still?"),
    ]  # fmt: skip


@pytest.mark.parametrize("gone", [True, False])
async def test_an_answer_that_a_request_brought_is_shown_to_later_messages(
    talk: Talk, gone: bool
) -> None:
    provider = ScriptedProvider(answer("fine"))
    brought = [("user", "who are you?"), ("assistant", "a poet"), ("user", "how are you?")]
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask_after(*brought)
        await until_ended(talk.redis, first)
        if gone:
            await talk.saved(gone=[first])
        await until_ended(talk.redis, await talk.ask("and now?", first))
    assert shown(provider.calls[0]) == brought
    assert shown(provider.calls[1]) == [*brought, ("assistant", "fine"), ("user", "and now?")]


async def test_a_message_that_was_never_accepted_is_left_out_of_the_path(talk: Talk) -> None:
    provider = ScriptedProvider(answer("fine"))
    async with worker_on(talk.url, provider, database_url=talk.database_url, lease_seconds=0.5):
        first = await talk.ask("one")
        await until_ended(talk.redis, first)
        never = new_message_id()
        await turns.place(
            talk.redis, talk.id, never, owner="", if_busy=IfBusy.ENQUEUE, parent_id=first,
            life_seconds=60, make=True,
        )  # fmt: skip
        second = await talk.ask("two", never)
        await until_ended(talk.redis, second)
        await talk.saved(gone=[first, second])
        third = await talk.ask("three", second)
        await until_ended(talk.redis, third)
    two = [("user", "one"), ("assistant", "fine"), ("user", "two")]
    assert shown(provider.calls[1]) == two
    assert shown(provider.calls[2]) == [*two, ("assistant", "fine"), ("user", "three")]
    database = Database(talk.database_url)
    path = await messages.path(database, second)
    await database.aclose()
    assert [row.id for row in path if row.role == "assistant"] == [first, second]


@pytest.mark.usefixtures("no_saver")
async def test_what_is_not_saved_yet_is_read_from_its_log(talk: Talk) -> None:
    provider = ScriptedProvider(answer("fine"))
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask("how are you?")
        await until_ended(talk.redis, first)
        second = await talk.ask("and now?", first)
        await until_ended(talk.redis, second)
        await until_ended(talk.redis, await talk.ask("still?", second))
    assert shown(provider.calls[2]) == [
        ("user", "how are you?"), ("assistant", "fine"),
        ("user", "and now?"), ("assistant", "fine"),
        ("user", "still?"),
    ]  # fmt: skip


async def test_a_row_from_before_the_end_gives_way_to_the_log(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await talk.ask("one")
    silent = ScriptedProvider([SILENCE])
    async with worker_on(
        talk.url, silent, database_url=talk.database_url, lease_seconds=0.5
    ) as begun:
        await talk.saved()  # queued, without a text
        await begun.die()
    monkeypatch.setattr(Saver, "save_due", _nothing_due)
    await talk.run(ScriptedProvider(answer("two")), first)
    provider = ScriptedProvider(answer("four"))
    await talk.told(provider, "three", first)
    assert shown(provider.calls[0]) == [("user", "one"), ("assistant", "two"), ("user", "three")]


async def _nothing_due(_: object) -> int:
    return 0


async def test_a_saved_message_after_one_that_is_not_brings_both(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider(answer("a"))
    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save_due", _nothing_due)
        first, _ = await talk.told(provider, "one")
        marks = await talk.redis.zrange(keys.UNSAVED, 0, -1)
        await talk.redis.delete(keys.UNSAVED)
    assert marks == [first.encode()]
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        second = await talk.ask("two", first)
        await until_ended(talk.redis, second)
        await talk.saved(gone=[second])
        await until_ended(talk.redis, await talk.ask("three", second))
    assert [text for _, text in shown(provider.calls[2])] == ["one", "a", "two", "a", "three"]


@pytest.mark.parametrize("where", ["log", "database"])
async def test_what_a_cancelled_or_failed_message_gave_stays(
    talk: Talk, where: str, request: pytest.FixtureRequest
) -> None:
    if where == "log":
        request.getfixturevalue("no_saver")
    provider = ScriptedProvider(
        [*texts("half a "), SILENCE], [*texts("broken "), BROKE], [BROKE], answer("whole")
    )
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask("one")
        await until_events(talk.redis, first, 2)
        await record.cancel(talk.redis, first)
        await until_ended(talk.redis, first)
        second = await talk.ask("two", first)
        await until_ended(talk.redis, second)
        empty = await talk.ask("three", second)
        await until_ended(talk.redis, empty)
        if where == "database":
            await talk.saved(gone=[first, second, empty])
        await until_ended(talk.redis, await talk.ask("four", empty))
    assert shown(provider.calls[-1]) == [
        ("user", "one"), ("assistant", "half a "),
        ("user", "two"), ("assistant", "broken "),
        ("user", "three"),  # its answer has nothing, which no provider takes
        ("user", "four"),
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["log", "database"])
async def test_a_branch_sees_its_own_path_alone(
    talk: Talk, where: str, request: pytest.FixtureRequest
) -> None:
    if where == "log":
        request.getfixturevalue("no_saver")
    provider = ScriptedProvider(answer("1"), answer("2"), answer("3"))
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask("one")
        await until_ended(talk.redis, first)
        second = await talk.ask("two", first)
        await until_ended(talk.redis, second)
        if where == "database":
            await talk.saved(gone=[first, second])
        await until_ended(talk.redis, await talk.ask("other", first))
    assert shown(provider.calls[2]) == [("user", "one"), ("assistant", "1"), ("user", "other")]


@pytest.mark.usefixtures("no_saver")
async def test_a_branch_from_a_turn_that_is_not_saved_is_shown_it(talk: Talk) -> None:
    provider = ScriptedProvider(answer("1"), answer("2"), answer("3"))
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask_with_id("one")
        await until_ended(talk.redis, first)
        turn = (await record.load_request(talk.redis, first)).turns[0].id
        branch = await talk.ask_with_id("two", turn, beside=first)
        await until_ended(talk.redis, branch)
        again = await talk.ask_again(branch)
        await until_ended(talk.redis, again)
    same = [("user", "one"), ("user", "two")]
    assert [shown(call) for call in provider.calls] == [same[:1], same, same]


@pytest.mark.parametrize("where", ["log", "database"])
async def test_another_answer_to_a_turn_is_shown_what_the_first_was(
    talk: Talk, where: str, request: pytest.FixtureRequest
) -> None:
    if where == "log":
        request.getfixturevalue("no_saver")
    provider = ScriptedProvider(answer("1"), answer("2"), answer("3"), answer("4"))
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask_with_id("one")
        await until_ended(talk.redis, first)
        second = await talk.ask_with_id("two", first)
        await until_ended(talk.redis, second)
        third = await talk.ask_again(second)
        await until_ended(talk.redis, third)
        fourth = await talk.ask_again(third)
        if where == "database":
            await talk.saved(gone=[first, second])
        await until_ended(talk.redis, fourth)
        await until_ended(talk.redis, await talk.ask("and?", fourth))
    same = [("user", "one"), ("assistant", "1"), ("user", "two")]
    assert [shown(call) for call in provider.calls[1:4]] == [same, same, same]
    assert shown(provider.calls[4]) == [*same, ("assistant", "4"), ("user", "and?")]


async def test_a_takeover_shows_the_same_and_counts_it(talk: Talk) -> None:
    first, _ = await talk.told(ScriptedProvider(answer("fine")), "one")
    lost = ScriptedProvider([*texts("1234"), SILENCE])
    second = await talk.ask("two!", first)
    async with worker_on(
        talk.url, lost, database_url=talk.database_url, lease_seconds=0.5
    ) as worker:
        await until_events(talk.redis, second, 2)
        await worker.die()
    heir = ScriptedProvider(answer("whole"))
    async with worker_on(
        talk.url, heir, name="worker-2", database_url=talk.database_url, lease_seconds=0.5
    ):
        message = fold(await until_ended(talk.redis, second, within=20))
    assert shown(heir.calls[0]) == shown(lost.calls[0])
    assert [text for _, text in shown(heir.calls[0])] == ["one", "fine", "two!"]
    assert message.usage is not None
    # 11 characters, shown twice; 4 and 5 of answers.
    assert (message.usage["input_tokens"], message.usage["output_tokens"]) == (6, 3)


@pytest.mark.usefixtures("no_saver")
async def test_a_database_that_is_away_is_not_needed_where_redis_has_all(
    redis: Redis, clean_redis_url: str
) -> None:
    talk = Talk(redis, clean_redis_url, AWAY)
    first, _ = await talk.told(ScriptedProvider(answer("fine")), "one")
    provider = ScriptedProvider(answer("four"))
    _, message = await talk.told(provider, "three", first)
    assert message.text == "four"
    assert [text for _, text in shown(provider.calls[0])] == ["one", "fine", "three"]


@pytest.mark.usefixtures("no_saver")
async def test_a_database_that_is_silent_holds_nothing_up_where_redis_has_all(
    redis: Redis, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(redis, clean_redis_url, AWAY)
    first, _ = await talk.told(ScriptedProvider(answer("fine")), "one")

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("rejoin.shared.db.messages.path", never)
    _, message = await talk.told(ScriptedProvider(answer("four")), "three", first)
    assert message.text == "four"


async def test_a_database_that_is_away_and_needed_is_waited_for(
    redis: Redis, clean_redis_url: str, own_postgres: PostgresServer
) -> None:
    database = Database(own_postgres.url())
    await schema.migrate(database)
    await database.aclose()
    talk = Talk(redis, clean_redis_url, own_postgres.url())
    provider = ScriptedProvider(answer("fine"))
    async with worker_on(talk.url, provider, database_url=talk.database_url, lease_seconds=0.5):
        first = await talk.ask("one")
        await until_ended(redis, first)
        await talk.saved(gone=[first])
        own_postgres.kill()
        waiting, unwanted = await talk.ask("two", first), await talk.ask("no", first)
        await until_events(redis, waiting, 1)
        await outlive_the_lease()
        held = await record.load(redis, waiting)
        assert held is not None
        assert (held.ended, held.attempt, len(provider.calls)) == (False, 1, 1)
        await record.cancel(redis, unwanted)
        own_postgres.start()
        message = fold(await until_ended(redis, waiting, within=30))
    assert message.text == "fine"
    assert [event.name for event in message.kept] == ["start", "text", "step", "usage", "done"]
    assert [text for _, text in shown(provider.calls[1])] == ["one", "fine", "two"]


async def outlive_the_lease() -> None:
    """Let the time pass after which nobody's renewal would have given the job to another."""
    await asyncio.sleep(2)


@pytest.fixture
def history_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise DatabaseUnavailable("the database is away")

    monkeypatch.setattr("rejoin.shared.db.messages.path", away)


@pytest.mark.usefixtures("history_away")
async def test_a_cancel_ends_a_message_that_waits_for_its_history(talk: Talk) -> None:
    provider = ScriptedProvider(answer("never"))
    message_id = await talk.ask("two", new_message_id())
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        await until_events(talk.redis, message_id, 1)
        await record.cancel(talk.redis, message_id)
        message = fold(await until_ended(talk.redis, message_id))
    assert message.end is not None
    assert message.end.fields["finish_reason"] == FinishReason.CANCELLED
    assert provider.calls == []


@pytest.mark.usefixtures("history_away")
async def test_a_message_waits_for_its_history_no_longer_than_it_may_run(talk: Talk) -> None:
    provider = ScriptedProvider(answer("never"))
    message_id = await talk.ask("two", new_message_id())
    message = await talk.run(provider, message_id, timeout_total=1)
    assert failed_code(message) == FailureCode.DEADLINE_EXCEEDED
    assert provider.calls == []


@pytest.mark.usefixtures("history_away")
async def test_a_worker_that_stops_hands_over_a_message_that_waits_for_its_history(
    talk: Talk,
) -> None:
    message_id = await talk.ask("two", new_message_id())
    async with worker_on(
        talk.url, ScriptedProvider(answer("never")), database_url=talk.database_url
    ) as worker:
        await until_events(talk.redis, message_id, 1)
        await worker.stop()
        worker.dead = True
    assert len(await log.read_all(talk.redis, message_id)) == 1
    found = await record.load(talk.redis, message_id)
    assert found is not None
    assert not found.ended


async def test_a_message_that_follows_one_that_is_gone_fails_and_says_so(talk: Talk) -> None:
    provider = ScriptedProvider(answer("never"))
    _, message = await talk.told(provider, "two", new_message_id())
    assert failed_code(message) == FailureCode.INVALID_REQUEST
    assert message.end is not None
    assert "parent_id" in str(message.end.fields["message"])
    assert provider.calls == []


@pytest.mark.usefixtures("no_saver")
async def test_an_answer_whose_log_is_gone_is_not_taken_for_one_without_a_word(talk: Talk) -> None:
    first, _ = await talk.told(ScriptedProvider(answer("fine")), "one")
    await talk.redis.delete(keys.log(first))
    provider = ScriptedProvider(answer("never"))
    _, message = await talk.told(provider, "two", first)
    assert failed_code(message) == FailureCode.INVALID_REQUEST


async def test_another_conversations_message_is_none_of_the_path(talk: Talk) -> None:
    first, _ = await talk.told(ScriptedProvider(answer("secret")), "one")
    other = Talk(talk.redis, talk.url, talk.database_url)
    provider = ScriptedProvider(answer("never"))
    _, message = await other.told(provider, "two", first)
    assert failed_code(message) == FailureCode.INVALID_REQUEST
    assert provider.calls == []


async def test_each_model_is_shown_what_fits_its_own_window(talk: Talk) -> None:
    models = [ListedModel("x", 1000, 0), ListedModel("small", 120, 20)]
    await own_lists.keep(talk.redis, "script", models, life_seconds=LIFE)
    first, _ = await talk.told(ScriptedProvider(answer("b" * 200)), "a" * 200)
    second, _ = await talk.told(ScriptedProvider(answer("d" * 100)), "c" * 100, first)
    provider = ScriptedProvider([BROKE], answer("whole"))
    _, message = await talk.told(provider, "e" * 100, second, fallbacks=["script/small"])
    assert message.text == "whole"
    whole, less = ([str(text)[0] for _, text in shown(call)] for call in provider.calls)
    assert whole == ["a", "b", "c", "d", "e"]
    assert less == ["c", "d", "e"]  # 100 tokens are 400 characters


async def test_an_earlier_image_does_not_keep_a_blind_fallback_from_answering(talk: Talk) -> None:
    models = [ListedModel("blind", capabilities=frozenset())]
    await own_lists.keep(talk.redis, "script", models, life_seconds=LIFE)
    look: Any = (ImagePart("https://a.example/b.png"),)
    first, _ = await talk.told(ScriptedProvider(answer("a cat")), look)
    provider = ScriptedProvider([BROKE], answer("sure"))
    _, message = await talk.told(provider, "sure?", first, fallbacks=["script/blind"])
    assert message.text == "sure"
    seeing, blind = (call.turns[0].content for call in provider.calls)
    assert seeing == look
    assert [type(part) for part in blind] == [TextPart]


@pytest.mark.parametrize("where", ["log", "database"])
async def test_thinking_goes_back_to_the_provider_that_thought(
    talk: Talk, where: str, request: pytest.FixtureRequest
) -> None:
    if where == "log":
        request.getfixturevalue("no_saver")
    thought: list[Line] = [
        ThinkingChunk(BLOCK), *texts("four"), FinishChunk(FinishReason.STOP),
    ]  # fmt: skip
    provider = ScriptedProvider(thought, answer("b"))
    async with worker_on(talk.url, provider, database_url=talk.database_url):
        first = await talk.ask("2 + 2?")
        await until_ended(talk.redis, first)
        if where == "database":
            await talk.saved(gone=[first])
        await until_ended(talk.redis, await talk.ask("sure?", first))
    assert [list(turn.thinking) for turn in provider.calls[1].turns] == [[], [BLOCK], []]


async def test_the_echo_says_the_last_turn_and_not_those_before_it(talk: Talk) -> None:
    provider = ScriptedProvider(answer("unused"))
    first, _ = await talk.told(provider, "one", model=MODEL)
    _, message = await talk.told(provider, "two", first, model=MODEL)
    assert message.text == "two"
    assert message.usage is not None
    assert message.usage["input_tokens"] == 3
