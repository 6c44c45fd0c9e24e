"""Gets funds from usage_svc: one demand per account at a time, many accounts in one call, requests waiting in order."""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from chassis.client import call
from chassis.clock import Clock
from chassis.faults import FailedPrecondition, Fault, NotFound
from chassis.log import logger
from edge.metering import metrics
from edge.metering.lease import Lease
from edge.metering.lease_book import LeaseBook
from edge.metering.refusals import FundsHeld, FundsUsedUp, MeteringRefusal, MeteringUnavailable, UnavailableReason
from edge.metering.settings import MeteringSettings
from edge.metering.spool_log import SpoolLog
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

_DEMANDS_MAX = 1000  # the contract's, per call
# How long a refill waits for a call that somebody waits for: two holds and half a minute's spending are left by then.
_REFILL_LINGER_S = 0.25
_REFUSALS_MAX = 10_000
_UNREACHABLE_S = 0.5  # after a failed call: how long requests that need funds are refused without a new one
_RETRY_AFTER_S = 1.0

_log = logger(__name__)

_OUTCOME_LABELS = {
    usage_pb2.LEASE_OUTCOME_GRANTED: "granted",
    usage_pb2.LEASE_OUTCOME_FUNDS_USED_UP: "funds_used_up",
    usage_pb2.LEASE_OUTCOME_FUNDS_HELD: "funds_held",
    usage_pb2.LEASE_OUTCOME_SUPERSEDED: "superseded",
}


@dataclass(slots=True)
class _Waiter:
    request_id: str
    hold_nanousd: int
    give_up_time: float  # where funds are merely held: until then they may come back
    taken: asyncio.Future[Lease]  # done when the hold was taken for it, and from which lease


@dataclass(frozen=True, slots=True)
class _Refusal:
    outcome: int
    available_nanousd: int
    hold_nanousd: int  # a smaller one may still be had
    until: float

    def exception(self) -> MeteringRefusal:
        if self.outcome == usage_pb2.LEASE_OUTCOME_FUNDS_USED_UP:
            return FundsUsedUp(self.available_nanousd)
        return FundsHeld(_RETRY_AFTER_S)


