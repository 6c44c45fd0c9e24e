"""What was called, and what it was spent on: filters, refunds, addresses that are kept, and a long list."""

import asyncio

import pytest
from playwright.async_api import expect

from protos.usage.v1 import usage_pb2
from tests.browser.account_with_history import tell_of_many
from tests.browser.visitor import Visitor
from tests.harness.stack import Customer, Stack, new_id
from tests.harness.upstream_answer import Answer
from tests.stack.client import Client, chat

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKUP = "<img src=x onerror=\"document.title='taken'\"> sorry"


async def _spend_a_dollar(stack: Stack, key: Customer) -> None:
    """Exactly 1.2347 USD."""
    await stack.offer("test/dear", prices=[{"per_million": {"prompt": "100", "completion": "200"}}])
    stack.upstream.script(Answer(prompt_tokens=12_345, completion_tokens=1, events=1))
    assert (await Client(stack.edge_url, key.secret).chat(chat(model="test/dear"))).status == 200


async def test_requests_are_filtered_by_outcome_model_and_key_and_the_way_back_keeps_the_filter(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    await stack.offer("test/other")
    for name, model, status in (("one", "test/model", 200), ("two", "test/other", 200), ("two", "test/model", 500)):
        key = await stack.create_key(customer.account_id, name=f"{name} {model} {status}")
        stack.upstream.script(Answer(status=status, prompt_tokens=33, completion_tokens=14, events=14))
        answer = await Client(stack.edge_url, key.secret).chat(chat(model=model))
        assert (answer.status == 200) is (status == 200)
    await stack.settled(customer, 3)
    await visitor.sign_in(customer.secret)
    await visitor.go("Requests")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(3)
    for label, choice, left in (
        ("Show", "Errors only", "two test/model 500"),
        ("Model", "test/other", "two test/other 200"),
        ("Key", "one test/model 200", "one test/model 200"),
    ):
        await page.get_by_role("combobox", name=label, exact=True).select_option(label=choice)
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text(left)
        if label != "Key":
            await page.get_by_role("combobox", name=label, exact=True).select_option(index=0)
            await expect(rows).to_have_count(3)
    filtered = page.url
    assert "key=" in filtered
    await rows.get_by_role("link").click()
    await visitor.heading("Request")
    await visitor.settled()
    one = page.url
    await page.locator(".back").click()
    await visitor.heading("Requests")
    await expect(rows).to_have_count(1)
    assert page.url == filtered
    await page.go_back()
    await visitor.heading("Request")
    await page.go_forward()
    await visitor.heading("Requests")

    # An address that somebody sends is where one arrives, also by way of the sign-in.
    await page.get_by_role("button", name="Sign out").click()
    await visitor.heading("Tollgate console")
    await page.goto(one)
    await page.get_by_label("Management key").fill(customer.secret)
    await page.get_by_role("button", name="Sign in").click()
    await visitor.heading("Request")
    await expect(page.locator("main")).to_contain_text("$0.000061")


async def test_a_refund_and_its_reason_are_shown_as_text(visitor: Visitor, stack: Stack, customer: Customer) -> None:
    page = visitor.page
    key = await stack.create_key(customer.account_id, name="refunded")
    await _spend_a_dollar(stack, key)
    [request] = await stack.settled(customer, 1)
    refund = usage_pb2.RefundRequest(
        request_id=new_id(),
        account_id=customer.account_id,
        charged_request_id=request.event.request_id,
        reason=MARKUP,
    )
    await stack.call(stack.usage_admin.Refund, refund)
    await visitor.sign_in(customer.secret)
    await visitor.open(f"requests/{request.event.request_id}")
    await expect(page.locator(".refunds")).to_contain_text(f"$1.2347 {MARKUP}")
    assert await page.locator("main img").count() == 0
    await expect(page.get_by_role("row", name="Prompt")).to_contain_text("12,345")
    moment = page.locator("main time").first
    assert (await moment.get_attribute("title") or "").endswith("UTC")
    # In lists amounts are cut to what says something, with all of it for those who point at it.
    await visitor.go("Usage")
    await expect(page.get_by_role("row", name="refunded").get_by_title("$1.2347 exactly").first).to_have_text("$1.23")


async def test_ten_thousand_requests_come_a_page_at_a_time(visitor: Visitor, stack: Stack, customer: Customer) -> None:
    page = visitor.page
    key = await stack.create_key(customer.account_id, name="busy")
    assert (await Client(stack.edge_url, key.secret).chat()).status == 200
    await stack.settled(customer, 1)
    await asyncio.to_thread(tell_of_many, stack.folder / "usage.db", customer.account_id, 10_000)
    await visitor.sign_in(customer.secret)
    await visitor.go("Requests")
    rows = page.locator("tbody tr")
    for expected in (25, 50, 75):
        await expect(rows).to_have_count(expected)
        await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(100)
    addresses = await rows.get_by_role("link").evaluate_all("links => links.map((link) => link.href)")
    assert len(set(addresses)) == 100
    await visitor.go("Usage")
    await expect(page.get_by_role("row", name="busy")).to_contain_text("10,001")


async def test_spend_by_day_is_read_with_the_arrow_keys_and_has_days_without_any(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    key = await stack.create_key(customer.account_id, name="chart")
    await _spend_a_dollar(stack, key)
    await stack.settled(customer, 1)
    await visitor.sign_in(customer.secret)
    await visitor.go("Usage")
    await expect(page.locator(".bar")).to_have_count(30)
    await page.get_by_label("Spend by day, as bars").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.locator(".readout")).to_contain_text("$1.2347, 1 request")
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".readout")).to_contain_text("$0.00, 0 requests")
    await page.get_by_label("Time").select_option("7")
    await expect(page.locator(".bar")).to_have_count(7)
    await page.get_by_text("The same as a table").click()
    await expect(page.get_by_role("table", name="Spend by day").locator("tbody tr")).to_have_count(1)
