"""Signing in and out, themes, and what the page says when something is not there."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.visitor import Visitor, visiting
from tests.harness.certificates import Authority
from tests.harness.eventually import eventually
from tests.harness.stack import MANAGEMENT, Customer, Stack, open_stack
from tests.stack.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIGHT, DARK = "rgb(245, 247, 246)", "rgb(14, 19, 18)"


async def test_a_wrong_key_is_refused_in_words_and_the_right_one_stays_out_of_reach_of_scripts(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    await visitor.open()
    inference = await stack.create_key(customer.account_id)
    for secret, status, words in (
        ("tg_nonsense", 401, "does not work"),
        (inference.secret, 403, "cannot manage the account"),
    ):
        visitor.expect_refusal(status)
        await page.get_by_label("Management key").fill(secret)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator(".field-error")).to_contain_text(words)
    await visitor.sign_in(customer.secret)
    [cookie] = await page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    assert await page.evaluate("document.cookie") == ""

    await page.reload()
    await visitor.heading("API keys")
    await visitor.settled()
    await page.get_by_role("button", name="Sign out").click()
    await visitor.heading("Tollgate console")
    assert await page.context.cookies() == []
    await page.reload()
    await visitor.heading("Tollgate console")


async def test_over_https_the_cookie_never_travels_in_the_clear(browser: Browser, tmp_path: Path) -> None:
    files = Authority(tmp_path / "tls").issue("public")
    settings = {"edge": {"https_certificate_file": files.certificate, "https_key_file": files.key}}
    async with (
        open_stack(tmp_path, settings=settings) as stack,
        visiting(browser, stack, scheme="https", ignore_https_errors=True) as visitor,
    ):
        customer = await stack.customer(scopes=[MANAGEMENT])
        await visitor.sign_in(customer.secret)
        [cookie] = await visitor.page.context.cookies()
        assert (cookie["secure"], cookie["httpOnly"]) == (True, True)
        await visitor.go("Usage")
        await visitor.page.get_by_role("button", name="Sign out").click()
        await visitor.heading("Tollgate console")
        assert await visitor.page.context.cookies() == []


async def test_the_theme_is_the_systems_unless_one_chooses_and_the_choice_is_kept(
    browser: Browser, stack: Stack
) -> None:
    async with visiting(browser, stack, color_scheme="dark") as visitor:
        page = visitor.page
        await visitor.open()
        for button, colour in (("System theme", DARK), ("Light theme", LIGHT), ("Dark theme", DARK)):
            await expect(page.get_by_role("button", name=button)).to_be_visible()
            assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == colour
            await page.reload()
            assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == colour
            await page.get_by_role("button", name=button).click()
        await expect(page.get_by_role("button", name="System theme")).to_be_visible()


async def test_an_empty_account_is_told_what_to_do_next(visitor: Visitor, customer: Customer) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    for view, words in (("Usage", "Nothing spent in this time"), ("Requests", "No requests yet")):
        await visitor.go(view)
        await expect(page.get_by_role("heading", name=words)).to_be_visible()
        await expect(page.get_by_role("link", name="Try a model")).to_be_visible()
    await page.get_by_label("Show").select_option("stored")
    await expect(page.get_by_role("heading", name="Nothing is stored")).to_be_visible()
    visitor.expect_refusal(404)
    await visitor.open("requests/nonsense")
    await expect(page.get_by_role("alert")).to_contain_text("nothing with this id")


async def test_a_service_that_is_away_is_an_error_with_a_way_on(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    for _ in range(3):
        visitor.expect_refusal(503)
    await stack.stop("usage")
    try:
        await visitor.go("Usage")
        await expect(page.get_by_role("alert").first).to_contain_text("cannot be asked")
    finally:
        await stack.start("usage")
    await stack.balance(customer.account_id)
    await page.reload()
    await expect(page.locator(".figure.big")).to_contain_text("$5.00")


async def test_the_playground_stops_gives_its_key_back_and_takes_one_of_ones_own(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    own = await stack.create_key(customer.account_id, name="mine")
    await visitor.sign_in(customer.secret)
    await visitor.go("Playground")
    await page.get_by_label("Message").fill("[[events=120 gap_ms=20]] go on")
    await page.keyboard.press("Enter")
    await expect(page.locator(".meter")).to_contain_text("so far")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    await visitor.go("API keys")
    await expect(page.get_by_role("row", name="Playground")).to_contain_text("in 59 minutes")

    async def is_revoked() -> bool:
        listed = await Client(stack.edge_url, customer.secret).ask("GET", "/v1/keys")
        return all(key["name"] != "Playground" for key in listed.json["data"])

    assert not await is_revoked()
    await page.reload()
    await eventually(is_revoked)
    await visitor.go("Playground")
    await page.get_by_label("API key").fill(own.secret)
    await page.get_by_label("Message").fill("one two three")
    await page.keyboard.press("Enter")
    await expect(page.locator(".meter")).to_contain_text("cost")
    await page.get_by_role("button", name="Sign out").click()
    await visitor.heading("Tollgate console")
    await visitor.sign_in(customer.secret)

    async def was_used() -> bool:  # usage takes its time, and the page shows what was known when it was opened
        await page.reload()
        return "just now" in await page.get_by_role("row", name="mine").inner_text()

    await eventually(was_used, 15)
    assert await is_revoked()