class Acquirer:
    """`hurry(seq)` ships the spool at once and tells whether the record `seq`, a return, is still on its way.

    `give_back` spools the return of what a lease has free; of a lease for an account's last request, its end.
    """

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        settings: MeteringSettings,
        clock: Clock,
        hurry: Callable[[int], bool],
        give_back: Callable[[Lease, SpoolLog | None], bool],
        on_fenced: Callable[[], None],
        new_id: Callable[[], str],
    ) -> None:
        self._stub, self._settings, self._clock = stub, settings, clock
        self._hurry, self._give_back, self._on_fenced = hurry, give_back, on_fenced
        self._new_id = new_id
        self._session = usage_pb2.Session()
        self._book: LeaseBook | None = None
        self._pending: dict[str, Lease] = {}  # by lease
        self._uncertain: dict[str, Lease] = {}  # by lease: asked, and no answer came: it may have been granted
        self._lasts: dict[str, Lease] = {}  # by account: leases for last requests, from the asking to their return
        self._wake = asyncio.Event()
        self._refusals: OrderedDict[str, _Refusal] = OrderedDict()
        self._unreachable_until = float("-inf")
        self._awaiting_funds: dict[str, Lease] = {}  # accounts whose requests wait for held funds to come back
        self.waiting: dict[str, deque[_Waiter]] = {}  # requests by account, in order of arrival

    def use(self, session: usage_pb2.Session, book: LeaseBook) -> None:
        """Begins a session: whoever waited for funds of the one before is refused."""
        self._session, self._book = session, book
        self._pending.clear()
        self._uncertain.clear()
        self._lasts.clear()
        self._awaiting_funds.clear()
        self._refusals.clear()
        for account_id in list(self.waiting):
            self._refuse_all(account_id, lambda: MeteringUnavailable(UnavailableReason.SESSION_EXPIRED, _RETRY_AFTER_S))

    async def hold(self, account_id: str, hold_nanousd: int, request_id: str) -> Lease:
        """Takes a hold, after a call for funds where the lease has too little. Returns what it was taken from.

        Of a lease with `is_last`, what it holds is all there was: perhaps less than was asked.

        Raises:
            MeteringRefusal: the account has no funds, or usage_svc cannot be asked.
        """
        assert self._book is not None
        now = self._clock.monotonic()
        refusal = self._refusals.get(account_id)
        if refusal is not None and now < refusal.until and hold_nanousd >= refusal.hold_nanousd:
            raise refusal.exception()
        if now < self._unreachable_until:
            raise MeteringUnavailable(UnavailableReason.USAGE_UNREACHABLE, _RETRY_AFTER_S)
        lease = self._book.ensure(account_id, now)
        taken = asyncio.get_running_loop().create_future()
        waiter = _Waiter(request_id, hold_nanousd, now + self._settings.held_wait_s, taken)
        self.waiting.setdefault(account_id, deque()).append(waiter)
        self._ask(lease)
        try:
            return await waiter.taken
        except asyncio.CancelledError:
            if waiter.taken.done() and not waiter.taken.cancelled() and waiter.taken.exception() is None:
                self.release(waiter.taken.result(), hold_nanousd)
            raise

    def release(self, lease: Lease, hold_nanousd: int) -> None:
        """Undoes a hold whose request is not admitted after all."""
        if lease.is_last:
            lease.release(lease.held_nanousd)
            if not self.end_last(lease):
                self._uncertain[lease.lease_id] = lease  # no room in the spool: asked for again, and ended then
        else:
            lease.release(hold_nanousd)

    def end_last(self, lease: Lease, log: SpoolLog | None = None) -> bool:
        """The account's last request has ended, its event is spooled in `log`: gives the slot back.

        Without a log the request never was; then a lease of a former session is left to the seal of that. False where
        the spool has no room.
        """
        is_current = self._lasts.get(lease.account_id) is lease
        if log is None and not is_current:
            return True
        if not self._give_back(lease, log):
            return False
        if is_current:
            del self._lasts[lease.account_id]
            if self._book is not None and (usual := self._book.get(lease.account_id)) is not None:
                usual.return_seq = lease.return_seq  # whoever waits for the account waits for this return
        return True

    def is_current(self, lease: Lease) -> bool:
        """Whether a lease is one of the present session's."""
        if lease.is_last:
            return self._lasts.get(lease.account_id) is lease
        return self._book is not None and self._book.get(lease.account_id) is lease

    def refill(self, lease: Lease) -> None:
        """Asks for more before it runs dry. Nobody waits, so it waits a moment for a call that others need anyway."""
        if not lease.is_asking:
            lease.is_asking = True
            self._pending[lease.lease_id] = lease
            asyncio.get_running_loop().call_later(_REFILL_LINGER_S, self._wake.set)

    def on_freed(self, lease: Lease) -> None:
        """A hold has ended here: whoever waits for this account may go on."""
        self._serve(lease)

    def on_shipped(self) -> None:
        """Returns may have reached usage_svc: what was merely held may be had now."""
        for lease in list(self._awaiting_funds.values()):
            self._ask(lease)

    def on_funds(self, account_id: str) -> None:
        """usage_svc says that the account has funds again."""
        self._refusals.pop(account_id, None)
        lease = self._book.get(account_id) if self._book is not None else None
        if lease is None:
            return
        lease.refill_after_time = 0.0
        if account_id in self._awaiting_funds:
            self._ask(lease)

    def on_recalled(self, account_id: str, lease_id: str) -> None:
        """usage_svc wants what this lease has idle: it goes back at once, and from now on as soon as requests end."""
        lease = self._book.get(account_id) if self._book is not None else None
        if lease is None or lease.lease_id != lease_id or account_id in self.waiting:
            return
        lease.near_limit = True
        self._give_back(lease, None)

    def ask_uncertain(self) -> None:
        """Asks again where no answer came: what was granted then must not lie here unknown."""
        if self._uncertain and self._clock.monotonic() >= self._unreachable_until:
            leases, self._uncertain = list(self._uncertain.values()), {}
            for lease in leases:
                self._ask(lease)

    async def run(self) -> None:
        """One of several equal tasks; each has one call in flight at most."""
        while True:
            await self._wake.wait()
            leases = list(islice(self._pending.values(), _DEMANDS_MAX))
            for lease in leases:
                del self._pending[lease.lease_id]
            if not self._pending:
                self._wake.clear()
            if leases:
                await self._acquire(leases)

    def _ask(self, lease: Lease) -> None:
        if not lease.is_asking:
            lease.is_asking = True
            self._pending[lease.lease_id] = lease
        if lease.lease_id in self._pending:  # else its call is on the way
            self._wake.set()

    async def _acquire(self, leases: list[Lease]) -> None:
        book, now = self._book, self._clock.monotonic()
        demands = []
        request_ids = []
        for lease in leases:
            waiting = [waiter for waiter in self.waiting.get(lease.account_id, ()) if not waiter.taken.done()]
            holds = [waiter.hold_nanousd for waiter in waiting]
            request_ids += [waiter.request_id for waiter in waiting]
            demand = lease.demand(now, sum(holds), holds[0] if holds else 0)
            # The demand of a last request is repeated as it was, so that it is granted once at most.
            lease.acquire_seq = 1 if lease.is_last else lease.acquire_seq + 1
            self._uncertain.pop(lease.lease_id, None)
            demands.append(
                usage_pb2.LeaseDemand(
                    lease_id=lease.lease_id,
                    account_id=lease.account_id,
                    seq=lease.acquire_seq,
                    want_nanousd=demand.want_nanousd,
                    min_nanousd=demand.min_nanousd,
                    last=lease.is_last,
                )
            )
        try:
            response = await call(
                self._stub.Acquire,
                usage_pb2.AcquireRequest(session=self._session, demands=demands),
                timeout_s=self._settings.acquire_timeout_s,
                request_id=request_ids[0] if len(request_ids) == 1 else None,  # on behalf of one: it has one id
            )
        except Fault as fault:
            metrics.LEASE_REFILLS.labels("failed").inc(len(leases))
            if book is self._book:
                self._fail(leases, fault)
            return
        finally:
            for lease in leases:
                lease.is_asking = False
        for lease, grant in zip(leases, response.grants, strict=True):
            metrics.LEASE_REFILLS.labels(_OUTCOME_LABELS[grant.outcome]).inc()
            if book is not self._book:
                continue
            if lease.is_last:
                self._take_last(lease, grant)
            else:
                self._take_answer(lease, grant)

    def _take_answer(self, lease: Lease, grant: usage_pb2.LeaseGrant) -> None:
        account_id = lease.account_id
        self._awaiting_funds.pop(account_id, None)
        is_refused = grant.outcome in (usage_pb2.LEASE_OUTCOME_FUNDS_USED_UP, usage_pb2.LEASE_OUTCOME_FUNDS_HELD)
        had_asked_exactly = lease.asks_exactly
        lease.grant(grant.granted_total_nanousd, grant.near_limit)
        if not is_refused:
            self._refusals.pop(account_id, None)
        self._serve(lease)
        waiters = self.waiting.get(account_id)
        if not waiters:
            if is_refused:
                lease.refill_after_time = self._clock.monotonic() + self._settings.refusal_memory_s
            elif lease.near_limit and lease.free_nanousd > 0 and not lease.open_holds:
                self._give_back(lease, None)  # whoever waited for it has gone
            return
        if not is_refused:
            self._ask(lease)
        elif lease.free_nanousd > 0 and not had_asked_exactly:
            lease.asks_exactly = True  # what is free already and what is left may be enough together
            self._ask(lease)
        elif not self._wait_for_funds(lease, grant):
            self._ask_for_last_or_refuse(lease, grant)

    def _wait_for_funds(self, lease: Lease, grant: usage_pb2.LeaseGrant) -> bool:
        """Whether held funds may come back soon enough for whoever waits."""
        account_id = lease.account_id
        now, first = self._clock.monotonic(), self.waiting[account_id][0]
        if (
            grant.outcome != usage_pb2.LEASE_OUTCOME_FUNDS_HELD
            or now >= first.give_up_time
            # Held by us, in open requests or in returns that usage_svc has yet to see; or asked back from others.
            or not (self._hurry(lease.return_seq) or lease.open_holds or account_id in self._lasts or grant.recalled)
        ):
            return False
        self._awaiting_funds[account_id] = lease
        loop = asyncio.get_running_loop()
        loop.call_later(first.give_up_time - now, self._give_up, lease, first)
        return True

    def _ask_for_last_or_refuse(self, lease: Lease, grant: usage_pb2.LeaseGrant) -> None:
        """Too little for one hold, and no more will come: one request of the account may run all the same."""
        account_id = lease.account_id
        if grant.available_nanousd + max(0, lease.free_nanousd) <= 0 or account_id in self._lasts:
            self._refuse(lease, grant)
            return
        if lease.free_nanousd > 0:
            self._give_back(lease, None)  # what is free here is part of what is left: usage_svc must have it first
            self._hurry(lease.return_seq)
        last = Lease(self._new_id(), account_id, self._clock.monotonic(), self._settings.lease_window_s, is_last=True)
        self._lasts[account_id] = last
        self._ask(last)

    def _take_last(self, last: Lease, grant: usage_pb2.LeaseGrant) -> None:
        account_id = last.account_id
        if grant.outcome != usage_pb2.LEASE_OUTCOME_GRANTED:
            self._lasts.pop(account_id, None)
            lease = self._book.get(account_id) if self._book is not None else None
            if self.waiting.get(account_id) and (lease is None or not self._wait_for_funds(lease, grant)):
                self._refuse(last, grant)
            return
        last.grant(grant.granted_total_nanousd, near_limit=True)
        waiters = self.waiting.get(account_id, deque())
        while waiters:
            waiter = waiters.popleft()
            if not waiter.taken.done():
                last.take(min(waiter.hold_nanousd, last.free_nanousd), self._clock.monotonic())
                waiter.taken.set_result(last)
                break
        else:
            self.release(last, 0)  # whoever waited for it has gone
        if not waiters:
            self.waiting.pop(account_id, None)
        elif self._book is not None and (lease := self._book.get(account_id)) is not None:
            self._ask(lease)  # for whoever waits behind it

    def _refuse(self, lease: Lease, grant: usage_pb2.LeaseGrant) -> None:
        now, first = self._clock.monotonic(), self.waiting[lease.account_id][0]
        refusal = _Refusal(
            grant.outcome, grant.available_nanousd, first.hold_nanousd, now + self._settings.refusal_memory_s
        )
        self._refusals[lease.account_id] = refusal
        self._refusals.move_to_end(lease.account_id)
        if len(self._refusals) > _REFUSALS_MAX:
            self._refusals.popitem(last=False)
        self._refuse_all(lease.account_id, refusal.exception)

    def _give_up(self, lease: Lease, first: _Waiter) -> None:
        """The wait is over: asks once more, since a hint may have been lost, and takes that answer as it comes."""
        waiters = self.waiting.get(lease.account_id)
        if waiters and waiters[0] is first and self._awaiting_funds.pop(lease.account_id, None) is lease:
            first.give_up_time = float("-inf")
            self._ask(lease)

    def _serve(self, lease: Lease) -> None:
        """Takes holds for whoever waits, in order, as far as it goes."""
        waiters = self.waiting.get(lease.account_id)
        if waiters is None:
            return
        now = self._clock.monotonic()
        while waiters:
            if not waiters[0].taken.done():
                if not lease.take(waiters[0].hold_nanousd, now):
                    return
                waiters[0].taken.set_result(lease)
            waiters.popleft()
        del self.waiting[lease.account_id]
        self._awaiting_funds.pop(lease.account_id, None)

    def _fail(self, leases: list[Lease], fault: Fault) -> None:
        reason = UnavailableReason.USAGE_UNREACHABLE
        now = self._clock.monotonic()
        if isinstance(fault, FailedPrecondition | NotFound):
            reason = UnavailableReason.SESSION_EXPIRED
            self._on_fenced()
        else:
            # Jitter, so that the edges of a restarted usage_svc do not all ask at the same moment.
            self._unreachable_until = now + _UNREACHABLE_S * random.uniform(0.5, 1.5)  # noqa: S311
            _log.warning("funds cannot be acquired", accounts=len(leases), reason=fault.reason, error=fault.message)
        for lease in leases:
            lease.refill_after_time = now + _RETRY_AFTER_S
            if reason is UnavailableReason.USAGE_UNREACHABLE:
                self._uncertain[lease.lease_id] = lease
            if not lease.is_last:
                self._serve(lease)
            self._refuse_all(lease.account_id, lambda: MeteringUnavailable(reason, _RETRY_AFTER_S))

    def _refuse_all(self, account_id: str, refusal: Callable[[], MeteringRefusal]) -> None:
        for waiter in self.waiting.pop(account_id, ()):
            if not waiter.taken.done():
                waiter.taken.set_exception(refusal())
