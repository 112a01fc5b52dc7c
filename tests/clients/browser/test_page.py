"""The chat page in a real browser: what is typed, shown, stopped, and survives."""

import asyncio
import re
from collections.abc import Sequence

import pytest
from playwright.async_api import Locator, Page, Request, Route, expect

from tests.clients.toy_server import Entry, plain_log
from tests.support.caller import UNKNOWN_ID, caller
from tests.support.cutting_proxy import cutting_proxy
from tests.support.processes import Stack

WORDS = " ".join(f"word-{n}" for n in range(60))
MESSAGE_ID = "01980000-0000-7000-8000-000000000001"
EVENTS = re.compile(r"/api/messages/[^/]+/events")


async def open_page(page: Page, url: str) -> None:
    await page.goto(f"{url}/")
    await expect(page.get_by_label("Your message")).to_be_focused()


async def ask(page: Page, text: str, model: str = "demo/echo?rate=0") -> None:
    await page.get_by_label("Model").fill(model)
    await page.get_by_label("Your message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def expect_state(page: Page, text: str | re.Pattern[str]) -> None:
    await expect(page.get_by_role("status")).to_have_text(text, timeout=30_000)


async def answer(page: Page) -> str:
    """The text of the answer, exactly as the document holds it."""
    text = await page.get_by_role("log", name="Answer").text_content()
    assert text is not None
    return text


async def until_shown(page: Page, part: str) -> None:
    await expect(page.get_by_role("log", name="Answer")).to_contain_text(part)


def earlier(page: Page) -> Locator:
    """The turns before the one that is shown last."""
    return page.get_by_label("Earlier turns")


async def test_an_answer_streams_in_and_ends(page: Page, stack: Stack) -> None:
    await open_page(page, stack.url)
    await expect_state(page, "nothing sent yet")
    await ask(page, WORDS, "demo/echo?rate=30")
    await until_shown(page, "word-1 ")
    assert "word-59" not in await answer(page)
    await expect_state(page, "live")
    await expect_state(page, "ended")
    assert await answer(page) == WORDS
    await expect(page.get_by_label("Your message")).to_have_value("")


async def test_stop_cancels_and_keeps_the_text(page: Page, stack: Stack) -> None:
    await open_page(page, stack.url)
    stop = page.get_by_role("button", name="Stop")
    await expect(stop).to_be_disabled()
    await ask(page, WORDS, "demo/echo?rate=10")
    await until_shown(page, "word-1 ")
    await stop.click()
    await expect_state(page, "ended: cancelled")
    text = await answer(page)
    assert text.startswith("word-0 word-1 ")
    assert "word-59" not in text
    await expect(stop).to_be_disabled()
    await ask(page, "again")
    await expect_state(page, "ended")
    assert await answer(page) == "again"


async def test_a_reload_in_mid_stream_shows_all_of_it(page: Page, stack: Stack) -> None:
    await open_page(page, stack.url)
    await ask(page, WORDS, "demo/echo?rate=20")
    await until_shown(page, "word-3 ")
    await page.reload()
    await expect(page.get_by_label("You wrote")).to_have_text(WORDS)
    await until_shown(page, "word-3 ")
    await expect_state(page, "ended")
    assert await answer(page) == WORDS
    await page.reload()
    await expect_state(page, "ended")
    assert await answer(page) == WORDS


async def test_its_address_shows_the_message_in_another_tab(page: Page, stack: Stack) -> None:
    async with caller(stack.url) as api:
        message_id = await api.accepted("sent elsewhere")
    await page.goto(f"{stack.url}/#{message_id}")
    await expect_state(page, "ended")
    assert await answer(page) == "sent elsewhere"


async def test_the_way_back_leaves_the_conversation_and_forward_finds_it(
    page: Page, stack: Stack
) -> None:
    await open_page(page, stack.url)
    for text in ("first", "second"):
        await ask(page, text)
        await until_shown(page, text)
        await expect_state(page, "ended")
    await page.go_back()
    await expect_state(page, "nothing sent yet")
    await expect(page.get_by_role("log", name="Answer")).to_be_hidden()
    await expect(earlier(page)).to_have_text("")
    await page.go_forward()
    await until_shown(page, "second")
    await expect(earlier(page)).to_contain_text("first")


async def test_an_api_killed_in_mid_stream_is_come_back_to(page: Page, own_stack: Stack) -> None:
    await open_page(page, own_stack.url)
    await ask(page, WORDS, "demo/echo?rate=15")
    await until_shown(page, "word-3 ")
    own_stack.api.kill()
    await expect_state(page, "reconnecting")
    own_stack.api.launch()
    await expect_state(page, "ended")
    assert await answer(page) == WORDS


async def test_a_worker_killed_in_mid_stream_leaves_the_exact_text(
    page: Page, own_stack: Stack
) -> None:
    await open_page(page, own_stack.url)
    await ask(page, WORDS, "demo/echo?rate=30")
    await until_shown(page, "word-5 ")
    own_stack.worker.kill()
    own_stack.worker.launch()
    await expect_state(page, "ended")
    assert await answer(page) == WORDS


async def test_a_proxys_502_does_not_end_it(page: Page, stack: Stack) -> None:
    """The browser gives up on any status but 200; the page begins anew where it was."""
    positions: list[str] = []

    async def refuse_twice(route: Route) -> None:
        positions.append(route.request.url.partition("?")[2])
        if len(positions) in (2, 3):
            await route.fulfill(status=502, body="Bad Gateway")
        else:
            await route.continue_()

    async with cutting_proxy(stack.api.port) as proxy:
        await open_page(page, proxy.url)
        await page.route(EVENTS, refuse_twice)
        await ask(page, WORDS, "demo/echo?rate=30")
        await until_shown(page, "word-3 ")
        await proxy.cut_all()
        await expect_state(page, "reconnecting")
        await expect_state(page, "ended")
        assert await answer(page) == WORDS
    assert positions[0] == ""
    assert re.fullmatch(r"last_event_id=1-\d+", positions[3]), positions


async def test_a_models_text_is_text_and_nothing_else(page: Page, stack: Stack) -> None:
    text = "<img src=x onerror=alert(1)><script>alert(1)</script>\n  &amp; <b>bold</b>"
    await open_page(page, stack.url)
    await ask(page, text)
    await expect_state(page, "ended")
    assert await answer(page) == text
    assert await page.get_by_role("log", name="Answer").locator("*").count() == 0
    assert await page.get_by_label("You wrote").locator("*").count() == 0


@pytest.mark.parametrize("width", [390, 900])
async def test_what_sends_and_what_stops_stand_side_by_side(
    page: Page, stack: Stack, width: int
) -> None:
    await page.set_viewport_size({"width": width, "height": 800})
    await open_page(page, stack.url)
    boxes = [
        await page.get_by_role("button", name=name).bounding_box() for name in ("Stop", "Send")
    ]
    assert len({box["y"] for box in boxes if box is not None}) == 1


async def test_enter_sends_and_shift_enter_begins_a_line(page: Page, stack: Stack) -> None:
    await open_page(page, stack.url)
    await page.get_by_label("Model").fill("demo/echo?rate=0")
    await page.get_by_label("Your message").focus()
    await page.keyboard.type("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await page.keyboard.press("Enter")
    await expect_state(page, "ended")
    assert await answer(page) == "one\ntwo"


async def test_available_models_are_offered_and_the_last_one_is_kept(
    page: Page, stack: Stack
) -> None:
    await open_page(page, stack.url)
    await expect(page.get_by_label("Model")).to_have_value("demo/echo")
    options = page.locator("#models option")
    await expect(options).to_have_count(1)
    await expect(options).to_have_attribute("value", "demo/echo")
    await ask(page, "x", "demo/echo?rate=0")
    await expect_state(page, "ended")
    await page.reload()
    await expect(page.get_by_label("Model")).to_have_value("demo/echo?rate=0")


async def test_a_model_that_is_not_there_is_said(page: Page, stack: Stack) -> None:
    await open_page(page, stack.url)
    await ask(page, "x", "nobody/x")
    await expect(page.get_by_role("alert")).to_have_text("there is no model nobody/x")
    await expect_state(page, "failed: not sent")
    await expect(page.get_by_label("Your message")).to_have_value("x")
    await ask(page, "y")
    await expect_state(page, "ended")
    await expect(page.get_by_role("alert")).to_be_hidden()


async def test_a_message_that_nobody_knows_is_said(page: Page, stack: Stack) -> None:
    await page.goto(f"{stack.url}/#{UNKNOWN_ID}")
    await expect_state(page, "this message is not known any more")


async def test_a_lost_reply_sends_the_same_message_again(page: Page, stack: Stack) -> None:
    sent: list[Request] = []

    async def lose_the_first(route: Route) -> None:
        sent.append(route.request)
        if len(sent) == 1:
            await route.fetch()  # it arrives, and the reply is lost
            await route.abort()
        elif len(sent) == 2:
            await route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")
        else:
            await route.continue_()

    await open_page(page, stack.url)
    await page.route("**/api/messages", lose_the_first)
    await ask(page, "once")
    await expect_state(page, "ended")
    assert await answer(page) == "once"
    keys = {request.headers["idempotency-key"] for request in sent}
    assert (len(sent), len(keys)) == (3, 1)


async def show_logs(page: Page, stack: Stack, *logs: Sequence[Entry]) -> list[str]:
    """Show a message whose tails are given these events in turn: what each asked for."""
    asked: list[str] = []

    async def play(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        entries = logs[min(len(asked), len(logs)) - 1]
        body = "retry: 10\n\n" + b"".join(entry.frame for entry in entries).decode()
        await route.fulfill(status=200, content_type="text/event-stream", body=body)

    await page.route(EVENTS, play)
    await page.goto(f"{stack.url}/#{MESSAGE_ID}")
    return asked


def text(event_id: str, said: str) -> Entry:
    return Entry(event_id, "text", {"text": said})


START = Entry("1-0", "start", {"attempt": 1})
DONE = Entry("2-9", "done", {"finish_reason": "stop"})


@pytest.mark.parametrize(
    ("after", "shown"), [(None, "c"), ("1-0", "c"), ("1-1", "ac"), ("1-2", "abc")]
)
async def test_a_reset_takes_back_what_is_later(
    page: Page, stack: Stack, after: str | None, shown: str
) -> None:
    reset = Entry("2-0", "reset", {"after": after, "reason": "worker_lost"})
    log = [START, text("1-1", "a"), text("1-2", "b"), reset, text("2-1", "c"), DONE]
    await show_logs(page, stack, log)
    await expect_state(page, "ended")
    assert await answer(page) == shown


@pytest.mark.parametrize(
    ("resets", "said"),
    [
        ([Entry("2-0", "reset", {"after": "1-2", "reason": "handed_over"})], ""),
        (
            [
                Entry("2-0", "reset", {"after": "1-1", "reason": "takeover"}),
                Entry("2-5", "reset", {"after": "2-0", "reason": "handed_over"}),
            ],
            "text was taken back (takeover)",
        ),
        (
            [
                Entry("2-0", "reset", {"after": None, "reason": "takeover"}),
                Entry(None, "reset", {"after": None, "reason": "position_unknown"}),
                START,
            ],
            "",
        ),
    ],
    ids=["nothing", "some", "it comes again"],
)
async def test_text_that_is_taken_back_does_not_vanish_without_a_word(
    page: Page, stack: Stack, resets: list[Entry], said: str
) -> None:
    await show_logs(page, stack, [START, text("1-1", "a"), text("1-2", "b"), *resets, DONE])
    await expect_state(page, "ended")
    await expect(page.locator("#taken-back")).to_have_text(said)
    await page.unroute(EVENTS)
    await ask(page, "next")
    await expect(page.locator("#taken-back")).to_be_hidden()


async def test_a_reset_to_an_event_that_was_taken_back_begins_anew(
    page: Page, stack: Stack
) -> None:
    gap = [
        START,
        text("1-1", "a"),
        Entry("2-0", "reset", {"after": None, "reason": "x"}),
        Entry("3-0", "reset", {"after": "1-1", "reason": "x"}),
        text("3-1", "never shown"),
    ]
    asked = await show_logs(page, stack, gap, plain_log("whole"))
    await expect_state(page, "ended")
    assert await answer(page) == "whole"
    assert asked == ["", ""]


async def test_an_unknown_position_forgets_everything(page: Page, stack: Stack) -> None:
    unknown = Entry(None, "reset", {"after": None, "reason": "position_unknown"})
    before = [START, text("1-1", "lost"), text("1-2", "lost")]
    await show_logs(page, stack, before, [unknown, *plain_log("kept")])
    await expect_state(page, "ended")
    assert await answer(page) == "kept"


async def test_a_failed_message_says_why(page: Page, stack: Stack) -> None:
    failed = {"code": "rate_limited", "message": "Too <b>many</b>.", "retryable": True}
    await show_logs(page, stack, [START, text("1-1", "half"), Entry("1-2", "failed", failed)])
    await expect_state(page, "failed: rate_limited")
    alert = page.get_by_role("alert")
    await expect(alert).to_have_text("Too <b>many</b>. Sending it again may help.")
    assert await answer(page) == "half"


async def test_a_retry_is_shown_until_it_goes_on(page: Page, stack: Stack) -> None:
    retry = Entry("1-1", "retry", {"reason": "rate_limited", "in_seconds": 1.044})
    held, asked = asyncio.Event(), 0

    async def play(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await held.wait()
            entries = [text("1-2", "on"), Entry("1-3", "done", {"finish_reason": "length"})]
        else:
            entries = [START, retry]
        body = b"retry: 10\n\n" + b"".join(entry.frame for entry in entries)
        await route.fulfill(status=200, content_type="text/event-stream", body=body)

    await page.route(EVENTS, play)
    await page.goto(f"{stack.url}/#{MESSAGE_ID}")
    await expect_state(page, re.compile("again within 2 s|reconnecting"))
    held.set()
    await expect_state(page, "ended: length")
    assert await answer(page) == "on"


async def test_reasoning_is_folded_away_above_the_answer(page: Page, stack: Stack) -> None:
    thought = Entry("1-1", "reasoning", {"text": "hm"})
    await show_logs(page, stack, [START, thought, text("1-2", "so"), DONE])
    await page.get_by_text("Thinking").click()
    await expect(page.locator("#reasoning")).to_have_text("hm")
    assert await answer(page) == "so"


async def test_ten_thousand_events_are_shown_without_stalling(page: Page, stack: Stack) -> None:
    long = "x " * 10_000
    await open_page(page, stack.url)
    await ask(page, long)
    await expect_state(page, "ended")
    assert await answer(page) == long


async def test_the_model_that_answers_is_named_where_it_is_not_the_one_that_was_asked(
    page: Page, stack: Stack
) -> None:
    log = [
        Entry("1-0", "start", {"attempt": 1, "model": "one/a"}),
        text("1-1", "lost"),
        Entry("2-0", "reset", {"after": None, "model": "two/b", "reason": "rate_limited"}),
        text("2-1", "so"),
        DONE,
    ]
    await show_logs(page, stack, log)
    await expect_state(page, "ended")
    assert await answer(page) == "so"
    await expect(page.get_by_text("answered by two/b", exact=True)).to_be_visible()
    await page.unroute(EVENTS)
    await ask(page, "next")
    await expect(earlier(page).get_by_text("answered by two/b")).to_be_visible()
    await expect(page.locator("#by")).to_be_hidden()


async def test_a_reloaded_page_names_the_models_that_answered_in_place_of_others(
    page: Page, stack: Stack
) -> None:
    unusable = "openai/gpt-5-mini"  # it is not set up here
    async with caller(stack.url) as api:
        first = await api.accepted("one", model=unusable, fallbacks=["demo/echo?rate=0"])
        conversation_id = (await api.snapshot(first, wait="10"))["conversation_id"]
        last = await api.accepted("two", conversation_id=conversation_id)
        await api.log(last)
    await page.goto(f"{stack.url}/#conversation={conversation_id}")
    await expect_state(page, "ended")
    await expect(earlier(page).get_by_text("answered by demo/echo?rate=0")).to_have_count(1)
    await expect(page.locator("#by")).to_be_hidden()
