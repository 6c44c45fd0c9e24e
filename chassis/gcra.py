"""How much may pass in a period, evenly: the generic cell rate algorithm (ITU-T I.371, annex A), as a leaky bucket.

What has passed leaks away at the limit's rate. A whole period's amount may pass at once after a period of silence, so
in any stretch of `w` seconds at most `limit * (1 + w / period_s)` passes, and steadily exactly the limit.
"""

import math
from dataclasses import dataclass

# Less than this is an error of rounding, not something that passed.
_EPSILON = 1e-6


@dataclass(slots=True)
class Gcra:
    """`used` is what has passed and not leaked away yet at `at_s`, from 0 to `limit`; amounts in any unit.

    Times are seconds of one clock; one that lies before what was seen already counts as that.
    """

    limit: int
    period_s: float
    used: float = 0.0
    at_s: float = 0.0

    def __post_init__(self) -> None:
        if self.limit < 1 or self.period_s <= 0:
            raise ValueError("a limit is at least 1 in a period of more than 0 seconds")
        self.used = min(max(self.used, 0.0), float(self.limit))

    def left(self, now_s: float) -> int:
        """How much may pass now, in whole units."""
        self._leak(now_s)
        return max(0, math.floor(self.limit - self.used + _EPSILON))

    def take(self, amount: int, now_s: float) -> bool:
        """Lets an amount pass, if it may; else changes nothing."""
        if amount > self.left(now_s):
            return False
        self.used = min(self.used + amount, float(self.limit))
        return True

    def give_back(self, amount: int, now_s: float) -> None:
        """Undoes a part of what was taken. What has leaked away meanwhile is not given twice."""
        self._leak(now_s)
        self.used = max(0.0, self.used - amount)

    def wait_s(self, amount: int, now_s: float) -> float:
        """After how many seconds an amount may pass if nothing else does; infinite if it is above the limit."""
        if amount > self.limit:
            return math.inf
        self._leak(now_s)
        return max(0.0, self.used + amount - self.limit - _EPSILON) * self.period_s / self.limit

    def full_s(self, now_s: float) -> float:
        """After how many seconds of silence the whole limit may pass again."""
        return self.wait_s(self.limit, now_s)

    def _leak(self, now_s: float) -> None:
        if now_s > self.at_s:
            self.used = max(0.0, self.used - (now_s - self.at_s) * self.limit / self.period_s)
            self.at_s = now_s
