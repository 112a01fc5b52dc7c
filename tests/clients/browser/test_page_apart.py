"""The chat page where the network fails it for long, and where text runs from right to left."""

import asyncio

import pytest
from playwright.async_api import Page, Request, Route, expect

from tests.clients.browser.test_page import (
    EVENTS,
    MESSAGE_ID,
    START,
    WORDS,
    answer,
    ask,
    expect_state,
    open_page,
    show_logs,
    text,
    until_shown,
)
from tests.clients.toy_server import Entry, plain_log
from tests.support.processes import Stack

UNDONE = [
    START,
    text("1-1", "a"),
    Entry("2-0", "reset", {"after": None, "reason": "x"}),
    Entry("3-0", "reset", {"after": "1-1", "reason": "x"}),
]

MESSAGE = f"**/api/messages/{MESSAGE_ID}"


def keys(sent: list[Request]) -> list[str]:
    return [request.headers["idempotency-key"] for request in sent]


@pytest.mark.parametrize("lost", ["the reply", "its body"])
async def test_what_is_sent_again_by_hand_is_one_message(
    page: Page, stack: Stack, lost: str
) -> None:
    sent: list[Request] = []

    async def lose(route: Route) -> None:
        sent.append(route.request)
        await route.fetch()  # it arrives
        if lost == "the reply":
            await route.abort()
        else:
            await route.fulfill(status=202, content_type="application/json", body='{"mess')

    await open_page(page, stack.url)
    # Its waits between the tries are not what this is about.
    await page.evaluate(
        "() => { const timer = setTimeout; window.setTimeout = (act) => timer(act, 0); }"
    )
    await page.route("**/api/messages", lose)
    await ask(page, "once")
    await expect_state(page, "failed: not sent")
    tries = len(sent)
    assert tries > 1
    await page.unroute("**/api/messages")
    page.on("request", lambda one: sent.append(one) if one.method == "POST" else None)
    await page.get_by_role("button", name="Send").click()
    await expect_state(page, "ended")
    assert await answer(page) == "once"
    assert len(sent) == tries + 1
    assert len(set(keys(sent))) == 1
    await ask(page, "once")
    await expect(page.get_by_label("Earlier turns")).to_contain_text("once")
    await expect_state(page, "ended")
    assert len(set(keys(sent))) == 2, "the same words once more are another message"


async def test_a_conversation_that_was_not_read_is_still_gone_on_with(
    page: Page, stack: Stack
) -> None:
    await open_page(page, stack.url)
    await ask(page, "first")
    await expect_state(page, "ended")
    address = page.url
    await page.route(
        "**/api/conversations/*", lambda route: route.fulfill(status=500, json={"detail": "no"})
    )
    await page.reload()
    await expect_state(page, "failed: not read")
    await ask(page, "second")
    await expect_state(page, "ended")
    assert page.url == address


async def test_a_gap_that_stays_is_asked_about_without_haste(page: Page, stack: Stack) -> None:
    await page.route(MESSAGE, lambda route: route.fulfill(status=200))
    asked = await show_logs(page, stack, UNDONE, UNDONE, UNDONE, plain_log("whole"))
    await expect_state(page, "reconnecting")
    await expect_state(page, "ended")
    assert await answer(page) == "whole"
    assert asked == [""] * 4


async def test_a_connection_that_stalls_is_left_for_another(page: Page, stack: Stack) -> None:
    """A proxy lets the first tail stall after its headers; the browser itself waits for ever."""
    stalled: list[Route] = []

    async def stall_the_first(route: Route) -> None:
        if not stalled and "limit" not in route.request.url:
            stalled.append(route)
        else:
            await route.continue_()

    await page.clock.install()
    await page.route(EVENTS, stall_the_first)
    await open_page(page, stack.url)
    await ask(page, "here it is")
    await expect(page.get_by_label("You wrote")).to_have_text("here it is")
    conversation = f"{stack.url}/api/conversations/{page.url[-36:]}"
    async with asyncio.timeout(30):
        while (await (await page.request.get(conversation)).json())["active_message_id"]:
            pass  # until the message has ended
    await page.clock.fast_forward(46_000)
    await expect_state(page, "ended")
    assert await answer(page) == "here it is"
    await stalled[0].abort()


async def test_the_keyboard_keeps_its_place_where_a_button_goes_out(
    page: Page, stack: Stack
) -> None:
    await open_page(page, stack.url)
    await page.get_by_label("Model").fill("demo/echo?rate=5")
    await page.get_by_label("Your message").fill(WORDS)
    await page.get_by_role("button", name="Send").press("Enter")
    await until_shown(page, "word-1 ")
    await expect(page.get_by_label("Your message")).to_be_focused()
    await page.get_by_role("button", name="Stop").press("Enter")
    await expect_state(page, "ended: cancelled")
    await expect(page.get_by_label("Your message")).to_be_focused()


async def test_text_that_runs_from_the_right_begins_there(page: Page, stack: Stack) -> None:
    await show_logs(page, stack, plain_log("שלום, עולם!\nand this from the left"))
    await expect_state(page, "ended")
    from_the_right, from_the_left = await page.evaluate(
        """() => {
          const box = document.getElementById("answer");
          const words = box.firstChild;
          const inner = box.getBoundingClientRect();
          return [[0, 1], [12, 13]].map(([start, end]) => {
            const range = document.createRange();
            range.setStart(words, start);
            range.setEnd(words, end);
            const letter = range.getBoundingClientRect();
            return [letter.left - inner.left, inner.right - letter.right];
          });
        }"""
    )
    assert from_the_right[0] > from_the_right[1]
    assert from_the_left[0] < from_the_left[1]
