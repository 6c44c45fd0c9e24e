"""usage_svc: what readers see and operators do, over gRPC, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection

from chassis import migration
from chassis.clock import SystemClock
from chassis.database import Database, open_engine
from chassis.faults import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from chassis.lifetime import Lifetime
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.usage_service import USD, UsageService, event, new_id, uncharged, usage_service
from usage_svc import migrations
from usage_svc.funding import Funding
from usage_svc.signals import Signals
from usage_svc.sweeper import Sweeper
from usage_svc.tables import UsageRow

HOUR_S = 3600
MIDNIGHT_S = 1_760_000_000 // 86_400 * 86_400


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service
        await service.audit()


async def test_an_account_that_never_had_an_entry_has_a_balance_of_zero(usage: UsageService) -> None:
    assert await usage.balance("nobody") == pb.Balance(account_id="nobody")


async def test_grace_begins_with_the_first_credit_and_not_with_a_gift(usage: UsageService) -> None:
    assert (await usage.credit("acme", USD, kind=pb.ENTRY_KIND_PROMOTION)).grace_nanousd == 0
    balance = await usage.credit("acme", 2 * USD)
    assert balance.grace_nanousd == USD
    assert (balance.posted_nanousd, balance.credited_nanousd, balance.available_nanousd) == (3 * USD,) * 3
    await usage.set_grace("bell", 7)
    assert (await usage.credit("bell", USD)).grace_nanousd == 7


async def test_a_credit_sent_many_times_at_once_is_booked_once(usage: UsageService) -> None:
    request = pb.GrantCreditRequest(request_id="top-up 1", account_id="acme", amount_nanousd=5 * USD, note="invoice 7")
    answers = await asyncio.gather(*(usage.call(usage.admin.GrantCredit, request) for _ in range(8)))
    assert {answer.balance.posted_nanousd for answer in answers} == {5 * USD}
    assert (await usage.balance("acme")).posted_nanousd == 5 * USD
    other = pb.GrantCreditRequest(request_id="top-up 1", account_id="acme", amount_nanousd=6 * USD)
    with pytest.raises(AlreadyExists) as caught:
        await usage.call(usage.admin.GrantCredit, other)
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_many_credits_at_once_to_a_new_account_all_arrive(usage: UsageService) -> None:
    await asyncio.gather(*(usage.credit("acme", USD) for _ in range(12)))
    balance = await usage.balance("acme")
    assert (balance.posted_nanousd, balance.credited_nanousd) == (12 * USD, 12 * USD)


async def test_a_debit_stops_at_the_grace_unless_it_is_forced_and_labelled(usage: UsageService) -> None:
    await usage.credit("acme", USD)
    edge = await usage.open_edge()
    await edge.acquire("acme", USD)
    with pytest.raises(FailedPrecondition) as caught:
        await usage.adjust("acme", -USD - 1)
    assert caught.value.reason == "INSUFFICIENT_FUNDS"
    assert (await usage.adjust("acme", -USD)).available_nanousd == -USD
    assert (await usage.adjust("acme", -5, force=True)).available_nanousd == -USD - 5
    assert (await usage.adjust("acme", 3 * USD)).posted_nanousd == 3 * USD - 5
    listed = await usage.call(usage.reading.ListEntries, pb.ListEntriesRequest(account_id="acme"))
    assert [(e.amount_nanousd, e.overflow_nanousd) for e in listed.entries] == [
        (3 * USD, 0),
        (5, 5),
        (USD, 0),
        (USD, 0),
    ]
    assert {e.kind for e in listed.entries[:3]} == {pb.ENTRY_KIND_ADJUSTMENT}


async def test_terms_cut_below_what_is_owed_stop_the_account_and_keep_the_books(usage: UsageService) -> None:
    await usage.credit("acme", USD)
    edge = await usage.open_edge()
    assert (await edge.acquire("acme", 2 * USD)).granted_nanousd == 2 * USD
    assert (await usage.set_grace("acme", 0)).available_nanousd == -USD
    assert (await edge.acquire("acme", 1)).outcome == pb.LEASE_OUTCOME_FUNDS_HELD
    assert await usage.rows("SELECT overflow_nanousd FROM account") == [(USD,)]


BAD_WRITES: list[tuple[str, str, Any]] = [
    ("GrantCredit", "amount_nanousd", pb.GrantCreditRequest(account_id="a")),
    ("GrantCredit", "amount_nanousd", pb.GrantCreditRequest(account_id="a", amount_nanousd=10**18 + 1)),
    ("GrantCredit", "account_id", pb.GrantCreditRequest(account_id="cash", amount_nanousd=1)),
    ("GrantCredit", "kind", pb.GrantCreditRequest(account_id="a", amount_nanousd=1, kind=pb.ENTRY_KIND_CHARGE)),
    ("GrantCredit", "note", pb.GrantCreditRequest(account_id="a", amount_nanousd=1, note="n" * 501)),
    ("GrantCredit", "request_id", pb.GrantCreditRequest(account_id="a", amount_nanousd=1, request_id="")),
    ("Adjust", "amount_nanousd", pb.AdjustRequest(account_id="a", note="n")),
    ("Adjust", "amount_nanousd", pb.AdjustRequest(account_id="a", note="n", amount_nanousd=-(2**63))),
    ("Adjust", "note", pb.AdjustRequest(account_id="a", amount_nanousd=1)),
    ("SetTerms", "grace_nanousd", pb.SetTermsRequest(account_id="a", grace_nanousd=-1)),
    ("SetTerms", "account_id", pb.SetTermsRequest(account_id="a\0")),
]


async def test_an_operators_write_out_of_bounds_is_refused_by_its_field(usage: UsageService) -> None:
    for method, field, template in BAD_WRITES:
        request = type(template)()
        request.CopyFrom(template)
        if field != "request_id":
            request.request_id = new_id()
        with pytest.raises(InvalidArgument) as caught:
            await usage.call(getattr(usage.admin, method), request)
        assert [violation.field for violation in caught.value.violations] == [field]
    assert await usage.rows("SELECT * FROM entry") == []


async def test_a_balance_cannot_grow_beyond_what_its_column_holds(usage: UsageService) -> None:
    await usage.credit("acme", 10**18)
    with pytest.raises(InvalidArgument):
        await usage.credit("acme", 1)


async def test_sums_of_usage_are_exact_in_every_grouping_and_equal_the_ledger(usage: UsageService) -> None:
    edge = await usage.open_edge()
    for hour, model, key, prompt in ((0, "b", "k2", 10), (0, "a", "k1", 20), (1, "a", "k1", 30), (25, "a", "k2", 40)):
        tokens = pb.TokenCounts(
            prompt_tokens=prompt,
            completion_tokens=1,
            cached_tokens=2,
            reasoning_tokens=1,
            images=1,
            cache_write_tokens=3,
        )
        end = MIDNIGHT_S + hour * HOUR_S + 5
        edge.spool(event("acme", model_id=model, key_id=key, tokens=tokens, end_time_s=end))
    edge.spool(uncharged("acme", pb.OUTCOME_NONE, model_id="a", key_id="k1", end_time_s=MIDNIGHT_S))
    edge.spool(event("rival", end_time_s=MIDNIGHT_S))
    assert list((await edge.ship()).exceptions) == []

    (total,) = await usage.usage("acme")
    assert (total.requests, total.errors) == (5, 1)
    assert total.tokens == pb.TokenCounts(
        prompt_tokens=100, completion_tokens=4, cached_tokens=8, cache_write_tokens=12, reasoning_tokens=4, images=4
    )
    assert total.charged_nanousd == (await usage.balance("acme")).charged_nanousd
    assert total.charged_nanousd == 100 * 1000 - 8 * 500 + 4 * 2000 + 4 * 10_000_000
    assert not total.HasField("period_start_time")

    by_hour = await usage.usage("acme", pb.USAGE_GROUPING_HOUR)
    assert [(r.period_start_time.seconds - MIDNIGHT_S, r.requests) for r in by_hour] == [
        (0, 3),
        (HOUR_S, 1),
        (25 * HOUR_S, 1),
    ]
    by_all = await usage.usage("acme", pb.USAGE_GROUPING_DAY, pb.USAGE_GROUPING_MODEL, pb.USAGE_GROUPING_KEY)
    assert [
        ((r.period_start_time.seconds - MIDNIGHT_S) // 86_400, r.model_id, r.key_id, r.tokens.prompt_tokens)
        for r in by_all
    ] == [(0, "a", "k1", 50), (0, "b", "k2", 10), (1, "a", "k2", 40)]
    assert sum(r.charged_nanousd for r in by_all) == total.charged_nanousd
    assert [(r.model_id, r.requests) for r in await usage.usage("acme", pb.USAGE_GROUPING_MODEL)] == [
        ("a", 4),
        ("b", 1),
    ]

    (filtered,) = await usage.usage(
        "acme",
        start_time=Timestamp(seconds=MIDNIGHT_S + HOUR_S),
        end_time=Timestamp(seconds=MIDNIGHT_S + 25 * HOUR_S),
        model_id="a",
        key_id="k1",
    )
    assert (filtered.requests, filtered.tokens.prompt_tokens) == (1, 30)
    (nothing,) = await usage.usage("nobody")
    assert nothing.requests == nothing.charged_nanousd == 0


BAD_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("group_by", {"group_by": [pb.USAGE_GROUPING_UNSPECIFIED]}),
    ("group_by", {"group_by": [pb.USAGE_GROUPING_HOUR, pb.USAGE_GROUPING_DAY]}),
    ("group_by", {"group_by": [pb.USAGE_GROUPING_KEY, pb.USAGE_GROUPING_KEY]}),
    ("end_time", {"start_time": Timestamp(seconds=9), "end_time": Timestamp(seconds=8)}),
    ("account_id", {"account_id": ""}),
    ("model_id", {"model_id": "m" * 201}),
]


async def test_a_wrong_question_about_usage_names_its_field(usage: UsageService) -> None:
    for field, change in BAD_QUESTIONS:
        with pytest.raises(InvalidArgument) as caught:
            await usage.call(usage.reading.QueryUsage, pb.QueryUsageRequest(**{"account_id": "acme", **change}))
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_request_is_shown_as_the_edge_sent_it(usage: UsageService) -> None:
    edge = await usage.open_edge()
    attempts = [
        pb.Attempt(deployment_id="d" * 190, failure="connect", duration_ms=3),
        pb.Attempt(deployment_id="d2", status_code=200, duration_ms=300),
    ]
    sent = [
        event("acme", attempts=attempts),
        event("acme", attempts=attempts[1:] * 3, streamed=False),
        uncharged("acme", pb.OUTCOME_EDGE_LOST, attempts=[], price=None),
    ]
    edge.spool(*sent)
    await edge.ship()
    for each in sent:
        request = pb.GetRequestRequest(account_id="acme", request_id=each.request_id)
        found = await usage.call(usage.reading.GetRequest, request)
        expected = pb.UsageEvent()
        expected.CopyFrom(each)
        if not expected.price.price_version:
            expected.ClearField("price")
        assert found.request.event == expected
        assert found.request.charged_nanousd == (200_000 if each.price.price_version else 0)
        for account_id, request_id in (("rival", each.request_id), ("acme", new_id()), ("acme", "chatcmpl-1")):
            with pytest.raises(NotFound) as caught:
                await usage.call(
                    usage.reading.GetRequest, pb.GetRequestRequest(account_id=account_id, request_id=request_id)
                )
            assert caught.value.reason == "REQUEST_NOT_FOUND"


async def test_requests_and_entries_are_listed_newest_first_without_gap_or_repeat(usage: UsageService) -> None:
    edge = await usage.open_edge()
    sent = [event("acme", end_time_s=MIDNIGHT_S + n // 3) for n in range(10)]  # three share each end_time
    edge.spool(*sent, event("rival"))
    await edge.ship()
    expected = [e.request_id for e in sorted(sent, key=lambda e: (e.end_time.seconds, e.request_id), reverse=True)]
    listed, token = [], ""
    while True:
        request = pb.ListRequestsRequest(account_id="acme", page_size=3, page_token=token)
        page = await usage.call(usage.reading.ListRequests, request)
        listed += [request.event.request_id for request in page.requests]
        token = page.next_page_token
        if not token:
            break
    assert listed == expected
    paid, token = [], ""
    while True:
        page = await usage.call(
            usage.reading.ListEntries, pb.ListEntriesRequest(account_id="acme", page_size=4, page_token=token)
        )
        paid += [entry.request_id for entry in page.entries]
        token = page.next_page_token
        if not token:
            break
    assert paid == [e.request_id for e in reversed(sent)]
    first = await usage.call(usage.reading.ListEntries, pb.ListEntriesRequest(account_id="acme", page_size=1))
    entry = first.entries[0]
    assert (entry.debit_account_id, entry.credit_account_id, entry.amount_nanousd) == ("acme", "revenue", 200_000)
    with pytest.raises(InvalidArgument):
        await usage.call(
            usage.reading.ListEntries,
            pb.ListEntriesRequest(account_id="rival", page_token=first.next_page_token),
        )


class PushedClock(SystemClock):
    """The machine's, with a monotonic clock that a test can push forward."""

    def __init__(self) -> None:
        self.pushed_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.pushed_s


