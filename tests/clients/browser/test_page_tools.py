"""The chat page shows tools: calls, progress, results, and the controls of a call that waits."""

import json
from collections.abc import Sequence

import pytest
from playwright.async_api import Locator, Page, Request, Route, expect

from tests.clients.browser.test_page import EVENTS, answer, earlier, expect_state, open_page
from tests.clients.browser.test_page_conversation import CONVERSATION_ID, MESSAGE_ID
from tests.clients.tool_log import ADD, MULTIPLY, START, data, done, text, tool
from tests.clients.toy_server import Entry
from tests.support.processes import Stack

ARGUMENTS = {"a": 1, "b": "<b>é</b>\u202e"}
CALLED = [START, tool("1-1", "call", ADD, arguments=ARGUMENTS)]
WAITING = [*CALLED, tool("1-2", "waiting", ADD, needs="approval")]
APPROVED = [
    Entry("2-0", "reset", {"after": "1-2", "reason": "answered"}),
    tool("2-1", "start", ADD),
    tool("2-2", "result", ADD, result={"sum": 3}),
    text("2-3", "It is 3."),
    done("2-4"),
]


class Growing:
    """A message's log as a page tails it, which goes on as a test says; and what it is answered."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self.answers: list[tuple[str, object]] = []
        self.refusals: list[tuple[int, str]] = []
        self.after_answer: list[Entry] = []
        self.cancels: list[object] = []

    def add(self, *entries: Entry) -> None:
        self.entries += entries

    async def events(self, route: Route) -> None:
        _, _, query = route.request.url.partition("last_event_id=")
        last = route.request.headers.get("last-event-id", query)
        ids = [entry.id for entry in self.entries]
        rest = self.entries[ids.index(last) + 1 if last else 0 :]
        body = b"retry: 60\n\n" + b"".join(entry.frame for entry in rest)
        await route.fulfill(status=200, content_type="text/event-stream", body=body)

    async def answer(self, route: Route) -> None:
        body = json.loads(route.request.post_data or "null")
        self.answers.append((route.request.url.rpartition("/")[2], body))
        if self.refusals:
            status, detail = self.refusals.pop(0)
            await route.fulfill(status=status, json={"detail": detail})
            return
        self.add(*self.after_answer)
        await route.fulfill(status=202, json={})

    async def cancel(self, route: Route) -> None:
        self.cancels.append(json.loads(route.request.post_data or "null"))
        await route.fulfill(status=202, json={})


async def showing(page: Page, stack: Stack, *entries: Entry) -> Growing:
    """Show a message whose log holds these events so far."""
    log = Growing(entries)
    await page.route(EVENTS, log.events)
    await page.route("**/tools/*", log.answer)
    await page.route("**/cancel", log.cancel)
    await page.goto(f"{stack.url}/#{MESSAGE_ID}")
    return log


def calls(page: Page) -> Locator:
    return page.locator("#calls > li")


async def expect_call(page: Page, index: int, *parts: str) -> None:
    for part in parts:
        await expect(calls(page).nth(index)).to_contain_text(part)


def press(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


async def test_a_call_is_shown_from_its_start_to_its_result(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *CALLED, tool("1-2", "call", MULTIPLY, arguments={}))
    await expect_call(page, 0, "add is asked for", '"a": 1')
    log.add(tool("1-3", "start", ADD), data("1-4", "progress", 0.25, ADD))
    await expect_call(page, 0, "add runs", "progress: 0.25")
    log.add(data("1-5", "progress", {"at": 0.5}, ADD), data("1-6", "left", 2, ADD))
    await expect_call(page, 0, 'progress: {"at":0.5} · left: 2')
    log.add(tool("1-7", "result", ADD, result=[3]), tool("1-8", "error", MULTIPLY, error="no"))
    await expect_call(page, 0, "add returned", "[3]")
    await expect_call(page, 1, "multiply failed", "no")
    log.add(text("1-9", "so"), done("1-10"))
    await expect_state(page, "ended")
    assert await answer(page) == "so"


async def test_what_tools_say_is_text_and_nothing_else(page: Page, stack: Stack) -> None:
    markup = "<img src=x onerror=alert(1)>\u202e"
    log = [
        *CALLED,
        data("1-2", markup, markup, ADD),
        data("1-3", markup, markup),
        tool("1-4", "result", ADD, result=markup),
        done("1-5"),
    ]
    await showing(page, stack, *log)
    await expect_state(page, "ended")
    assert await page.locator("#message").locator("img, b, script").count() == 0
    given = calls(page).get_by_label("Arguments")
    assert json.loads(await given.text_content() or "") == ARGUMENTS
    assert "\u202e" not in (await given.text_content() or "")
    await expect(calls(page).get_by_label("What it gave")).to_have_text(
        "<img src=x onerror=alert(1)>\\u202e"
    )
    await expect(page.locator("#reported")).to_contain_text("<img src=x")


@pytest.mark.parametrize(
    ("button", "said", "becomes"),
    [
        ("Approve", {"approve": True}, APPROVED),
        (
            "Refuse",
            {"approve": False},
            [APPROVED[0], tool("2-1", "error", ADD, error="refused"), done("2-2")],
        ),
    ],
)
async def test_a_call_is_approved_or_refused_and_its_message_goes_on(
    page: Page, stack: Stack, button: str, said: object, becomes: list[Entry]
) -> None:
    log = await showing(page, stack, *WAITING)
    await expect_call(page, 0, "add needs your approval")
    await expect(calls(page).get_by_label("Arguments")).to_be_visible()
    log.after_answer = becomes
    await press(page, f"{button}: add").click()
    await expect_state(page, "ended")
    assert log.answers == [(ADD, said)]
    await expect(press(page, "Approve: add")).to_be_hidden()
    await expect(calls(page).get_by_label("Arguments")).to_be_hidden()
    await expect_call(page, 0, "returned" if button == "Approve" else "refused")


async def test_buttons_rest_while_an_answer_is_on_its_way(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *WAITING)
    held: list[Route] = []
    await page.route("**/tools/*", lambda route: held.append(route))
    await press(page, "Approve: add").click()
    await expect(press(page, "Approve: add")).to_be_disabled()
    await expect(press(page, "Refuse: add")).to_be_disabled()
    log.add(*APPROVED)
    await expect_state(page, "ended")
    await held[0].fulfill(status=202, json={})
    await expect(press(page, "Refuse: add")).to_be_hidden()
    assert len(held) == 1


async def test_the_keyboard_answers_one_call_after_another(page: Page, stack: Stack) -> None:
    log = await showing(
        page,
        stack,
        *CALLED,
        tool("1-2", "call", MULTIPLY, arguments={}),
        tool("1-3", "waiting", ADD, needs="approval"),
        tool("1-4", "waiting", MULTIPLY, needs="result"),
    )
    await press(page, "Approve: add").focus()
    await page.keyboard.press("Enter")
    field = page.get_by_label("Result of multiply, as JSON")
    await expect(field).to_be_focused()
    await expect_call(page, 0, "is answered")
    await page.keyboard.type("6 x")
    await page.keyboard.press("Enter")
    await expect_call(page, 1, "This is no JSON. A text wants quotes of its own.")
    await page.keyboard.press("Backspace")
    await page.keyboard.press("Enter")
    await expect_call(page, 1, "is answered")
    assert log.answers == [(ADD, {"approve": True}), (MULTIPLY, {"result": 6})]
    assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"


async def test_a_tool_of_the_client_may_have_failed(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *CALLED, tool("1-2", "waiting", ADD, needs="result"))
    await page.get_by_label("Result of add, as JSON").fill("no such file")
    await press(page, "Send as error: add").click()
    await expect_call(page, 0, "is answered")
    assert log.answers == [(ADD, {"error": "no such file"})]


async def test_what_is_typed_outlives_what_happens_meanwhile(page: Page, stack: Stack) -> None:
    log = await showing(
        page,
        stack,
        *CALLED,
        tool("1-2", "call", MULTIPLY, arguments={}),
        tool("1-3", "waiting", ADD, needs="result"),
        tool("1-4", "start", MULTIPLY),
    )
    field = page.get_by_label("Result of add, as JSON")
    await field.fill("12")
    log.add(data("1-5", "progress", 1, MULTIPLY), tool("1-6", "result", MULTIPLY, result=6))
    log.add(Entry("2-0", "reset", {"after": "1-6", "reason": "takeover"}))
    log.add(data("2-1", "note", "mine"))
    await expect(page.locator("#reported")).to_have_text("note: mine")
    await expect(field).to_have_value("12")
    await expect(field).to_be_focused()


async def test_an_answer_that_comes_too_late_is_said_kindly(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *WAITING)
    log.refusals = [(409, "another answer stands")]
    await press(page, "Approve: add").click()
    await expect_call(page, 0, "Somebody was faster, or it is too late: another answer stands")
    await expect(press(page, "Approve: add")).to_be_hidden()
    log.add(*APPROVED)
    await expect_state(page, "ended")
    await expect(calls(page)).not_to_contain_text("Somebody was faster")


async def test_an_answer_that_did_not_arrive_can_be_given_again(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *WAITING)
    log.refusals = [(404, "no such call")]
    await press(page, "Approve: add").click()
    await expect_call(page, 0, "Not answered: no such call")
    await press(page, "Refuse: add").click()
    await expect_call(page, 0, "is answered")
    assert log.answers == [(ADD, {"approve": True}), (ADD, {"approve": False})]


async def test_a_call_that_waits_again_is_asked_about_again(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *WAITING)
    await press(page, "Approve: add").click()
    await expect_call(page, 0, "is answered")
    log.add(
        Entry("2-0", "reset", {"after": "1-2", "reason": "answered"}),
        tool("2-1", "start", ADD),
        Entry("3-0", "reset", {"after": "2-1", "reason": "takeover"}),
        tool("3-1", "waiting", ADD, needs="approval"),
    )
    await expect_call(page, 0, "needs your approval to run again", "what it did is unknown")
    await press(page, "Refuse: add").click()
    await expect_call(page, 0, "is answered")
    assert [body for _, body in log.answers] == [{"approve": True}, {"approve": False}]


async def test_a_question_that_somebody_else_answers_goes_away(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *WAITING)
    await press(page, "Approve: add").focus()
    log.add(*APPROVED)
    await expect_state(page, "ended")
    await expect(press(page, "Approve: add")).to_be_hidden()
    assert log.answers == []
    assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize(
    ("after", "shown"),
    [(None, []), ("1-0", []), ("1-1", ["add is asked for"]), ("1-2", ["add needs your approval"])],
)
async def test_a_reset_takes_tools_back_like_text(
    page: Page, stack: Stack, after: str | None, shown: list[str]
) -> None:
    reset = Entry("2-0", "reset", {"after": after, "reason": "worker_lost"})
    log = [*WAITING, tool("1-3", "call", MULTIPLY, arguments={}), data("1-4", "note", "lost")]
    await showing(page, stack, *log, reset, text("2-1", "on"))
    await expect(page.get_by_role("log", name="Answer")).to_have_text("on")
    assert await calls(page).locator("summary").all_text_contents() == shown
    await expect(page.locator("#reported")).to_be_hidden()
    await expect(press(page, "Approve: add")).to_be_visible(visible=after == "1-2")


async def test_a_step_that_runs_may_be_let_end(page: Page, stack: Stack) -> None:
    log = await showing(page, stack, *CALLED)
    later = press(page, "Stop after this step")
    await later.click()
    await expect(later).to_be_disabled()
    assert log.cancels == [{"mode": "after_step"}]
    await press(page, "Stop").nth(1).click()
    assert log.cancels[1:] == [{}]
    log.add(tool("1-2", "result", ADD, result=1))
    await expect(later).to_be_hidden()


async def test_no_step_is_let_end_that_only_waits(page: Page, stack: Stack) -> None:
    await showing(page, stack, *WAITING)
    await expect(press(page, "Approve: add")).to_be_visible()
    await expect(press(page, "Stop after this step")).to_be_hidden()


async def test_earlier_turns_have_their_calls(page: Page, stack: Stack) -> None:
    call = {"tool_call_id": ADD, "step": 1, "name": "add", "arguments": ARGUMENTS}
    told = [call | {"result": 3, "error": None}, call | {"result": None, "error": "<i>no</i>"}]
    ended = {"usage": None, "error": None, "attempt": 1, "status": "done"}
    messages = [
        {"id": "2", "role": "user", "content": "add"},
        {"id": "3", "role": "assistant", "text": "so", "tool_calls": told, **ended},
        {"id": "4", "role": "user", "content": "again"},
        {"id": MESSAGE_ID, "role": "assistant", "text": "", "tool_calls": [], **ended},
    ]
    found = {"id": CONVERSATION_ID, "active_message_id": None, "messages": messages}
    await page.route("**/api/conversations/*", lambda route: route.fulfill(json=found))
    log = Growing([*CALLED, tool("1-2", "result", ADD, result=7), done("1-3")])
    await page.route(EVENTS, log.events)
    await page.goto(f"{stack.url}/#conversation={CONVERSATION_ID}")
    await expect_state(page, "ended")
    drawn = earlier(page).locator("li")
    await expect(drawn).to_have_count(2)
    assert [await drawn.nth(n).locator("> p").first.text_content() for n in (0, 1)] == [
        "3",
        "<i>no</i>",
    ]
    await expect(drawn.nth(1)).to_contain_text("add failed")
    await expect_call(page, 0, "add returned", "7")


async def test_tools_are_named_for_a_message_and_kept_for_this_browser(
    page: Page, stack: Stack
) -> None:
    bodies: list[dict[str, object]] = []

    async def refuse(route: Route) -> None:
        request: Request = route.request
        bodies.append(json.loads(request.post_data or "{}"))
        if len(bodies) == 1:
            await route.fulfill(status=422, json={"detail": "there is no tool nobody"})
        else:
            accepted = {"message_id": MESSAGE_ID, "conversation_id": CONVERSATION_ID}
            await route.fulfill(status=202, json=accepted)

    await page.route("**/api/messages", refuse)
    log = Growing([*CALLED, tool("1-2", "result", ADD, result=7), done("1-3")])
    await page.route(EVENTS, log.events)
    await open_page(page, stack.url)
    await page.get_by_label("Tools", exact=True).and_(page.locator("input")).fill(" add, nobody ,")
    for ends_as in ("failed: not sent", "ended"):
        await page.get_by_label("Your message").fill("x")
        await press(page, "Send").click()
        await expect_state(page, ends_as)
    assert [body["tools"] for body in bodies] == [["add", "nobody"]] * 2
    other = await page.context.new_page()
    await open_page(other, stack.url)
    field = other.locator("#tools")
    await expect(field).to_have_value("add, nobody ,")
    await field.fill("")
    await other.route("**/api/messages", refuse)
    await other.route(EVENTS, log.events)
    await other.get_by_label("Your message").fill("y")
    await press(other, "Send").click()
    await expect_state(other, "ended")
    assert "tools" not in bodies[2]
    await other.get_by_label("Your message").fill("z")
    await press(other, "Send").click()
    await expect(earlier(other).locator("li")).to_contain_text("add returned")
    await other.close()
