"""PostgreSQL keeps the logs that expire on one day in a partition, which goes as a whole when the day is over.

A partition is made with the first log that needs it: only the retentions that keys really have make any.
"""

from collections.abc import Iterable

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.database import Database
from usage_svc.rating import MICROSECONDS_PER_DAY

# Whoever makes or drops partitions holds it; any number will do.
_LOCK = 7_310_580_127
_PREFIX = "request_log_day_"


class LogPartitions:
    """The partitions of `request_log`; nothing on SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[int] = set()

    async def make(self, days: Iterable[int]) -> None:
        """Makes what is missing for logs that expire on these days (since 1970-01-01).

        Raises:
            Unavailable: the database cannot be asked now.
        """
        missing = sorted(set(days) - self._known)
        if missing and not self._database.is_sqlite:
            await self._database.write(lambda transaction: _make(transaction, missing))
        self._known.update(missing)

    async def drop_past(self) -> int:
        """Drops the partitions of days that are over. Returns how many logs were in them.

        Raises:
            Unavailable: the database cannot be asked now.
        """
        if self._database.is_sqlite:
            return 0
        dropped, days = await self._database.write(_drop_past)
        self._known.difference_update(days)
        return dropped


async def _existing(transaction: AsyncSession) -> list[int]:
    connection = await transaction.connection()
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    rows = await connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'request_log'::regclass"
        )
    )
    return [int(name.removeprefix(_PREFIX)) for (name,) in rows if name.startswith(_PREFIX)]


async def _make(transaction: AsyncSession, days: list[int]) -> None:
    existing = await _existing(transaction)
    connection = await transaction.connection()
    for day in days:
        if day not in existing:
            await connection.execute(
                text(f"CREATE TABLE {_PREFIX}{day} PARTITION OF request_log FOR VALUES FROM ({day}) TO ({day + 1})")
            )


async def _drop_past(transaction: AsyncSession) -> tuple[int, list[int]]:
    existing = await _existing(transaction)
    connection = await transaction.connection()
    now_s = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
    today = int(now_s) * 1_000_000 // MICROSECONDS_PER_DAY
    past = [day for day in existing if day < today]
    dropped = 0
    for day in past:
        counted = await connection.execute(text(f"SELECT COUNT(*) FROM {_PREFIX}{day}"))  # noqa: S608 - our names
        dropped += int(counted.scalar_one())
        await connection.execute(text(f"DROP TABLE {_PREFIX}{day}"))
    return dropped, past
