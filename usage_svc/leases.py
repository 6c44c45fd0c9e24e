"""Lease arithmetic: what a demand is granted, and how charges and returns draw a lease down.

Per lease, always: 0 <= settled + returned <= granted. What does not fit is overflow, and comes from the account.
"""

from dataclasses import dataclass
from enum import IntEnum

# Below this many holds of headroom, grants are exactly one hold: whole leases would let one edge sit on the rest.
NEAR_LIMIT_HOLDS = 20


class GrantOutcome(IntEnum):
    """How a demand ended; the numbers are the contract's."""

    GRANTED = 1
    FUNDS_USED_UP = 2
    FUNDS_HELD = 3
    SUPERSEDED = 4


@dataclass(frozen=True, slots=True)
class Demand:
    """A wish for funds: `want_nanousd` if it can be had, nothing if less than `min_nanousd` (one hold) can be had."""

    lease_id: str
    account_id: str
    seq: int
    want_nanousd: int
    min_nanousd: int
    last: bool = False  # less than `min` is granted too: the account's last request, which may run under-held


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a demand. `available_nanousd` is what is left beyond all leases, grace included."""

    lease_id: str
    seq: int
    outcome: GrantOutcome
    granted_nanousd: int
    granted_total_nanousd: int
    near_limit: bool
    available_nanousd: int
    last: bool = False
    recalled: bool = False  # others were asked for what they have idle


@dataclass(slots=True)
class Lease:
    """The working copy of one lease during one transaction; mutable, since a batch draws it down event by event.

    `overflow_nanousd` is what charges took beyond it. The edge counts those charges against its own copy of the lease,
    which goes below zero by as much; so each return of the edge's is that much too small (see `give_back`).
    """

    lease_id: str
    account_id: str
    spool_uuid: str
    incarnation: int
    granted_nanousd: int = 0
    settled_nanousd: int = 0
    returned_nanousd: int = 0
    overflow_nanousd: int = 0
    acquire_seq: int = 0
    last_granted_nanousd: int = 0
    last_near_limit: bool = False
    last_available_nanousd: int = 0
    closed: bool = False
    is_last: bool = False  # for one under-held request; while it is open, the account's slot for such is taken

    @property
    def reserved_nanousd(self) -> int:
        """What this lease still sets aside."""
        return self.granted_nanousd - self.settled_nanousd - self.returned_nanousd

    def settle(self, charge_nanousd: int) -> int:
        """Draws a charge from the lease. Returns what did not fit."""
        left = self.granted_nanousd - self.settled_nanousd - self.returned_nanousd
        if charge_nanousd <= left:
            self.settled_nanousd += charge_nanousd
            return 0
        self.settled_nanousd += left
        self.overflow_nanousd += charge_nanousd - left
        return charge_nanousd - left

    def give_back(self, returned_total_nanousd: int) -> int:
        """Takes a cumulative return. Returns what goes back to the account now.

        An older return than one seen before changes nothing. Charges that overflowed were counted by the edge against
        its free amount, so that much more is idle here than it knows of: with it, what stays reserved is exactly what
        the edge has open. Never more than is left.
        """
        ceiling = self.granted_nanousd - self.settled_nanousd
        target = min(returned_total_nanousd + self.overflow_nanousd, ceiling)
        delta = max(0, target - self.returned_nanousd)
        self.returned_nanousd += delta
        return delta

    def release(self) -> int:
        """Closes the lease. Returns what goes back to the account."""
        left = self.reserved_nanousd
        self.returned_nanousd += left
        self.closed = True
        return left

    def grant(self, demand: Demand, headroom_nanousd: int, *, is_slot_taken: bool = False) -> Grant | None:
        """Answers a demand, given what its account has beyond all leases, grace included; None where it is too little.

        A repeat of the last granted seq gets the same grant and draws nothing; a lower one is a late copy.
        `is_slot_taken` says whether another lease is open for the account's last request.
        """
        if demand.seq == self.acquire_seq:
            return self._last_grant()
        if demand.seq < self.acquire_seq:
            return Grant(
                lease_id=self.lease_id,
                seq=demand.seq,
                outcome=GrantOutcome.SUPERSEDED,
                granted_nanousd=0,
                granted_total_nanousd=self.granted_nanousd,
                near_limit=self.last_near_limit,
                available_nanousd=headroom_nanousd,
            )
        if demand.last:
            if is_slot_taken or headroom_nanousd <= 0:
                return None
            return self._granted(demand, headroom_nanousd, min(headroom_nanousd, demand.min_nanousd), near_limit=True)
        if headroom_nanousd < demand.min_nanousd:
            return None
        near_limit = headroom_nanousd < NEAR_LIMIT_HOLDS * demand.min_nanousd
        granted = (
            demand.min_nanousd if near_limit else min(max(demand.want_nanousd, demand.min_nanousd), headroom_nanousd)
        )
        return self._granted(demand, headroom_nanousd, granted, near_limit=near_limit)

    def _granted(self, demand: Demand, headroom_nanousd: int, granted: int, *, near_limit: bool) -> Grant:
        self.granted_nanousd += granted
        self.acquire_seq = demand.seq
        self.last_granted_nanousd = granted
        self.last_near_limit = near_limit
        self.last_available_nanousd = headroom_nanousd - granted
        return self._last_grant()

    def _last_grant(self) -> Grant:
        return Grant(
            lease_id=self.lease_id,
            seq=self.acquire_seq,
            outcome=GrantOutcome.GRANTED,
            granted_nanousd=self.last_granted_nanousd,
            granted_total_nanousd=self.granted_nanousd,
            near_limit=self.last_near_limit,
            available_nanousd=self.last_available_nanousd,
            last=self.is_last,
        )


def refusal(
    demand: Demand, headroom_nanousd: int, reserved_nanousd: int, granted_total_nanousd: int, *, recalled: bool = False
) -> Grant:
    """The answer to a demand that headroom does not cover: will waiting help?

    What is reserved now is the most that can come back. While anything could then be left, the account's next request
    may run, under-held if need be: FUNDS_HELD. Otherwise the funds are used up, and telling a client to retry would
    have it retry for ever.
    """
    return Grant(
        lease_id=demand.lease_id,
        seq=demand.seq,
        outcome=(GrantOutcome.FUNDS_HELD if headroom_nanousd + reserved_nanousd > 0 else GrantOutcome.FUNDS_USED_UP),
        granted_nanousd=0,
        granted_total_nanousd=granted_total_nanousd,
        near_limit=True,
        available_nanousd=headroom_nanousd,
        recalled=recalled,
    )
