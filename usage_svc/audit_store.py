"""SQL of the audit: pages of accounts, and of each page everything that is kept, in chunks. Nothing writes or locks."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

from pricing import TokenUsage
from usage_svc.audit import AccountRow, EntryRow, EventRow, LeaseSums, Violation
from usage_svc.driver import Driver, Query
from usage_svc.events import PriceTerms
from usage_svc.sessions import SessionState

PAGE_ACCOUNTS = 200
CHUNK_ROWS = 500  # what is looked at between two turns of the event loop: some milliseconds
# Beyond every account id, which are texts.
_LAST_ID = "\U0010ffff" * 100

_TOKENS = (
    "prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, audio_tokens, "
    "image_tokens, images"
)


class Range(NamedTuple):
    """Accounts from `first` up to `last`, both ids; without `first` itself where that was on the page before."""

    first: str = ""
    last: str = _LAST_ID
    is_first_done: bool = False

    @property
    def where(self) -> str:
        """The condition, on $1 and $2."""
        return f"account_id {'>' if self.is_first_done else '>='} $1 AND account_id <= $2"

    @property
    def before_rows(self) -> int:
        """A number that stands, together with `first`, before all rows of the range."""
        return 2**62 if self.is_first_done else -1


async def accounts(driver: Driver, wanted: Range) -> list[AccountRow]:
    """The next page of accounts."""
    rows = await driver.fetch(
        "SELECT account_id, available_nanousd, COALESCE(grace_nanousd, 0), overflow_nanousd, credited_nanousd, "  # noqa: S608 - our names
        f"charged_nanousd, refunded_nanousd FROM account WHERE {wanted.where} ORDER BY account_id "
        f"LIMIT {PAGE_ACCOUNTS}",
        wanted.first,
        wanted.last,
    )
    return [AccountRow(*row) for row in rows]


async def lease_sums(driver: Driver, wanted: Range) -> dict[str, LeaseSums]:
    """What the accounts' leases hold."""
    reserved = "granted_nanousd - settled_nanousd - returned_nanousd"
    rows = await driver.fetch(
        f"SELECT account_id, COUNT(*), SUM(CASE WHEN closed THEN 0 ELSE 1 END), SUM({reserved}), "  # noqa: S608 - our names
        "SUM(settled_nanousd), SUM(CASE WHEN closed THEN 0 ELSE settled_nanousd END) "
        f"FROM lease WHERE {wanted.where} GROUP BY account_id",
        wanted.first,
        wanted.last,
    )
    return {str(row[0]): LeaseSums(*map(int, row[1:])) for row in rows}


async def lease_violations(driver: Driver, wanted: Range) -> list[Violation]:
    """Leases that gave more than they had, or reserve something though nobody can spend it any more."""
    ended = f"{int(SessionState.DRAINED)}, {int(SessionState.FORCED)}"
    rows = await driver.fetch(
        "SELECT l.lease_id, l.account_id, l.granted_nanousd, l.settled_nanousd, l.returned_nanousd, l.closed, s.state "  # noqa: S608 - our names
        "FROM lease l LEFT JOIN session s ON s.spool_uuid = l.spool_uuid AND s.incarnation = l.incarnation "
        f"WHERE l.{wanted.where.replace('AND ', 'AND l.')} AND (l.settled_nanousd < 0 OR l.returned_nanousd < 0 "
        "OR l.settled_nanousd + l.returned_nanousd > l.granted_nanousd OR s.state IS NULL "
        "OR (l.closed AND l.settled_nanousd + l.returned_nanousd <> l.granted_nanousd) "
        f"OR (NOT l.closed AND s.state IN ({ended}))) ORDER BY l.account_id, l.lease_id LIMIT 100",
        wanted.first,
        wanted.last,
    )
    return [
        Violation(
            "I4",
            f"lease {lease_id} of account {account_id}",
            f"granted {granted}, settled {settled}, returned {returned}, {'closed' if closed else 'open'}, of a "
            f"session that {_session_text(state)}",
        )
        for lease_id, account_id, granted, settled, returned, closed, state in rows
    ]


