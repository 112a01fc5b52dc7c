"""The Python client against the real API: exact text over cuts, restarts and lost workers."""

import asyncio

import pytest

from rejoin.client import BadRequest, Busy, Client, Conflict, Event, Message, NotFound
from rejoin.client.reading import changes
from tests.support.caller import UNKNOWN_ID
from tests.support.cutting_proxy import Cut, cutting_proxy, random_cuts
from tests.support.processes import Stack

WITHIN = 60
FAST = "demo/echo?rate=0"
TEXT = " ".join(f"wörd-{n}\u2028😀" for n in range(60))


def ids(events: list[Event]) -> list[str]:
    return [str(event.id) for event in events]


async def read(client: Client, message_id: str) -> tuple[list[Event], Message]:
    events, message = [], Message()
    async with asyncio.timeout(WITHIN):
        async for change in changes(client.tail(message_id), message):
            events.append(change.event)  # noqa: PERF401  the message is wanted too
    return events, message


@pytest.mark.parametrize("rate", ["0", "200"])
async def test_a_tail_cut_at_random_is_the_uncut_one(stack: Stack, rate: str) -> None:
    async with (
        cutting_proxy(stack.api.port, random_cuts(7, least=150, most=1500)) as proxy,
        Client(proxy.url) as cut,
        Client(stack.url) as uncut,
    ):
        accepted = await uncut.send(TEXT, model=f"demo/echo?rate={rate}")
        cut_read, whole_read = await asyncio.gather(
            read(cut, accepted.message_id), read(uncut, accepted.message_id)
        )
        assert cut_read[0] == whole_read[0]
        assert cut_read[1].text == TEXT
        assert proxy.cut_connections > 2
        assert whole_read[0][-1].name == "done"


async def test_a_send_whose_reply_is_lost_makes_one_message(stack: Stack) -> None:
    # Cut before the reply, within its head, within its body.
    cuts = [Cut(down=0), Cut(down=40, reset=True), Cut(down=260)]
    async with cutting_proxy(stack.api.port, cuts) as proxy, Client(proxy.url) as client:
        async with asyncio.timeout(WITHIN):
            accepted = await client.send("once", model="demo/echo?rate=0", idempotency_key="once-1")
        async with Client(stack.url) as uncut:
            again = await uncut.send("once", model="demo/echo?rate=0", idempotency_key="once-1")
        assert proxy.cut_connections == 3
        assert again.message_id == accepted.message_id


async def test_an_api_that_is_restarted_is_come_back_to(own_stack: Stack) -> None:
    async with Client(own_stack.url) as client:
        accepted = await client.send(TEXT, model="demo/echo?rate=30")
        events: list[Event] = []
        async with asyncio.timeout(WITHIN):
            async for event in client.tail(accepted.message_id):
                events.append(event)
                if len(events) == 10:
                    own_stack.api.kill()
                    own_stack.api.launch()
    assert ids(events) == [f"1-{n}" for n in range(len(events))]
    assert "".join(str(e.data["text"]) for e in events if e.name == "text") == TEXT


async def test_a_worker_that_is_killed_takes_its_text_back(own_stack: Stack) -> None:
    message, taken_back = Message(), 0
    async with Client(own_stack.url) as client:
        accepted = await client.send(TEXT, model="demo/echo?rate=30")
        killed = False
        async with asyncio.timeout(WITHIN):
            async for change in changes(client.tail(accepted.message_id), message):
                taken_back += change.taken_back
                if change.added and not killed:
                    own_stack.worker.kill()
                    own_stack.worker.launch()
                    killed = True
    assert taken_back == 1
    assert message.text == TEXT


async def test_a_cancel_ends_the_tail_and_a_second_one_is_a_conflict_or_the_same(
    stack: Stack,
) -> None:
    async with Client(stack.url) as client, asyncio.timeout(WITHIN):
        accepted = await client.send(TEXT, model="demo/echo?rate=5")
        tail = client.tail(accepted.message_id)
        assert (await anext(tail)).name == "start"
        await client.cancel(accepted.message_id)
        await client.cancel(accepted.message_id)
        rest = [event async for event in tail]
        assert (rest[-1].name, rest[-1].data["finish_reason"]) == ("done", "cancelled")
        done = await client.send("x", model="demo/echo?rate=0")
        assert (await client.snapshot(done.message_id, wait_seconds=10)).status == "done"
        with pytest.raises(Conflict):
            await client.cancel(done.message_id)


async def test_a_snapshot_is_continued_by_a_tail(stack: Stack) -> None:
    async with Client(stack.url) as client, asyncio.timeout(WITHIN):
        accepted = await client.send(TEXT, model="demo/echo?rate=100")
        tail = client.tail(accepted.message_id)
        for _ in range(5):
            await anext(tail)
        await tail.aclose()
        snapshot = await client.snapshot(accepted.message_id)
        assert (snapshot.status, snapshot.ended) == ("streaming", False)
        rest = [event async for event in client.tail(snapshot.id, snapshot.last_event_id)]
        added = "".join(str(event.data["text"]) for event in rest if event.name == "text")
        assert snapshot.text + added == TEXT
        ended = await client.snapshot(accepted.message_id)
        assert (ended.text, ended.ended, ended.last_event_id) == (TEXT, True, str(rest[-1].id))


