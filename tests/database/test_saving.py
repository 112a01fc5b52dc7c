"""Saving messages: whole, again, in any order, and never into what was deleted."""

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from rejoin.shared.content import FilePart, ImagePart, TextPart
from rejoin.shared.db import conversations, messages
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import Spent, StoredCall, StoredMessage
from rejoin.shared.db.saving import save
from rejoin.shared.errors import DatabaseRefused
from rejoin.shared.ids import EventId, new_message_id
from rejoin.shared.record import Status
from tests.database.stored import CREATED, OWNER, answer, queued, turn

USAGE = Spent(12, 34, 5, 6, Decimal("0.000000123456789012345"), estimated=True)


def whole(conversation_id: str) -> StoredMessage:
    """An answer with everything that there is."""
    return answer(
        conversation_id,
        "two\nlines, ünï ☃ 🎈",
        parent_id=new_message_id(),
        reasoning="because",
        finish_reason="stop",
        usage=USAGE,
        attempts=[{"attempt": 1, "worker": "w", "usage": None}],
        request={"temperature": 0.5, "stop": ["."]},
        metadata={"k": "v"},
        started_at=CREATED + 1,
        finished_at=CREATED + 2,
        tool_calls=(
            StoredCall("b", 1, "first", {"x": [1, None]}, result={"y": 2}),
            StoredCall("a", 1, "second", {}, error="refused"),
            StoredCall("c", 2, "third", {}),
        ),
    )


async def saved(database: Database, message: StoredMessage) -> StoredMessage | None:
    return await messages.load(database, message.id)


async def test_a_message_comes_back_as_it_was_saved(database: Database) -> None:
    message = whole(new_message_id())
    await save(database, [message])
    assert await saved(database, message) == message


async def test_a_failed_message_comes_back_with_its_error_and_partial_text(
    database: Database,
) -> None:
    error: dict[str, object] = {"code": "internal", "message": "m", "status": None}
    message = answer(new_message_id(), "as far as", status=Status.FAILED, error=error)
    await save(database, [message])
    assert await saved(database, message) == message


@pytest.mark.parametrize(
    "content",
    ["text", (TextPart("a"), ImagePart("https://x/y.png"), FilePart("f", "data:a/b;base64,QQ=="))],
)
async def test_a_turn_comes_back_with_its_parts(database: Database, content: object) -> None:
    message = turn(new_message_id(), content=content)
    await save(database, [message])
    assert await saved(database, message) == message


@pytest.mark.parametrize(
    "cost",
    ["0", "0.1", "0.000000000000000000000000000001", "12345678901234567890.123456789012345678"],
)
async def test_a_cost_is_exact(database: Database, cost: str) -> None:
    message = answer(new_message_id(), usage=USAGE._replace(cost_usd=Decimal(cost)))
    await save(database, [message])
    found = await saved(database, message)
    assert found is not None
    assert found.usage is not None
    assert found.usage.cost_usd == Decimal(cost)
    assert isinstance(found.usage.cost_usd, Decimal)


async def test_an_unknown_cost_stays_unknown(database: Database) -> None:
    message = answer(new_message_id(), usage=USAGE._replace(cost_usd=None))
    await save(database, [message])
    found = await saved(database, message)
    assert found is not None
    assert found.usage is not None
    assert found.usage.cost_usd is None


async def test_a_save_may_be_repeated(database: Database) -> None:
    message = whole(new_message_id())
    for _ in range(3):
        await save(database, [message])
    assert await saved(database, message) == message


async def test_the_end_replaces_the_beginning(database: Database) -> None:
    end = whole(new_message_id())
    start = queued(end.conversation_id, id=end.id, parent_id=end.parent_id)
    await save(database, [start])
    assert await saved(database, start) == start
    await save(database, [end])
    assert await saved(database, end) == end


async def test_a_beginning_that_comes_after_the_end_changes_nothing(database: Database) -> None:
    end = whole(new_message_id())
    start = queued(end.conversation_id, id=end.id, attempt=7)
    await save(database, [end])
    await save(database, [start])
    assert await saved(database, end) == end


async def test_of_one_message_twice_in_a_batch_the_later_state_stays(database: Database) -> None:
    end = whole(new_message_id())
    await save(database, [end, queued(end.conversation_id, id=end.id)])
    assert await saved(database, end) == end


async def test_an_end_of_a_later_attempt_replaces_one_that_redis_had_lost(
    database: Database,
) -> None:
    lost = whole(new_message_id())
    call = StoredCall("z", 1, "other", {})
    again = replace(lost, text="new", attempt=9, last_event_id=EventId(9, 0), tool_calls=(call,))
    await save(database, [lost])
    await save(database, [again])
    assert await saved(database, lost) == again
    await save(database, [lost])
    assert await saved(database, lost) == again