def funding_of(usage: UsageService) -> Funding:
    return Funding(usage.database, Signals(SystemClock(), Lifetime()))


async def test_a_silent_session_is_fenced_after_its_ttl_and_nothing_of_it_is_freed(usage: UsageService) -> None:
    await usage.credit("acme", 5 * USD)
    silent, lively = await usage.open_edge(), await usage.open_edge()
    await silent.acquire("acme", USD)
    clock = PushedClock()
    sweeper = Sweeper(usage.database, clock, 600.0, asyncio.sleep, funding_of(usage))
    async with usage.database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE session SET heartbeat_time_us = heartbeat_time_us - 601000000")
    await lively.heartbeat()
    assert await sweeper.turn() == 0  # not before a full TTL after the start
    await silent.acquire("acme", 1)
    clock.pushed_s = 601.0
    assert await sweeper.turn() == 1
    await lively.heartbeat()
    with pytest.raises(FailedPrecondition):
        await silent.heartbeat()
    assert await sweeper.turn() == 0
    assert (await usage.balance("acme")).reserved_nanousd == USD + 1


async def test_a_database_that_was_away_gives_the_edges_a_full_ttl_again(
    usage: UsageService, database_url: str
) -> None:
    clock = PushedClock()
    away = "postgresql+asyncpg://postgres@127.0.0.1:1/none"
    silent = await usage.open_edge()
    async with usage.database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE session SET heartbeat_time_us = 0")
    async with Database(open_engine(away)) as unreachable:
        sweeper = Sweeper(unreachable, clock, 600.0, asyncio.sleep, funding_of(usage))
        clock.pushed_s = 601.0
        assert await sweeper.turn() == 0
        sweeper._database = usage.database  # it is back
        assert await sweeper.turn() == 0
    clock.pushed_s = 1202.0
    assert await sweeper.turn() == 1
    with pytest.raises(FailedPrecondition):
        await silent.heartbeat()


async def test_the_migrated_schema_is_the_one_that_the_code_declares(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, UsageRow.metadata))

    assert await migration.migrate(database_url, migrations) == migration.head(migrations)
    engine = open_engine(database_url)
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


async def test_even_a_bug_cannot_commit_past_the_guards(usage: UsageService) -> None:
    await usage.credit("acme", USD)
    edge = await usage.open_edge()
    await edge.acquire("acme", 100)
    for statement in (
        "UPDATE account SET available_nanousd = available_nanousd - 2000000001",
        "UPDATE lease SET returned_nanousd = 101",
        "UPDATE lease SET settled_nanousd = -1",
        "UPDATE movement SET amount_nanousd = 0",
        "UPDATE movement SET debit_account_id = credit_account_id",
    ):
        with pytest.raises(Exception, match=r"(?i)constraint"):
            async with usage.database.engine.begin() as connection:
                await connection.exec_driver_sql(statement)
