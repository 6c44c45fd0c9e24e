"""Debian's Chromium, as the project's own set-up installs it (tests/browser/install-chromium.sh)."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

# Without windows in the first place where it can be had: a test then takes half the time of a processor.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
MISSING = "Chromium is not here: run `make test` as root on Debian, or `apt-get install chromium-headless-shell`"
# Nothing but this machine exists for it: what asks for anything else fails, and the visitor sees that.
_ARGUMENTS = [
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
]


def chromium() -> Path | None:
    """Where it is; None where it is not."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    return None


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """One browser, without windows."""
    # Its sandbox wants a user of its own, which root in a container is not.
    arguments = [*_ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else _ARGUMENTS
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser
        finally:
            await browser.close()
