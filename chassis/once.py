"""Writes that may be repeated: the first answer is kept under the id that the first sender made."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message
from sqlalchemy import DateTime, LargeBinary, text
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from chassis.faults import AlreadyExists, InvalidArgument

MAX_REQUEST_ID_CHARS = 100

ResponseT = TypeVar("ResponseT", bound=Message)


class WriteRowFields(SQLModel):
    """Columns of a table of finished writes; a service's table inherits them with `table=True`."""

    request_id: str = Field(primary_key=True, max_length=MAX_REQUEST_ID_CHARS)
    request_sha256: bytes = Field(sa_type=LargeBinary)
    response: bytes = Field(sa_type=LargeBinary)
    create_time: datetime = Field(sa_type=DateTime(timezone=True))


async def once(
    session: AsyncSession,
    table: type[WriteRowFields],
    request: Message,
    response_type: type[ResponseT],
    now: datetime,
    act: Callable[[], Awaitable[ResponseT]],
    keep: Callable[[ResponseT], ResponseT] | None = None,
) -> ResponseT:
    """Runs `act` unless a request with this request_id was answered before; then returns that answer.

    Must run inside the transaction in which `act` writes. `keep` says what of the answer is kept, where not all of it
    may be (a secret). Of two first senders at once the second waits for the first, and finds its answer: judged
    before that, it would be refused for what the first one did (a name that is taken, a key that is revoked).

    Raises:
        InvalidArgument: no request_id, or too long.
        AlreadyExists: the same request_id with another request (REQUEST_ID_REUSED).
    """
    request_id: str = request.request_id  # type: ignore[attr-defined]  # every write request has one (contract)
    # PostgreSQL cannot store every character (not a zero byte): an id that prints is one that it can.
    if not 0 < len(request_id) <= MAX_REQUEST_ID_CHARS or not request_id.isprintable():
        raise InvalidArgument(
            "request_id", f"give an id of 1 to {MAX_REQUEST_ID_CHARS} printable characters, new for each write"
        )
    digest = hashlib.sha256(
        request.DESCRIPTOR.full_name.encode() + b"\0" + request.SerializeToString(deterministic=True)
    ).digest()
    await _wait_for_twins(session, f"{table.__tablename__} {request_id}")
    row = await session.get(table, request_id)
    if row is not None:
        if row.request_sha256 != digest:
            raise AlreadyExists(
                "REQUEST_ID_REUSED",
                f"request_id {request_id!r} was used for another request: make a new id",
            )
        return response_type.FromString(row.response)
    response = await act()
    kept = keep(response) if keep is not None else response
    session.add(table(request_id=request_id, request_sha256=digest, response=kept.SerializeToString(), create_time=now))
    await session.flush()
    return response


async def _wait_for_twins(session: AsyncSession, name: str) -> None:
    """Until the transactions that were here with the same name have ended. On SQLite writers are one by one anyway."""
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        lock = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
