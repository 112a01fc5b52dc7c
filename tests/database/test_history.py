"""Reading conversations back: paths, siblings, pages, deletion."""

from dataclasses import replace

import pytest

from rejoin.shared.db import conversations, messages
from rejoin.shared.db.engine import Database
from rejoin.shared.db.rows import StoredMessage
from rejoin.shared.db.saving import save
from rejoin.shared.errors import BadRequest
from rejoin.shared.ids import new_message_id
from tests.database.stored import CREATED, OWNER, answer, turn


def branched() -> list[StoredMessage]:
    """A question with two answers, the first gone on with: q, a1, q2, b1, a2 (the newest)."""
    conversation_id = new_message_id()
    q = turn(conversation_id, "q")
    a1 = answer(conversation_id, "a1", parent_id=q.id)
    q2 = turn(conversation_id, "q2", parent_id=a1.id, created_at=CREATED + 10)
    b1 = answer(conversation_id, "b1", parent_id=q2.id, created_at=CREATED + 10)
    a2 = answer(conversation_id, "a2", parent_id=q.id, created_at=CREATED + 20)
    return [q, a1, q2, b1, a2]


async def test_a_path_goes_from_the_root_to_the_message(database: Database) -> None:
    q, a1, q2, b1, a2 = tree = branched()
    await save(database, tree[::-1])
    assert await messages.path(database, b1.id) == [q, a1, q2, b1]
    assert await messages.path(database, a2.id) == [q, a2]
    assert await messages.path(database, q.id) == [q]
    assert await messages.path(database, new_message_id()) == []


async def test_a_path_tells_of_a_parent_that_is_not_saved_yet(database: Database) -> None:
    q, a1, q2, b1, _ = branched()
    await save(database, [q, q2, b1])
    found = await messages.path(database, b1.id)
    assert found == [q2, b1]
    assert found[0].parent_id == a1.id


async def test_a_long_path_is_read_whole(database: Database) -> None:
    conversation_id, tree, parent_id = new_message_id(), [], None
    for number in range(1200):
        row = turn(conversation_id, f"{number}", parent_id=parent_id, created_at=CREATED + number)
        tree.append(row)
        parent_id = row.id
    await save(database, tree)
    assert await messages.path(database, tree[-1].id) == tree


async def test_a_cycle_of_parents_ends(database: Database) -> None:
    q, a1, q2, _, _ = branched()
    await save(database, [replace(q, parent_id=q2.id), a1, q2])
    assert len(await messages.path(database, q2.id)) == 3


async def test_a_path_does_not_leave_its_conversation(database: Database) -> None:
    foreign = turn(new_message_id(), "secret", owner="bob")
    mine = turn(new_message_id(), "mine", parent_id=foreign.id)
    await save(database, [foreign, mine])
    assert await messages.path(database, mine.id) == [mine]


async def test_siblings_are_those_with_the_same_parent(database: Database) -> None:
    q, a1, q2, _, a2 = tree = branched()
    other_root = turn(q.conversation_id, "edited", created_at=CREATED + 30)
    await save(database, [*tree, other_root, turn(new_message_id())])
    assert await messages.siblings(database, a2.id) == [a1.id, a2.id]
    assert await messages.siblings(database, q.id) == [q.id, other_root.id]
    assert await messages.siblings(database, q2.id) == [q2.id]
    found = messages.siblings_in([*tree, other_root])
    assert (found[a1.id], found[other_root.id]) == ([a1.id, a2.id], [q.id, other_root.id])


async def test_a_conversation_has_its_messages_in_order_and_a_newest_path(
    database: Database,
) -> None:
    q, _, _, _, a2 = tree = branched()
    await save(database, tree[::-1])
    loaded = await conversations.load(database, q.conversation_id, OWNER)
    assert loaded is not None
    assert loaded[1] == tree
    assert messages.newest_path(loaded[1]) == [q, a2]
    assert messages.newest_path([]) == []


async def test_what_follows_the_latest_is_newer_whatever_the_clocks_say(
    database: Database,
) -> None:
    # Posted at one instant through two APIs, or by one whose clock is behind.
    conversation_id = new_message_id()
    first = turn(conversation_id, "first", created_at=CREATED + 1)
    behind = turn(conversation_id, "second", parent_id=first.id)
    last = answer(conversation_id, "third", parent_id=behind.id, created_at=CREATED - 1)
    await save(database, [first, behind, last])
    assert messages.newest_path([first, behind, last]) == [first, behind, last]
    assert await conversations.newest(database, conversation_id) == (OWNER, last.id)


async def test_a_cycle_has_a_newest_path_that_ends() -> None:
    one, other = new_message_id(), new_message_id()
    rows = [turn("c", id=one, parent_id=other), turn("c", id=other, parent_id=one)]
    assert len(messages.newest_path(rows)) == 2


async def test_turns_of_one_request_keep_their_order(database: Database) -> None:
    conversation_id = new_message_id()
    rows = [turn(conversation_id, f"{place}", place=place) for place in range(5)]
    rows.append(answer(conversation_id, place=5, id="0" + new_message_id()[1:]))
    await save(database, rows)
    loaded = await conversations.load(database, conversation_id, OWNER)
    assert loaded is not None
    assert [row.place for row in loaded[1]] == [0, 1, 2, 3, 4, 5]


async def test_another_owners_conversation_is_none(database: Database) -> None:
    row = turn(new_message_id())
    await save(database, [row])
    assert await conversations.load(database, row.conversation_id, "bob") is None
    assert await conversations.remove(database, row.conversation_id, "bob", now_ms=1) is None
    assert await conversations.load(database, row.conversation_id, OWNER) is not None


async def test_pages_hold_each_conversation_once_the_last_changed_first(
    database: Database,
) -> None:
    # Every two of them changed in the same millisecond.
    rows = [turn(new_message_id(), created_at=CREATED + number // 2) for number in range(7)]
    await save(database, [*rows, turn(new_message_id(), owner="bob")])
    seen, cursor = [], None
    for _ in range(3):
        page = await conversations.page(database, OWNER, limit=3, cursor=cursor)
        seen += page.conversations
        cursor = page.next_cursor
    assert cursor is None
    wanted = sorted(((r.created_at, r.conversation_id) for r in rows), reverse=True)
    assert [(one.updated_at, one.id) for one in seen] == wanted


@pytest.mark.parametrize("cursor", ["", "x", "-1-a", "9" * 20 + "-a", "²-a"])
async def test_a_cursor_that_no_page_gave_is_a_bad_request(database: Database, cursor: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        await conversations.page(database, OWNER, limit=3, cursor=cursor)


async def test_a_removed_conversation_is_gone_and_a_repeat_is_harmless(
    database: Database,
) -> None:
    tree = branched()
    conversation_id = tree[0].conversation_id
    await save(database, tree)
    removed = await conversations.remove(database, conversation_id, OWNER, now_ms=1)
    assert sorted(removed or []) == sorted(message.id for message in tree)
    assert await conversations.remove(database, conversation_id, OWNER, now_ms=2) == []
    assert await conversations.load(database, conversation_id, OWNER) is None
    assert (await conversations.page(database, OWNER, limit=3)).conversations == []
    assert await messages.load(database, tree[0].id) is None


async def test_what_is_removed_before_it_was_saved_is_not_saved_later(database: Database) -> None:
    row = turn(new_message_id())
    assert await conversations.remove(database, row.conversation_id, OWNER, now_ms=1) == []
    await save(database, [row])
    assert await messages.load(database, row.id) is None
