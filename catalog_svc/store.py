"""SQL, one method per question; decides nothing."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import insert
from sqlmodel import col, desc, select
from sqlmodel.ext.asyncio.session import AsyncSession

from catalog_svc.catalog import PriceVersion
from catalog_svc.prices import price_texts
from catalog_svc.tables import HEAD_ID, DocumentRow, HeadRow, PriceVersionRow, SnapshotRow, WriteRow
from chassis.database import Database
from chassis.once import once

ResponseT = TypeVar("ResponseT", bound=Message)

# Bound variables of one statement: SQLite takes 32,766, and a version has ten columns.
_VERSIONS_PER_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot as it lies in the database; `content` is the contract's message."""

    number: int
    create_time: datetime
    content: bytes


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """The last document applied, and the snapshot that it made."""

    document: str
    number: int


@dataclass(frozen=True, slots=True)
class Decision(Generic[ResponseT]):
    """What a write answers, and what it stores: no snapshot where nothing changes."""

    response: ResponseT
    document: str
    snapshot: StoredSnapshot | None
    versions: Sequence[tuple[str, PriceVersion]]  # each with its model's id


class CatalogStore:
    """The catalog's tables.

    Every method raises Unavailable when the database cannot be asked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number = 0
        self._numbered_version: int | None = None  # of the database, when it was asked for the number

    async def newest_number(self) -> int:
        """0 before the first snapshot."""
        version = self._database.data_version()
        if version is None or version != self._numbered_version:
            async with self._database.read() as session:
                self._number = await _number(session)
            self._numbered_version = version
        return self._number

    async def newest_snapshot(self) -> StoredSnapshot | None:
        async with self._database.read() as session:
            return await _snapshot(session)

    async def newest_document(self) -> StoredDocument | None:
        async with self._database.read() as session:
            row = await _document(session)
            return StoredDocument(row.document, row.number) if row is not None else None

    async def write_once(
        self,
        request: Message,
        response_type: type[ResponseT],
        now: datetime,
        decide: Callable[[StoredSnapshot | None], Awaitable[Decision[ResponseT]]],
    ) -> ResponseT:
        """Stores what `decide` makes of the newest snapshot, or returns the answer that this request got before.

        One transaction that first locks the head, so that appliers come one after the other and numbers have no gaps.
        `decide` may run more than once.

        Raises:
            InvalidArgument: no request_id, or too long.
            AlreadyExists: the request_id was used for another request.
        """

        async def work(session: AsyncSession) -> ResponseT:
            head = (await session.exec(select(HeadRow).where(col(HeadRow.head_id) == HEAD_ID).with_for_update())).one()

            async def act() -> ResponseT:
                decision = await decide(await _snapshot(session))
                if decision.snapshot is not None:
                    head.number = decision.snapshot.number
                    session.add(head)
                    session.add(
                        SnapshotRow(
                            number=decision.snapshot.number,
                            create_time=decision.snapshot.create_time,
                            content=decision.snapshot.content,
                        )
                    )
                    await _keep_versions(session, decision.versions, decision.snapshot.create_time)
                await _keep_document(session, decision.document, head.number, now)
                return decision.response

            return await once(session, WriteRow, request, response_type, now, act)

        return await self._database.write(work)


async def _number(session: AsyncSession) -> int:
    return (await session.exec(select(HeadRow.number).where(col(HeadRow.head_id) == HEAD_ID))).one()


async def _snapshot(session: AsyncSession) -> StoredSnapshot | None:
    statement = select(SnapshotRow).order_by(desc(col(SnapshotRow.number))).limit(1)
    row = (await session.exec(statement)).first()
    return StoredSnapshot(row.number, row.create_time, row.content) if row is not None else None


async def _document(session: AsyncSession) -> DocumentRow | None:
    statement = select(DocumentRow).order_by(desc(col(DocumentRow.document_id))).limit(1)
    return (await session.exec(statement)).first()


async def _keep_document(session: AsyncSession, document: str, number: int, now: datetime) -> None:
    last = await _document(session)
    if last is not None and last.document == document and last.number == number:
        return
    document_id = last.document_id + 1 if last is not None else 1
    session.add(DocumentRow(document_id=document_id, number=number, create_time=now, document=document))


async def _keep_versions(session: AsyncSession, versions: Sequence[tuple[str, PriceVersion]], now: datetime) -> None:
    """Adds those that are not there yet; a version's row is never altered."""
    for start in range(0, len(versions), _VERSIONS_PER_STATEMENT):
        part = versions[start : start + _VERSIONS_PER_STATEMENT]
        batch = {version.price_version: (model_id, version) for model_id, version in part}
        statement = select(PriceVersionRow.price_version).where(col(PriceVersionRow.price_version).in_(batch))
        for known in (await session.exec(statement)).all():
            del batch[known]
        if batch:
            rows = [
                {
                    "price_version": version.price_version,
                    "model_id": model_id,
                    "effective_time": version.effective_time,
                    "create_time": now,
                    **price_texts(version.price),
                }
                for model_id, version in batch.values()
            ]
            await session.exec(insert(PriceVersionRow), params=rows)
