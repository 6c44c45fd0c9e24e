"""What one account has at one edge: a lease's arithmetic, and how large it should be. Pure.

free = granted - settled - returned - held. Holds come out of `free`; a charge above its hold does too and may take it
below zero, but never touches what is held for another request. usage_svc does the same sums (docs/billing.md).
"""

from dataclasses import dataclass

# Besides the peak of open holds, a lease keeps this many of the largest hold free: the next requests then need no call.
SPARE_HOLDS = 4


@dataclass(frozen=True, slots=True)
class Demand:
    """A wish for funds: `want_nanousd` if it can be had, nothing if less than `min_nanousd` can."""

    want_nanousd: int
    min_nanousd: int


class Lease:
    """One lease. Times are seconds of a monotonic clock; a window is remembered as its present and its previous half.

    Sized by open holds, not by spend, since a hold is usually a hundred times its cost. What was spent within the
    window is added all the same: where holds are tight, it alone keeps refills rare.
    """

    __slots__ = (
        "_half_window_s",
        "_hold_max",
        "_hold_max_before",
        "_peak",
        "_peak_before",
        "_spend_factor",
        "_spent",
        "_spent_before",
        "_turn_time",
        "account_id",
        "acquire_seq",
        "asks_exactly",
        "granted_nanousd",
        "held_nanousd",
        "is_asking",
        "is_last",
        "lease_id",
        "low_water_nanousd",
        "near_limit",
        "open_holds",
        "refill_after_time",
        "return_seq",
        "returned_nanousd",
        "settled_nanousd",
        "use_time",
    )

    def __init__(
        self,
        lease_id: str,
        account_id: str,
        now: float,
        window_s: float,
        *,
        is_last: bool = False,
        spend_factor: float = 1,
    ) -> None:
        self.lease_id, self.account_id = lease_id, account_id
        self.is_last = is_last  # for the account's last request, which may run under-held, and for nothing else
        self.granted_nanousd = self.settled_nanousd = self.returned_nanousd = self.held_nanousd = 0
        self.open_holds = 0
        self.acquire_seq = 0
        self.is_asking = False  # a demand is on its way, or about to be
        self.near_limit = False
        self.asks_exactly = False  # after a refusal: ask for what is missing, not for a whole hold
        self.low_water_nanousd = 0
        self.use_time = now
        self.refill_after_time = 0.0  # no refill in the background before this
        self.return_seq = 0  # the spool's sequence number of the last return
        self._spend_factor = spend_factor  # how many times the spend of a window it keeps beside its holds
        self._half_window_s = window_s / 2
        self._turn_time = now + self._half_window_s
        self._peak = self._peak_before = 0
        self._hold_max = self._hold_max_before = 0
        self._spent = self._spent_before = 0

    @property
    def free_nanousd(self) -> int:
        """What a new hold can come from; below zero after charges above their holds."""
        return self.granted_nanousd - self.settled_nanousd - self.returned_nanousd - self.held_nanousd

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten once its free funds are returned."""
        return self.open_holds == 0 and not self.is_asking

    def take(self, hold_nanousd: int, now: float) -> bool:
        """Sets a hold aside, if there is enough."""
        if now >= self._turn_time:
            self._turn(now)
        if hold_nanousd > self._hold_max:
            self._hold_max = hold_nanousd
            self._resize()
        held = self.held_nanousd + hold_nanousd
        if held > self.granted_nanousd - self.settled_nanousd - self.returned_nanousd:
            return False
        self.held_nanousd = held
        self.open_holds += 1
        self.use_time = now
        if held > self._peak:
            self._peak = held
            self._resize()
        return True

    def release(self, hold_nanousd: int) -> None:
        """Undoes `take` for a request that was never admitted."""
        self.held_nanousd -= hold_nanousd
        self.open_holds -= 1

    def settle(self, hold_nanousd: int, charge_nanousd: int) -> None:
        """Ends a hold with what its request really cost."""
        self.held_nanousd -= hold_nanousd
        self.open_holds -= 1
        self.settled_nanousd += charge_nanousd
        self._spent += charge_nanousd

    def grant(self, granted_total_nanousd: int, near_limit: bool) -> None:
        """Takes an answer. Totals are cumulative, so an answer that was lost comes with the next."""
        self.granted_nanousd = max(self.granted_nanousd, granted_total_nanousd)
        self.near_limit = near_limit
        self.asks_exactly = False

    def give_back(self, amount_nanousd: int) -> int:
        """Returns part of `free`. Returns the new total of all returns, which is what the spool records."""
        assert 0 <= amount_nanousd <= self.free_nanousd
        self.returned_nanousd += amount_nanousd
        return self.returned_nanousd

    def needs_refill(self, now: float) -> bool:
        """Whether to ask for more in the background. Near the limit never: there each request acquires its own."""
        return self.free_nanousd < self.low_water_nanousd and not self.near_limit and now >= self.refill_after_time

    def demand(self, now: float, waiting_nanousd: int, first_waiting_nanousd: int) -> Demand:
        """How much to ask for, while requests wait for `waiting_nanousd`, the first of them for its own hold.

        At least one hold: usage_svc tells by it how near the limit is.
        """
        if self.is_last:
            self._hold_max = max(self._hold_max, first_waiting_nanousd, 1)
            return Demand(self._hold_max, self._hold_max)
        if now >= self._turn_time:
            self._turn(now)
        self._hold_max = max(self._hold_max, first_waiting_nanousd)
        self._resize()
        free = self.free_nanousd
        target = max(self._peak, self._peak_before, self.held_nanousd + waiting_nanousd) + self._spare()
        least = first_waiting_nanousd or max(self._hold_max, self._hold_max_before)
        if free < 0 or self.asks_exactly:
            least -= free
        least = max(1, least)
        return Demand(max(least, target - self.held_nanousd - free), least)

    def surplus_nanousd(self, now: float) -> int:
        """What should go back now: all that is free after a window without use; above twice the target at any time."""
        if now >= self._turn_time:
            self._turn(now)
        free = self.free_nanousd
        if free <= 0:
            return 0
        if self.open_holds == 0 and now - self.use_time >= 2 * self._half_window_s:
            return free
        target = max(self._peak, self._peak_before, self.held_nanousd) + self._spare()
        excess = self.held_nanousd + free - target
        return min(free, excess) if excess > target else 0

    def _spare(self) -> int:
        peak, hold = max(self._peak, self._peak_before), max(self._hold_max, self._hold_max_before)
        return max(SPARE_HOLDS * hold, peak // 2) + int((self._spent + self._spent_before) * self._spend_factor)

    def _resize(self) -> None:
        self.low_water_nanousd = self._spare() // 2

    def _turn(self, now: float) -> None:
        is_recent = now - self._turn_time < self._half_window_s
        self._peak_before = self._peak if is_recent else self.held_nanousd
        self._hold_max_before = self._hold_max if is_recent else 0
        self._spent_before = self._spent if is_recent else 0
        self._peak, self._hold_max, self._spent = self.held_nanousd, 0, 0
        self._turn_time = now + self._half_window_s
        self._resize()
