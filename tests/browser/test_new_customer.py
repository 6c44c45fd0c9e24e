"""The whole path of a new customer, from the first sign-in to a revoked key."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.visitor import Visitor
from tests.harness.stack import Customer, Stack
from tests.harness.upstream_answer import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_new_customer_signs_in_makes_a_key_asks_a_model_and_finds_the_request_and_its_cost(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    await visitor.open()
    await visitor.heading("Tollgate console")
    await visitor.sign_in(customer.secret)
    await expect(page.get_by_role("row", name="first key")).to_contain_text("you are using it")

    await page.get_by_role("button", name="Create key").click()
    await visitor.dialog.get_by_label("Name").fill("laptop")
    await visitor.dialog.get_by_role("button", name="Create key").click()
    secret = await visitor.dialog.locator("#new-secret").inner_text()
    assert secret.startswith("tg_")
    await visitor.dialog.get_by_role("button", name="Copy").click()
    await expect(visitor.dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == secret
    await visitor.dialog.get_by_role("button", name="I have stored it").click()

    await visitor.go("Models")
    await expect(page.get_by_role("listitem").filter(has_text="test/model")).to_contain_text("$2.00")
    await page.get_by_role("link", name="Try test/model in the playground").click()
    await visitor.heading("Playground")
    stack.upstream.script(Answer(events=14, prompt_tokens=33, completion_tokens=14))
    await page.get_by_label("Message").fill("What is a tollgate?")
    await page.get_by_role("button", name="Send").click()
    meter = page.locator(".meter")
    await expect(meter).to_contain_text("33 tokens in, 14 out")
    await expect(meter).to_contain_text("cost $0.000061")  # 33 x 1 and 14 x 2 USD per million
    await meter.get_by_role("link", name="details").click()
    await visitor.heading("Request")
    await visitor.settled()
    await expect(page.locator("main")).to_contain_text("Charged for what the model counted.")
    await expect(page.locator("main")).to_contain_text("Nothing is stored of this request.")

    await visitor.go("Requests")
    await expect(page.get_by_role("row").filter(has_text="test/model")).to_contain_text("$0.000061")
    await visitor.go("Usage")
    await expect(page.locator(".figure.big")).to_contain_text("$4.99")
    await expect(page.get_by_role("row", name=re.compile("Playground"))).to_contain_text("$0.000061")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download CSV").click()
    saved = (await (await download.value).path()).read_text()
    assert "test/model" in saved
    assert "0.000061" in saved
    await stack.settled(customer, 1)
