"""Every view, light and dark, at a desk and on a phone: nothing overflows, and pictures are kept to be looked at."""

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.account_with_history import account_with_history
from tests.browser.visitor import DESKTOP, PHONE, SHIFT_MAX, visiting
from tests.harness.stack import Customer, Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Each theme and each width once: the checks take their time.
CHECKED = (("desk", "light"), ("phone", "dark"))
VIEWS = ("keys", "usage", "requests", "models", "playground")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lived_in(shared_stack: Stack) -> Customer:
    """One account for all pictures."""
    return await account_with_history(shared_stack)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", ["desk", "phone"])
async def test_every_view_fits_its_window_stays_in_place_and_is_accessible(
    browser: Browser, shared_stack: Stack, lived_in: Customer, scheme: str, place: str
) -> None:
    customer = lived_in
    size = {"desk": DESKTOP, "phone": PHONE}[place]
    async with visiting(browser, shared_stack, size=size, color_scheme=scheme) as visitor:
        page = visitor.page
        await visitor.open()
        await visitor.heading("Tollgate console")

        async def looks(name: str) -> None:
            await visitor.looks(f"{name}-{place}-{scheme}")
            if (place, scheme) in CHECKED:
                await visitor.accessible(name)

        await looks("sign-in")
        await visitor.sign_in(customer.secret)
        for view in VIEWS:
            await visitor.jumps()
            await visitor.open(view)
            assert await visitor.jumps() < SHIFT_MAX, view
            await looks(view)
        await visitor.open("playground")
        await page.get_by_label("Message").fill("What is a tollgate?")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".meter")).to_contain_text("cost")
        await looks("chat")
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
        await looks("request")
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await looks("stored")
        await visitor.open("keys")
        await page.get_by_role("button", name="Create key").click()
        await visitor.dialog.get_by_label("Name").fill("laptop")
        await looks("new-key")
        for part in ("Limits", "Stored content"):
            await visitor.dialog.get_by_text(part, exact=True).click()
        await visitor.dialog.get_by_label("How fast it may go").select_option("custom")
        await looks("new-key-open")
        await visitor.dialog.get_by_role("button", name="Create key").click()
        await expect(visitor.dialog.locator("#new-secret")).to_be_visible()
        await looks("secret")
