"""SQL about spend limits. Rows of keys are locked in the order of key and period, after those of accounts."""

from collections.abc import Iterable, Mapping, Sequence

from usage_svc.driver import Command, Query, Row
from usage_svc.key_spend import SpendDemand, SpendShare, period_bounds_us
from usage_svc.sessions import SessionId


def lock(key_ids: Sequence[str], period_ids: Sequence[str]) -> Query:
    """Locks keys' periods: key, period, spent, counted_time_us, is_recounted, and the database's time."""
    return Query(
        "SELECT key_id, period_id, spent_nanousd, counted_time_us, is_recounted, {now_us} FROM key_spend "
        "WHERE key_id IN_LIST($1) AND period_id IN_LIST($2) ORDER BY key_id, period_id {for_update}",
        (sorted(key_ids), sorted(period_ids)),
    )


def make(missing: Iterable[tuple[str, str]]) -> Command:
    """Begins to count for keys and periods. Another transaction may do the same at once: lock them afterwards."""
    return Command(
        "INSERT INTO key_spend (key_id, period_id, spent_nanousd, counted_time_us, is_recounted) "
        "VALUES ($1, $2, 0, 0, false) ON CONFLICT DO NOTHING",
        sorted(missing),
    )


def charged(demand: SpendDemand) -> Query:
    """All that was charged to a key within a period. `end_time_us` is for the index: no end is before its beginning."""
    start_us, end_us = period_bounds_us(demand.period_id)
    return Query(
        "SELECT CAST(COALESCE(SUM(charged_nanousd), 0) AS bigint) FROM usage_event WHERE account_id = $1 "
        "AND end_time_us >= $3 AND key_id = $2 AND admit_time_us >= $3 AND admit_time_us < $4",
        (demand.account_id, demand.key_id, start_us, end_us),
    )


def save_count(counts: Iterable[tuple[str, str, int, int, bool]]) -> Command:
    """Writes what was counted: key, period, spent, when, and whether for the second time."""
    return Command(
        "UPDATE key_spend SET spent_nanousd = $3, counted_time_us = $4, is_recounted = $5 "
        "WHERE key_id = $1 AND period_id = $2",
        list(counts),
    )


def shares(key_ids: Sequence[str], period_ids: Sequence[str]) -> Query:
    """What sessions have of locked keys' periods."""
    return Query(
        "SELECT spool_uuid, incarnation, key_id, period_id, granted_nanousd, returned_nanousd, settled_nanousd, seq, "
        "near_limit FROM key_spend_share WHERE key_id IN_LIST($1) AND period_id IN_LIST($2)",
        (sorted(key_ids), sorted(period_ids)),
    )


def share_from_row(row: Row) -> tuple[SessionId, tuple[str, str], SpendShare]:
    """Whose, of which key and period, and a working copy."""
    spool_uuid, incarnation, key_id, period_id, granted, returned, settled, seq, near_limit = row
    return (
        SessionId(spool_uuid, incarnation),
        (key_id, period_id),
        SpendShare(granted, returned, settled, seq, bool(near_limit)),
    )


def save_shares(session_id: SessionId, changed: Mapping[tuple[str, str], SpendShare]) -> Command:
    """Writes what a session was granted and gave back."""
    return Command(
        "INSERT INTO key_spend_share (spool_uuid, incarnation, key_id, period_id, granted_nanousd, returned_nanousd, "
        "settled_nanousd, seq, near_limit) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
        "ON CONFLICT (spool_uuid, incarnation, key_id, period_id) DO UPDATE SET "
        "granted_nanousd = excluded.granted_nanousd, returned_nanousd = excluded.returned_nanousd, "
        "seq = excluded.seq, near_limit = excluded.near_limit",
        [
            (
                session_id.spool_uuid,
                session_id.incarnation,
                key_id,
                period_id,
                share.granted_nanousd,
                share.returned_nanousd,
                share.settled_nanousd,
                share.seq,
                share.near_limit,
            )
            for (key_id, period_id), share in sorted(changed.items(), key=lambda item: item[0])
        ],
    )


def limited(key_ids: Iterable[str]) -> Query:
    """Of these keys those that have a spend limit, with each period that is counted."""
    return Query("SELECT key_id, period_id FROM key_spend WHERE key_id IN_LIST($1)", (sorted(key_ids),))


def post(session_id: SessionId, added: Mapping[tuple[str, str], int]) -> tuple[Command, Command]:
    """Counts charges: as spent, and no longer as set aside."""
    rows = [(key_id, period_id, amount) for (key_id, period_id), amount in sorted(added.items())]
    return (
        Command(
            "UPDATE key_spend SET spent_nanousd = spent_nanousd + CAST($3 AS bigint) "
            "WHERE key_id = $1 AND period_id = $2",
            rows,
        ),
        Command(
            "UPDATE key_spend_share SET settled_nanousd = settled_nanousd + CAST($5 AS bigint) "
            "WHERE spool_uuid = $1 AND incarnation = $2 AND key_id = $3 AND period_id = $4",
            [(session_id.spool_uuid, session_id.incarnation, *row) for row in rows],
        ),
    )


def release(session_id: SessionId) -> Command:
    """Nothing is set aside any more for a session whose charges are all here."""
    return Command(
        "DELETE FROM key_spend_share WHERE spool_uuid = $1 AND incarnation = $2",
        [(session_id.spool_uuid, session_id.incarnation)],
    )