def _session_text(state: int | None) -> str:
    return "does not exist" if state is None else f"is {SessionState(state).name}"


async def movements(driver: Driver, wanted: Range) -> AsyncIterator[list[tuple[str, EntryRow]]]:
    """The accounts' entries that are no charges in chunks, each with its account."""
    after: tuple[str, int, int] = (wanted.first, wanted.before_rows, 0)
    while True:
        rows = await driver.fetch(
            "SELECT account_id, create_time_us, entry_id, kind, debit_account_id, credit_account_id, amount_nanousd, "  # noqa: S608 - our names
            "overflow_nanousd, request_id FROM movement "
            "WHERE (account_id, create_time_us, entry_id) > ($1, CAST($2 AS bigint), CAST($3 AS bigint)) "
            f"AND account_id <= $4 ORDER BY account_id, create_time_us, entry_id LIMIT {CHUNK_ROWS}",
            *after,
            wanted.last,
        )
        if not rows:
            return
        yield [(str(row[0]), EntryRow(*row[2:])) for row in rows]
        after = (str(rows[-1][0]), int(rows[-1][1]), int(rows[-1][2]))


async def events(driver: Driver, wanted: Range) -> AsyncIterator[list[tuple[str, EventRow]]]:
    """The accounts' usage rows in chunks, each with its account."""
    after: tuple[str, int, str] = (wanted.first, wanted.before_rows, "")
    while True:
        rows = await driver.fetch(
            "SELECT account_id, end_time_us, day, request_id, outcome, price_version, hold_nanousd, charged_nanousd, "  # noqa: S608 - our names
            f"overflow_nanousd, refunded_nanousd, {_TOKENS} FROM usage_event "
            "WHERE (account_id, end_time_us, request_id) > ($1, CAST($2 AS bigint), $3) AND account_id <= $4 "
            f"ORDER BY account_id, end_time_us, request_id LIMIT {CHUNK_ROWS}",
            *after,
            wanted.last,
        )
        if not rows:
            return
        yield [(str(row[0]), EventRow._make((row[2], *row[3:10], TokenUsage(*row[10:])))) for row in rows]
        after = (str(rows[-1][0]), int(rows[-1][1]), str(rows[-1][3]))


async def price_terms(driver: Driver, versions: Iterable[str]) -> list[PriceTerms]:
    """The vectors of price versions."""
    rows = await driver.fetch(
        f"SELECT {', '.join(PriceTerms._fields)} FROM price_version WHERE price_version IN_LIST($1)",  # noqa: S608 - our names
        sorted(versions),
    )
    return [PriceTerms(*row) for row in rows]


# Summed by the database itself in one statement: by how much what is kept differs from the replay, over all accounts.
DRIFT = Query(
    "SELECT CAST(COALESCE(SUM(ABS(kept.nanousd - COALESCE(replayed.nanousd, 0))), 0) AS bigint) FROM "
    "(SELECT a.account_id, a.available_nanousd + COALESCE(l.nanousd, 0) AS nanousd FROM account a LEFT JOIN "
    "(SELECT account_id, SUM(granted_nanousd - settled_nanousd - returned_nanousd) AS nanousd FROM lease "
    "WHERE NOT closed GROUP BY account_id) AS l ON l.account_id = a.account_id) AS kept LEFT JOIN "
    "(SELECT account_id, SUM(CASE WHEN credit_account_id = account_id THEN amount_nanousd ELSE -amount_nanousd END) "
    "AS nanousd FROM entry GROUP BY account_id) AS replayed ON replayed.account_id = kept.account_id"
)


def range_of(wanted: Range, page: Sequence[AccountRow]) -> Range:
    """What of the wanted range a page covers: to its last account, or to the end where it is the last page."""
    return wanted._replace(last=page[-1].account_id) if len(page) == PAGE_ACCOUNTS else wanted
