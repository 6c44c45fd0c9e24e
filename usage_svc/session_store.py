"""SQL about sessions. Whatever changes a session or its leases locks the session's row first."""

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from usage_svc.driver import Command, Driver, Query, Script, open_with
from usage_svc.sessions import Session, SessionId, SessionState, SessionSummary

_COLUMNS = "spool_uuid, incarnation, state, next_seq, released_nanousd"


def lock_session(session_id: SessionId) -> Script[tuple[Session | None, int]]:
    """Begins a script with a session's row locked; with it comes the database's time, in microseconds.

    The time is 0 where there is no such session.
    """
    query = Query(
        f"SELECT {_COLUMNS}, {{now_us}} FROM session "  # noqa: S608 - our names
        "WHERE spool_uuid = $1 AND incarnation = $2 {for_update}",
        (session_id.spool_uuid, session_id.incarnation),
    )
    (rows,) = yield (query,)
    return (_session_from_row(rows[0]), int(rows[0][-1])) if rows else (None, 0)


def heartbeat(session_id: SessionId) -> Script[bool]:
    """Notes that a session lives, in one conditional update that no sweep can interrupt. False if it is not ALIVE."""
    query = Query(
        "UPDATE session SET heartbeat_time_us = {now_us} "
        "WHERE spool_uuid = $1 AND incarnation = $2 AND state = $3 RETURNING incarnation",
        (session_id.spool_uuid, session_id.incarnation, int(SessionState.ALIVE)),
    )
    (rows,) = yield (query,)
    return bool(rows)


async def sweep(transaction: AsyncSession, ttl_us: int) -> int:
    """Fences sessions without a heartbeat for `ttl_us`; frees nothing. Returns how many."""
    _, rows = await open_with(
        transaction,
        "UPDATE session SET state = $1 WHERE state = $2 AND heartbeat_time_us < {now_us} - CAST($3 AS bigint) "
        "RETURNING incarnation",
        int(SessionState.LOST),
        int(SessionState.ALIVE),
        ttl_us,
    )
    return len(rows)


async def lock_spool(transaction: AsyncSession, spool_uuid: str) -> tuple[Driver, int]:
    """Begins a transaction with a spool's row locked, made if it is new. Returns its last incarnation, 0 for none."""
    driver, _ = await open_with(
        transaction,
        "INSERT INTO spool (spool_uuid, incarnation) VALUES ($1, 0) ON CONFLICT DO NOTHING",
        spool_uuid,
    )
    rows = await driver.fetch("SELECT incarnation FROM spool WHERE spool_uuid = $1 {for_update}", spool_uuid)
    return driver, int(rows[0][0])


async def session_opened_by(driver: Driver, spool_uuid: str, request_id: str) -> Session | None:
    """The session that this request opened before."""
    rows = await driver.fetch(
        f"SELECT {_COLUMNS} FROM session WHERE spool_uuid = $1 AND open_request_id = $2",  # noqa: S608 - our names
        spool_uuid,
        request_id,
    )
    return _session_from_row(rows[0]) if rows else None


async def open_incarnation(driver: Driver, session_id: SessionId, request_id: str, edge_name: str) -> None:
    """Starts an incarnation; the one before it becomes LOST."""
    alive, lost = int(SessionState.ALIVE), int(SessionState.LOST)
    spool_uuid, incarnation = session_id.spool_uuid, session_id.incarnation
    await driver.execute_each(
        Command("UPDATE spool SET incarnation = $2 WHERE spool_uuid = $1", [(spool_uuid, incarnation)]),
        Command(
            "UPDATE session SET state = $3 WHERE spool_uuid = $1 AND state = $2",
            [(spool_uuid, alive, lost)],
        ),
        Command(
            "INSERT INTO session (spool_uuid, incarnation, open_request_id, edge_name, state, next_seq, "
            "released_nanousd, heartbeat_time_us, create_time_us) "
            "VALUES ($1, $2, $3, $4, $5, 1, 0, {now_us}, {now_us})",
            [(spool_uuid, incarnation, request_id, edge_name, alive)],
        ),
    )


async def undrained(driver: Driver, session_id: SessionId) -> tuple[Session, ...]:
    """Earlier incarnations of a session's spool that are not sealed, oldest first."""
    rows = await driver.fetch(
        f"SELECT {_COLUMNS} FROM session "  # noqa: S608 - our names
        "WHERE spool_uuid = $1 AND incarnation < $2 AND state IN ($3, $4) ORDER BY incarnation",
        session_id.spool_uuid,
        session_id.incarnation,
        int(SessionState.ALIVE),
        int(SessionState.LOST),
    )
    return tuple(map(_session_from_row, rows))


def advance(session_id: SessionId, next_seq: int) -> Command:
    """Moves a session's cursor. Runs in the transaction that posts what lies before it."""
    return Command(
        "UPDATE session SET next_seq = $3 WHERE spool_uuid = $1 AND incarnation = $2",
        [(session_id.spool_uuid, session_id.incarnation, next_seq)],
    )


def end(session_id: SessionId, state: SessionState, released_nanousd: int) -> Command:
    """Marks a session as sealed or forced."""
    return Command(
        "UPDATE session SET state = $3, released_nanousd = $4 WHERE spool_uuid = $1 AND incarnation = $2",
        [(session_id.spool_uuid, session_id.incarnation, int(state), released_nanousd)],
    )


async def open_sessions(transaction: AsyncSession, limit: int) -> list[SessionSummary]:
    """Sessions that still reserve something or may do so, the longest silent first."""
    _, rows = await open_with(
        transaction,
        "SELECT s.spool_uuid, s.incarnation, s.edge_name, s.state, s.next_seq, s.create_time_us, s.heartbeat_time_us, "
        "CAST(COALESCE((SELECT SUM(l.granted_nanousd - l.settled_nanousd - l.returned_nanousd) FROM lease l "
        "WHERE l.spool_uuid = s.spool_uuid AND l.incarnation = s.incarnation AND NOT l.closed), 0) AS bigint) "
        "FROM session s WHERE s.state IN ($1, $2) ORDER BY s.heartbeat_time_us LIMIT $3",
        int(SessionState.ALIVE),
        int(SessionState.LOST),
        limit,
    )
    return [SessionSummary(SessionId(row[0], row[1]), row[2], SessionState(row[3]), *row[4:]) for row in rows]


async def orphans(transaction: AsyncSession, orphan_ttl_us: int) -> list[SessionId]:
    """LOST sessions that were silent for so long that nobody will bring their spool."""
    _, rows = await open_with(
        transaction,
        "SELECT spool_uuid, incarnation FROM session "
        "WHERE state = $1 AND heartbeat_time_us < {now_us} - CAST($2 AS bigint) ORDER BY heartbeat_time_us LIMIT 100",
        int(SessionState.LOST),
        orphan_ttl_us,
    )
    return [SessionId(row[0], row[1]) for row in rows]


COUNT_BY_STATE = Query("SELECT state, COUNT(*) FROM session GROUP BY state")


def _session_from_row(row: Any) -> Session:
    spool_uuid, incarnation, state, next_seq, released = row[:5]
    return Session(SessionId(spool_uuid, incarnation), SessionState(state), next_seq, released)
