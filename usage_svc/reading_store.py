"""SQL for readers. Nothing here writes or locks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from usage_svc.driver import Driver, open_with
from usage_svc.events import Ending, PriceTerms, UsageEvent
from usage_svc.ledger import EntryKind, Posting
from usage_svc.reading import (
    MAX_USAGE_ROWS,
    Entry,
    FinishedRequest,
    Grouping,
    Refund,
    RequestFilter,
    UsageQuery,
    UsageSums,
)

_SUMMED = UsageSums._fields[5:]
_FAILED = f"(status_code >= 400 OR ending IN ({int(Ending.UPSTREAM_FAILED)}, {int(Ending.EDGE_LOST)}))"
_REQUEST_COLUMNS = ", ".join(
    [f"e.{name}" for name in (*UsageEvent._fields, "charged_nanousd", "overflow_nanousd", "refunded_nanousd")]
    # A version that was never seen with a price has no row: uncharged events need none.
    + [f"COALESCE(p.{name}, '')" for name in PriceTerms._fields[1:]]
)
_REQUESTS = (
    f"SELECT {_REQUEST_COLUMNS} FROM usage_event e "  # noqa: S608 - our names
    "LEFT JOIN price_version p ON p.price_version = e.price_version WHERE e.account_id = $1 "
)


async def usage_sums(transaction: AsyncSession, query: UsageQuery) -> list[UsageSums]:
    """The sums, sorted; one row more than the maximum where there are too many."""
    period = (
        f"end_time_us - end_time_us % {query.period_us}"
        if query.period_us
        else "CAST(0 AS bigint)"  # typed, or PostgreSQL takes GROUP BY 1 for a column's number
    )
    model = "model_id" if Grouping.MODEL in query.group_by else "''"
    key = "key_id" if Grouping.KEY in query.group_by else "''"
    groups = [
        name for name, wanted in ((period, query.period_us), (model, model != "''"), (key, key != "''")) if wanted
    ]
    sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in _SUMMED)
    sql = (
        f"SELECT {period}, {model}, {key}, COUNT(*), "  # noqa: S608 - our names
        f"COALESCE(SUM(CASE WHEN {_FAILED} THEN 1 ELSE 0 END), 0), {sums} "
        "FROM usage_event WHERE account_id = $1 AND end_time_us >= $2 AND end_time_us < $3 "
        "AND (CAST($4 AS text) = '' OR model_id = $4) AND (CAST($5 AS text) = '' OR key_id = $5) "
        + (f"GROUP BY {', '.join(groups)} " if groups else "")
        + f"LIMIT {MAX_USAGE_ROWS + 1}"
    )
    _, rows = await open_with(
        transaction, sql, query.account_id, query.start_time_us, query.end_time_us, query.model_id, query.key_id
    )
    # Whole numbers again: PostgreSQL's sum of bigints is a numeric.
    return sorted(UsageSums(int(row[0]), row[1], row[2], *map(int, row[3:])) for row in rows)


async def requests_before(
    transaction: AsyncSession, wanted: RequestFilter, before: tuple[int, str], limit: int
) -> list[FinishedRequest]:
    """Requests that ended before a (time, id), newest first."""
    driver, rows = await open_with(
        transaction,
        _REQUESTS + "AND (e.end_time_us, e.request_id) < ($2, $3) AND e.end_time_us >= $4 AND e.end_time_us < $5 "
        "AND (CAST($6 AS text) = '' OR e.model_id = $6) AND (CAST($7 AS text) = '' OR e.key_id = $7) "
        + (f"AND {_FAILED} " if wanted.errors_only else "")
        + "ORDER BY e.end_time_us DESC, e.request_id DESC LIMIT $8",
        wanted.account_id,
        *before,
        wanted.start_time_us,
        wanted.end_time_us,
        wanted.model_id,
        wanted.key_id,
        limit,
    )
    return await _with_refunds(driver, wanted.account_id, list(map(_request_from_row, rows)))


async def read_request(transaction: AsyncSession, account_id: str, day: int, request_id: str) -> FinishedRequest | None:
    """`request`, as the first statement of a transaction."""
    driver, _ = await open_with(transaction, "SELECT 1")
    return await request(driver, account_id, day, request_id)


async def request(driver: Driver, account_id: str, day: int, request_id: str) -> FinishedRequest | None:
    """One request of an account."""
    rows = await driver.fetch(_REQUESTS + "AND e.day = $2 AND e.request_id = $3", account_id, day, request_id)
    found = await _with_refunds(driver, account_id, list(map(_request_from_row, rows)))
    return found[0] if found else None


async def _with_refunds(driver: Driver, account_id: str, requests: Sequence[FinishedRequest]) -> list[FinishedRequest]:
    refunded = [each.event.request_id for each in requests if each.refunded_nanousd]
    if not refunded:
        return list(requests)
    rows = await driver.fetch(
        "SELECT request_id, amount_nanousd, note, create_time_us FROM movement "  # noqa: S608 - our number
        f"WHERE account_id = $1 AND kind = {int(EntryKind.WAIVER)} AND request_id IN_LIST($2) ORDER BY entry_id",
        account_id,
        refunded,
    )
    refunds: dict[str, tuple[Refund, ...]] = {}
    for request_id, *refund in rows:
        refunds[request_id] = (*refunds.get(request_id, ()), Refund(*refund))
    return [replace(each, refunds=refunds.get(each.event.request_id, ())) for each in requests]


async def entries_before(
    transaction: AsyncSession, account_id: str, before: tuple[int, int], limit: int
) -> list[Entry]:
    """Ledger entries of an account before a (time, id), newest first."""
    _, rows = await open_with(
        transaction,
        f"SELECT entry_id, {', '.join(Posting._fields)}, create_time_us FROM entry "  # noqa: S608 - our names
        "WHERE account_id = $1 AND (create_time_us, entry_id) < ($2, $3) "
        "ORDER BY create_time_us DESC, entry_id DESC LIMIT $4",
        account_id,
        *before,
        limit,
    )
    return [Entry(row[0], Posting(*row[1:-1]), row[-1]) for row in rows]


def _request_from_row(row: Sequence[Any]) -> FinishedRequest:
    width = len(UsageEvent._fields)
    event = UsageEvent(*row[:width])
    event = event._replace(streamed=bool(event.streamed))
    charged, overflow, refunded, *terms = row[width:]
    return FinishedRequest(event, PriceTerms(event.price_version, *terms), charged, overflow, refunded)
