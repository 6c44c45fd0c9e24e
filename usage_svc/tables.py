"""The rows, which never leave this package. Amounts are int64 nano-USD; moments are int64 microseconds since 1970, UTC.

Whole numbers, since these rows are written for every request by the driver itself, which on SQLite has no moments.
The guards that money depends on are check constraints too, so that even a bug of ours cannot commit past them.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from chassis.once import WriteRowFields
from usage_svc.ledger import EntryKind

# Ids are compared byte by byte, as Python does: rows are locked in the order of their ids, by either.
_ID = String(100).with_variant(String(100, collation="C"), "postgresql")
# SQLite numbers rows by itself only where the key is its own INTEGER.
_NUMBERED = BigInteger().with_variant(Integer(), "sqlite")


_WAIVERS = text(f"kind = {int(EntryKind.WAIVER)}")


class UsageRow(SQLModel, registry=registry()):
    """The base of this service's tables: metadata of their own, since a process may hold several services."""


class AccountRow(UsageRow, table=True):
    """One customer's funds. Not touched by charges inside a lease: the hottest account has few updates.

    posted = available + the sum of (granted - settled - returned) over its open leases.
    charged = `charged_nanousd` + the sum of settled over its open leases (sealing folds a lease's into it).
    """

    __tablename__ = "account"
    __table_args__ = (
        CheckConstraint(
            "available_nanousd + COALESCE(grace_nanousd, 0) + overflow_nanousd >= 0", name="account_solvent"
        ),
        CheckConstraint("grace_nanousd >= 0", name="account_grace"),
    )

    account_id: str = Field(primary_key=True, sa_type=_ID)
    available_nanousd: int = Field(sa_type=BigInteger)
    grace_nanousd: int | None = Field(default=None, sa_type=BigInteger)  # none until terms are set or a credit comes
    overflow_nanousd: int = Field(sa_type=BigInteger)
    credited_nanousd: int = Field(sa_type=BigInteger)
    charged_nanousd: int = Field(sa_type=BigInteger)
    refunded_nanousd: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    create_time_us: int = Field(sa_type=BigInteger)


class SpoolRow(UsageRow, table=True):
    """The last incarnation of each spool; locked while the next is made."""

    __tablename__ = "spool"

    spool_uuid: str = Field(primary_key=True, sa_type=_ID)
    incarnation: int = Field(sa_type=BigInteger)


class SessionRow(UsageRow, table=True):
    """One incarnation of one spool. Locked first by whatever touches its leases."""

    __tablename__ = "session"
    __table_args__ = (
        UniqueConstraint("spool_uuid", "open_request_id", name="session_open_request_id"),
        Index("session_state", "state", "heartbeat_time_us"),
    )

    spool_uuid: str = Field(primary_key=True, sa_type=_ID)
    incarnation: int = Field(primary_key=True, sa_type=BigInteger)
    open_request_id: str = Field(sa_type=_ID)
    edge_name: str = Field(max_length=200)
    state: int = Field(sa_type=SmallInteger)
    next_seq: int = Field(sa_type=BigInteger)
    released_nanousd: int = Field(sa_type=BigInteger)
    heartbeat_time_us: int = Field(sa_type=BigInteger)
    create_time_us: int = Field(sa_type=BigInteger)


class LeaseRow(UsageRow, table=True):
    """Funds of one account, set aside for one session. `last_*` is the answer to `acquire_seq`."""

    __tablename__ = "lease"
    __table_args__ = (
        CheckConstraint(
            "settled_nanousd >= 0 AND returned_nanousd >= 0 AND settled_nanousd + returned_nanousd <= granted_nanousd",
            name="lease_conserved",
        ),
        Index("lease_session", "spool_uuid", "incarnation"),
        Index("lease_account_open", "account_id", "closed"),
    )

    lease_id: str = Field(primary_key=True, sa_type=_ID)
    account_id: str = Field(sa_type=_ID)
    spool_uuid: str = Field(sa_type=_ID)
    incarnation: int = Field(sa_type=BigInteger)
    granted_nanousd: int = Field(sa_type=BigInteger)
    settled_nanousd: int = Field(sa_type=BigInteger)
    returned_nanousd: int = Field(sa_type=BigInteger)
    overflow_nanousd: int = Field(sa_type=BigInteger)
    acquire_seq: int = Field(sa_type=BigInteger)
    last_granted_nanousd: int = Field(sa_type=BigInteger)
    last_near_limit: bool
    last_available_nanousd: int = Field(sa_type=BigInteger)
    closed: bool
    # For one under-held request; while it is open, the account's slot for such is taken.
    is_last: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    create_time_us: int = Field(sa_type=BigInteger)


class BatchRow(UsageRow, table=True):
    """One transaction that posted something: from which records of which spool. Of a movement by operators: from none.

    `batch_id * 1000` and the thousand numbers that follow are the ids of its entries, see usage_svc/ledger.py.
    """

    __tablename__ = "batch"

    batch_id: int | None = Field(default=None, sa_column=Column(_NUMBERED, primary_key=True))
    spool_uuid: str = Field(sa_type=_ID)
    incarnation: int = Field(sa_type=BigInteger)
    first_seq: int = Field(sa_type=BigInteger)
    create_time_us: int = Field(sa_type=BigInteger)