async def test_what_no_database_holds_becomes_u_fffd_on_both(database: Database) -> None:
    message = answer(
        new_message_id(),
        "a\0b\ud800c🎈",
        reasoning="\0",
        attempts=[{"reason": "\0 and \ud800"}],
        tool_calls=(StoredCall("id\0", 1, "name\0", {"x": "\0"}, result="\ud800"),),
    )
    asked = turn(message.conversation_id, "user\0\ud800")
    await save(database, [asked, message])
    found = await saved(database, message)
    assert found is not None
    assert (found.text, found.reasoning) == ("a\ufffdb\ufffdc🎈", "\ufffd")
    # What is kept as JSON has escapes and loses nothing.
    assert found.attempts == message.attempts
    assert found.tool_calls == (StoredCall("id\ufffd", 1, "name\ufffd", {"x": "\0"}, "\ud800"),)
    assert await saved(database, asked) == asked


async def test_a_million_characters_are_saved(database: Database) -> None:
    message = answer(new_message_id(), "ü🎈\n" * 333_333)
    await save(database, [message])
    found = await saved(database, message)
    assert found is not None
    assert found.text == message.text


async def test_a_batch_of_many_conversations_is_one_save(database: Database) -> None:
    batch = [whole(new_message_id()) for _ in range(60)]
    await save(database, batch)
    for message in batch[::20]:
        assert await saved(database, message) == message


async def test_a_conversation_is_made_with_its_first_message_and_renewed_with_each(
    database: Database,
) -> None:
    asked = turn(new_message_id())
    later = answer(asked.conversation_id, created_at=CREATED + 5, finished_at=CREATED + 9)
    await save(database, [later])
    await save(database, [asked])
    found = await conversations.load(database, asked.conversation_id, OWNER)
    assert found is not None
    assert found[0][1:] == (OWNER, CREATED, CREATED + 9)
    assert found[1] == [asked, later]


async def test_a_late_save_does_not_bring_back_what_was_deleted(database: Database) -> None:
    kept, gone = whole(new_message_id()), whole(new_message_id())
    await save(database, [gone])
    assert await conversations.remove(database, gone.conversation_id, OWNER, now_ms=1) == [gone.id]
    await save(database, [gone, kept])
    assert await saved(database, gone) is None
    assert await saved(database, kept) == kept


async def test_nothing_is_saved_into_another_owners_conversation(database: Database) -> None:
    mine = turn(new_message_id())
    theirs = turn(mine.conversation_id, owner="bob")
    await save(database, [mine])
    await save(database, [theirs])
    assert await saved(database, theirs) is None


async def test_what_the_database_cannot_hold_is_refused_and_nothing_of_it_is_there(
    database: Database,
) -> None:
    good = turn(new_message_id())
    bad = replace(turn(new_message_id()), role=None)  # type: ignore[arg-type]
    with pytest.raises(DatabaseRefused):
        await save(database, [good, bad])
    assert await saved(database, good) is None


async def test_an_answer_whose_tool_calls_cannot_be_held_is_not_saved_without_them(
    database: Database,
) -> None:
    bad = StoredCall("a", 1, None, {})  # type: ignore[arg-type]
    message = replace(whole(new_message_id()), tool_calls=(bad,))
    with pytest.raises(DatabaseRefused):
        await save(database, [message])
    assert await saved(database, message) is None


async def test_with_and_without_tool_calls_is_one_save(database: Database) -> None:
    with_calls, asked = whole(new_message_id()), turn(new_message_id())
    without = answer(asked.conversation_id, "x", parent_id=asked.id)
    await save(database, [with_calls, without, asked])
    for message in (with_calls, without, asked):
        assert await saved(database, message) == message


async def test_what_is_left_out_of_a_save_is_told(database: Database) -> None:
    gone, kept = turn(new_message_id()), turn(new_message_id())
    await save(database, [gone])
    await conversations.remove(database, gone.conversation_id, OWNER, now_ms=1)
    assert await save(database, [gone, kept]) == {gone.id}
    assert await save(database, [kept]) == set(), "what is there already is not left out"


async def test_savers_of_the_same_conversations_do_not_wait_for_each_other(
    database: Database,
) -> None:
    batch = [turn(new_message_id(), f"{number}") for number in range(30)]
    await asyncio.gather(*(save(database, batch[::step]) for step in [1, -1] * 10))
    for message in batch[::7]:
        assert await saved(database, message) == message


async def test_an_answer_whose_numbers_no_column_holds_is_refused(database: Database) -> None:
    message = replace(whole(new_message_id()), usage=USAGE._replace(input_tokens=10**30))
    with pytest.raises(DatabaseRefused):
        await save(database, [message])
    assert await saved(database, message) is None
