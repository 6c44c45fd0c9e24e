"""One stack for all tests of a module, and a fresh one for a test that stops what others need.

Tests share a stack and do not meet: each makes its own accounts and keys, and its own models where it needs deployments
of its own.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.stack import Customer, Json, Stack, open_stack
from tests.stack.client import Client

OpenStack = Callable[..., Awaitable[Stack]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_stack(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Stack]:
    """The module's stack, with the module's SETTINGS if it has some."""
    settings: dict[str, Json] = getattr(request.module, "SETTINGS", {})
    async with open_stack(tmp_path_factory.mktemp("stack"), settings=settings) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """The module's stack, its upstream without scripts and records."""
    shared_stack.upstream.reset()
    return shared_stack


@pytest_asyncio.fixture(loop_scope="session")
async def customer(stack: Stack) -> Customer:
    """An account with 5 USD and a key."""
    return await stack.customer()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def regular(shared_stack: Stack) -> Customer:
    """The customer of all tests of a module that look at no bill."""
    return await shared_stack.customer()


@pytest.fixture
def client(stack: Stack, regular: Customer, request: pytest.FixtureRequest) -> Client:
    """Sends requests with the key of the test's own customer, if it has one."""
    payer = request.getfixturevalue("customer") if "customer" in request.fixturenames else regular
    return Client(stack.edge_url, payer.secret)


@pytest.fixture
def stranger(stack: Stack) -> Client:
    """Sends requests without a key."""
    return Client(stack.edge_url)


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_stack(tmp_path: Path) -> AsyncIterator[OpenStack]:
    """Opens a stack that only this test has: `await fresh_stack(edge={...})`, by process name its settings."""
    async with AsyncExitStack() as exits:

        async def opened(**settings: Json) -> Stack:
            return await exits.enter_async_context(open_stack(tmp_path, settings=settings))

        yield opened
