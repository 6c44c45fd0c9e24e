"""The audit of a running system: one consistent view of the database, looked at in chunks, while everything goes on."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from chassis.database import Database
from chassis.faults import Unavailable
from chassis.log import logger
from pricing import Price
from usage_svc import audit_store, metrics
from usage_svc.audit import MAX_VIOLATIONS, AccountAudit, AccountRow, Violation
from usage_svc.audit_store import Range
from usage_svc.driver import Driver, open_with
from usage_svc.rating import price_from_terms

MAX_PRICES = 10_000  # price versions remembered during one audit

_log = logger(__name__)


@dataclass(slots=True)
class Findings:
    """What an audit looked at, sums over it, and the first violations."""

    time_us: int = 0
    accounts: int = 0
    leases: int = 0
    open_leases: int = 0
    entries: int = 0
    events: int = 0
    rated: int = 0
    credited_nanousd: int = 0
    charged_nanousd: int = 0
    available_nanousd: int = 0
    reserved_nanousd: int = 0
    overflow_nanousd: int = 0
    overdraft_max_nanousd: int = 0
    violations: list[Violation] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether there is no point in looking further."""
        return len(self.violations) >= MAX_VIOLATIONS

    def add(self, audit: AccountAudit, kept: AccountRow | None) -> None:
        """Counts an account in."""
        self.leases += audit.leases.leases
        self.open_leases += audit.leases.open_leases
        self.entries += audit.entries
        self.events += audit.events
        self.rated += audit.rated
        if kept is None:
            return
        self.accounts += 1
        self.credited_nanousd += kept.credited_nanousd
        self.charged_nanousd += kept.charged_nanousd + audit.leases.settled_open_nanousd
        self.available_nanousd += kept.available_nanousd
        self.reserved_nanousd += audit.leases.reserved_nanousd
        self.overflow_nanousd += kept.overflow_nanousd
        overdraft = -kept.available_nanousd - kept.grace_nanousd
        self.overdraft_max_nanousd = max(self.overdraft_max_nanousd, overdraft)


class Auditor:
    """Audits one at a time: each holds a connection to the database for as long as it takes."""

    def __init__(self, database: Database, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._database, self._sleep = database, sleep
        self._turn = asyncio.Lock()

    async def audit(self, account_id: str = "") -> Findings:
        """Replays everything from zero, or one account's part.

        Raises:
            Unavailable: the database cannot be asked now.
        """
        findings = Findings()
        async with self._turn, self._database.snapshot() as transaction:
            driver, rows = await open_with(transaction, "SELECT {now_us}")
            findings.time_us = int(rows[0][0])
            wanted = Range(account_id, account_id) if account_id else Range()
            prices: dict[str, Price | None] = {}
            while not findings.is_full:
                page = await audit_store.accounts(driver, wanted)
                covered = audit_store.range_of(wanted, page)
                await self._audit_range(driver, findings, covered, page, prices)
                if covered.last == wanted.last:
                    break
                wanted = wanted._replace(first=covered.last, is_first_done=True)
        del findings.violations[MAX_VIOLATIONS:]
        for violation in findings.violations[:1]:
            _log.error("the ledger does not hold", invariant=violation.invariant, subject=violation.subject)
        metrics.AUDIT_VIOLATIONS.set(len(findings.violations))
        return findings

    async def watch_drift(self, interval_s: float) -> None:
        """Until cancelled: the cheap part of the audit, summed by the database, every so often."""
        while True:
            await self._sleep(interval_s)
            try:
                async with self._turn, self._database.snapshot() as transaction:
                    _, rows = await open_with(transaction, audit_store.DRIFT.sql)
            except Unavailable as fault:
                _log.warning("drift not measured", reason=fault.reason)
                continue
            drift = int(rows[0][0])
            metrics.LEDGER_DRIFT.set(drift)
            if drift:
                _log.error("balances differ from the replay of the ledger: run `tollgate audit`", drift_nanousd=drift)

    async def _audit_range(
        self,
        driver: Driver,
        findings: Findings,
        covered: Range,
        page: Sequence[AccountRow],
        prices: dict[str, Price | None],
    ) -> None:
        kept = {row.account_id: row for row in page}
        sums = await audit_store.lease_sums(driver, covered)
        audits = {account_id: AccountAudit(account_id) for account_id in kept.keys() | sums.keys()}
        for account_id, leases in sums.items():
            audits[account_id].leases = leases
        violations = findings.violations
        violations += await audit_store.lease_violations(driver, covered)
        async for movements in audit_store.movements(driver, covered):
            for account_id, entry in movements:
                violations += _audit_of(audits, account_id).take_entry(entry)
            await self._sleep(0)  # chunks are small, so that live traffic hardly waits
        async for events in audit_store.events(driver, covered):
            await _learn_prices(driver, prices, {event.price_version for _, event in events})
            for account_id, event in events:
                violations += _audit_of(audits, account_id).take_event(event, prices)
            await self._sleep(0)
        for account_id, audit in sorted(audits.items()):
            violations += audit.conclude(kept.get(account_id))
            findings.add(audit, kept.get(account_id))


def _audit_of(audits: dict[str, AccountAudit], account_id: str) -> AccountAudit:
    """An account's audit, begun where only its entries or requests tell of it."""
    audit = audits.get(account_id)
    if audit is None:
        audit = audits[account_id] = AccountAudit(account_id)
    return audit


async def _learn_prices(driver: Driver, prices: dict[str, Price | None], versions: set[str]) -> None:
    unknown = versions - prices.keys()
    if not unknown:
        return
    if len(prices) > MAX_PRICES:
        prices.clear()
        unknown = versions
    found = {terms.price_version: price_from_terms(terms) for terms in await audit_store.price_terms(driver, unknown)}
    prices.update({version: found.get(version) for version in unknown})
