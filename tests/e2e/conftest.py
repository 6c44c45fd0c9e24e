"""One running stack and one scripted upstream for all tests that only talk to them; each test is its own customer."""

from collections.abc import Iterator

import pytest

from tests.e2e.customer import Customer, catalog, new_customer
from tests.harness.processes import RunningStack, running_stack
from tests.harness.upstream_process import UpstreamProcess, upstream_process

# Most tests wait for their bill; as in production it would come half a second later.
SETTINGS = {"TOLLGATE_EDGE_SHIP_LINGER_S": "0.02"}


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[UpstreamProcess]:
    with upstream_process() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def shared_stack(shared_upstream: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("stack")
    with running_stack(catalog(shared_upstream.url), folder, environment=SETTINGS) as stack:
        yield stack


@pytest.fixture
def upstream(shared_upstream: UpstreamProcess) -> UpstreamProcess:
    """The model server behind `stack`, without records and scripts."""
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture
def stack(shared_stack: RunningStack, upstream: UpstreamProcess) -> RunningStack:
    """The four processes, shared."""
    return shared_stack


@pytest.fixture
def customer(stack: RunningStack) -> Customer:
    """A new account with 5 USD, and its key."""
    return new_customer(stack)
