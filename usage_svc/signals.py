"""Hints between everything that moves funds and the edges that wait for them, over all replicas of one database.

Idle funds are asked back from where they lie, and whoever was refused hears when some come. Hints only: one that is
lost costs its reader time, and nothing else.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from chassis.clock import Clock
from chassis.faults import Unavailable
from chassis.lifetime import Lifetime
from usage_svc import metrics
from usage_svc.sessions import SessionId

MAX_WAITING_HINTS = 10_000  # for one edge; beyond it the oldest is dropped
MAX_WANTED = 100_000
WANTED_S = 1.0  # an edge remembers a refusal no longer


class Recall(NamedTuple):
    """A session should give back what this lease has idle."""

    session_id: SessionId
    lease_id: str
    account_id: str


class Funds(NamedTuple):
    """An account has more to lease than before."""

    account_id: str


Hint = Recall | Funds


class Signals:
    """Hints of this process to the edges that watch it. `forward` takes those that other replicas should hear too."""

    def __init__(self, clock: Clock, lifetime: Lifetime) -> None:
        self._clock, self._lifetime = clock, lifetime
        self._watchers: dict[SessionId, list[_Waiting]] = {}
        self._wanted: OrderedDict[str, float] = OrderedDict()  # accounts whose funds somebody waits for, and until when
        self.forward: Callable[[Hint], None] | None = None

    async def run(self) -> None:
        """Ends every watch once the process is asked to stop."""
        await self._lifetime.until_stopped()
        for waiting in self._watchers.values():
            for each in waiting:
                each.wake.set()

    def recall(self, recalls: Iterable[Recall]) -> bool:
        """Asks for idle funds, here and at other replicas. Whether there was anyone to ask."""
        asked = False
        for recall in recalls:
            asked = True
            metrics.RECALLS.inc()
            self._send(recall)
        return asked

    def funds(self, account_id: str) -> None:
        """Tells all edges that an account has funds again."""
        self._send(Funds(account_id))

    def freed(self, account_ids: Iterable[str]) -> None:
        """Funds went back to these accounts: tells of those that somebody waits for."""
        if not self._wanted:
            return
        now = self._clock.monotonic()
        for account_id in account_ids:
            until = self._wanted.get(account_id)
            if until is not None and now < until:
                self._send(Funds(account_id))

    def want(self, account_id: str) -> None:
        """Somebody was refused, and waits for this account's funds."""
        self._wanted[account_id] = self._clock.monotonic() + WANTED_S
        self._wanted.move_to_end(account_id)
        if len(self._wanted) > MAX_WANTED:
            self._wanted.popitem(last=False)

    def hear(self, hint: Hint) -> None:
        """Passes a hint on to the edges that watch this process."""
        if isinstance(hint, Funds):
            for waiting in self._watchers.values():
                for each in waiting:
                    each.add(hint)
            return
        self.want(hint.account_id)
        for each in self._watchers.get(hint.session_id, ()):
            each.add(hint)

    async def follow(self, session_id: SessionId) -> AsyncGenerator[Hint | None]:
        """What a session is told, until the process stops. The first is None: the watch stands.

        Raises:
            Unavailable: the process stops (SHUTTING_DOWN).
        """
        with self._watching(session_id) as waiting:
            yield None
            while not self._lifetime.stopping:
                await waiting.wake.wait()
                waiting.wake.clear()
                while waiting.hints:
                    yield waiting.hints.popitem(last=False)[0]
        raise Unavailable("SHUTTING_DOWN", "this server stops: watch another one")

    def _send(self, hint: Hint) -> None:
        self.hear(hint)
        if self.forward is not None:
            self.forward(hint)

    @contextmanager
    def _watching(self, session_id: SessionId) -> "Iterator[_Waiting]":
        waiting = _Waiting()
        self._watchers.setdefault(session_id, []).append(waiting)
        metrics.RECALL_WATCHERS.inc()
        try:
            yield waiting
        finally:
            metrics.RECALL_WATCHERS.dec()
            watchers = self._watchers[session_id]
            watchers.remove(waiting)
            if not watchers:
                del self._watchers[session_id]


class _Waiting:
    """Hints for one watcher that it has not been sent yet, each once."""

    def __init__(self) -> None:
        self.hints: OrderedDict[Hint, None] = OrderedDict()
        self.wake = asyncio.Event()

    def add(self, hint: Hint) -> None:
        self.hints[hint] = None
        if len(self.hints) > MAX_WAITING_HINTS:
            self.hints.popitem(last=False)
        self.wake.set()
