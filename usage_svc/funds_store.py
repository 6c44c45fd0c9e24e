"""SQL about accounts, leases and ledger entries. Account rows are always locked in the order of their ids."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from usage_svc.driver import Command, Driver, Query, insert_of_rows, open_with
from usage_svc.intake import AccountChange
from usage_svc.leases import Lease
from usage_svc.ledger import ENTRIES_PER_BATCH, Posting
from usage_svc.sessions import SessionId
from usage_svc.tables import MovementRow

MAX_RECALLS = 100  # leases that are asked for idle funds because of one call

_MOVEMENT_COLUMNS = ("entry_id", *Posting._fields, "create_time_us")
_LEASE_COLUMNS = (
    "lease_id, account_id, spool_uuid, incarnation, granted_nanousd, settled_nanousd, returned_nanousd, "
    "overflow_nanousd, acquire_seq, last_granted_nanousd, last_near_limit, last_available_nanousd, closed, is_last"
)


@dataclass(frozen=True, slots=True)
class Account:
    """One customer's funds, as one statement saw them. `reserved` and `charged` include the open leases."""

    account_id: str
    available_nanousd: int = 0
    grace_nanousd: int | None = None
    overflow_nanousd: int = 0
    credited_nanousd: int = 0
    charged_nanousd: int = 0
    reserved_nanousd: int = 0
    refunded_nanousd: int = 0

    @property
    def posted_nanousd(self) -> int:
        """Credits minus charges."""
        return self.available_nanousd + self.reserved_nanousd

    @property
    def headroom_nanousd(self) -> int:
        """What can still be leased."""
        return self.available_nanousd + (self.grace_nanousd or 0)


def headrooms(account_ids: Sequence[str]) -> Query:
    """Locks accounts; what each has beyond all leases, grace included. Accounts that never had an entry are missing."""
    return Query(
        "SELECT account_id, available_nanousd + COALESCE(grace_nanousd, 0) FROM account "
        "WHERE account_id IN_LIST($1) ORDER BY account_id {for_update}",
        (sorted(account_ids),),
    )


def leases_by_id(lease_ids: Sequence[str]) -> Query:
    """Leases, for `lease_from_row`. Those of a session are safe to change under the session's lock."""
    return Query(f"SELECT {_LEASE_COLUMNS} FROM lease WHERE lease_id IN_LIST($1)", (list(lease_ids),))  # noqa: S608 - our names


def open_leases(session_id: SessionId) -> Query:
    """The leases of a session that still reserve something or may do so."""
    return Query(
        f"SELECT {_LEASE_COLUMNS} FROM lease "  # noqa: S608 - our names
        "WHERE spool_uuid = $1 AND incarnation = $2 AND NOT closed ORDER BY lease_id",
        (session_id.spool_uuid, session_id.incarnation),
    )


def lease_from_row(row: Sequence[Any]) -> Lease:
    """A working copy of a lease."""
    lease = Lease(*row)
    # SQLite's are 0 and 1.
    lease.last_near_limit, lease.closed, lease.is_last = map(bool, (lease.last_near_limit, lease.closed, lease.is_last))
    return lease


def last_slots(account_ids: Sequence[str]) -> Query:
    """The leases that are open for accounts' last requests, as (account, lease). Safe under the accounts' locks."""
    return Query(
        "SELECT account_id, lease_id FROM lease WHERE account_id IN_LIST($1) AND NOT closed AND is_last",
        (list(account_ids),),
    )


def reserved_elsewhere(account_ids: Sequence[str], session_id: SessionId) -> Query:
    """Leases of other sessions that reserve something for these accounts, the largest first: they may have it idle."""
    return Query(
        "SELECT l.account_id, l.lease_id, l.spool_uuid, l.incarnation FROM lease l WHERE l.account_id IN_LIST($1) "  # noqa: S608 - our names
        "AND NOT l.closed AND NOT l.is_last AND l.granted_nanousd > l.settled_nanousd + l.returned_nanousd "
        "AND NOT (l.spool_uuid = $2 AND l.incarnation = CAST($3 AS bigint)) "
        f"ORDER BY l.granted_nanousd - l.settled_nanousd - l.returned_nanousd DESC LIMIT {MAX_RECALLS}",
        (list(account_ids), session_id.spool_uuid, session_id.incarnation),
    )


