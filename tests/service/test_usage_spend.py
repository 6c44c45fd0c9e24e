"""usage_svc: spend limits of keys over gRPC, on both engines."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.clock import SystemClock
from chassis.faults import FailedPrecondition, InvalidArgument
from edge.access.key_cache import SpendLimit
from edge.limits.spend import WINDOW_S, SpendBook
from edge.openai.errors import RequestError
from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.usage_service import USD, Edge, UsageService, event, usage_service
from usage_svc.driver import Query, Script, write_by_script

GRANTED, USED_UP, HELD = pb.LEASE_OUTCOME_GRANTED, pb.LEASE_OUTCOME_FUNDS_USED_UP, pb.LEASE_OUTCOME_FUNDS_HELD


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        await service.credit("acme", 5 * USD)
        yield service
        await service.audit()


def this_month() -> str:
    return datetime.now(UTC).date().isoformat()[:7]


def demand(seq: int = 1, least: int = 1000, **fields: Any) -> pb.SpendDemand:
    values = {"limit_nanousd": USD, "want_nanousd": least, "period_id": this_month(), "key_id": "key-1", **fields}
    return pb.SpendDemand(account_id="acme", seq=seq, min_nanousd=least, **values)


async def acquire(usage: UsageService, edge: Edge, *demands: pb.SpendDemand) -> list[pb.SpendGrant]:
    request = pb.AcquireSpendRequest(session=edge.session, demands=demands)
    answer: pb.AcquireSpendResponse = await usage.call(usage.metering.AcquireSpend, request)
    return list(answer.grants)


async def test_charges_are_counted_by_key_and_period_and_end_what_was_set_aside(usage: UsageService) -> None:
    edge, other = await usage.open_edge(), await usage.open_edge()
    [grant] = await acquire(usage, edge, demand(least=USD // 2, want_nanousd=USD // 2))
    assert (grant.outcome, grant.granted_total_nanousd, grant.spent_nanousd) == (GRANTED, USD // 2, 0)
    [refused] = await acquire(usage, other, demand(least=USD // 2 + 1))
    assert refused.outcome == HELD
    edge.spool(event("acme", prompt=100, completion=50), event("acme", prompt=100, completion=50, key_id="key-2"))
    await edge.ship()
    [seen] = await acquire(usage, other, demand(2, least=USD // 2))
    assert (seen.outcome, seen.spent_nanousd) == (GRANTED, 200_000)
    [full] = await acquire(usage, other, demand(3, least=1))
    assert full.outcome == HELD


async def test_what_a_session_had_set_aside_comes_back_when_it_is_sealed(usage: UsageService) -> None:
    edge, other = await usage.open_edge(), await usage.open_edge()
    await acquire(usage, edge, demand(least=USD))
    edge.spool(event("acme"))
    [refused] = await acquire(usage, other, demand(least=USD // 2))
    assert refused.outcome == HELD
    await edge.ship()
    await edge.seal()
    [grant] = await acquire(usage, other, demand(2, least=USD - 200_000))
    assert grant.outcome == GRANTED
    [used_up] = await acquire(usage, other, demand(3, least=USD - 199_999))
    assert used_up.outcome == USED_UP


async def test_what_is_given_back_can_be_had_again(usage: UsageService) -> None:
    edge, other = await usage.open_edge(), await usage.open_edge()
    await acquire(usage, edge, demand(least=USD))
    [back] = await acquire(usage, edge, demand(2, least=0, want_nanousd=0, returned_total_nanousd=USD // 2))
    assert (back.outcome, back.granted_total_nanousd) == (GRANTED, USD)
    [grant] = await acquire(usage, other, demand(least=USD // 2))
    assert grant.outcome == GRANTED


async def test_a_limit_that_comes_later_counts_what_was_charged_before(usage: UsageService) -> None:
    edge = await usage.open_edge()
    edge.spool(event("acme"), event("acme"), event("acme", key_id="key-2"))
    await edge.ship()
    [grant] = await acquire(usage, edge, demand())
    assert grant.spent_nanousd == 400_000
    edge.spool(event("acme"))
    await edge.ship()
    [grant] = await acquire(usage, edge, demand(2))
    assert grant.spent_nanousd == 600_000


async def test_what_was_counted_too_early_is_counted_once_more(usage: UsageService) -> None:
    edge = await usage.open_edge()
    await acquire(usage, edge, demand())
    edge.spool(event("acme"))
    await edge.ship()

    def missed() -> Script[None]:
        yield (Query("UPDATE key_spend SET spent_nanousd = 0, counted_time_us = 1 RETURNING key_id"),)

    await write_by_script(usage.database, missed)
    [grant] = await acquire(usage, edge, demand(2))
    assert grant.spent_nanousd == 200_000


async def test_a_day_and_a_month_are_counted_apart(usage: UsageService) -> None:
    edge = await usage.open_edge()
    today = datetime.now(UTC).date().isoformat()
    await acquire(usage, edge, demand(period_id=today), demand(period_id=this_month()))
    edge.spool(event("acme"))
    await edge.ship()
    grants = await acquire(usage, edge, demand(2, period_id=today), demand(2, period_id=this_month()))
    assert [grant.spent_nanousd for grant in grants] == [200_000, 200_000]


async def test_many_edges_at_once_set_aside_no_more_than_the_limit(usage: UsageService) -> None:
    edges = [await usage.open_edge() for _ in range(6)]
    answers = await asyncio.gather(*(acquire(usage, edge, demand(least=USD // 4)) for edge in edges))
    assert [grants[0].outcome for grants in answers].count(GRANTED) == 4
    assert sum(grants[0].granted_total_nanousd for grants in answers) == USD


async def test_another_period_than_the_present_is_refused_but_taken_back(usage: UsageService) -> None:
    edge = await usage.open_edge()
    for period_id in ("2020-01", (datetime.now(UTC) + timedelta(days=3)).date().isoformat()):
        with pytest.raises(InvalidArgument, match="clock"):
            await acquire(usage, edge, demand(period_id=period_id))
    [back] = await acquire(usage, edge, demand(least=0, want_nanousd=0, period_id="2020-01"))
    assert back.outcome == GRANTED


async def test_a_session_that_is_not_alive_gets_nothing(usage: UsageService) -> None:
    edge = await usage.open_edge()
    await edge.seal()
    with pytest.raises(FailedPrecondition) as caught:
        await acquire(usage, edge, demand())
    assert caught.value.reason == "SESSION_FENCED"


@pytest.mark.parametrize(
    ("demands", "field"),
    [
        ([demand(), demand()], "demands"),
        ([demand(period_id="today")], "demands.period_id"),
        ([demand(key_id="")], "demands.key_id"),
        ([demand(seq=0)], "demands.seq"),
        ([demand(limit_nanousd=-1)], "demands.limit_nanousd"),
    ],
)
async def test_a_wrong_demand_is_named(usage: UsageService, demands: list[pb.SpendDemand], field: str) -> None:
    edge = await usage.open_edge()
    with pytest.raises(InvalidArgument) as caught:
        await acquire(usage, edge, *demands)
    assert [violation.field for violation in caught.value.violations] == [field]


class HurriedClock(SystemClock):
    """The machine's, with a monotonic clock that a test can put forward."""

    shift_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.shift_s


async def test_a_key_that_was_idle_for_long_has_no_more_of_its_limit_than_before(usage: UsageService) -> None:
    edge, clock = await usage.open_edge(), HurriedClock()
    book = SpendBook(usage.metering, clock, lambda: edge.session, rpc_timeout_s=5.0)
    limit, served = SpendLimit(2_000_000, auth_pb2.SPEND_PERIOD_MONTH), 0

    def is_forgotten() -> bool:
        clock.shift_s += 2 * WINDOW_S
        return not len(book)

    running = asyncio.create_task(book.run())
    try:
        for _ in range(3):
            with suppress(RequestError):
                for _ in range(6):
                    held = await book.hold("acme", "key-1", limit, 300_000, time.time())
                    edge.spool(event("acme"))
                    held.settle(200_000)
                    served += 1
            await edge.ship()
            await eventually(is_forgotten, 20.0)
    finally:
        running.cancel()
    assert 7 <= served <= 10  # of 200,000 each
