"""The chat page keeps a conversation: its next message goes on in it, a reload shows it."""

import json
import re
from collections.abc import Mapping

import pytest
from playwright.async_api import Page, Request, Route, expect

from tests.clients.browser.test_page import (
    EVENTS,
    WORDS,
    answer,
    ask,
    earlier,
    expect_state,
    open_page,
    until_shown,
)
from tests.clients.toy_server import Entry
from tests.support.caller import UNKNOWN_ID, caller
from tests.support.processes import Stack

ADDRESS = re.compile(r"#conversation=[0-9a-f-]{36}$")
CONVERSATION_ID = "01980000-0000-7000-8000-00000000000c"
MESSAGE_ID = "01980000-0000-7000-8000-000000000001"


def posted(page: Page) -> list[dict[str, object]]:
    """The bodies of the messages that the page sends from now on."""
    bodies: list[dict[str, object]] = []

    def note(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/api/messages"):
            bodies.append(json.loads(request.post_data or "{}"))

    page.on("request", note)
    return bodies


async def test_the_next_message_goes_on_in_the_conversation(page: Page, stack: Stack) -> None:
    bodies = posted(page)
    await open_page(page, stack.url)
    for text in ("first", "second", "third"):
        await ask(page, text)
        await until_shown(page, text)
        await expect_state(page, "ended")
    await expect(page).to_have_url(ADDRESS)
    conversation_id = page.url[-36:]
    assert [body.get("conversation_id") for body in bodies] == [
        None,
        conversation_id,
        conversation_id,
    ]
    turns = await earlier(page).locator(".turn").all_text_contents()
    assert turns == ["first", "first", "second", "second"]
    assert await answer(page) == "third"


async def test_a_reload_shows_the_conversation_and_goes_on_with_the_running_answer(
    page: Page, stack: Stack
) -> None:
    await open_page(page, stack.url)
    await ask(page, "first")
    await expect_state(page, "ended")
    await ask(page, WORDS, "demo/echo?rate=12")
    await until_shown(page, "word-3 ")
    await page.reload()
    await expect(page.get_by_label("You wrote")).to_have_text(WORDS)
    assert await earlier(page).locator(".turn").all_text_contents() == ["first", "first"]
    await until_shown(page, "word-3 ")
    assert "word-59" not in await answer(page)
    await expect_state(page, "ended")
    assert await answer(page) == WORDS
    await page.reload()
    await expect_state(page, "ended")
    assert await answer(page) == WORDS
    await ask(page, "third")
    await until_shown(page, "third")
    turns = await earlier(page).locator(".turn").all_text_contents()
    assert turns == ["first", "first", WORDS, WORDS]


async def test_a_new_conversation_is_begun_on_request(page: Page, stack: Stack) -> None:
    bodies = posted(page)
    await open_page(page, stack.url)
    await ask(page, "first")
    await expect_state(page, "ended")
    await page.get_by_role("link", name="New conversation").click()
    await expect_state(page, "nothing sent yet")
    await ask(page, "second")
    await until_shown(page, "second")
    await expect(earlier(page)).to_have_text("")
    assert [body.get("conversation_id") for body in bodies] == [None, None]


async def test_a_messages_own_address_is_gone_on_from(page: Page, stack: Stack) -> None:
    bodies = posted(page)
    async with caller(stack.url) as api:
        message_id = await api.accepted("sent elsewhere")
    await page.goto(f"{stack.url}/#{message_id}")
    await expect_state(page, "ended")
    await ask(page, "next")
    await until_shown(page, "next")
    await expect(page).to_have_url(ADDRESS)
    assert bodies[0]["conversation_id"] == page.url[-36:]


async def test_a_conversation_that_nobody_knows_is_said(page: Page, stack: Stack) -> None:
    await page.goto(f"{stack.url}/#conversation={UNKNOWN_ID}")
    await expect_state(page, "this conversation is not known any more")
    await ask(page, "anew")
    await until_shown(page, "anew")
    assert UNKNOWN_ID not in page.url


async def test_what_waits_says_so_and_runs_in_its_turn(page: Page, stack: Stack) -> None:
    await open_page(page, stack.url)
    await ask(page, WORDS, "demo/echo?rate=5")
    await until_shown(page, "word-1 ")
    other = await page.context.new_page()
    await other.goto(page.url)
    # The button waits for the end here; another tab that has not seen it does not.
    await until_shown(other, "word-1 ")
    await other.evaluate("document.getElementById('send').disabled = false")
    await ask(other, "behind")
    await expect_state(other, "live: waits for the message before it")
    await page.get_by_role("button", name="Stop").click()
    await expect_state(other, "ended")
    assert await answer(other) == "behind"
    await other.close()


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, "3 + 2 tokens · $0.00001"),
        ({"cost_usd": None}, "3 + 2 tokens · price unknown"),
        ({"estimated": True}, "3 + 2 tokens · $0.00001 · estimated"),
    ],
)
async def test_tokens_and_the_exact_cost_are_shown(
    page: Page, stack: Stack, more: Mapping[str, object], shown: str
) -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "cost_usd": "0.00001", "estimated": False}
    log = [
        Entry("1-0", "start", {}),
        Entry("1-1", "text", {"text": "so"}),
        Entry("1-2", "usage", {**usage, **more}),
        Entry("1-3", "done", {"finish_reason": "stop"}),
    ]
    body = b"".join(entry.frame for entry in log)
    await page.route(
        EVENTS,
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body),
    )
    await page.goto(f"{stack.url}/#{MESSAGE_ID}")
    await expect(page.locator("#spent")).to_have_text(shown)


