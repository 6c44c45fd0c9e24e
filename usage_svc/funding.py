"""Moving funds between accounts and leases: acquiring for a session, and sealing it."""

from collections.abc import Sequence

from chassis.database import Database
from chassis.faults import FailedPrecondition, InvalidArgument, NotFound
from usage_svc import funds_store, key_spend_store, metrics, session_store
from usage_svc.driver import Script, write_by_script
from usage_svc.leases import Demand, Grant, GrantOutcome, Lease, refusal
from usage_svc.sessions import Session, SessionId, SessionState
from usage_svc.signals import Recall, Signals


def fenced(session_id: SessionId) -> FailedPrecondition:
    """What a session hears that is not ALIVE any more."""
    return FailedPrecondition(
        "SESSION_FENCED",
        f"incarnation {session_id.incarnation} of spool {session_id.spool_uuid} is not alive: open a new session",
    )


class Funding:
    """Grants leases and releases them; asks other edges for what they have idle before an account goes short."""

    def __init__(self, database: Database, signals: Signals) -> None:
        self._database = database
        self._signals = signals

    async def acquire(self, session_id: SessionId, demands: Sequence[Demand]) -> list[Grant]:
        """Answers demands, in order, in one transaction. A refusal writes nothing.

        Nobody waits here for funds that were recalled: the edge does, and hears when some came (signals.py).

        Raises:
            FailedPrecondition: the session is not ALIVE (SESSION_FENCED).
            InvalidArgument: a lease id of another session or account.
        """
        grants, recalls = await write_by_script(self._database, lambda: _acquire(session_id, demands))
        for demand, grant in zip(demands, grants, strict=True):
            metrics.DEMANDS.labels(grant.outcome.name.lower()).inc()
            if grant.outcome is GrantOutcome.FUNDS_HELD:
                self._signals.want(demand.account_id)
        self._signals.recall(recalls)
        return grants

    async def seal(self, session_id: SessionId, end_seq: int) -> int:
        """Releases what a session's leases still reserve, once all that it spooled is here. Returns how much.

        Raises:
            NotFound: no such session (SESSION_UNKNOWN).
            FailedPrecondition: records are missing (SPOOL_NOT_INGESTED).
        """
        total, released = await write_by_script(self._database, lambda: _seal(session_id, end_seq))
        self._signals.freed(released)
        return total

    async def force(self, session_id: SessionId) -> int:
        """Releases what a LOST session still reserves, though its spool is not here. Returns how much.

        Raises:
            NotFound: no such session (SESSION_UNKNOWN).
            FailedPrecondition: it is not lost (SESSION_ALIVE), or was sealed (SESSION_DRAINED).
        """
        total, released = await write_by_script(self._database, lambda: _force(session_id))
        metrics.FORCED_NANOUSD.inc(sum(released.values()))
        self._signals.freed(released)
        return total


