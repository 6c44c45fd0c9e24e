"""Rows. They stop at store.py: nothing else sees them."""

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Index, LargeBinary, MetaData, String
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from auth_svc.ids import ID_CHARS_MAX
from auth_svc.limits import TIER_CHARS_MAX
from auth_svc.names import NAME_CHARS_MAX
from chassis.once import WriteRowFields
from chassis.utc_datetime import UtcDateTime

SERVICE_STATE_ID = 1  # of the only row

# Ids are compared byte by byte: a language's collation would sort them otherwise than by creation.
_ID = String(ID_CHARS_MAX).with_variant(String(ID_CHARS_MAX, collation="C"), "postgresql")


class AuthRow(SQLModel, registry=registry(metadata=MetaData())):
    """A registry of our own: several services may live in one process without seeing each other's tables."""


class AccountRow(AuthRow, table=True):
    """An account."""

    __tablename__ = "accounts"

    account_id: str = Field(primary_key=True, sa_type=_ID)
    name: str = Field(unique=True, max_length=NAME_CHARS_MAX)
    state: str = Field(max_length=20)
    create_time: datetime = Field(sa_type=UtcDateTime)


class KeyRow(AuthRow, table=True):
    """A key; of its secret only the keyed hash."""

    __tablename__ = "keys"
    __table_args__ = (Index("keys_by_account", "account_id", "key_id"),)

    key_id: str = Field(primary_key=True, sa_type=_ID)
    account_id: str = Field(foreign_key="accounts.account_id", sa_type=_ID)
    secret_hmac: bytes = Field(unique=True, sa_type=LargeBinary)
    public_prefix: str = Field(max_length=40)
    name: str = Field(max_length=NAME_CHARS_MAX)
    scopes: list[str] = Field(sa_type=JSON)
    allowed_models: list[str] = Field(sa_type=JSON)
    expire_time: datetime | None = Field(sa_type=UtcDateTime)
    log_inputs: bool
    log_outputs: bool
    log_retention_days: int
    create_time: datetime = Field(sa_type=UtcDateTime)
    revoke_time: datetime | None = Field(sa_type=UtcDateTime)
    tier: str = Field(max_length=TIER_CHARS_MAX)
    requests_per_minute: int = Field(sa_type=BigInteger)
    tokens_per_minute: int = Field(sa_type=BigInteger)
    concurrent_requests: int = Field(sa_type=BigInteger)
    spend_limit_nanousd: int | None = Field(sa_type=BigInteger)
    spend_period: str | None = Field(max_length=20)


class KeyChangeRow(AuthRow, table=True):
    """One change: of a key, or of every key of an account."""

    __tablename__ = "key_changes"

    revision: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    key_id: str | None = Field(sa_type=_ID)
    account_id: str | None = Field(sa_type=_ID)


class ServiceStateRow(AuthRow, table=True):
    """One row, made by the migration: the newest revision, what tells whether the pepper is the right one, and the
    presets that edges were last told."""

    __tablename__ = "service_state"

    state_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    key_revision: int = Field(sa_type=BigInteger)
    pepper_check: bytes | None = Field(sa_type=LargeBinary)
    tiers_check: bytes | None = Field(sa_type=LargeBinary)


class WriteRow(WriteRowFields, AuthRow, table=True):
    """A finished write and its answer (chassis/once.py)."""

    __tablename__ = "writes"
