"""The auditor on a live usage_svc: silent while the books hold, and naming what does not."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chassis import client, faults
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.usage_service import USD, Edge, UsageService, event, new_id, uncharged, usage_service
from usage_svc import metrics
from usage_svc.audit_store import PAGE_ACCOUNTS

COST = 100 * 1000 + 50 * 2000


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service


async def audited(usage: UsageService, account_id: str = "") -> pb.AuditLedgerResponse:
    answer: pb.AuditLedgerResponse = await usage.call(
        usage.admin.AuditLedger, pb.AuditLedgerRequest(account_id=account_id)
    )
    return answer


async def tamper(usage: UsageService, *statements: str) -> None:
    async def work(transaction: AsyncSession) -> None:
        for statement in statements:
            await (await transaction.connection()).execute(text(statement))

    await usage.database.write(work)


async def some_traffic(usage: UsageService) -> Edge:
    """Two accounts; one with charges of every kind, overflow, returns, corrections and an open lease."""
    await usage.credit("acme", 5 * USD)
    await usage.credit("bell", 2 * USD, kind=pb.ENTRY_KIND_PROMOTION)
    await usage.adjust("acme", -USD)
    edge = await usage.open_edge()
    lease_id = new_id()
    await edge.acquire("acme", 3 * COST, lease_id=lease_id)
    edge.spool(*(event("acme", lease_id) for _ in range(4)))
    edge.spool(event("acme", lease_id, outcome=pb.OUTCOME_ESTIMATED, source=pb.USAGE_SOURCE_ESTIMATED, hold=7))
    edge.spool(uncharged("acme", pb.OUTCOME_WAIVED), uncharged("acme", pb.OUTCOME_EDGE_LOST))
    await edge.ship()
    await edge.acquire("acme", USD, lease_id=lease_id)
    return edge


async def test_an_audit_of_right_books_counts_what_it_looked_at_and_finds_nothing(usage: UsageService) -> None:
    edge = await some_traffic(usage)
    found = await audited(usage)
    assert not found.violations
    assert found.accounts_checked == 2
    assert found.entries_checked == 3 + 5
    assert found.requests_checked == 7
    assert found.requests_rated == 5
    assert (found.leases_checked, found.open_leases) == (1, 1)
    assert found.charged_nanousd == 4 * COST + 7
    assert found.credited_nanousd == 7 * USD
    assert found.available_nanousd + found.reserved_nanousd == 6 * USD - found.charged_nanousd
    assert found.overflow_nanousd == COST + 7
    assert found.overdraft_max_nanousd == 0
    assert found.snapshot_time.seconds > 0
    await edge.seal()
    await usage.audit()


async def test_one_account_can_be_audited_by_itself(usage: UsageService) -> None:
    await some_traffic(usage)
    await tamper(usage, "UPDATE account SET credited_nanousd = 1 WHERE account_id = 'bell'")
    assert not (await audited(usage, "acme")).violations
    assert (await audited(usage, "acme")).accounts_checked == 1
    assert (await audited(usage, "bell")).violations[0].subject == "account bell"
    assert (await audited(usage, "nobody")).accounts_checked == 0


@pytest.mark.parametrize(
    ("statement", "invariant", "subject"),
    [
        (
            "UPDATE account SET available_nanousd = available_nanousd + 1 WHERE account_id = 'acme'",
            "I4",
            "account acme",
        ),
        ("UPDATE account SET credited_nanousd = 0 WHERE account_id = 'bell'", "I4", "account bell"),
        ("UPDATE account SET charged_nanousd = charged_nanousd - 1 WHERE account_id = 'acme'", "I4", "account acme"),
        ("UPDATE account SET overflow_nanousd = 0 WHERE account_id = 'acme'", "I1", "account acme"),
        ("UPDATE movement SET amount_nanousd = amount_nanousd - 1 WHERE account_id = 'bell'", "I4", "account bell"),
        ("DELETE FROM movement WHERE account_id = 'bell'", "I4", "account bell"),
        ("UPDATE movement SET debit_account_id = 'acme' WHERE account_id = 'bell'", "I4", "entry "),
        ("UPDATE lease SET granted_nanousd = granted_nanousd + 5", "I4", "account acme"),
        ("UPDATE lease SET settled_nanousd = settled_nanousd - 5", "I4", "account acme"),
        ("DELETE FROM lease", "I4", "account acme"),
        ("UPDATE lease SET closed = true", "I4", "lease "),
        ("UPDATE session SET state = 3", "I4", "lease "),
        ("DELETE FROM session", "I4", "lease "),
        ("DELETE FROM account WHERE account_id = 'bell'", "I4", "account bell"),
        (
            "UPDATE usage_event SET completion_tokens = completion_tokens + 1 WHERE charged_nanousd > 7",
            "I5",
            "request ",
        ),
        ("UPDATE usage_event SET charged_nanousd = charged_nanousd + 1 WHERE charged_nanousd > 7", "I5", "request "),
        ("UPDATE usage_event SET day = day + 1 WHERE charged_nanousd > 7", "I5", "request "),
        ("UPDATE usage_event SET charged_nanousd = 1 WHERE outcome = 3", "I5", "request "),
        ("UPDATE price_version SET prompt = '0.000003'", "I5", "request "),
        ("DELETE FROM price_version", "I5", "request "),
    ],
)
async def test_whatever_is_tampered_with_is_found_and_named(
    usage: UsageService, statement: str, invariant: str, subject: str
) -> None:
    await some_traffic(usage)
    await tamper(usage, statement)
    violations = (await audited(usage)).violations
    assert any(each.invariant == invariant and each.subject.startswith(subject) for each in violations), violations
    assert metrics.AUDIT_VIOLATIONS._value.get() == len(violations)


async def test_a_charge_that_was_posted_twice_or_not_at_all_is_found(usage: UsageService) -> None:
    edge = await some_traffic(usage)
    request_id = edge.records[0].event.request_id
    columns = "kind, account_id, debit_account_id, credit_account_id, amount_nanousd, overflow_nanousd, request_id, "
    twice = f"INSERT INTO movement (entry_id, {columns} note, create_time_us) SELECT 7, {columns} note, create_time_us "
    await tamper(usage, twice + f"FROM entry WHERE request_id = '{request_id}'")
    assert "entry 7 of account acme" in {each.subject for each in (await audited(usage)).violations}
    await tamper(usage, "DELETE FROM movement WHERE entry_id = 7")
    assert not (await audited(usage)).violations
    await tamper(usage, f"DELETE FROM usage_event WHERE request_id = '{request_id}'")
    assert "account acme" in {each.subject for each in (await audited(usage)).violations}


async def test_a_charge_that_is_given_back_twice_is_found(usage: UsageService) -> None:
    edge = await some_traffic(usage)
    request_id = edge.records[0].event.request_id

    async def refund(number: int) -> None:
        asked = pb.RefundRequest(
            request_id=f"refund {number}", account_id="acme", charged_request_id=request_id, reason="a test"
        )
        await client.call(usage.admin.Refund, asked, timeout_s=5)

    await refund(1)
    assert not (await audited(usage)).violations
    await tamper(usage, f"UPDATE usage_event SET refunded_nanousd = 0 WHERE request_id = '{request_id}'")
    await refund(2)
    assert [each.subject for each in (await audited(usage)).violations] == ["account acme"]
    await tamper(usage, f"UPDATE usage_event SET refunded_nanousd = {2 * COST} WHERE request_id = '{request_id}'")
    assert [each.subject[:7] for each in (await audited(usage)).violations] == ["request"]


async def test_more_accounts_and_rows_than_a_page_are_all_looked_at(usage: UsageService) -> None:
    count = PAGE_ACCOUNTS + 5
    now = "1700000000000000"
    rows = ", ".join(f"('a{number:04d}', 10, 0, 10, 0, {now})" for number in range(count))
    entries = ", ".join(
        f"({number}, 1, 'a{number:04d}', 'cash', 'a{number:04d}', 10, 0, '', '', {now})" for number in range(count)
    )
    await tamper(
        usage,
        "INSERT INTO account (account_id, available_nanousd, overflow_nanousd, credited_nanousd, charged_nanousd, "
        f"create_time_us) VALUES {rows}",
        "INSERT INTO movement (entry_id, kind, account_id, debit_account_id, credit_account_id, amount_nanousd, "
        f"overflow_nanousd, request_id, note, create_time_us) VALUES {entries}",
    )
    found = await audited(usage)
    assert (found.accounts_checked, found.entries_checked) == (count, count)
    assert not found.violations
    await tamper(usage, f"UPDATE account SET available_nanousd = 11 WHERE account_id = 'a{count - 1:04d}'")
    assert [each.subject for each in (await audited(usage)).violations] == [f"account a{count - 1:04d}"]


async def test_at_most_a_hundred_violations_are_told(usage: UsageService) -> None:
    edge = await usage.open_edge()
    await usage.credit("acme", 5 * USD)
    edge.spool(*(event("acme") for _ in range(120)))
    await edge.ship()
    await tamper(usage, "UPDATE usage_event SET charged_nanousd = charged_nanousd + 1")
    assert len((await audited(usage)).violations) == 100


async def test_audits_see_one_moment_while_traffic_goes_on(usage: UsageService) -> None:
    await usage.credit("acme", 500 * USD)
    edge = await usage.open_edge()
    lease_id = new_id()
    stop = asyncio.Event()

    async def keep_posting() -> int:
        batches = 0
        while not stop.is_set():
            await edge.acquire("acme", 5 * COST, lease_id=lease_id)
            edge.spool(*(event("acme", lease_id) for _ in range(7)))
            await edge.ship()
            await usage.credit("acme", 1)
            batches += 1
        return batches

    posting = asyncio.create_task(keep_posting())
    try:
        for _ in range(10):
            await usage.audit_rpc()
    finally:
        stop.set()
    assert await posting > 0
    await usage.audit()


async def test_a_bad_account_id_is_refused(usage: UsageService) -> None:
    with pytest.raises(faults.InvalidArgument, match="account_id"):
        await client.call(usage.admin.AuditLedger, pb.AuditLedgerRequest(account_id="cash"), timeout_s=5)


async def test_drift_between_balances_and_ledger_shows_in_a_metric(database_url: str) -> None:
    async with usage_service(database_url, drift_interval_s=0.01) as usage:
        await some_traffic(usage)
        await tamper(usage, "UPDATE account SET available_nanousd = available_nanousd + 3 WHERE account_id = 'acme'")
        await eventually(lambda: metrics.LEDGER_DRIFT._value.get() == 3)
        await tamper(usage, "UPDATE account SET available_nanousd = available_nanousd - 3 WHERE account_id = 'acme'")
        await eventually(lambda: metrics.LEDGER_DRIFT._value.get() == 0)