def reserved(account_ids: Sequence[str]) -> Query:
    """What the open leases of accounts set aside; for an account without one there is no row."""
    return Query(
        "SELECT account_id, CAST(SUM(granted_nanousd - settled_nanousd - returned_nanousd) AS bigint) FROM lease "
        "WHERE account_id IN_LIST($1) AND NOT closed GROUP BY account_id",
        (list(account_ids),),
    )


_ACCOUNT = (
    "SELECT a.available_nanousd, a.grace_nanousd, a.overflow_nanousd, a.credited_nanousd, "
    "CAST(a.charged_nanousd + COALESCE(SUM(l.settled_nanousd), 0) AS bigint), "
    "CAST(COALESCE(SUM(l.granted_nanousd - l.settled_nanousd - l.returned_nanousd), 0) AS bigint), a.refunded_nanousd "
    "FROM account a LEFT JOIN lease l ON l.account_id = a.account_id AND NOT l.closed "
    "WHERE a.account_id = $1 GROUP BY a.account_id"
)


async def account(driver: Driver, account_id: str) -> Account:
    """Where an account stands, in one statement, so that a charge between two of them cannot show half."""
    rows = await driver.fetch(_ACCOUNT, account_id)
    return Account(account_id, *rows[0]) if rows else Account(account_id)


async def read_account(transaction: AsyncSession, account_id: str) -> Account:
    """The same, as the only statement of a transaction."""
    _, rows = await open_with(transaction, _ACCOUNT, account_id)
    return Account(account_id, *rows[0]) if rows else Account(account_id)


def withdraw(grants: Mapping[str, int]) -> Command:
    """Takes granted amounts from accounts that `headrooms` locked; the table's check refuses what crosses the grace."""
    return Command(
        "UPDATE account SET available_nanousd = available_nanousd - CAST($2 AS bigint) WHERE account_id = $1",
        sorted(grants.items()),
    )


def apply_changes(changes: Mapping[str, AccountChange]) -> Command:
    """Adds up what a batch did to accounts. Overflow is a charge that no lease knows of, so it is counted here."""
    return Command(
        "INSERT INTO account AS a (account_id, available_nanousd, overflow_nanousd, credited_nanousd, charged_nanousd, "
        "create_time_us) VALUES ($1, $2, $3, 0, CAST($4 AS bigint), {now_us}) ON CONFLICT (account_id) DO UPDATE SET "
        "available_nanousd = a.available_nanousd + excluded.available_nanousd, "
        "overflow_nanousd = a.overflow_nanousd + excluded.overflow_nanousd, "
        "charged_nanousd = a.charged_nanousd + excluded.charged_nanousd",
        [
            (account_id, change.available_nanousd, change.overflow_nanousd, change.charged_nanousd)
            for account_id, change in sorted(changes.items())
            if change.available_nanousd or change.overflow_nanousd or change.charged_nanousd
        ],
    )


def insert_leases(leases: Iterable[Lease]) -> Command:
    """Writes leases for the first time."""
    return Command(
        f"INSERT INTO lease ({_LEASE_COLUMNS}, create_time_us) "  # noqa: S608 - our names
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, {now_us})",
        [
            (
                lease.lease_id,
                lease.account_id,
                lease.spool_uuid,
                lease.incarnation,
                lease.granted_nanousd,
                lease.settled_nanousd,
                lease.returned_nanousd,
                lease.overflow_nanousd,
                lease.acquire_seq,
                lease.last_granted_nanousd,
                lease.last_near_limit,
                lease.last_available_nanousd,
                lease.closed,
                lease.is_last,
            )
            for lease in leases
        ],
    )


