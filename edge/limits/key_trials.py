"""Keys that are tried: how many that do not exist one client address may try within a minute.

A trial counts as failed until its key is found, so that a thousand guesses at once are no more than one after another.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chassis.faults import NotFound
from chassis.gcra import Gcra
from edge.openai import errors

PERIOD_S = 60.0
# Addresses with failures that are remembered; beyond, the one that tried longest ago is forgotten.
ADDRESSES_MAX = 50_000


@dataclass(slots=True)
class _Trials:
    """Those of one address: `rate` has what failed and what is open."""

    rate: Gcra
    open: int = 0
    waiting: "deque[asyncio.Future[None]]" = field(default_factory=deque)


class KeyTrials:
    """Counts of one edge process. A limit of 0 means none."""

    def __init__(self, monotonic: Callable[[], float], *, failed_per_minute: int) -> None:
        self._monotonic, self._failed_per_minute = monotonic, failed_per_minute
        self._trials: OrderedDict[str, _Trials] = OrderedDict()

    def __len__(self) -> int:
        return len(self._trials)

    @asynccontextmanager
    async def trial(self, client: str) -> AsyncIterator[None]:
        """Ask for a key within this: it has failed where that raises NotFound. Waits while as many are open
        as may fail.

        Raises:
            RequestError: 429: too many keys from there did not exist.
        """
        if not self._failed_per_minute:
            yield
            return
        trials = self._of(client)
        await self._begin(trials)
        failed = False
        try:
            yield
        except NotFound:
            failed = True
            raise
        finally:
            self._end(client, trials, failed=failed)

    def _of(self, client: str) -> _Trials:
        trials = self._trials.get(client)
        if trials is None:
            trials = self._trials[client] = _Trials(Gcra(self._failed_per_minute, PERIOD_S, 0.0, self._monotonic()))
            if len(self._trials) > ADDRESSES_MAX:
                self._trials.popitem(last=False)
        else:
            self._trials.move_to_end(client)
        return trials

    async def _begin(self, trials: _Trials) -> None:
        while not trials.rate.take(1, self._monotonic()):
            if not trials.open:
                raise errors.too_many_failed_keys(math.ceil(trials.rate.wait_s(1, self._monotonic())))
            turn = asyncio.get_running_loop().create_future()
            trials.waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    _wake(trials, 1)  # it was this one's turn
                raise
        trials.open += 1

    def _end(self, client: str, trials: _Trials, *, failed: bool) -> None:
        trials.open -= 1
        if not failed:
            trials.rate.give_back(1, self._monotonic())
            _wake(trials, 1)
        if not trials.open:
            _wake(trials, len(trials.waiting))  # nothing comes back any more: each is served, or told to wait
            if not trials.rate.used and not trials.waiting and self._trials.get(client) is trials:
                del self._trials[client]


def _wake(trials: _Trials, count: int) -> None:
    while trials.waiting and count:
        turn = trials.waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            count -= 1