class UsageEventRow(UsageRow, table=True):
    """One request's outcome and, where it cost something, its charge: the pair (account, revenue) of the ledger.

    `day` is taken from the request id, so that the key works on partitions by time. The view `entry`
    (usage_svc/ledger_view.py) shows charges and movements as one ledger.
    """

    __tablename__ = "usage_event"
    __table_args__ = (Index("usage_event_account", "account_id", "end_time_us", "request_id"),)

    day: int = Field(primary_key=True, sa_type=SmallInteger)  # since 1970-01-01; 32,767 days are 89 years
    request_id: str = Field(primary_key=True, sa_type=_ID)
    account_id: str = Field(sa_type=_ID)
    lease_id: str = Field(sa_type=_ID)
    key_id: str = Field(max_length=100)
    model_id: str = Field(max_length=200)
    deployment_id: str = Field(max_length=200)
    price_version: str = Field(max_length=100)
    resource: int = Field(sa_type=SmallInteger)
    admit_time_us: int = Field(sa_type=BigInteger)
    end_time_us: int = Field(sa_type=BigInteger)
    status_code: int
    streamed: bool
    outcome: int = Field(sa_type=SmallInteger)
    source: int = Field(sa_type=SmallInteger)
    ending: int = Field(sa_type=SmallInteger)
    prompt_tokens: int = Field(sa_type=BigInteger)
    completion_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    cache_write_tokens: int = Field(sa_type=BigInteger)
    reasoning_tokens: int = Field(sa_type=BigInteger)
    audio_tokens: int = Field(sa_type=BigInteger)
    image_tokens: int = Field(sa_type=BigInteger)
    images: int = Field(sa_type=BigInteger)
    hold_nanousd: int = Field(sa_type=BigInteger)
    plausible_tokens_max: int = Field(sa_type=BigInteger)
    first_byte_ms: int = Field(sa_type=BigInteger)
    duration_ms: int = Field(sa_type=BigInteger)
    attempts: bytes = Field(sa_type=LargeBinary)
    charged_nanousd: int = Field(sa_type=BigInteger)
    overflow_nanousd: int = Field(sa_type=BigInteger)
    entry_id: int = Field(sa_type=BigInteger)
    # Not written with the event: a refund comes later.
    refunded_nanousd: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})


class PriceVersionRow(UsageRow, table=True):
    """The vector that was first seen of a price version. Exact decimals in text: SQLite's NUMERIC is a float."""

    __tablename__ = "price_version"

    price_version: str = Field(primary_key=True, max_length=100)
    prompt: str = Field(max_length=50)
    completion: str = Field(max_length=50)
    input_cache_read: str = Field(max_length=50)
    input_cache_write: str = Field(max_length=50)
    image: str = Field(max_length=50)
    request: str = Field(max_length=50)


class MovementRow(UsageRow, table=True):
    """One balanced pair of the ledger that is no charge. Never updated, never deleted."""

    __tablename__ = "movement"
    __table_args__ = (
        CheckConstraint("amount_nanousd > 0", name="movement_amount"),
        CheckConstraint("debit_account_id <> credit_account_id", name="movement_pair"),
        CheckConstraint("account_id IN (debit_account_id, credit_account_id)", name="movement_account"),
        Index("movement_account_time", "account_id", "create_time_us", "entry_id"),
        # A request's refunds.
        Index("movement_waiver", "account_id", "request_id", postgresql_where=_WAIVERS, sqlite_where=_WAIVERS),
    )

    entry_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    kind: int = Field(sa_type=SmallInteger)
    account_id: str = Field(sa_type=_ID)
    debit_account_id: str = Field(sa_type=_ID)
    credit_account_id: str = Field(sa_type=_ID)
    amount_nanousd: int = Field(sa_type=BigInteger)
    overflow_nanousd: int = Field(sa_type=BigInteger)
    request_id: str = Field(sa_type=_ID)
    note: str = Field(max_length=500)
    create_time_us: int = Field(sa_type=BigInteger)


class KeyUseRow(UsageRow, table=True):
    """When a key was last used (key_uses.py)."""

    __tablename__ = "key_use"

    account_id: str = Field(primary_key=True, sa_type=_ID)
    key_id: str = Field(primary_key=True, max_length=100)
    last_use_time_us: int = Field(sa_type=BigInteger)


class QuarantineRow(UsageRow, table=True):
    """A record that was not posted, as it came. Charged to nobody."""

    __tablename__ = "quarantine"

    spool_uuid: str = Field(primary_key=True, sa_type=_ID)
    incarnation: int = Field(primary_key=True, sa_type=BigInteger)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    reason: str = Field(max_length=100)
    record: bytes = Field(sa_type=LargeBinary)
    create_time_us: int = Field(sa_type=BigInteger)


