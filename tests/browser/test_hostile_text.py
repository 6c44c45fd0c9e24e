"""Markup in everything that a customer or a model can write: it is shown as it was written, and does nothing."""

import json

import pytest
from playwright.async_api import Dialog, expect

from tests.browser.visitor import Visitor
from tests.harness.stack import Customer, Stack
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = "<img src=x onerror=\"document.title='taken'\">"
SCRIPT = "</script><script>document.title='taken'</script>"
LINK = "<a href=\"javascript:document.title='taken'\">click</a>"
OUTPUT = f"{IMAGE}{SCRIPT}{LINK}<svg onload=alert(1)>"


async def test_markup_in_names_prompts_and_answers_stays_text(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    opened: list[Dialog] = []
    page.on("dialog", lambda dialog: opened.append(dialog))
    key = await stack.create_key(customer.account_id, name=IMAGE, log_inputs=True, log_outputs=True)
    model = await stack.offer("test/hostile", name=SCRIPT, description=f"{IMAGE}{LINK}")
    hostile = [{"role": IMAGE, "content": OUTPUT}, {"role": "user", "content": [{"type": "text", "text": SCRIPT}]}]
    for answer, stream in ((Answer(text=OUTPUT, events=3), True), (Answer(text=OUTPUT, events=1), False)):
        stack.upstream.script(answer)
        asked = json.dumps({**chat(model=model, stream=stream), "messages": hostile}).encode()
        assert (await Client(stack.edge_url, key.secret).chat(asked)).status == 200
    await stack.settled(customer, 2)

    await visitor.sign_in(customer.secret)
    await expect(page.get_by_role("row").filter(has_text=IMAGE)).to_be_visible()
    await page.get_by_role("row").filter(has_text=IMAGE).get_by_role("button", name="Edit").click()
    await expect(visitor.dialog.get_by_label("Name")).to_have_value(IMAGE)
    await visitor.dialog.get_by_role("button", name="Cancel").click()
    await visitor.go("Models")
    await expect(page.locator("main")).to_contain_text(LINK)
    await visitor.go("Usage")
    await expect(page.locator("main")).to_contain_text(IMAGE)

    await visitor.go("Requests")
    await page.get_by_label("Show").select_option("stored")
    await expect(page.locator(".row-link")).to_have_count(2)
    for number in range(2):
        await page.locator(".row-link").nth(number).click()
        await visitor.heading("Request")
        await visitor.settled()
        for side in ("Input", "Output"):
            shown = page.get_by_role("region", name=side)
            await expect(shown).to_contain_text(OUTPUT)
            for button in await shown.get_by_role("button").all():
                await button.click()
                await expect(shown).to_contain_text("<img src=x")
        await _is_harmless(visitor)
        await page.go_back()
        await visitor.settled()

    await visitor.open("playground?model=test%2Fhostile")
    stack.upstream.script(Answer(text=OUTPUT, events=5, reasoning_events=2))
    await page.get_by_label("Message").fill(OUTPUT)
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".meter")).to_contain_text("cost")
    await expect(page.locator(".turn.from-user")).to_contain_text(OUTPUT)
    await _is_harmless(visitor)
    stack.upstream.script(Answer(status=400, body=json.dumps({"error": {"message": OUTPUT}}).encode()))
    visitor.expect_refusal(400)
    await page.get_by_label("Message").fill("again")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_role("alert")).to_contain_text(OUTPUT)
    await _is_harmless(visitor)
    assert opened == []


async def _is_harmless(visitor: Visitor) -> None:
    page = visitor.page
    assert "taken" not in await page.title()
    made = await page.evaluate(
        "document.querySelectorAll('main img, main script, main a[href^=javascript], svg[onload]').length"
    )
    assert made == 0


async def test_the_browser_itself_refuses_markup_from_text(visitor: Visitor, customer: Customer) -> None:
    """What the policy is there for, should the page ever forget."""
    await visitor.sign_in(customer.secret)
    for words in ("CSP violation: require-trusted-types-for", "TrustedHTML"):
        visitor.expect_complaint(words)
    refused = await visitor.page.evaluate(
        """() => {
          try { document.querySelector("main").innerHTML = "<b>x</b>"; return "taken"; }
          catch (error) { return error.name; }
        }"""
    )
    assert refused == "TypeError"


async def test_stored_content_is_deleted_from_the_page(visitor: Visitor, stack: Stack, customer: Customer) -> None:
    page = visitor.page
    key = await stack.create_key(customer.account_id, name="logged", log_inputs=True)
    for text in ("first question", "second question", "third question"):
        assert (await Client(stack.edge_url, key.secret).chat(chat(text))).status == 200
    await stack.settled(customer, 3)
    await visitor.sign_in(customer.secret)
    await visitor.open("requests?show=stored")
    await expect(page.locator(".row-link")).to_have_count(3)
    await page.locator(".row-link").first.click()
    await visitor.heading("Request")
    await visitor.settled()
    await expect(page.get_by_role("region", name="Input")).to_contain_text("third question")
    await expect(page.get_by_role("region", name="Output")).to_contain_text("Not stored.")
    await page.get_by_role("button", name="Delete now").click()
    await visitor.dialog.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.locator("main")).to_contain_text("Nothing is stored of this request.")
    await visitor.open("requests?show=stored")
    await expect(page.locator(".row-link")).to_have_count(2)
    await page.get_by_role("button", name="Delete stored content").click()
    await visitor.dialog.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.locator("main")).to_contain_text("Nothing is stored")
