"""How much of a key's spend limit is spent and set aside, and what an edge gets of the rest. Pure.

Of one key and period: what was charged, and for each session that admits requests what was granted to it, given back
and charged. Always: spent + all that is set aside <= the limit, but for charges beyond their holds and limits that were
lowered. What a session sets aside stays so until its spool is here and sealed, since only then its charges are known.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from usage_svc.intake import Posted
from usage_svc.leases import NEAR_LIMIT_HOLDS, GrantOutcome

PERIOD_ID = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?")
# How far the clock of an edge may be from the database's, in microseconds: a period beyond it cannot be acquired.
CLOCK_ERROR_US_MAX = 300_000_000
# A batch that began before a key's first demand may be posted after it, and not know of it: then all is counted anew.
RECOUNT_US = 60_000_000


class SpendDemand(NamedTuple):
    """A wish; the contract's, field by field."""

    account_id: str
    key_id: str
    period_id: str
    limit_nanousd: int
    seq: int
    want_nanousd: int
    min_nanousd: int
    returned_total_nanousd: int


class SpendGrant(NamedTuple):
    """Its answer; the contract's, field by field."""

    key_id: str
    period_id: str
    outcome: GrantOutcome
    granted_total_nanousd: int
    near_limit: bool
    spent_nanousd: int


@dataclass(slots=True)
class SpendShare:
    """What one session has of one key and period."""

    granted_nanousd: int = 0
    returned_nanousd: int = 0
    settled_nanousd: int = 0
    seq: int = 0
    near_limit: bool = False

    @property
    def reserved_nanousd(self) -> int:
        """Set aside; a charge beyond its hold is taken from the rest of the limit, not from here."""
        return max(0, self.granted_nanousd - self.returned_nanousd - self.settled_nanousd)

    def answer(self, demand: SpendDemand, spent_nanousd: int, elsewhere_nanousd: int) -> SpendGrant:
        """Answers a demand, given what was charged and what other sessions have set aside."""
        if demand.seq <= self.seq:  # it went through, and its answer was lost on the way
            return self._grant(demand, GrantOutcome.GRANTED, spent_nanousd)
        free = self.granted_nanousd - self.settled_nanousd
        self.returned_nanousd = max(self.returned_nanousd, min(demand.returned_total_nanousd, free))
        headroom = demand.limit_nanousd - spent_nanousd - elsewhere_nanousd - self.reserved_nanousd
        if demand.min_nanousd and headroom < demand.min_nanousd:
            enough_if_released = demand.limit_nanousd - spent_nanousd >= demand.min_nanousd
            refused = GrantOutcome.FUNDS_HELD if enough_if_released else GrantOutcome.FUNDS_USED_UP
            return self._grant(demand, refused, spent_nanousd)
        self.seq = demand.seq
        if demand.min_nanousd:
            self.near_limit = headroom < NEAR_LIMIT_HOLDS * demand.min_nanousd
            wanted = demand.min_nanousd if self.near_limit else max(demand.want_nanousd, demand.min_nanousd)
            self.granted_nanousd += min(wanted, headroom)
        return self._grant(demand, GrantOutcome.GRANTED, spent_nanousd)

    def _grant(self, demand: SpendDemand, outcome: GrantOutcome, spent_nanousd: int) -> SpendGrant:
        near_limit = self.near_limit or outcome is not GrantOutcome.GRANTED
        return SpendGrant(demand.key_id, demand.period_id, outcome, self.granted_nanousd, near_limit, spent_nanousd)


def period_ids(moment_us: int) -> tuple[str, str]:
    """The day and the month, in UTC, that a moment belongs to."""
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).date().isoformat()
    return day, day[:7]


def is_current(period_id: str, now_us: int) -> bool:
    """Whether a period is the present one by some clock that is nearly right."""
    return any(period_id in period_ids(now_us + error_us) for error_us in (-CLOCK_ERROR_US_MAX, 0, CLOCK_ERROR_US_MAX))


def period_bounds_us(period_id: str) -> tuple[int, int]:
    """When a period begins, and when the next one does."""
    year, month, *day = (int(part) for part in period_id.split("-"))
    if day:
        start = datetime(year, month, day[0], tzinfo=UTC)
        end = start + timedelta(days=1)
    else:
        start = datetime(year, month, 1, tzinfo=UTC)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return (start - epoch) // timedelta(microseconds=1), (end - epoch) // timedelta(microseconds=1)


def charges_by_key(posted: Posted) -> dict[str, list[tuple[int, int]]]:
    """The charges of a batch, each with the moment of its admission, by key."""
    charges: dict[str, list[tuple[int, int]]] = {}
    columns = (posted.field("key_id"), posted.field("admit_time_us"), posted.charges_nanousd)
    for key_id, admit_time_us, charge in zip(*columns, strict=True):
        if charge:
            charges.setdefault(key_id, []).append((admit_time_us, charge))
    return charges


def spent_in(
    charges: Mapping[str, Iterable[tuple[int, int]]], limited: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """What charges add to each key and period that has a limit."""
    added = {
        (key_id, period_id): sum(
            charge for moment_us, charge in charges.get(key_id, ()) if period_id in period_ids(moment_us)
        )
        for key_id, period_id in limited
    }
    return {each: amount for each, amount in added.items() if amount}
