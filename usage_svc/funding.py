"""Moving funds between accounts and leases: acquiring for a session, and sealing it."""

from collections.abc import Sequence

from chassis.database import Database
from chassis.faults import FailedPrecondition, InvalidArgument, NotFound
from usage_svc import funds_store, metrics, session_store
from usage_svc.driver import Script, write_by_script
from usage_svc.leases import Demand, Grant, Lease, refusal
from usage_svc.sessions import SessionId, SessionState


def fenced(session_id: SessionId) -> FailedPrecondition:
    """What a session hears that is not ALIVE any more."""
    return FailedPrecondition(
        "SESSION_FENCED",
        f"incarnation {session_id.incarnation} of spool {session_id.spool_uuid} is not alive: open a new session",
    )


class Funding:
    """Grants leases and releases them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, session_id: SessionId, demands: Sequence[Demand]) -> list[Grant]:
        """Answers demands, in order, in one transaction. A refusal writes nothing.

        Raises:
            FailedPrecondition: the session is not ALIVE (SESSION_FENCED).
            InvalidArgument: a lease id of another session or account.
        """
        grants = await write_by_script(self._database, lambda: _acquire(session_id, demands))
        for grant in grants:
            metrics.DEMANDS.labels(grant.outcome.name.lower()).inc()
        return grants

    async def seal(self, session_id: SessionId, end_seq: int) -> int:
        """Releases what a session's leases still reserve, once all that it spooled is here. Returns how much.

        Raises:
            NotFound: no such session (SESSION_UNKNOWN).
            FailedPrecondition: records are missing (SPOOL_NOT_INGESTED).
        """
        return await write_by_script(self._database, lambda: _seal(session_id, end_seq))


def _acquire(session_id: SessionId, demands: Sequence[Demand]) -> Script[list[Grant]]:
    session, _ = yield from session_store.lock_session(session_id)
    if session is None or session.state is not SessionState.ALIVE:
        raise fenced(session_id)
    account_rows, lease_rows = yield (
        funds_store.headrooms(list({demand.account_id for demand in demands})),
        funds_store.leases_by_id(list({demand.lease_id for demand in demands})),
    )
    headroom = {str(account_id): int(amount) for account_id, amount in account_rows}
    leases = {lease.lease_id: lease for lease in map(funds_store.lease_from_row, lease_rows)}
    stored = frozenset(leases)
    granted: dict[str, int] = {}
    changed: dict[str, Lease] = {}
    grants: list[Grant | None] = []
    for demand in demands:
        lease = leases.get(demand.lease_id)
        if lease is None:
            lease = Lease(demand.lease_id, demand.account_id, session_id.spool_uuid, session_id.incarnation)
            leases[demand.lease_id] = lease
        _check_ours(lease, session_id, demand)
        before = lease.granted_nanousd
        grants.append(lease.grant(demand, headroom.get(demand.account_id, 0)))
        amount = lease.granted_nanousd - before
        if amount:
            headroom[demand.account_id] -= amount
            granted[demand.account_id] = granted.get(demand.account_id, 0) + amount
            changed[lease.lease_id] = lease
    refused = [demand for demand, grant in zip(demands, grants, strict=True) if grant is None]
    reserved: dict[str, int] = {}
    if refused:
        (rows,) = yield (funds_store.reserved(list({demand.account_id for demand in refused})),)
        reserved = {str(account_id): int(amount) for account_id, amount in rows}
    yield (
        funds_store.withdraw(granted),
        funds_store.insert_leases([lease for lease in changed.values() if lease.lease_id not in stored]),
        funds_store.update_grants([lease for lease in changed.values() if lease.lease_id in stored]),
    )
    return [
        grant
        if grant is not None
        else refusal(
            demand,
            headroom.get(demand.account_id, 0),
            reserved.get(demand.account_id, 0) + granted.get(demand.account_id, 0),
            leases[demand.lease_id].granted_nanousd,
        )
        for demand, grant in zip(demands, grants, strict=True)
    ]


def _check_ours(lease: Lease, session_id: SessionId, demand: Demand) -> None:
    owner = (lease.spool_uuid, lease.incarnation, lease.account_id)
    if owner != (session_id.spool_uuid, session_id.incarnation, demand.account_id) or lease.closed:
        raise InvalidArgument(
            "demands.lease_id",
            f"lease {lease.lease_id!r} is closed, or belongs to another session or account: make a new id",
        )


def _seal(session_id: SessionId, end_seq: int) -> Script[int]:
    session, _ = yield from session_store.lock_session(session_id)
    if session is None:
        raise NotFound("SESSION_UNKNOWN", "this database never opened that session: there is nothing to seal")
    if session.state in (SessionState.DRAINED, SessionState.FORCED):
        return session.released_nanousd
    # Beyond end_seq is fine: a disk that lost power may have less than it had sent.
    if session.next_seq < end_seq:
        raise FailedPrecondition(
            "SPOOL_NOT_INGESTED",
            f"records from {session.next_seq} to {end_seq - 1} are not here yet: record them, then seal again",
        )
    (rows,) = yield (funds_store.open_leases(session_id),)
    leases = [funds_store.lease_from_row(row) for row in rows]
    released: dict[str, int] = {}
    settled: dict[str, int] = {}
    for lease in leases:
        released[lease.account_id] = released.get(lease.account_id, 0) + lease.release()
        settled[lease.account_id] = settled.get(lease.account_id, 0) + lease.settled_nanousd
    total = sum(released.values())
    yield (
        funds_store.update_spent(leases),
        funds_store.fold_released(released, settled),
        session_store.drain(session_id, total),
    )
    return total
