"""SQL: one function per question, inside a transaction of the caller's. Decides nothing.

Rows are locked where a decision depends on them: `for_update` means something on PostgreSQL; on SQLite the whole
database has one writer.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from auth_svc.accounts import Account, AccountState
from auth_svc.key_changes import History, KeyChange
from auth_svc.keys import Key, KeyTerms, Scope
from auth_svc.limits import CUSTOM, KeyLimits, SpendLimit, SpendPeriod
from auth_svc.tables import SERVICE_STATE_ID, AccountRow, KeyChangeRow, KeyRow, ServiceStateRow

_NEWEST_REVISION = select(ServiceStateRow.key_revision).where(ServiceStateRow.state_id == SERVICE_STATE_ID)
# Built once, since edges wait for it: building it anew took more than half of the whole call (measured).
_PRESENTED_KEY = (
    select(KeyRow, AccountRow.state, _NEWEST_REVISION.scalar_subquery())
    .join(AccountRow, col(AccountRow.account_id) == col(KeyRow.account_id))
    .where(col(KeyRow.secret_hmac) == bindparam("secret_hmac"))
)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A key found by its secret, with the state of its account, and the revision at which both were read."""

    key: Key
    account_state: AccountState
    revision: int


async def account(session: AsyncSession, account_id: str, *, for_update: bool = False) -> Account | None:
    """An account by its id."""
    row = await session.get(AccountRow, account_id, with_for_update=for_update or None)
    return _account_from_row(row) if row is not None else None


async def account_named(session: AsyncSession, name: str) -> Account | None:
    """An account by its name."""
    row = (await session.exec(select(AccountRow).where(AccountRow.name == name))).one_or_none()
    return _account_from_row(row) if row is not None else None


async def accounts_after(session: AsyncSession, account_id: str, count_max: int) -> list[Account]:
    """The oldest accounts that are younger than an id."""
    query = select(AccountRow).where(AccountRow.account_id > account_id).order_by(AccountRow.account_id)
    return [_account_from_row(row) for row in await session.exec(query.limit(count_max))]


async def insert_account(session: AsyncSession, new: Account) -> None:
    """Adds an account."""
    session.add(
        AccountRow(account_id=new.account_id, name=new.name, state=new.state.value, create_time=new.create_time)
    )
    await session.flush()


async def save_account(session: AsyncSession, changed: Account) -> None:
    """Writes what may change of an account."""
    statement = update(AccountRow).where(col(AccountRow.account_id) == changed.account_id)
    await session.exec(statement.values(name=changed.name, state=changed.state.value))


async def key(session: AsyncSession, key_id: str, *, for_update: bool = False) -> Key | None:
    """A key by its id."""
    # Never from what this session has read before: another transaction may have changed it while this one waited.
    row = await session.get(KeyRow, key_id, with_for_update=for_update or None, populate_existing=True)
    return _key_from_row(row) if row is not None else None


async def keys_after(session: AsyncSession, account_id: str, key_id: str, count_max: int) -> list[Key]:
    """An account's oldest keys that are younger than an id."""
    query = select(KeyRow).where(KeyRow.account_id == account_id, KeyRow.key_id > key_id).order_by(KeyRow.key_id)
    return [_key_from_row(row) for row in await session.exec(query.limit(count_max))]


async def keys_before(
    session: AsyncSession, account_id: str, key_id: str, count_max: int, *, revoked_too: bool
) -> list[Key]:
    """An account's newest keys that are older than an id, or of all where the id is empty."""
    query = select(KeyRow).where(KeyRow.account_id == account_id)
    if key_id:
        query = query.where(KeyRow.key_id < key_id)
    if not revoked_too:
        query = query.where(col(KeyRow.revoke_time).is_(None))
    query = query.order_by(col(KeyRow.key_id).desc()).limit(count_max)
    return [_key_from_row(row) for row in await session.exec(query)]


async def count_keys(session: AsyncSession, account_id: str) -> int:
    """How many keys of an account are not revoked."""
    query = select(func.count()).where(KeyRow.account_id == account_id, col(KeyRow.revoke_time).is_(None))
    return (await session.exec(query)).one()


async def presented_key(session: AsyncSession, secret_hmac: bytes) -> PresentedKey | None:
    """A key by its secret's keyed hash.

    One statement, so one snapshot on PostgreSQL too: every change up to the revision is in the key, and a change that
    is not has a higher one.
    """
    found = (await session.exec(_PRESENTED_KEY, params={"secret_hmac": secret_hmac})).one_or_none()
    if found is None:
        return None
    row, state, read_at = found
    return PresentedKey(_key_from_row(row), AccountState(state), read_at)


async def is_secret_taken(session: AsyncSession, secret_hmac: bytes) -> bool:
    """Whether a key has this secret, revoked or not."""
    query = select(KeyRow.key_id).where(KeyRow.secret_hmac == secret_hmac)
    return (await session.exec(query)).one_or_none() is not None


async def insert_key(session: AsyncSession, new: Key, secret_hmac: bytes) -> None:
    """Adds a key."""
    session.add(
        KeyRow(
            key_id=new.key_id,
            account_id=new.account_id,
            secret_hmac=secret_hmac,
            public_prefix=new.public_prefix,
            create_time=new.create_time,
            revoke_time=new.revoke_time,
            **_columns_from_terms(new.terms),
        )
    )
    await session.flush()


