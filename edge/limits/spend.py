"""Holds on keys' spend limits, out of parts of them that usage_svc has set aside for this edge's session.

A key with a spend limit draws each hold twice: here, and on its account's funds (edge/metering). What comes back here
is told in calls and not in the spool: usage_svc counts a session's charges itself, so no return overtakes one of them.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from chassis.client import call
from chassis.clock import Clock
from chassis.faults import Fault
from chassis.log import logger
from edge import metrics
from edge.access.key_cache import SpendLimit
from edge.metering.lease import Lease
from edge.openai import errors
from edge.openai.errors import RequestError
from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

LOOK_S = 1.0
WINDOW_S = 10.0  # shares are sized by the peak of open holds within it, and idle after it
KEYS_PER_CALL_MAX = 1000  # the contract's
WAITING_MAX = 1000  # of one key
# What is merely held comes back when a request ends, or from an edge that has it idle: so long a request waits for it.
HELD_WAIT_S = 0.5
HELD_RETRY_S = 0.1
LINGER_S = 0.03  # near the limit: what is free goes back after so long, of several requests in one call
REFUSAL_MEMORY_S = 0.2
ENDED_AFTER = timedelta(hours=1)  # so long after its end nobody asks for a period
UNREACHABLE_S = 0.5  # after a failed call: how long requests are refused without a new one

_log = logger(__name__)


@dataclass(slots=True)
class _Waiter:
    hold_nanousd: int
    give_up_s: float
    taken: asyncio.Future[None]
    was_asked_for: bool = False


@dataclass(slots=True)
class Share:
    """What a session has of one key and period."""

    session: usage_pb2.Session
    account_id: str
    key_id: str
    period_id: str
    limit_nanousd: int
    lease: Lease
    acknowledged_nanousd: int = 0  # of what was given back
    used_up_until_s: float = -math.inf
    used_up_hold_nanousd: int = 0
    waiting: deque[_Waiter] = field(default_factory=deque)


class SpendHold:
    """A hold of one request. `settle` it, or `undo` it, once."""

    __slots__ = ("_book", "_hold_nanousd", "_share")

    def __init__(self, book: "SpendBook", share: Share, hold_nanousd: int) -> None:
        self._book, self._share, self._hold_nanousd = book, share, hold_nanousd

    def settle(self, charge_nanousd: int) -> None:
        """Its request has ended, and cost so much."""
        self._share.lease.settle(self._hold_nanousd, charge_nanousd)
        self._book.on_freed(self._share)

    def undo(self) -> None:
        """Its request was never admitted."""
        self._share.lease.release(self._hold_nanousd)
        self._book.on_freed(self._share)


class SpendBook:
    """Run `run` beside it. `session` gives the session under which requests are admitted now."""

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        clock: Clock,
        session: Callable[[], usage_pb2.Session | None],
        *,
        rpc_timeout_s: float,
    ) -> None:
        self._stub, self._monotonic, self._now, self._session = stub, clock.monotonic, clock.now, session
        self._rpc_timeout_s = rpc_timeout_s
        self._shares: dict[tuple[str, str], Share] = {}  # by key and period
        # What forgotten shares had been granted, had given back and spent: the totals in usage_svc go on for as long as
        # the session and the period do, and a share that began at nothing would take them for new funds.
        self._forgotten: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._forgotten_of: tuple[usage_pb2.Session | None, str] = (None, "")  # session and day
        self._to_ask: dict[int, Share] = {}  # by identity: a share of a former session may still end its requests
        self._unreachable_until_s = -math.inf
        self._wake = asyncio.Event()
        self._seq = 0

    def __len__(self) -> int:
        return len(self._shares)

    async def hold(
        self, account_id: str, key_id: str, limit: SpendLimit, hold_nanousd: int, admit_time_s: float
    ) -> SpendHold:
        """Sets aside what a request may cost, of the period of its admission.

        Raises:
            RequestError: 402: the limit is used up; 429: what is left is held by open requests; 503: usage_svc cannot
                be asked.
        """
        share = self._share_of(account_id, key_id, limit, admit_time_s)
        now_s = self._monotonic()
        if not share.waiting and share.lease.take(hold_nanousd, now_s):
            if share.lease.needs_refill(now_s):
                self._ask(share)
            return SpendHold(self, share, hold_nanousd)
        if now_s < share.used_up_until_s and hold_nanousd >= share.used_up_hold_nanousd:
            raise _used_up(share)
        if now_s < self._unreachable_until_s or len(share.waiting) >= WAITING_MAX:
            raise _unreachable()
        waiter = _Waiter(hold_nanousd, now_s + HELD_WAIT_S, asyncio.get_running_loop().create_future())
        share.waiting.append(waiter)
        self._ask(share)
        try:
            await waiter.taken
        except asyncio.CancelledError:
            if waiter.taken.done() and not waiter.taken.cancelled() and waiter.taken.exception() is None:
                share.lease.release(hold_nanousd)
            raise
        return SpendHold(self, share, hold_nanousd)

    def on_freed(self, share: Share) -> None:
        """A hold has ended: whoever waits for this key may go on, here or elsewhere."""
        self._serve(share)
        if share.lease.near_limit and share.lease.free_nanousd > 0 and not share.waiting:
            asyncio.get_running_loop().call_later(LINGER_S, self._ask, share)

    async def run(self) -> None:
        """Asks for what is needed and gives back what is not, as long as the process runs."""
        next_look_s = self._monotonic() + LOOK_S
        while True:
            if not self._to_ask:
                self._wake.clear()
                try:
                    wait_s = max(0.0, next_look_s - self._monotonic()) if self._shares else None
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            if self._monotonic() >= next_look_s:
                next_look_s = self._monotonic() + LOOK_S
                self._look()
            await self._acquire()

    def _share_of(self, account_id: str, key_id: str, limit: SpendLimit, admit_time_s: float) -> Share:
        session = self._session()
        if session is None:
            raise _unreachable()
        period_id = period_of(limit, admit_time_s)
        share = self._shares.get((key_id, period_id))
        if share is None or share.session != session:
            lease = Lease("", key_id, self._monotonic(), WINDOW_S)
            if self._forgotten_of[0] == session and (key_id, period_id) in self._forgotten:
                totals = self._forgotten.pop((key_id, period_id))
                lease.granted_nanousd, lease.returned_nanousd, lease.settled_nanousd = totals
            returned = lease.returned_nanousd
            share = Share(session, account_id, key_id, period_id, limit.limit_nanousd, lease, returned)
            self._shares[(key_id, period_id)] = share
            self._wake.set()
        share.limit_nanousd = limit.limit_nanousd
        return share

    def _look(self) -> None:
        now_s, session = self._monotonic(), self._session()
        self._forget_for_good(session)
        for which, share in list(self._shares.items()):
            lease = share.lease
            if share.session != session:
                if not share.waiting and not lease.open_holds:
                    del self._shares[which]  # what it has is released when its session is sealed
                continue
            unsent = lease.returned_nanousd > share.acknowledged_nanousd
            if unsent or lease.surplus_nanousd(now_s) or (lease.near_limit and lease.free_nanousd > 0):
                self._ask(share)
            elif lease.is_idle and not share.waiting and lease.free_nanousd <= 0 and now_s - lease.use_time > WINDOW_S:
                self._forgotten[which] = lease.granted_nanousd, lease.returned_nanousd, lease.settled_nanousd
                del self._shares[which]

    def _forget_for_good(self, session: usage_pb2.Session | None) -> None:
        """Once a day, or with the session: what can be asked for no more."""
        day = (self._now() - ENDED_AFTER).date().isoformat()
        if self._forgotten_of[0] != session:
            self._forgotten = {}
        elif self._forgotten_of[1] != day:
            # A period's id is the beginning of the ids of its days, or comes after them.
            self._forgotten = {which: had for which, had in self._forgotten.items() if which[1] >= day[: len(which[1])]}
        self._forgotten_of = session, day

    def _ask(self, share: Share) -> None:
        self._to_ask[id(share)] = share
        self._wake.set()

    async def _acquire(self) -> None:
        session = self._session()
        asked: list[Share] = []
        for identity, share in list(self._to_ask.items())[:KEYS_PER_CALL_MAX]:
            del self._to_ask[identity]
            if share.session == session and self._shares.get((share.key_id, share.period_id)) is share:
                asked.append(share)
            else:
                self._refuse_all(share, _unreachable)
        if not asked:
            return
        demands = [self._demand(share) for share in asked]
        try:
            response = await call(
                self._stub.AcquireSpend,
                usage_pb2.AcquireSpendRequest(session=session, demands=demands),
                timeout_s=self._rpc_timeout_s,
            )
        except Fault as fault:
            _log.warning("spend limits cannot be asked for", reason=fault.reason, error=fault.message)
            now_s = self._monotonic()
            self._unreachable_until_s = now_s + UNREACHABLE_S
            for share in asked:
                share.lease.refill_after_time = now_s + LOOK_S
                self._serve(share)
                self._refuse_all(share, _unreachable)
            return
        self._unreachable_until_s = -math.inf
        for share, demand, grant in zip(asked, demands, response.grants, strict=True):
            share.acknowledged_nanousd = max(share.acknowledged_nanousd, demand.returned_total_nanousd)
            share.lease.grant(grant.granted_total_nanousd, grant.near_limit)
            self._serve(share)
            self._after_answer(share, grant.outcome)

    def _demand(self, share: Share) -> usage_pb2.SpendDemand:
        lease, now_s = share.lease, self._monotonic()
        waiting = [waiter for waiter in share.waiting if not waiter.taken.done()]
        for waiter in waiting:
            waiter.was_asked_for = True
        want_nanousd = least_nanousd = 0
        if waiting or lease.needs_refill(now_s):
            lease.asks_exactly = bool(waiting)
            wish = lease.demand(now_s, sum(each.hold_nanousd for each in waiting), _first(waiting))
            want_nanousd, least_nanousd = wish.want_nanousd, wish.min_nanousd
        else:
            surplus = max(0, lease.free_nanousd) if lease.near_limit else lease.surplus_nanousd(now_s)
            if surplus:
                lease.give_back(surplus)
        self._seq += 1
        return usage_pb2.SpendDemand(
            account_id=share.account_id,
            key_id=share.key_id,
            period_id=share.period_id,
            limit_nanousd=share.limit_nanousd,
            seq=self._seq,
            want_nanousd=want_nanousd,
            min_nanousd=least_nanousd,
            returned_total_nanousd=lease.returned_nanousd,
        )

    def _serve(self, share: Share) -> None:
        now_s = self._monotonic()
        while share.waiting:
            waiter = share.waiting[0]
            if not waiter.taken.done():
                if not share.lease.take(waiter.hold_nanousd, now_s):
                    return
                waiter.taken.set_result(None)
            share.waiting.popleft()

    def _after_answer(self, share: Share, outcome: "usage_pb2.LeaseOutcome.ValueType") -> None:
        now_s, loop = self._monotonic(), asyncio.get_running_loop()
        if not share.waiting:
            if outcome != usage_pb2.LEASE_OUTCOME_GRANTED:
                share.lease.refill_after_time = now_s + LOOK_S
            return
        first = share.waiting[0]
        if not first.was_asked_for or outcome == usage_pb2.LEASE_OUTCOME_GRANTED:
            self._ask(share)
        elif outcome == usage_pb2.LEASE_OUTCOME_FUNDS_USED_UP:
            share.used_up_until_s = now_s + REFUSAL_MEMORY_S
            share.used_up_hold_nanousd = first.hold_nanousd
            self._refuse_all(share, lambda: _used_up(share))
        elif now_s < first.give_up_s:
            loop.call_later(HELD_RETRY_S, self._ask, share)
        else:
            self._refuse_all(share, _held)

    def _refuse_all(self, share: Share, refusal: Callable[[], RequestError]) -> None:
        while share.waiting:
            waiter = share.waiting.popleft()
            if not waiter.taken.done():
                waiter.taken.set_exception(refusal())


def period_of(limit: SpendLimit, moment_s: float) -> str:
    """The id of the period of a limit that a moment, in seconds since 1970, belongs to."""
    day = datetime.fromtimestamp(moment_s, UTC).date().isoformat()
    return day if limit.period == auth_pb2.SPEND_PERIOD_DAY else day[:7]


def _first(waiting: list[_Waiter]) -> int:
    return waiting[0].hold_nanousd if waiting else 0


def _used_up(share: Share) -> RequestError:
    metrics.LIMIT_REFUSALS.labels("spend").inc()
    return errors.spend_limit_reached("day" if len(share.period_id) > len("2027-01") else "month")


def _held() -> RequestError:
    metrics.LIMIT_REFUSALS.labels("spend").inc()
    return errors.rate_limited("What is left of this API key's spend limit is held by its open requests.", 1)


def _unreachable() -> RequestError:
    return errors.unavailable("Spend limits cannot be checked right now.", retry_after_s=1)