class KeyRateRow(UsageRow, table=True):
    """What all edges together use of one key's limits. Made at its use, and gone again some time after."""

    __tablename__ = "key_rate"
    __table_args__ = (Index("key_rate_time", "time_us"),)

    key_id: str = Field(primary_key=True, sa_type=_ID)
    used_requests: float = Field(sa_type=Double)
    used_tokens: float = Field(sa_type=Double)
    time_us: int = Field(sa_type=BigInteger)
    holdings: str = Field(sa_type=Text)  # JSON, by holder: key_rate.py, Holding


class IdempotencyKeyRow(UsageRow, table=True):
    """A customer's idempotency key, and the request that holds it. What comes after `finished` is the kept answer."""

    __tablename__ = "idempotency_key"
    __table_args__ = (Index("idempotency_key_expiry", "expire_time_us"),)

    account_id: str = Field(primary_key=True, sa_type=_ID)
    idempotency_key: str = Field(
        primary_key=True, sa_type=String(255).with_variant(String(255, collation="C"), "postgresql")
    )
    request_sha256: bytes = Field(sa_type=LargeBinary)
    request_id: str = Field(sa_type=_ID)
    spool_uuid: str = Field(sa_type=_ID)
    incarnation: int = Field(sa_type=BigInteger)
    expire_time_us: int = Field(sa_type=BigInteger)
    finished: bool
    status_code: int = Field(sa_type=SmallInteger)  # 0: no answer is kept
    content_type: str = Field(max_length=200)
    body: bytes = Field(sa_type=LargeBinary)


class LogRow(UsageRow, table=True):
    """A request's captured input and output. On PostgreSQL in partitions by `expire_day` (log_partitions.py).

    `padding` keeps the bodies out of the pages that SQLite shares among rows (log_store.py): it and they stand last.
    """

    __tablename__ = "request_log"
    __table_args__ = (
        Index("request_log_account_time", "account_id", "end_time_us", "request_id"),
        Index("request_log_expire_time", "expire_time_us"),
        {"postgresql_partition_by": "RANGE (expire_day)"},
    )

    account_id: str = Field(primary_key=True, sa_type=_ID)
    request_id: str = Field(primary_key=True, sa_type=_ID)
    expire_day: int = Field(primary_key=True, sa_type=Integer)  # since 1970-01-01
    key_id: str = Field(max_length=100)
    model_id: str = Field(max_length=200)
    resource: int = Field(sa_type=SmallInteger)
    status_code: int
    streamed: bool
    end_time_us: int = Field(sa_type=BigInteger)
    expire_time_us: int = Field(sa_type=BigInteger)
    input_bytes: int = Field(sa_type=BigInteger)
    output_bytes: int = Field(sa_type=BigInteger)
    parts: int = Field(sa_type=SmallInteger)  # logs.py, Parts
    padding: bytes = Field(sa_type=LargeBinary)
    input: bytes | None = Field(default=None, sa_type=LargeBinary)
    output: bytes | None = Field(default=None, sa_type=LargeBinary)
    output_raw: bytes | None = Field(default=None, sa_type=LargeBinary)


class LogDeletionRow(UsageRow, table=True):
    """What a customer deleted of logs, for as long as copies of it may be on their way: one request, or, with an empty
    `request_id`, a time."""

    __tablename__ = "log_deletion"
    __table_args__ = (Index("log_deletion_end_time", "end_time_us"),)

    account_id: str = Field(primary_key=True, sa_type=_ID)
    request_id: str = Field(primary_key=True, sa_type=_ID)
    start_time_us: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    end_time_us: int = Field(sa_type=BigInteger)


class KeySpendRow(UsageRow, table=True):
    """What was charged to a key with a spend limit within one day or month."""

    __tablename__ = "key_spend"

    key_id: str = Field(primary_key=True, sa_type=_ID)
    period_id: str = Field(primary_key=True, max_length=10)
    spent_nanousd: int = Field(sa_type=BigInteger)
    counted_time_us: int = Field(sa_type=BigInteger)  # when it was first counted from the events; 0: not yet
    is_recounted: bool


class KeySpendShareRow(UsageRow, table=True):
    """What one session has set aside of a key's spend limit. Gone once the session is sealed."""

    __tablename__ = "key_spend_share"
    __table_args__ = (Index("key_spend_share_key", "key_id", "period_id"),)

    spool_uuid: str = Field(primary_key=True, sa_type=_ID)
    incarnation: int = Field(primary_key=True, sa_type=BigInteger)
    key_id: str = Field(primary_key=True, sa_type=_ID)
    period_id: str = Field(primary_key=True, max_length=10)
    granted_nanousd: int = Field(sa_type=BigInteger)
    returned_nanousd: int = Field(sa_type=BigInteger)
    settled_nanousd: int = Field(sa_type=BigInteger)
    seq: int = Field(sa_type=BigInteger)
    near_limit: bool


class FinishedWriteRow(UsageRow, WriteRowFields, table=True):
    """First answers of operators' writes, see chassis/once.py."""

    __tablename__ = "finished_write"
