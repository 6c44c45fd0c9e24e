"""The proof can fail: each invariant is broken on purpose, and the torture's verdict says so."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from chassis.faults import FailedPrecondition
from edge.metering.refusals import FundsHeld, FundsUsedUp
from tests.harness.eventually import eventually
from tests.harness.usage_service import new_id, usage_service
from tests.torture.mutations import MUTATIONS
from tests.torture.relay import Relay
from tests.torture.rig import ACCOUNT, COST, HOLD, Rig, synced_copies
from tests.torture.verdict import Verdict
from usage_svc import session_store

CREDIT = 1000 * HOLD


@pytest.fixture
async def rig(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    async with usage_service(sqlite_url) as usage, Relay("usage", lambda: ("127.0.0.1", usage.port)) as link:
        await usage.credit(ACCOUNT, CREDIT)
        await usage.set_grace(ACCOUNT, 0)
        yield Rig(usage, tmp_path, link)


async def an_answer_of_usage_svc_is_lost(rig: Rig) -> None:
    """So the edge sends the same batch again."""
    edge = await rig.usage.open_edge()
    grant = await edge.acquire(ACCOUNT, 100 * HOLD)
    for _ in range(5):
        edge.spool(rig.answered(new_id(), grant.lease_id, HOLD))
    await edge.send(1, edge.records)
    await edge.ship()
    await edge.seal()


async def an_edge_is_killed_while_usage_svc_is_away(rig: Rig) -> None:
    """With answers that have ended, and one that has not."""
    async with rig.edge() as edge:
        await edge.request()
        rig.link.cut()
        for _ in range(5):
            await edge.request()
        open_one = await edge.admit()
        assert open_one.is_open
        settings = await edge.kill()
    rig.link.mend()
    async with rig.edge(settings):
        await rig.is_settled()


async def an_edge_is_killed_after_its_last_answer(rig: Rig) -> None:
    async with rig.edge() as edge:
        await edge.request()
        rig.link.cut()
        await edge.request()
        settings = await edge.kill()
    rig.link.mend()
    async with rig.edge(settings):
        await rig.is_settled()


async def the_power_is_cut(rig: Rig) -> None:
    with synced_copies():
        async with rig.edge() as edge:
            await edge.request()
            rig.link.cut()
            await edge.request()
            settings = await edge.cut_power()
        rig.link.mend()
        async with rig.edge(settings):
            await rig.is_settled()


async def an_edge_is_killed_with_a_long_request_open(rig: Rig) -> None:
    """So long that many segments have come and gone since it was admitted."""
    async with rig.edge() as edge:
        long_one = await edge.admit()
        for _ in range(150):
            await edge.request()
        log = long_one.log
        await eventually(lambda: log.acknowledged_seq == log.next_seq)
        settings = await edge.kill()
    async with rig.edge(settings):
        await rig.is_settled()


async def another_edge_takes_its_folder(rig: Rig) -> None:
    """While it has a request open, which it then finishes."""
    async with rig.edge() as edge:
        open_one = await edge.admit()
        with contextlib.suppress(FailedPrecondition):  # SPOOL_IN_USE
            async with rig.edge(edge.settings):
                await rig.is_settled()
        await edge.finish(open_one)


async def a_seal_is_repeated(rig: Rig) -> None:
    """As an edge does that did not hear the answer to the first."""
    edge = await rig.usage.open_edge()
    await edge.acquire(ACCOUNT, 10 * COST)
    await edge.seal()
    await edge.seal()


async def an_edge_falls_silent_while_it_spends(rig: Rig) -> None:
    """It is fenced, another serves its customers, and then it goes on."""
    await rig.usage.adjust(ACCOUNT, -(CREDIT - 10 * COST))
    async with rig.edge() as edge:
        open_ones = [await edge.admit(COST) for _ in range(8)]

        async def fenced() -> bool:
            return bool(await rig.usage.database.write(lambda transaction: session_store.sweep(transaction, 0)))

        await eventually(fenced)
        async with rig.edge() as other:
            with contextlib.suppress(FundsUsedUp, FundsHeld):
                for _ in range(20):
                    await other.finish(await other.admit(COST))
        for each in open_ones:
            await edge.finish(each)
        await rig.is_settled()


async def funds_are_returned_step_by_step(rig: Rig) -> None:
    async with rig.edge(lease_window_s=0.05) as edge:
        await asyncio.gather(*(edge.request() for _ in range(5)))
        lease = next(iter(edge.meter._book or []))
        open_one = await edge.admit()
        for _ in range(3):
            edge.meter._give_back(open_one.log, lease, lease.free_nanousd // 2)
        log = open_one.log
        await eventually(lambda: log.acknowledged_seq == log.next_seq)
        await edge.finish(open_one)


async def customers_ask_with_nearly_nothing_left(rig: Rig) -> None:
    """All of them before the first has its answer. One may run, under-held."""
    await rig.usage.adjust(ACCOUNT, -(CREDIT - COST // 2))
    async with rig.edge(held_wait_s=0.05) as edge:
        first = await edge.admit(COST)
        admitted, log = [first], first.log
        for _ in range(3):
            await eventually(lambda: log.acknowledged_seq == log.next_seq)
            with contextlib.suppress(FundsUsedUp, FundsHeld):
                admitted.append(await edge.admit(COST))
        for each in admitted:
            await edge.finish(each)


async def requests_are_served(rig: Rig) -> None:
    async with rig.edge() as edge:
        for _ in range(3):
            await edge.request()


Scenario = Callable[[Rig], Awaitable[None]]

# By mutation: where it must show, and what the verdict says then.
SCENARIOS: dict[str, tuple[Scenario, str]] = {
    # An entry of a charge is its usage row, so that it cannot be there twice; its lease can be drawn on twice.
    "no_deduplication": (an_answer_of_usage_svc_is_lost, "the entries say"),
    "ship_before_write": (an_edge_is_killed_after_its_last_answer, "its client has the whole answer"),
    "no_fsync": (the_power_is_cut, "has the whole answer, and the ledger knows nothing"),
    "forward_before_admitted": (an_edge_is_killed_while_usage_svc_is_away, "has no outcome in the ledger"),
    "segment_deleted_once_acknowledged": (
        an_edge_is_killed_with_a_long_request_open,
        "has no outcome in the ledger",
    ),
    "partial_adoption": (an_edge_is_killed_while_usage_svc_is_away, "has no outcome in the ledger"),
    "adoption_without_lock": (another_edge_takes_its_folder, "(edge_lost): its client has the whole answer"),
    "seal_before_ingest": (
        an_edge_is_killed_while_usage_svc_is_away,
        "has the whole answer, and the ledger knows nothing",
    ),
    "release_twice": (a_seal_is_repeated, "the entries say"),
    "sweep_frees": (an_edge_falls_silent_while_it_spends, "beyond its grace, more than one request's worth"),
    "returns_not_cumulative": (funds_are_returned_step_by_step, "went beyond what was reserved"),
    "last_freed_early": (customers_ask_with_nearly_nothing_left, "beyond its grace, more than one request's worth"),
    "counts_altered": (requests_are_served, "the upstream reported"),
}


def test_every_mutation_has_a_scenario() -> None:
    assert SCENARIOS.keys() == MUTATIONS.keys()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_without_the_mutation_the_verdict_finds_nothing(rig: Rig, name: str) -> None:
    verdict = await judged(rig, name)
    assert verdict.violations == []


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_verdict_reports_the_mutation(rig: Rig, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name].apply(monkeypatch.setattr)
    verdict = await judged(rig, name)
    expected = SCENARIOS[name][1]
    assert any(expected in violation for violation in verdict.violations), verdict.violations


async def judged(rig: Rig, name: str) -> Verdict:
    await SCENARIOS[name][0](rig)
    return await rig.verdict()
