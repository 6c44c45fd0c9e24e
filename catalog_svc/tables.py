"""Rows. They stop at store.py: nothing else sees them."""

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary, MetaData, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from chassis.once import WriteRowFields
from chassis.utc_datetime import UtcDateTime

HEAD_ID = 1  # of the only row


class CatalogRow(SQLModel, registry=registry(metadata=MetaData())):
    """A registry of our own: several services may live in one process without seeing each other's tables."""


class HeadRow(CatalogRow, table=True):
    """One row, made by the migration: the newest snapshot's number. Whoever applies a document locks it first."""

    __tablename__ = "head"

    head_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int = Field(sa_type=BigInteger)


class SnapshotRow(CatalogRow, table=True):
    """A snapshot as the contract's message, never altered."""

    __tablename__ = "snapshots"

    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    create_time: datetime = Field(sa_type=UtcDateTime)
    content: bytes = Field(sa_type=LargeBinary)


class DocumentRow(CatalogRow, table=True):
    """A document as it was applied; several may have made the same snapshot, when only comments changed."""

    __tablename__ = "documents"

    document_id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    number: int = Field(sa_type=BigInteger)
    create_time: datetime = Field(sa_type=UtcDateTime)
    document: str = Field(sa_type=Text)


class PriceVersionRow(CatalogRow, table=True):
    """Every price version that was ever in a snapshot. Decimals are text, since SQLite's NUMERIC is a float."""

    __tablename__ = "price_versions"

    price_version: str = Field(primary_key=True, max_length=100)
    model_id: str = Field(max_length=200, index=True)
    effective_time: datetime = Field(sa_type=UtcDateTime)
    create_time: datetime = Field(sa_type=UtcDateTime)
    prompt: str = Field(sa_type=Text)
    completion: str = Field(sa_type=Text)
    input_cache_read: str = Field(sa_type=Text)
    input_cache_write: str = Field(sa_type=Text)
    image: str = Field(sa_type=Text)
    request: str = Field(sa_type=Text)


class WriteRow(WriteRowFields, CatalogRow, table=True):
    """A finished write and its answer (chassis/once.py)."""

    __tablename__ = "writes"