def _acquire(session_id: SessionId, demands: Sequence[Demand]) -> Script[tuple[list[Grant], list[Recall]]]:
    session, _ = yield from session_store.lock_session(session_id)
    if session is None or session.state is not SessionState.ALIVE:
        raise fenced(session_id)
    account_rows, lease_rows = yield (
        funds_store.headrooms(list({demand.account_id for demand in demands})),
        funds_store.leases_by_id(list({demand.lease_id for demand in demands})),
    )
    headroom = {str(account_id): int(amount) for account_id, amount in account_rows}
    leases = {lease.lease_id: lease for lease in map(funds_store.lease_from_row, lease_rows)}
    slots: dict[str, str] = {}
    if lasts := {demand.account_id for demand in demands if demand.last}:
        (slot_rows,) = yield (funds_store.last_slots(list(lasts)),)
        slots = {str(account_id): str(lease_id) for account_id, lease_id in slot_rows}
    stored = frozenset(leases)
    granted: dict[str, int] = {}
    changed: dict[str, Lease] = {}
    grants: list[Grant | None] = []
    for demand in demands:
        lease = leases.get(demand.lease_id)
        if lease is None:
            lease = Lease(demand.lease_id, demand.account_id, session_id.spool_uuid, session_id.incarnation)
            lease.is_last = demand.last
            leases[demand.lease_id] = lease
        _check_ours(lease, session_id, demand)
        before = lease.granted_nanousd
        is_slot_taken = slots.get(demand.account_id, demand.lease_id) != demand.lease_id
        grants.append(lease.grant(demand, headroom.get(demand.account_id, 0), is_slot_taken=is_slot_taken))
        amount = lease.granted_nanousd - before
        if amount:
            headroom[demand.account_id] -= amount
            granted[demand.account_id] = granted.get(demand.account_id, 0) + amount
            changed[lease.lease_id] = lease
            if demand.last:
                slots[demand.account_id] = demand.lease_id
    refused = [demand for demand, grant in zip(demands, grants, strict=True) if grant is None]
    reserved: dict[str, int] = {}
    recalls: list[Recall] = []
    if refused:
        account_ids = list({demand.account_id for demand in refused})
        rows, elsewhere = yield (
            funds_store.reserved(account_ids),
            funds_store.reserved_elsewhere(account_ids, session_id),
        )
        reserved = {str(account_id): int(amount) for account_id, amount in rows}
        recalls = [Recall(SessionId(row[2], row[3]), row[1], row[0]) for row in elsewhere]
    recalled = {recall.account_id for recall in recalls}
    yield (
        funds_store.withdraw(granted),
        funds_store.insert_leases([lease for lease in changed.values() if lease.lease_id not in stored]),
        funds_store.update_grants([lease for lease in changed.values() if lease.lease_id in stored]),
    )
    answers = [
        grant
        if grant is not None
        else refusal(
            demand,
            headroom.get(demand.account_id, 0),
            reserved.get(demand.account_id, 0) + granted.get(demand.account_id, 0),
            leases[demand.lease_id].granted_nanousd,
            recalled=demand.account_id in recalled,
        )
        for demand, grant in zip(demands, grants, strict=True)
    ]
    return answers, recalls


def _check_ours(lease: Lease, session_id: SessionId, demand: Demand) -> None:
    owner = (lease.spool_uuid, lease.incarnation, lease.account_id)
    expected = (session_id.spool_uuid, session_id.incarnation, demand.account_id)
    if owner != expected or lease.closed or lease.is_last != demand.last:
        raise InvalidArgument(
            "demands.lease_id",
            f"lease {lease.lease_id!r} is closed, of another kind, or belongs to another session or account: make a "
            "new id",
        )


def _seal(session_id: SessionId, end_seq: int) -> Script[tuple[int, dict[str, int]]]:
    session, _ = yield from session_store.lock_session(session_id)
    if session is None:
        raise NotFound("SESSION_UNKNOWN", "this database never opened that session: there is nothing to seal")
    if session.state in (SessionState.DRAINED, SessionState.FORCED):
        return session.released_nanousd, {}
    # Beyond end_seq is fine: a disk that lost power may have less than it had sent.
    if session.next_seq < end_seq:
        raise FailedPrecondition(
            "SPOOL_NOT_INGESTED",
            f"records from {session.next_seq} to {end_seq - 1} are not here yet: record them, then seal again",
        )
    return (yield from _release(session, SessionState.DRAINED))


def _force(session_id: SessionId) -> Script[tuple[int, dict[str, int]]]:
    session, _ = yield from session_store.lock_session(session_id)
    if session is None:
        raise NotFound("SESSION_UNKNOWN", "this database never opened that session: there is nothing to release")
    if session.state is SessionState.FORCED:
        return session.released_nanousd, {}
    if session.state is SessionState.ALIVE:
        raise FailedPrecondition("SESSION_ALIVE", "its edge is alive and may spend: stop it and wait until it is lost")
    if session.state is SessionState.DRAINED:
        raise FailedPrecondition("SESSION_DRAINED", "the session was sealed: nothing is reserved for it")
    return (yield from _release(session, SessionState.FORCED))


def _release(session: Session, state: SessionState) -> Script[tuple[int, dict[str, int]]]:
    """Ends a session: closes its leases. Returns what that released, in total and by account."""
    (rows,) = yield (funds_store.open_leases(session.session_id),)
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
        key_spend_store.release(session.session_id),
        session_store.end(session.session_id, state, total),
    )
    return total, released
