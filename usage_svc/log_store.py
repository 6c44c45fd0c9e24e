"""SQL for logs. A deletion and an arrival of one account's logs never pass each other unseen: see `_lock`."""

from collections.abc import Sequence

from sqlmodel.ext.asyncio.session import AsyncSession

from usage_svc.driver import Command, Driver, Row, open_with
from usage_svc.logs import Deletions, Log, LogFilter, Span, merged, reason_to_drop

# SQLite keeps the beginning of a row among its neighbours, whose page it rearranges without clearing what it moved
# away; only pages that hold a single row's continuation are cleared as a whole when it goes (PRAGMA secure_delete).
# With this much in front, a page's size, the bodies stand in such pages alone
# (https://www.sqlite.org/fileformat2.html#payload, at most 4061 bytes of a row stay on the first page).
_PADDING = bytes(4096)
_DELETED_AT_ONCE = 500  # rows of a transaction: others wait for it on SQLite
_LOCKS = 1_817_204_653  # the first half of the advisory locks' keys; any number will do

_COLUMNS = Log._fields[:-3]
_HEAD = ", ".join(_COLUMNS)
_BODIES = ", ".join(Log._fields[-3:])
_INSERT = (
    f"INSERT INTO request_log (expire_day, padding, {_HEAD}, {_BODIES}) "  # noqa: S608 - our names
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(Log._fields) + 3))}) ON CONFLICT DO NOTHING"
)


async def _now_us(driver: Driver) -> int:
    return int((await driver.fetch("SELECT {now_us}"))[0][0])


async def append(transaction: AsyncSession, logs: Sequence[Log], horizon_us: int) -> dict[str, int]:
    """Keeps logs. Returns how many were kept or known ("kept"), and how many were dropped by reason."""
    driver, _ = await open_with(transaction, "SELECT 1")
    accounts = sorted({log.account_id for log in logs if "\0" not in log.account_id})
    await _lock(driver, accounts, alone=False)
    deletions = await _deletions_of(driver, accounts, [log.request_id for log in logs if "\0" not in log.request_id])
    moment_us = await _now_us(driver)
    counts: dict[str, int] = {}
    kept: list[Row] = []
    for log in logs:
        reason = reason_to_drop(log, deletions, moment_us, horizon_us) or "kept"
        counts[reason] = counts.get(reason, 0) + 1
        if reason == "kept":
            kept.append((log.expire_day, _PADDING if driver.is_sqlite else b"", *log))
    await driver.execute_each(Command(_INSERT, kept))
    return counts


async def _deletions_of(driver: Driver, account_ids: list[str], request_ids: list[str]) -> Deletions:
    requests, spans = [
        await driver.fetch(
            "SELECT account_id, request_id FROM log_deletion WHERE account_id IN_LIST($1) AND request_id IN_LIST($2)",
            account_ids,
            request_ids,
        ),
        await driver.fetch(
            "SELECT account_id, start_time_us, end_time_us FROM log_deletion "
            "WHERE account_id IN_LIST($1) AND request_id = ''",
            account_ids,
        ),
    ]
    by_account: dict[str, list[Span]] = {}
    for account_id, start_us, end_us in spans:
        by_account.setdefault(account_id, []).append(Span(start_us, end_us))
    return Deletions(frozenset((row[0], row[1]) for row in requests), by_account)


async def _lock(driver: Driver, account_ids: list[str], *, alone: bool) -> None:
    """Until the transaction's end deletions of an account wait for the arrivals that have begun, and the other way
    round. On SQLite there is one writer anyway. In the order of their keys, so that nobody waits in a circle."""
    if not driver.is_sqlite:
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        await driver.fetch(
            f"SELECT {function}({_LOCKS}, key) FROM (SELECT DISTINCT hashtext(id) AS key "  # noqa: S608 - our names
            "FROM unnest($1::text[]) AS id ORDER BY key) AS keys",
            account_ids,
        )


# -- reading; what has expired is not there, whether it was swept or not --


async def logs_before(transaction: AsyncSession, wanted: LogFilter, before: tuple[int, str], limit: int) -> list[Log]:
    """Logs of requests that ended before a (time, id), newest first, without their bodies."""
    _, rows = await open_with(
        transaction,
        f"SELECT {_HEAD} FROM request_log WHERE account_id = $1 AND (end_time_us, request_id) < ($2, $3) "  # noqa: S608
        "AND end_time_us >= $4 AND end_time_us < $5 AND expire_time_us > {now_us} "
        "AND (CAST($6 AS text) = '' OR model_id = $6) AND (CAST($7 AS text) = '' OR key_id = $7) "
        "ORDER BY end_time_us DESC, request_id DESC LIMIT $8",
        wanted.account_id,
        *before,
        wanted.start_time_us,
        wanted.end_time_us,
        wanted.model_id,
        wanted.key_id,
        limit,
    )
    return [Log(*row) for row in rows]


