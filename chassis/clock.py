"""Time, passed in so that tests can set it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """The wall clock, in UTC. May jump."""
        ...

    def epoch_s(self) -> float:
        """The wall clock in seconds since the epoch, for a tenth of the cost."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment. Never jumps back, and counts the time that the machine was suspended."""
        ...


if hasattr(time, "CLOCK_BOOTTIME"):

    def _suspend_counting_s() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
else:  # not Linux: its monotonic clock may stand still while the machine is suspended
    _suspend_counting_s = time.monotonic


class SystemClock:
    """The machine's."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def epoch_s(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return _suspend_counting_s()