async def test_earlier_turns_are_text_and_say_how_they_ended(page: Page, stack: Stack) -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "cost_usd": None, "estimated": False}
    ended = {"usage": None, "error": None, "attempt": 1}
    parts = [{"type": "text", "text": "<b>look</b>"}, {"type": "image_url", "image_url": {}}]
    failed = {"status": "failed", "error": {"message": "no <i>key</i>"}, "usage": usage}
    messages = [
        {"id": "1", "role": "system", "content": "Be short."},
        {"id": "2", "role": "user", "content": parts},
        {"id": "3", "role": "assistant", "text": "<b>half</b>", **ended, **failed},
        {"id": "4", "role": "user", "content": "again"},
        {"id": MESSAGE_ID, "role": "assistant", "text": "", **ended, "status": "done"},
    ]
    found = {"id": CONVERSATION_ID, "active_message_id": None, "messages": messages}

    async def end(route: Route) -> None:
        frames = [Entry("1-0", "start", {}), Entry("1-1", "done", {"finish_reason": "stop"})]
        body = b"".join(entry.frame for entry in frames)
        await route.fulfill(status=200, content_type="text/event-stream", body=body)

    await page.route(EVENTS, end)
    await page.route("**/api/conversations/*", lambda route: route.fulfill(json=found))
    await page.goto(f"{stack.url}/#conversation={CONVERSATION_ID}")
    await expect_state(page, "ended")
    await expect(page.get_by_label("You wrote")).to_have_text("again")
    assert await earlier(page).locator("> *").all_text_contents() == [
        "Be short.",
        "<b>look</b>\n[image]",
        "<b>half</b>",
        "failed: no <i>key</i> · 3 + 2 tokens · price unknown",
    ]


async def test_a_reload_shows_what_runs_and_then_what_waits_behind_it(
    page: Page, stack: Stack
) -> None:
    await open_page(page, stack.url)
    await ask(page, WORDS, "demo/echo?rate=5")
    await until_shown(page, "word-1 ")
    behind = {"model": "demo/echo?rate=0", "input": "behind", "conversation_id": page.url[-36:]}
    reply = await page.request.post(f"{stack.url}/api/messages", data=behind)
    assert reply.status == 202
    await page.reload()
    await until_shown(page, "word-1 ")
    await page.get_by_role("button", name="Stop").click()
    await until_shown(page, "behind")
    await expect_state(page, "ended")
    turns = await earlier(page).locator(".turn").all_text_contents()
    assert turns[0] == WORDS
    assert turns[1].startswith("word-0 word-1 ")
    await expect(page.get_by_label("You wrote")).to_have_text("behind")
    await expect(earlier(page)).to_contain_text("cancelled")
