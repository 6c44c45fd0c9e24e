"""One browser for all tests, and one stack for those of a module; each test has a profile and an account of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chromium import MISSING, chromium, running_chromium
from tests.browser.visitor import Visitor, visiting
from tests.harness.stack import MANAGEMENT, Customer, Stack, open_stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if chromium() is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(MISSING))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with running_chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """The module's stack, its upstream without scripts and records."""
    shared_stack.upstream.reset()
    return shared_stack


@pytest_asyncio.fixture(loop_scope="session")
async def customer(stack: Stack) -> Customer:
    """An account with 5 USD and a management key."""
    return await stack.customer(name="first key", scopes=[MANAGEMENT])


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, stack: Stack) -> AsyncIterator[Visitor]:
    """Somebody at a desk, not signed in."""
    async with visiting(browser, stack) as opened:
        yield opened
