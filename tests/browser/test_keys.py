"""API keys in the page: made, changed, rotated and revoked, by mouse and by keyboard; secrets are seen once."""

import json

import pytest
from playwright.async_api import expect

from tests.browser.visitor import Visitor
from tests.harness.stack import MANAGEMENT, Customer, Json, Stack
from tests.stack.client import Client, Response

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_secret_is_shown_once_and_is_nowhere_afterwards(visitor: Visitor, customer: Customer) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Create key").click()
    await visitor.dialog.get_by_label("Name").fill("laptop")
    await visitor.dialog.get_by_role("button", name="Create key").click()
    secret = await page.locator("#new-secret").inner_text()
    await page.keyboard.press("Escape")
    await expect(page.locator("#new-secret")).to_be_visible()  # it is not lost by a slip
    await page.get_by_role("button", name="I have stored it").click()
    await expect(visitor.dialog).to_have_count(0)
    for _ in range(2):
        await expect(page.get_by_role("row", name="laptop")).to_contain_text(secret[:11])
        assert secret not in await page.content()
        kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, history.state])")
        assert secret not in kept
        assert customer.secret not in kept + await page.content()
        await page.reload()
        await visitor.settled()


async def test_a_key_is_made_with_the_keyboard_alone_and_the_focus_is_always_where_one_is(
    visitor: Visitor, customer: Customer
) -> None:
    page = visitor.page
    await visitor.open()
    await expect(page.get_by_label("Management key")).to_be_focused()
    await page.keyboard.type(customer.secret)
    await page.keyboard.press("Enter")
    await visitor.heading("API keys")
    await visitor.settled()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("main")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Create key")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(visitor.dialog.get_by_label("Name")).to_be_focused()
    await page.keyboard.type("by hand")
    await page.keyboard.press("Tab")
    await expect(visitor.dialog.get_by_label("Use models")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await page.keyboard.press("Enter")
    await expect(visitor.dialog.get_by_role("button", name="Copy")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(visitor.dialog).to_have_count(0)
    await expect(page.get_by_role("button", name="Create key")).to_be_focused()
    await expect(page.get_by_role("row", name="by hand")).to_contain_text("use models, manage")


async def test_every_option_of_the_form_reaches_the_key(visitor: Visitor, stack: Stack, customer: Customer) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Create key").click()
    form = visitor.dialog
    await form.get_by_label("Name").fill("everything")
    await form.get_by_label("Expires", exact=True).select_option("30")
    await form.get_by_label("Models", exact=True).select_option("some")
    await form.get_by_label("test/model").check()
    await form.get_by_text("Limits", exact=True).click()
    await form.get_by_label("How fast it may go").select_option("custom")
    await form.get_by_label("Requests per minute").fill("120")
    await form.get_by_label("Open at once").fill("8")
    await form.get_by_label("Spend at most").fill("40")
    await form.get_by_label("In each").select_option("day")
    await form.get_by_text("Stored content", exact=True).click()
    await form.get_by_label("Store inputs").check()
    await form.get_by_label("Store outputs").check()
    await form.get_by_label("Delete after days").fill("7")
    await form.get_by_role("button", name="Create key").click()
    await page.get_by_role("button", name="I have stored it").click()
    row = page.get_by_role("row", name="everything")
    await expect(row).to_contain_text("120 requests/min")
    made = (await _keys(stack, customer))["everything"]
    assert made["limits"] == {
        "tier": "custom",
        "requests_per_minute": 120,
        "tokens_per_minute": None,
        "concurrent_requests": 8,
    }
    assert made["spend_limit"] == {"amount_usd": "40.00", "period": "day"}
    assert (made["log_inputs"], made["log_outputs"], made["retention_days"]) == (True, True, 7)
    assert made["models"] == ["test/model"]
    assert made["expires_at"] - made["created_at"] == pytest.approx(30 * 86_400, abs=60)

    await row.get_by_role("button", name="Edit").click()
    await form.get_by_label("Name").fill("less")
    await form.get_by_label("How fast it may go").select_option("tier")
    await form.get_by_label("Tier", exact=True).fill("production")
    await form.get_by_role("button", name="Save changes").click()
    await expect(page.get_by_role("row", name="less")).to_contain_text("tier production")
    assert (await _keys(stack, customer))["less"] == {
        **made,
        "name": "less",
        "limits": (await _keys(stack, customer))["less"]["limits"],
    }


async def test_what_the_service_refuses_is_said_beside_the_field(visitor: Visitor, customer: Customer) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Create key").click()
    form = visitor.dialog
    for label, wrong, right in (
        ("Name", "", "good"),
        ("Spend at most", "much", "2.50"),
        ("Tier", "none such", "developer"),
    ):
        if label == "Spend at most":
            await form.get_by_text("Limits", exact=True).click()
        if label == "Tier":
            await form.get_by_label("How fast it may go").select_option("tier")
        control = form.get_by_label(label, exact=label != "Spend at most")
        await control.fill(wrong)
        visitor.expect_refusal(400)
        await form.get_by_role("button", name="Create key").click()
        await expect(control).to_be_focused()
        await expect(control).to_have_attribute("aria-invalid", "true")
        described = (await control.get_attribute("aria-describedby") or "").split()[-1]
        await expect(page.locator(f"#{described}")).not_to_be_empty()
        await control.fill(right)
    await form.get_by_role("button", name="Create key").click()
    await expect(page.locator("#new-secret")).to_be_visible()


async def test_keys_are_rotated_with_an_overlap_and_revoked_after_a_question(
    visitor: Visitor, stack: Stack, customer: Customer
) -> None:
    page = visitor.page
    old = await stack.create_key(customer.account_id, name="website")
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Rotate website").click()
    await visitor.dialog.get_by_label("The old key goes on working").select_option("3600")
    await visitor.dialog.get_by_role("button", name="Make the new key").click()
    new = await page.locator("#new-secret").inner_text()
    await page.get_by_role("button", name="I have stored it").click()
    await expect(page.get_by_role("row", name="website")).to_have_count(2)
    for secret in (old.secret, new):
        assert (await Client(stack.edge_url, secret).chat()).status == 200

    rotated = page.get_by_role("row").filter(has_text=new[:11])
    await rotated.get_by_role("button", name="Revoke").click()
    await expect(visitor.dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    assert (await Client(stack.edge_url, new).chat()).status == 200
    await rotated.get_by_role("button", name="Revoke").click()
    await visitor.dialog.get_by_role("button", name="Revoke key").click()
    await expect(rotated).to_have_count(0)
    await page.get_by_label("Show revoked keys").check()
    await expect(rotated).to_contain_text("revoked")


async def test_the_last_management_key_is_not_lost_and_the_dialog_says_why(
    visitor: Visitor, customer: Customer
) -> None:
    page = visitor.page
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Revoke first key").click()
    visitor.expect_refusal(400)
    await visitor.dialog.get_by_role("button", name="Revoke key").click()
    await expect(visitor.dialog.get_by_role("alert")).to_contain_text("last working key")
    await visitor.dialog.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("row", name="first key")).to_contain_text("active")


async def test_who_revokes_the_key_in_use_is_signed_out(visitor: Visitor, stack: Stack, customer: Customer) -> None:
    page = visitor.page
    await stack.create_key(customer.account_id, name="another", scopes=[MANAGEMENT])
    await visitor.sign_in(customer.secret)
    await page.get_by_role("button", name="Revoke first key").click()
    visitor.expect_refusal(401)
    await visitor.dialog.get_by_role("button", name="Revoke key").click()
    await visitor.heading("Tollgate console")
    await expect(page.locator(".sign-in-note").filter(has_text="revoked")).to_be_visible()
    assert await page.context.cookies() == []


async def _keys(stack: Stack, customer: Customer) -> dict[str, Json]:
    answer: Response = await Client(stack.edge_url, customer.secret).ask("GET", "/v1/keys")
    return {key["name"]: key for key in json.loads(answer.body)["data"]}