async def read_log(transaction: AsyncSession, account_id: str, request_id: str, *, whole: bool = True) -> Log | None:
    """One log of an account, with its bodies if `whole`."""
    _, rows = await open_with(
        transaction,
        f"SELECT {_HEAD}{f', {_BODIES}' if whole else ''} FROM request_log "  # noqa: S608 - our names
        "WHERE account_id = $1 AND request_id = $2 AND expire_time_us > {now_us}",
        account_id,
        request_id,
    )
    return Log(*rows[0]) if rows else None


# -- deleting --


async def delete_one(
    transaction: AsyncSession, account_id: str, request_id: str, forget_us: int, ahead_max: int
) -> bool | None:
    """Deletes a log, and remembers to drop copies that come by `forget_us`. Whether it was there.

    None where it was not, and the account has `ahead_max` deletions in wait already: then nothing is remembered.
    """
    driver, _ = await open_with(transaction, "SELECT 1")
    await _lock(driver, [account_id], alone=True)
    rows = await driver.fetch(
        "DELETE FROM request_log WHERE account_id = $1 AND request_id = $2 RETURNING expire_time_us",
        account_id,
        request_id,
    )
    moment_us = await _now_us(driver)
    if not rows:  # told from the others by the start of its time, which means nothing else
        counted = await driver.fetch(
            "SELECT COUNT(*) FROM log_deletion WHERE account_id = $1 AND request_id <> '' AND start_time_us = 1",
            account_id,
        )
        if int(counted[0][0]) >= ahead_max:
            return None
    await driver.execute_each(
        Command(
            "INSERT INTO log_deletion (account_id, request_id, start_time_us, end_time_us) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT DO NOTHING",
            [(account_id, request_id, 0 if rows else 1, forget_us)],
        )
    )
    return any(int(row[0]) > moment_us for row in rows)


async def remember_span(
    transaction: AsyncSession, account_id: str, span: Span, horizon_us: int, spans_max: int
) -> Span | None:
    """Remembers that an account had a time deleted, until now at most. Returns what is to be deleted.

    None where the account has `spans_max` of them already: then nothing is remembered.
    """
    driver, _ = await open_with(transaction, "SELECT 1")
    await _lock(driver, [account_id], alone=True)
    moment_us = await _now_us(driver)
    wanted = Span(span.start_us, min(span.end_us, moment_us))
    late_us = moment_us - horizon_us  # whatever ended before is dropped in any case when it comes
    if wanted.end_us <= max(late_us, wanted.start_us):
        return wanted
    rows = await driver.fetch(
        "SELECT start_time_us, end_time_us FROM log_deletion WHERE account_id = $1 AND request_id = ''", account_id
    )
    spans = merged([*(Span(*row) for row in rows), wanted])
    kept = [each for each in spans if each.end_us > late_us]
    if len(kept) > spans_max:
        return None
    await driver.execute_each(
        Command("DELETE FROM log_deletion WHERE account_id = $1 AND request_id = ''", [(account_id,)]),
        Command(
            "INSERT INTO log_deletion (account_id, request_id, start_time_us, end_time_us) VALUES ($1, '', $2, $3)",
            [(account_id, *each) for each in kept],
        ),
    )
    return wanted


async def delete_some(transaction: AsyncSession, account_id: str, span: Span) -> tuple[int, bool]:
    """Deletes some logs of a time: how many of them had not expired, and whether there may be more."""
    driver, rows = await open_with(
        transaction,
        "DELETE FROM request_log WHERE account_id = $1 AND request_id IN (SELECT request_id FROM request_log "  # noqa: S608
        f"WHERE account_id = $1 AND end_time_us >= $2 AND end_time_us < $3 LIMIT {_DELETED_AT_ONCE}) "
        "RETURNING expire_time_us",
        account_id,
        *span,
    )
    moment_us = await _now_us(driver)
    return sum(int(row[0]) > moment_us for row in rows), len(rows) >= _DELETED_AT_ONCE


async def delete_expired(transaction: AsyncSession) -> tuple[int, bool]:
    """Deletes some of what has expired: how many, and whether there may be more."""
    _, rows = await open_with(
        transaction,
        "DELETE FROM request_log WHERE (expire_day, account_id, request_id) IN (SELECT expire_day, account_id, "  # noqa: S608
        f"request_id FROM request_log WHERE expire_time_us <= {{now_us}} LIMIT {_DELETED_AT_ONCE}) "
        "RETURNING request_id",
    )
    return len(rows), len(rows) >= _DELETED_AT_ONCE


async def forget_deletions(transaction: AsyncSession, horizon_us: int) -> None:
    """Forgets deletions of what could not come any more without being late."""
    driver, _ = await open_with(transaction, "SELECT 1")
    moment_us = await _now_us(driver)
    await driver.execute_each(Command("DELETE FROM log_deletion WHERE end_time_us < $1", [(moment_us - horizon_us,)]))
