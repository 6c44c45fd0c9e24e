"""Somebody at the page, who notices whatever a browser complains about."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from tests.harness.stack import Stack

# Kept after the run, to be looked at; git does not know them.
SCREENSHOTS = Path(__file__).parent / "screenshots"
DESKTOP, PHONE = (1280, 860), (360, 740)
ACTION_TIMEOUT_MS = 15_000
expect.set_options(timeout=ACTION_TIMEOUT_MS)  # what comes late on a busy machine is no failure
# What Chromium's own measure of jumps (cumulative layout shift) calls good.
SHIFT_MAX = 0.1
_REPORT_VIOLATIONS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifted += shift.value;
}).observe({ type: "layout-shift", buffered: true });
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP violation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


class Visitor:
    """A page of the console, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        self._expected: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("request", self._requested)

    def expect_refusal(self, status: int) -> None:
        """Chromium notes every refused request in its console; this one is meant."""
        self.expect_complaint(f"status of {status} ")

    def expect_complaint(self, words: str) -> None:
        """One complaint of the browser that has these words is meant."""
        self._expected.append(words)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        for words in self._expected:
            if words in message.text:
                self._expected.remove(words)
                return
        self.complaints.append(f"console {message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", f"blob:{self.url}")):
            self.complaints.append(f"asked another host: {request.url}")

    async def open(self, view: str = "") -> None:
        """Goes to a view, waiting until nothing is loading."""
        await self.page.goto(f"{self.url}/console#/{view}")
        await self.settled()

    async def settled(self) -> None:
        """Waits until no view is loading."""
        await expect(self.page.locator(".skeleton")).to_have_count(0)

    async def sign_in(self, secret: str) -> None:
        """From wherever the page is."""
        await self.page.goto(f"{self.url}/console")
        await self.page.get_by_label("Management key").fill(secret)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.heading("API keys")
        await self.settled()

    async def heading(self, name: str) -> None:
        """Waits for a view by its name."""
        await expect(self.page.get_by_role("heading", level=1, name=name)).to_be_visible()

    async def go(self, name: str) -> None:
        """To a view, by its link."""
        await self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        await self.heading(name)
        await self.settled()

    @property
    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.get_by_role("dialog")

    async def looks(self, name: str) -> None:
        """Keeps a screenshot; nothing may be wider than the window."""
        SCREENSHOTS.mkdir(exist_ok=True)
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        wide = await self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{name} is wider than its window"

    async def jumps(self) -> float:
        """How much of the page moved by itself since the last call."""
        moved: float = await self.page.evaluate("() => { const sum = window.shifted; window.shifted = 0; return sum; }")
        return moved

    async def accessible(self, name: str) -> None:
        """Fails with what axe-core finds wrong: WCAG 2.2 A and AA, contrast included, and its best practices."""
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(_axe())
        found = await self.page.evaluate(
            """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map(
              (each) => `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`)"""
        )
        assert not found, f"{name}: " + "\n".join(found)


@cache
def _axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@asynccontextmanager
async def visiting(
    browser: Browser, stack: Stack, *, size: tuple[int, int] = DESKTOP, scheme: str = "http", **context: Any
) -> AsyncIterator[Visitor]:
    """A visitor with a browser profile of its own. Fails at its end if the browser complained."""
    url = stack.edge_url.replace("http:", f"{scheme}:")
    width, height = size
    opened = await browser.new_context(
        viewport={"width": width, "height": height},
        locale="en-GB",
        timezone_id="Europe/Berlin",
        reduced_motion="reduce",
        is_mobile=size == PHONE,
        has_touch=size == PHONE,
        **context,
    )
    try:
        opened.set_default_timeout(ACTION_TIMEOUT_MS)
        await opened.add_init_script(_REPORT_VIOLATIONS)
        await opened.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        visitor = Visitor(await opened.new_page(), url)
        yield visitor
        assert not visitor.complaints, "\n".join(visitor.complaints)
    finally:
        await opened.close()
