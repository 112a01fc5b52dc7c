"""The chat page with a real worker: a tool that needs approval, over reloads, to its end."""

from playwright.async_api import Page, expect

from tests.clients.browser.test_page import answer, earlier, expect_state, open_page
from tests.clients.browser.test_page_tools import calls, expect_call, press
from tests.clients.tool_stack import MODEL, ToolStack, calling, saying


async def ask(page: Page, made: ToolStack) -> None:
    await open_page(page, made.stack.url)
    await page.get_by_label("Model").fill(MODEL)
    await page.locator("#tools").fill("buy, price")
    await page.get_by_label("Your message").fill("Buy tea.")
    await press(page, "Send").click()


async def test_a_tool_is_approved_after_a_reload_and_its_progress_is_shown(
    page: Page, made: ToolStack
) -> None:
    two = calling(("c1", "buy", {"what": "tea"}), ("c2", "price", {"what": "tea"}))
    made.provider.play(two, saying("Bought."))
    await ask(page, made)
    await expect_call(page, 0, "buy needs your approval", '"what": "tea"')
    await expect_call(page, 1, "price returned", "3")
    await expect_state(page, "live: waits for an answer")
    await page.reload()
    await expect_state(page, "live: waits for an answer")
    assert made.bought == []
    await press(page, "Approve: buy").click()
    await expect_call(page, 0, "buy runs", 'progress: {"of":"tea","part":0.5}')
    await page.reload()
    await expect_call(page, 0, "buy runs", 'progress: {"of":"tea","part":0.5}')
    await expect(press(page, "Approve: buy")).to_be_hidden()
    made.deliver()
    await expect_state(page, "ended")
    assert await answer(page) == "Bought."
    await expect_call(page, 0, "buy returned", '{"bought":"tea"}')
    assert made.bought == ["tea"]
    assert made.given() == ['{"bought":"tea"}', "3"]


async def test_a_tool_that_is_refused_never_runs_and_the_model_is_told(
    page: Page, made: ToolStack
) -> None:
    made.provider.play(calling(("c1", "buy", {"what": "tea"})), saying("Then not."), saying("So."))
    await ask(page, made)
    await press(page, "Refuse: buy").click()
    await expect_state(page, "ended")
    await expect_call(page, 0, "buy failed")
    assert (await answer(page), made.bought) == ("Then not.", [])
    refused = await calls(page).nth(0).locator("> p").first.text_content()
    assert made.given() == [refused]
    await page.get_by_label("Your message").fill("And now?")
    await press(page, "Send").click()
    await expect(page.get_by_role("log", name="Answer")).to_have_text("So.")
    await expect(earlier(page).locator("li")).to_contain_text("buy failed")
    await page.reload()
    await expect(earlier(page).locator("li")).to_contain_text("buy failed")


async def test_what_another_tab_answered_is_told_kindly(page: Page, made: ToolStack) -> None:
    two = calling(("c1", "buy", {"what": "tea"}), ("c2", "buy", {"what": "milk"}))
    made.provider.play(two, saying("Milk alone."))
    await ask(page, made)
    await expect_state(page, "live: waits for an answer")
    other = await page.context.new_page()
    await other.goto(page.url)
    await press(page, "Refuse: buy").nth(0).click()
    await expect_call(page, 0, "is answered")
    await press(other, "Approve: buy").nth(0).click()
    await expect_call(other, 0, "Somebody was faster, or it is too late")
    made.deliver()
    await press(other, "Approve: buy").click()
    await expect_state(page, "ended")
    assert made.bought == ["milk"]
    await other.close()


async def test_a_waiting_message_is_stopped(page: Page, made: ToolStack) -> None:
    made.provider.play(calling(("c1", "buy", {"what": "tea"})))
    await ask(page, made)
    await expect_state(page, "live: waits for an answer")
    await press(page, "Stop").click()
    await expect_state(page, "ended: cancelled")
    await expect_call(page, 0, "buy failed")
    await expect(press(page, "Approve: buy")).to_be_hidden()


async def test_a_step_that_runs_ends_before_the_stop(page: Page, made: ToolStack) -> None:
    made.provider.play(calling(("c1", "buy", {"what": "tea"})), saying("never said"))
    await ask(page, made)
    await press(page, "Approve: buy").click()
    await expect_call(page, 0, "buy runs")
    await press(page, "Stop after this step").click()
    made.deliver()
    await expect_state(page, "ended: cancelled")
    await expect_call(page, 0, "buy returned", '{"bought":"tea"}')
    assert await answer(page) == ""


async def test_a_tool_that_no_worker_has_is_said(page: Page, made: ToolStack) -> None:
    await open_page(page, made.stack.url)
    await page.locator("#tools").fill("steal")
    await page.get_by_label("Your message").fill("x")
    await press(page, "Send").click()
    await expect_state(page, "failed: not sent")
    await expect(page.locator("#note")).to_contain_text("steal")
