"""Reads the ledger as it stands in its database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from chassis.database import Database, open_engine
from tests.torture.evidence import Account, Books, Entry, Event, Lease, Tokens

_DRAINED, _FORCED = 3, 4


async def read_books(database_url: str) -> Books:
    """Everything, by one connection."""
    async with Database(open_engine(database_url)) as database:
        return await books_of(database)


async def books_of(database: Database) -> Books:
    """The same of an open database."""
    sessions = await _rows(database, "SELECT spool_uuid, incarnation, state FROM session")
    return Books(
        events=[
            Event(row[0], row[1], row[2], Tokens(row[3], row[4], row[5]), row[6], row[7], row[8] / 1e6, row[9])
            for row in await _rows(
                database,
                "SELECT request_id, account_id, outcome, prompt_tokens, completion_tokens, cached_tokens, "
                "charged_nanousd, hold_nanousd, admit_time_us, spool_uuid FROM usage_event "
                "JOIN batch ON batch.batch_id = usage_event.entry_id / 1000",
            )
        ],
        entries=[
            Entry(*row)
            for row in await _rows(
                database,
                "SELECT kind, account_id, debit_account_id, credit_account_id, amount_nanousd, request_id FROM entry",
            )
        ],
        leases=[
            Lease(row[0], row[1], row[2], row[3], row[4], bool(row[5]))
            for row in await _rows(
                database,
                "SELECT lease_id, account_id, granted_nanousd, settled_nanousd, returned_nanousd, closed FROM lease",
            )
        ],
        accounts=[
            Account(*row)
            for row in await _rows(
                database,
                "SELECT account_id, available_nanousd, COALESCE(grace_nanousd, 0), overflow_nanousd, credited_nanousd "
                "FROM account",
            )
        ],
        unsealed_sessions=[f"{row[0]}/{row[1]}" for row in sessions if row[2] not in (_DRAINED, _FORCED)],
        quarantined=[
            f"{row[0]}/{row[1]} record {row[2]}: {row[3]}"
            for row in await _rows(database, "SELECT spool_uuid, incarnation, seq, reason FROM quarantine")
        ],
    )


async def _rows(database: Database, sql: str) -> Sequence[Any]:
    async with database.read() as transaction:
        connection = await transaction.connection()
        return (await connection.execute(text(sql))).all()