async def test_the_catalogue_is_listed(stack: Stack) -> None:
    async with Client(stack.url) as client:
        models = await client.models()
    assert [model.id for model in models if model.available] == ["demo/echo"]


async def test_what_is_wrong_is_told_as_the_server_says_it(stack: Stack) -> None:
    async with Client(stack.url) as client:
        with pytest.raises(NotFound):
            await client.send("x", model="nobody/x")
        with pytest.raises(BadRequest) as raised:
            await client.send("x", model="demo/echo", temperature=9)
        assert raised.value.field == ("temperature",)
        for asked in (client.snapshot(UNKNOWN_ID), client.cancel(UNKNOWN_ID)):
            with pytest.raises(NotFound):
                await asked
        with pytest.raises(NotFound):
            await anext(client.tail(UNKNOWN_ID))


async def test_a_position_of_another_message_begins_at_the_start(stack: Stack) -> None:
    async with Client(stack.url) as client, asyncio.timeout(WITHIN):
        accepted = await client.send("a b", model="demo/echo?rate=0")
        events = [event async for event in client.tail(accepted.message_id, "900-7")]
    assert (events[0].name, events[0].id, events[0].data["after"]) == ("reset", None, None)
    assert ids(events[1:]) == [f"1-{n}" for n in range(len(events) - 1)]


async def test_a_conversation_is_gone_on_with_branched_and_answered_again(stack: Stack) -> None:
    async with Client(stack.url) as client, asyncio.timeout(WITHIN):
        first = await client.send("one", model=FAST)
        await client.snapshot(first.message_id, wait_seconds=30)
        of_it = first.conversation_id
        second = await client.send("two", model=FAST, conversation_id=of_it)
        assert second.conversation_id == of_it
        await client.snapshot(second.message_id, wait_seconds=30)
        again = await client.send(regenerate=second.message_id)
        await client.snapshot(again.message_id, wait_seconds=30)
        found = await client.conversation(of_it)
        assert [(turn.role, turn.text) for turn in found.messages] == [
            ("user", "one"),
            ("assistant", "one"),
            ("user", "two"),
            ("assistant", "two"),
        ]
        assert found.messages[-1].siblings == [second.message_id, again.message_id]
        assert (found.messages[0].content, found.active_message_id) == ("one", None)
        branch = await client.send(
            "three", model=FAST, conversation_id=of_it, parent_id=first.message_id
        )
        await client.snapshot(branch.message_id, wait_seconds=30)
        branched = await client.conversation(of_it)
    assert [turn.text for turn in branched.messages] == ["one", "one", "three", "three"]


async def test_a_busy_conversation_is_waited_for_refused_or_interrupted(stack: Stack) -> None:
    async with Client(stack.url) as client, asyncio.timeout(WITHIN):
        first = await client.send(TEXT, model="demo/echo?rate=2")
        of_it = first.conversation_id
        with pytest.raises(Busy) as raised:
            await client.send("x", model=FAST, conversation_id=of_it, if_busy="reject")
        assert raised.value.active_message_id == first.message_id
        waiting = await client.send("x", model=FAST, conversation_id=of_it)
        assert waiting.waiting_for is not None
        assert waiting.waiting_for.message_id == first.message_id
        assert (await client.conversation(of_it)).active_message_id == first.message_id
        last = await client.send("y", model=FAST, conversation_id=of_it, if_busy="interrupt")
        ended = await client.snapshot(last.message_id, wait_seconds=30)
        assert (ended.status, ended.text, ended.waiting_for) == ("done", "y", None)
        assert (await client.snapshot(first.message_id)).status == "cancelled"


async def test_conversations_are_listed_and_deleted(stack: Stack) -> None:
    async with Client(stack.url) as client, asyncio.timeout(WITHIN):
        made = []
        for text in ("one", "two"):
            accepted = await client.send(text, model=FAST)
            await client.snapshot(accepted.message_id, wait_seconds=30)
            made.append(accepted.conversation_id)
        page = await client.conversations(limit=1)
        next_page = await client.conversations(limit=1, cursor=page.next_cursor)
        listed = [one.id for one in (*page.conversations, *next_page.conversations)]
        assert listed == made[::-1]
        await client.delete_conversation(made[1])
        for asked in (client.conversation(made[1]), client.conversation(UNKNOWN_ID)):
            with pytest.raises(NotFound):
                await asked
        with pytest.raises(NotFound):
            await client.send("x", model=FAST, conversation_id=made[1])
        with pytest.raises(BadRequest):
            await client.conversations(limit=0)
        assert made[1] not in [one.id for one in (await client.conversations()).conversations]
