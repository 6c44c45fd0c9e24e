"""Several edge processes on one port: they share the work, their metrics are one, and no death loses a bill."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.customer import MODEL, ONE_TWO_THREE_NANOUSD, Customer, catalog, new_customer, words
from tests.harness.eventually import eventually_sync
from tests.harness.processes import RunningStack, running_stack
from tests.harness.upstream_process import UpstreamProcess

UP_AGAIN_S_MAX = 60.0
# So long that nothing is shipped before its edge dies.
LATE = {"TOLLGATE_EDGE_SHIP_LINGER_S": "600"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, shared_upstream: UpstreamProcess) -> Iterator[RunningStack]:
    """A stack with two edge processes; the last test that uses it ends it."""
    folder = tmp_path_factory.mktemp("pair")
    two = {"TOLLGATE_EDGE_PROCESSES": "2"}
    with running_stack(catalog(shared_upstream.url), folder, environment=two) as stack:
        yield stack


def members(stack: RunningStack) -> list[psutil.Process]:
    """The processes that serve, oldest first."""
    children = psutil.Process(stack.pid("edge")).children()
    return sorted((each for each in children if each.status() != psutil.STATUS_ZOMBIE), key=lambda each: each.pid)


def metric(stack: RunningStack, name: str, **labels: str) -> float:
    """The sum of what the edge's /metrics has under a name, over all labels that are not given."""
    with urlopen(stack.run["metrics_urls"]["edge"]) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def completions(stack: RunningStack) -> float:
    return metric(stack, "tollgate_edge_requests_total", endpoint="chat_completions")


async def ask(customer: Customer, count: int) -> int:
    """So many requests, each on a connection of its own. How many were answered."""

    async def once() -> bool:
        async with customer.async_client() as client:
            try:
                await client.chat.completions.create(model=MODEL, messages=words(), max_tokens=5)
            except openai.APIConnectionError:  # it was in the hands of a process that died
                return False
            return True

    return sum([await once() for _ in range(count)])


async def test_the_processes_share_the_port_and_metrics_show_the_sum_of_them_all(pair: RunningStack) -> None:
    customer = await asyncio.to_thread(new_customer, pair)
    assert await ask(customer, 24) == 24
    assert await asyncio.to_thread(metric, pair, "tollgate_edge_processes") == 2
    assert await asyncio.to_thread(completions, pair) == 24
    served = [len((pair.data_dir / "edge" / folder / "spool" / "uuid").read_text()) for folder in (".", "process-1")]
    assert all(served)
    # One process alone cannot have asked auth_svc twice for one key: both have served.
    assert await asyncio.to_thread(metric, pair, "tollgate_edge_key_cache_misses_total") == 2
    await asyncio.to_thread(customer.is_billed, 24 * ONE_TWO_THREE_NANOUSD, requests=24)


async def test_a_group_does_not_share_its_port_with_anybody_else(pair: RunningStack, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edge",
        env={
            **os.environ,
            "TOLLGATE_EDGE_PROCESSES": "2",
            "TOLLGATE_EDGE_DATA_DIR": str(tmp_path / "another"),
            "TOLLGATE_EDGE_LISTEN_PORT": pair.root_url.rpartition(":")[2],
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"cannot listen on 127.0.0.1:" in said


async def test_a_process_that_dies_is_started_again_and_nothing_is_lost_or_counted_back(pair: RunningStack) -> None:
    customer = await asyncio.to_thread(new_customer, pair)
    answered = await ask(customer, 12)
    before = await asyncio.to_thread(completions, pair)
    victim = members(pair)[0]
    victim.send_signal(signal.SIGKILL)
    answered += await ask(customer, 12)
    assert answered >= 18, "one of two processes is enough"
    assert await asyncio.to_thread(completions, pair) >= before

    def is_back() -> bool:
        return metric(pair, "tollgate_edge_processes") == 2 and victim.pid not in [each.pid for each in members(pair)]

    await asyncio.to_thread(eventually_sync, is_back, UP_AGAIN_S_MAX)
    assert await asyncio.to_thread(metric, pair, "tollgate_edge_process_restarts_total") == 1
    answered += await ask(customer, 6)
    assert await asyncio.to_thread(completions, pair) >= before + 6
    await asyncio.to_thread(customer.is_billed, answered * ONE_TWO_THREE_NANOUSD, requests=answered)
    pids = [each.pid for each in members(pair)]
    assert pair.stop() == 0
    assert not any(map(psutil.pid_exists, pids))


async def test_what_a_larger_group_left_behind_is_shipped_by_the_next_one(
    tmp_path: Path, upstream: UpstreamProcess
) -> None:
    two = {"TOLLGATE_EDGE_PROCESSES": "2", **LATE}
    with running_stack(catalog(upstream.url), tmp_path, environment=two) as stack:
        customer = await asyncio.to_thread(new_customer, stack)
        assert await ask(customer, 20) == 20
        assert await asyncio.to_thread(metric, stack, "tollgate_edge_key_cache_misses_total") == 2
        pids = [stack.pid("edge"), *(each.pid for each in members(stack))]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually_sync(lambda: stack.process.poll() is not None, UP_AGAIN_S_MAX)
    with running_stack(None, tmp_path) as stack:
        customer = Customer(stack, customer.account_id, customer.secret)
        assert await ask(customer, 1) == 1
        await asyncio.to_thread(customer.is_billed, 21 * ONE_TWO_THREE_NANOUSD, requests=21)
