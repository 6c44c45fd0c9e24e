"""Setting parts of keys' spend limits aside for a session: one transaction for all the keys of a call."""

from collections.abc import Sequence

from chassis.database import Database
from chassis.faults import InvalidArgument
from usage_svc import key_spend_store, session_store
from usage_svc.driver import Row, Script, write_by_script
from usage_svc.funding import fenced
from usage_svc.key_spend import RECOUNT_US, SpendDemand, SpendGrant, SpendShare, is_current
from usage_svc.sessions import SessionId, SessionState


class Spending:
    """Answers demands. Any number of these may work on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, session_id: SessionId, demands: Sequence[SpendDemand]) -> list[SpendGrant]:
        """One answer a demand, in order; the demands are of different keys or periods.

        Raises:
            FailedPrecondition: the session is not ALIVE (SESSION_FENCED).
            InvalidArgument: a period that is not the present one.
        """
        if not demands:
            return []
        return await write_by_script(self._database, lambda: _acquire(session_id, demands))


def _acquire(session_id: SessionId, demands: Sequence[SpendDemand]) -> Script[list[SpendGrant]]:
    session, now_us = yield from session_store.lock_session(session_id)
    if session is None or session.state is not SessionState.ALIVE:
        raise fenced(session_id)
    for demand in demands:
        # One that only gives back may be late.
        if demand.min_nanousd and not is_current(demand.period_id, now_us):
            raise InvalidArgument("demands.period_id", f"{demand.period_id!r} is not the present one: set the clock")
    spent = yield from _spent(demands)
    keys, periods = [demand.key_id for demand in demands], [demand.period_id for demand in demands]
    (rows,) = yield (key_spend_store.shares(keys, periods),)
    mine: dict[tuple[str, str], SpendShare] = {}
    elsewhere: dict[tuple[str, str], int] = {}
    for whose, which, share in map(key_spend_store.share_from_row, rows):
        if whose == session_id:
            mine[which] = share
        else:
            elsewhere[which] = elsewhere.get(which, 0) + share.reserved_nanousd
    grants = []
    changed: dict[tuple[str, str], SpendShare] = {}
    for demand in demands:
        which = (demand.key_id, demand.period_id)
        share = changed[which] = mine.get(which) or SpendShare()
        grants.append(share.answer(demand, spent[which], elsewhere.get(which, 0)))
    yield (key_spend_store.save_shares(session_id, changed),)
    return grants


def _spent(demands: Sequence[SpendDemand]) -> Script[dict[tuple[str, str], int]]:
    """Locks what was spent of each key and period; counts it where that was not done before, or too early."""
    by_which = {(demand.key_id, demand.period_id): demand for demand in demands}
    keys, periods = [key_id for key_id, _ in by_which], [period_id for _, period_id in by_which]
    (rows,) = yield (key_spend_store.lock(keys, periods),)
    found: dict[tuple[str, str], Row] = {(row[0], row[1]): row for row in rows}
    if missing := by_which.keys() - found.keys():
        _, rows = yield (key_spend_store.make(missing), key_spend_store.lock(keys, periods))
        found = {(row[0], row[1]): row for row in rows}
    spent = {which: int(found[which][2]) for which in by_which}
    to_count = [
        which
        for which in by_which
        if not found[which][3] or (not found[which][4] and found[which][5] - found[which][3] > RECOUNT_US)
    ]
    if to_count:
        # After the lock: whoever has posted since then waits for it, and adds to what is counted here.
        answers = yield [key_spend_store.charged(by_which[which]) for which in to_count]
        counted = {which: int(rows[0][0]) for which, rows in zip(to_count, answers, strict=True)}
        spent.update(counted)
        yield (
            key_spend_store.save_count(
                (*which, amount, int(found[which][3] or found[which][5]), bool(found[which][3]))
                for which, amount in counted.items()
            ),
        )
    return spent