def update_grants(leases: Iterable[Lease]) -> Command:
    """Writes what leases were granted, and their last answers."""
    return Command(
        "UPDATE lease SET granted_nanousd = $2, acquire_seq = $3, last_granted_nanousd = $4, last_near_limit = $5, "
        "last_available_nanousd = $6 WHERE lease_id = $1",
        [
            (
                lease.lease_id,
                lease.granted_nanousd,
                lease.acquire_seq,
                lease.last_granted_nanousd,
                lease.last_near_limit,
                lease.last_available_nanousd,
            )
            for lease in leases
        ],
    )


def update_spent(leases: Iterable[Lease]) -> Command:
    """Writes what was settled from leases and returned to their accounts."""
    return Command(
        "UPDATE lease SET settled_nanousd = $2, returned_nanousd = $3, overflow_nanousd = $4, closed = $5 "
        "WHERE lease_id = $1",
        [
            (lease.lease_id, lease.settled_nanousd, lease.returned_nanousd, lease.overflow_nanousd, lease.closed)
            for lease in leases
        ],
    )


def fold_released(released: Mapping[str, int], settled: Mapping[str, int]) -> Command:
    """Gives accounts back what their closed leases reserved, and takes over what those had settled."""
    return Command(
        "UPDATE account SET available_nanousd = available_nanousd + CAST($2 AS bigint), "
        "charged_nanousd = charged_nanousd + CAST($3 AS bigint) WHERE account_id = $1",
        [(account_id, amount, settled[account_id]) for account_id, amount in sorted(released.items())],
    )


async def append_entry(driver: Driver, posting: Posting) -> None:
    """Appends one movement of an operator's to the ledger, in a batch of its own."""
    ((batch_id, now_us),) = await driver.fetch(
        "INSERT INTO batch (spool_uuid, incarnation, first_seq, create_time_us) VALUES ('', 0, 0, {now_us}) "
        "RETURNING batch_id, create_time_us"
    )
    row = (batch_id * ENTRIES_PER_BATCH, *posting, now_us)
    await driver.execute_each(insert_of_rows(MovementRow.__table__, _MOVEMENT_COLUMNS, [row]))  # type: ignore[attr-defined]  # SQLModel's, set by SQLAlchemy


async def add_to_account(
    driver: Driver, account_id: str, change_nanousd: int, credited_nanousd: int, overflow_nanousd: int
) -> None:
    """Moves money of an operator's; the account is there and locked."""
    await driver.execute_each(
        Command(
            "UPDATE account SET available_nanousd = available_nanousd + CAST($2 AS bigint), "
            "credited_nanousd = credited_nanousd + CAST($3 AS bigint), "
            "overflow_nanousd = overflow_nanousd + CAST($4 AS bigint) WHERE account_id = $1",
            [(account_id, change_nanousd, credited_nanousd, overflow_nanousd)],
        )
    )


async def lock_account(driver: Driver, account_id: str) -> Account:
    """Makes an account if there is none, and locks its row."""
    await driver.execute_each(
        Command(
            "INSERT INTO account (account_id, available_nanousd, overflow_nanousd, credited_nanousd, charged_nanousd, "
            "create_time_us) VALUES ($1, 0, 0, 0, 0, {now_us}) ON CONFLICT DO NOTHING",
            [(account_id,)],
        )
    )
    await driver.fetch("SELECT account_id FROM account WHERE account_id = $1 {for_update}", account_id)
    return await account(driver, account_id)


async def set_terms(driver: Driver, account_id: str, grace_nanousd: int, overflow_nanousd: int) -> None:
    """Sets an account's grace, and the label on what it no longer covers."""
    await driver.execute_each(
        Command(
            "UPDATE account SET grace_nanousd = $2, overflow_nanousd = $3 WHERE account_id = $1",
            [(account_id, grace_nanousd, overflow_nanousd)],
        )
    )


OPEN_LEASES = Query(
    "SELECT COUNT(*), CAST(COALESCE(SUM(granted_nanousd - settled_nanousd - returned_nanousd), 0) AS bigint) "
    "FROM lease WHERE NOT closed"
)
