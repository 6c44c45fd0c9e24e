"""One clock hand for every open call and stream, instead of a timer for each.

A timer that is moved at every event costs more than the event. Here an event only notes the time; a few times a second
this looks at all that is open. What it finds is at most one period late.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

PERIOD_S = 0.1


class Watched(Protocol):
    """Something with a moment at which something must happen."""

    def look(self, now_s: float) -> bool:
        """Does what is due by time.monotonic(). Returns False when there is nothing more to watch."""
        ...


class Watchdog:
    """Run `watch` beside everything else."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._housekeeping: list[Callable[[float], None]] = []

    def add(self, watched: Watched) -> None:
        """Looks at it from now on."""
        self._watched.add(watched)

    def discard(self, watched: Watched) -> None:
        """Forgets it; nothing happens if it is not known."""
        self._watched.discard(watched)

    def keep_house(self, work: Callable[[float], None]) -> None:
        """Calls `work(now_s)` at every look."""
        self._housekeeping.append(work)

    def __len__(self) -> int:
        return len(self._watched)

    async def watch(self) -> None:
        """Looks at everything, for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            now_s = time.monotonic()
            self._watched.difference_update([each for each in self._watched if not each.look(now_s)])
            for work in self._housekeeping:
                work(now_s)