async def save_key(session: AsyncSession, changed: Key) -> None:
    """Writes what may change of a key."""
    statement = update(KeyRow).where(col(KeyRow.key_id) == changed.key_id)
    await session.exec(statement.values(revoke_time=changed.revoke_time, **_columns_from_terms(changed.terms)))


async def append_change(
    session: AsyncSession, *, key_id: str | None = None, account_id: str | None = None, history_max: int
) -> int:
    """Numbers a change and adds it to the history, of which the newest `history_max` stay. Returns its revision.

    The counter's row stays locked until this transaction ends, so the next writer waits here: revisions are committed
    in their order, and a reader that has seen one will never be shown a lower one later. (A PostgreSQL sequence would
    not give that.) Do this last, so that the wait is short and no lock is taken after this one.
    """
    counted = (
        update(ServiceStateRow)
        .where(col(ServiceStateRow.state_id) == SERVICE_STATE_ID)
        .values(key_revision=col(ServiceStateRow.key_revision) + 1)
        .returning(col(ServiceStateRow.key_revision))
    )
    revision: int = (await session.exec(counted)).scalar_one()
    session.add(KeyChangeRow(revision=revision, key_id=key_id, account_id=account_id))
    await session.flush()
    await session.exec(delete(KeyChangeRow).where(col(KeyChangeRow.revision) <= revision - history_max))
    return revision


async def newest_revision(session: AsyncSession) -> int:
    """The revision of the newest change, or the one at which this database began to count."""
    return (await session.exec(_NEWEST_REVISION)).one()


async def changes_after(session: AsyncSession, revision: int, count_max: int) -> History:
    """The oldest changes after a revision that are still there.

    The newest revision is read first: whatever it counts is then there to be read, or was dropped.
    """
    newest = await newest_revision(session)
    if newest == revision:
        return History(newest, ())
    query = select(KeyChangeRow).where(KeyChangeRow.revision > revision).order_by(col(KeyChangeRow.revision))
    rows = await session.exec(query.limit(count_max))
    return History(newest, [KeyChange(row.revision, row.key_id, row.account_id) for row in rows])


async def pepper_check(session: AsyncSession) -> bytes | None:
    """What the first start left; None before it."""
    query = select(ServiceStateRow.pepper_check).where(ServiceStateRow.state_id == SERVICE_STATE_ID)
    return (await session.exec(query)).one()


async def set_pepper_check(session: AsyncSession, check: bytes) -> None:
    """Keeps the first start's; a second one changes nothing."""
    statement = update(ServiceStateRow).where(
        col(ServiceStateRow.state_id) == SERVICE_STATE_ID, col(ServiceStateRow.pepper_check).is_(None)
    )
    await session.exec(statement.values(pepper_check=check))


async def tiers_in_use(session: AsyncSession) -> set[str]:
    """The presets that keys name, revoked keys included: those are still listed with their limits."""
    query = select(KeyRow.tier).where(col(KeyRow.tier).not_in(("", CUSTOM))).distinct()
    return set(await session.exec(query))


async def exchange_tiers_check(session: AsyncSession, check: bytes) -> bool:
    """Keeps what edges are told from now on. Returns whether it was something else before."""
    statement = update(ServiceStateRow).where(
        col(ServiceStateRow.state_id) == SERVICE_STATE_ID, col(ServiceStateRow.tiers_check).is_distinct_from(check)
    )
    return (await session.exec(statement.values(tiers_check=check))).rowcount == 1


async def forget_history(session: AsyncSession) -> None:
    """Numbers a change of everything: with the history gone, every watcher is told to forget all that it holds."""
    statement = update(ServiceStateRow).where(col(ServiceStateRow.state_id) == SERVICE_STATE_ID)
    await session.exec(statement.values(key_revision=col(ServiceStateRow.key_revision) + 1))
    await session.exec(delete(KeyChangeRow))


def _account_from_row(row: AccountRow) -> Account:
    return Account(row.account_id, row.name, AccountState(row.state), row.create_time)


def _key_from_row(row: KeyRow) -> Key:
    terms = KeyTerms(
        name=row.name,
        scopes=tuple(map(Scope, row.scopes)),
        allowed_models=tuple(row.allowed_models),
        expire_time=row.expire_time,
        log_inputs=row.log_inputs,
        log_outputs=row.log_outputs,
        log_retention_days=row.log_retention_days,
        limits=KeyLimits(row.tier, row.requests_per_minute, row.tokens_per_minute, row.concurrent_requests),
        spend_limit=SpendLimit(row.spend_limit_nanousd, SpendPeriod(row.spend_period))
        if row.spend_limit_nanousd is not None
        else None,
    )
    return Key(row.key_id, row.account_id, row.public_prefix, terms, row.create_time, row.revoke_time)


def _columns_from_terms(terms: KeyTerms) -> dict[str, Any]:
    return {
        "name": terms.name,
        "scopes": [scope.value for scope in terms.scopes],
        "allowed_models": list(terms.allowed_models),
        "expire_time": terms.expire_time,
        "log_inputs": terms.log_inputs,
        "log_outputs": terms.log_outputs,
        "log_retention_days": terms.log_retention_days,
        "tier": terms.limits.tier,
        "requests_per_minute": terms.limits.requests_per_minute,
        "tokens_per_minute": terms.limits.tokens_per_minute,
        "concurrent_requests": terms.limits.concurrent_requests,
        "spend_limit_nanousd": None if terms.spend_limit is None else terms.spend_limit.limit_nanousd,
        "spend_period": None if terms.spend_limit is None else terms.spend_limit.period.value,
    }
