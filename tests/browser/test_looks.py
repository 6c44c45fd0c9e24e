"""Every view, light and dark, at a desk and on a phone: nothing overflows, and pictures are kept to be looked at."""

import pytest
from playwright.async_api import Browser, expect

from tests.browser.account_with_history import account_with_history
from tests.browser.visitor import DESKTOP, PHONE, visiting
from tests.harness.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

VIEWS = ("keys", "usage", "requests", "models", "playground")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["desk", "phone"])
async def test_every_view_fits_its_window(browser: Browser, stack: Stack, scheme: str, place: str) -> None:
    customer = await account_with_history(stack)
    size = {"desk": DESKTOP, "phone": PHONE}[place]
    async with visiting(browser, stack, size=size, color_scheme=scheme) as visitor:
        page = visitor.page
        await visitor.open()
        await visitor.heading("Tollgate console")
        await visitor.looks(f"sign-in-{place}-{scheme}")
        await visitor.sign_in(customer.secret)
        for view in VIEWS:
            await visitor.open(view)
            await visitor.looks(f"{view}-{place}-{scheme}")
        await visitor.open("playground")
        await page.get_by_label("Message").fill("What is a tollgate?")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".meter")).to_contain_text("cost")
        await visitor.looks(f"chat-{place}-{scheme}")
        await visitor.open("requests")
        await (
            page.get_by_role("row")
            .filter(has_text="test/large")
            .filter(has_text="website")
            .get_by_role("link")
            .first.click()
        )
        await visitor.heading("Request")
        await visitor.settled()
        await visitor.looks(f"request-{place}-{scheme}")
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await visitor.looks(f"stored-{place}-{scheme}")
        await visitor.open("keys")
        await page.get_by_role("button", name="Create key").click()
        await visitor.dialog.get_by_label("Name").fill("laptop")
        await visitor.looks(f"new-key-{place}-{scheme}")
        for part in ("Limits", "Stored content"):
            await visitor.dialog.get_by_text(part, exact=True).click()
        await visitor.dialog.get_by_label("How fast it may go").select_option("custom")
        await visitor.looks(f"new-key-open-{place}-{scheme}")
        await visitor.dialog.get_by_role("button", name="Create key").click()
        await expect(visitor.dialog.locator("#new-secret")).to_be_visible()
        await visitor.looks(f"secret-{place}-{scheme}")
