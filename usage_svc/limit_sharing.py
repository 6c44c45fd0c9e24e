"""Handing edges their shares of the rates of keys: one transaction for all the keys of a call."""

from collections.abc import Sequence

from chassis.database import Database
from usage_svc import key_rate_store
from usage_svc.driver import Row, Script, write_by_script
from usage_svc.key_rate import LimitDemand, LimitShare


class LimitSharing:
    """Answers demands. Any number of these may work on one database: each key has a row, and they lock it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def share(self, holder_id: str, demands: Sequence[LimitDemand]) -> list[LimitShare]:
        """One answer a demand, in order; the demands are of different keys.

        Raises:
            Unavailable: the database cannot be asked now.
        """
        if not demands:
            return []
        return await write_by_script(self._database, lambda: _share(holder_id, demands))


def _share(holder_id: str, demands: Sequence[LimitDemand]) -> Script[list[LimitShare]]:
    wanted = [demand.key_id for demand in demands]
    (rows,) = yield (key_rate_store.lock(wanted),)
    found: list[Row] = list(rows)
    if missing := set(wanted) - {str(row[0]) for row in rows}:
        _, made = yield (key_rate_store.make(missing), key_rate_store.lock(list(missing)))
        found += made
    rates = {rate.key_id: (rate, now_s) for rate, now_s in map(key_rate_store.key_rate_from_row, found)}
    shares = []
    for demand in demands:
        rate, now_s = rates[demand.key_id]
        shares.append(rate.share(holder_id, demand, now_s))
    yield (key_rate_store.save(rate for rate, _ in rates.values()),)
    return shares
