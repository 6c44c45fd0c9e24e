"""What goes wrong in the middle of work, and what other sites try."""

import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.visitor import Visitor, visiting
from tests.harness.eventually import eventually
from tests.harness.stack import MANAGEMENT, Customer, Stack, open_stack
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ATTACKS = """async (target) => {
  const seen = [];
  const api = `${target}/console/api/keys`;
  for (const [url, options] of [
    [api, { method: "POST", mode: "no-cors", body: '{"name": "theirs"}' }],
    [api, { method: "POST", body: '{"name": "theirs"}' }],
    [api, { method: "POST", headers: { "X-Tollgate-Console": "1" }, body: '{"name": "theirs"}' }],
    [api, { headers: { "X-Tollgate-Console": "1" } }],
    [`${target}/console/session`, { method: "DELETE", headers: { "X-Tollgate-Console": "1" } }],
  ]) {
    try { seen.push((await (await fetch(url, { credentials: "include", ...options })).text()).slice(0, 60)); }
    catch (error) { seen.push(error.name); }
  }
  return seen;
}"""


@pytest.mark.parametrize("origin", ["http://127.0.0.1:18999", "http://evil.test"])
async def test_a_page_of_another_origin_can_neither_read_nor_change_nor_frame_anything(
    visitor: Visitor, stack: Stack, customer: Customer, origin: str
) -> None:
    """Another port of this host is the same site to a browser: there SameSite=Strict lets the cookie go along."""
    await visitor.sign_in(customer.secret)
    other = await visitor.page.context.new_page()

    async def page_of_theirs(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=f"<iframe src='{visitor.url}/console'></iframe>")

    await other.route(f"{origin}/**", page_of_theirs)
    await other.goto(f"{origin}/")
    seen = await other.evaluate(_ATTACKS, visitor.url)
    assert seen == ["TypeError"] * 5  # nothing of an answer is readable
    [frame] = [each for each in other.frames if each.parent_frame]
    assert frame.url.startswith("chrome-error:")
    await other.evaluate(
        """(target) => { const form = document.createElement("form"); form.method = "POST"; form.action = target;
        document.body.append(form); form.submit(); }""",
        f"{visitor.url}/console/api/keys",
    )
    await expect(other.locator("body")).to_contain_text("Only the console's own page may ask this")
    await other.close()
    listed = await Client(stack.edge_url, customer.secret).ask("GET", "/v1/keys")
    assert [key["id"] for key in listed.json["data"]] == [customer.key_id]
    await visitor.page.reload()
    await visitor.heading("API keys")


async def test_a_lost_network_is_said_and_mended_with_a_button(visitor: Visitor, customer: Customer) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await page.context.set_offline(True)
    for _ in range(5):
        visitor.expect_complaint("ERR_INTERNET_DISCONNECTED")
    await page.get_by_role("button", name="Create key").click()
    await visitor.dialog.get_by_label("Name").fill("typed before")
    await visitor.dialog.get_by_role("button", name="Create key").click()
    await expect(visitor.dialog.get_by_role("alert")).to_contain_text("cannot be reached")
    await expect(visitor.dialog.get_by_label("Name")).to_have_value("typed before")
    await visitor.dialog.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#toasts")).to_contain_text("You are still signed in")
    await page.get_by_role("navigation").get_by_role("link", name="Models").click()
    await expect(page.get_by_role("alert")).to_contain_text("No connection")
    await page.context.set_offline(False)
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("listitem").filter(has_text="test/model")).to_be_visible()


async def test_two_clicks_on_create_make_one_key_and_a_click_beside_a_form_loses_nothing(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Create key").dblclick()
    await visitor.dialog.get_by_label("Name").fill("مفتاح 🔑 " + "x" * 80)
    await visitor.dialog.get_by_role("button", name="Create key").dblclick()
    await page.get_by_role("button", name="I have stored it").click()
    await expect(page.get_by_role("row", name="مفتاح")).to_have_count(1)
    listed = await Client(stack.edge_url, customer.secret).ask("GET", "/v1/keys")
    assert len(listed.json["data"]) == 2
    await visitor.looks("long-name-desk-light")
    edit = page.get_by_role("button", name="Edit first key")
    await edit.dblclick()
    await visitor.dialog.get_by_label("Name").fill("renamed")
    await page.mouse.click(5, 5)
    await expect(visitor.dialog.get_by_label("Name")).to_have_value("renamed")
    await visitor.dialog.get_by_role("button", name="Cancel").click()
    await expect(edit).to_be_focused()
    # What is gone from the table cannot have the focus: the view's head has it.
    await page.get_by_role("button", name="Revoke مفتاح").click()
    await visitor.dialog.get_by_role("button", name="Revoke key").click()
    await expect(page.get_by_role("row", name="مفتاح")).to_have_count(0)
    await expect(page.get_by_role("heading", level=1)).to_be_focused()


async def test_a_session_that_ends_in_mid_work_leads_to_the_sign_in_and_back(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    second = await stack.create_key(customer.account_id, name="second", scopes=[MANAGEMENT])
    await visitor.sign_in(customer.secret)
    await visitor.go("Usage")
    await stack.revoke(customer)

    async def is_refused() -> bool:
        return (await Client(stack.edge_url, customer.secret).ask("GET", "/v1/balance")).status == 401

    await eventually(is_refused)
    for _ in range(4):
        visitor.expect_refusal(401)
    await page.get_by_label("Time").select_option("7")
    await expect(page.locator(".sign-in-note")).to_contain_text("Your session has ended")
    await page.get_by_label("Management key").fill(second.secret)
    await page.get_by_role("button", name="Sign in").click()
    await visitor.heading("Usage")


async def test_guessing_at_the_sign_in_is_slowed_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path, settings={"edge": {"failed_keys_per_minute": 2}}) as stack,
        visiting(browser, stack) as visitor,
    ):
        page = visitor.page
        manager = await stack.customer(scopes=[MANAGEMENT])
        await visitor.open()
        for status, words in ((401, "does not work"), (401, "does not work"), (429, "Retry after")):
            gone = await stack.create_key(manager.account_id, scopes=[MANAGEMENT])
            await stack.revoke(gone)
            visitor.expect_refusal(status)
            await page.get_by_label("Management key").fill(gone.secret)
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.locator(".field-error")).to_contain_text(words)


async def test_a_chat_that_is_stopped_or_breaks_says_what_happened_and_can_go_on(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await visitor.go("Playground")
    message = page.get_by_label("Message")
    stack.upstream.script(Answer(headers_delay_ms=30_000))
    await message.fill("never answered")
    await page.keyboard.press("Enter")

    async def has_arrived() -> bool:
        return bool(stack.upstream.record.requests)

    await eventually(has_arrived)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator(".meter")).to_contain_text("Stopped before the answer began")

    await message.fill("[[events=100 gap_ms=20]] half")
    await page.keyboard.press("Enter")
    await expect(page.locator(".meter").last).to_contain_text("so far")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator(".meter").last).to_contain_text("cost")

    stack.upstream.script(Answer(status=400, body=b'{"error": {"message": "no such thing"}}'))
    visitor.expect_refusal(400)
    await message.fill("refused")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("This did not work")
    await expect(message).to_have_value("refused")  # to be sent again

    stack.upstream.script(Answer(events=3))
    await page.keyboard.press("Enter")
    await expect(page.locator(".meter").last).to_contain_text("cost")
    asked = json.loads(stack.upstream.record.requests[-1].body)["messages"]
    assert [each["role"] for each in asked] == ["user", "assistant", "user"]
