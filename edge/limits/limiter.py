"""Admits requests of limited keys out of shares, and keeps the shares filled: one call a second for all keys.

A request calls nobody as long as its key's share lasts. The first of a key, and one that finds the share used up, waits
for a call that it shares with everyone who waits.
"""

import asyncio
import math
from collections import OrderedDict, deque
from dataclasses import dataclass

from chassis.client import call
from chassis.clock import Clock
from chassis.faults import Fault
from chassis.log import logger
from edge import metrics
from edge.access.key_cache import Grant, Limits
from edge.limits.share import KeyShare
from edge.openai import errors
from edge.openai.errors import RequestError
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

LOOK_S = 1.0
RENEW_S = 10.0  # of the thirty seconds that usage_svc keeps slots for an edge that it does not hear of
KEYS_PER_CALL_MAX = 1000  # the contract's
WAITING_MAX = 1000  # of one key
# Another edge that has slots idle hears within a look that they are wanted: so long may a request wait for one.
SLOT_WAIT_S = LOOK_S + 0.5
SLOT_RETRY_S = 0.1
# Idle slots of a key that others wait for go back after so long, several in one call.
SLOT_LINGER_S = 0.03
REFUSAL_MEMORY_S = 0.1  # a refused key causes no further call for this long
ALONE_S = 3.0  # after a failed call: how long this edge admits by itself, unless a later call goes through
FORGET_S = 60.0  # shares of keys without requests

_log = logger(__name__)


class Ticket:
    """An admitted request. `settle` it, or `undo` it, once."""

    __slots__ = ("_limiter", "_share", "key_id", "tokens")

    def __init__(self, limiter: "Limiter", share: KeyShare, key_id: str, tokens: int) -> None:
        self._limiter, self._share, self.key_id, self.tokens = limiter, share, key_id, tokens

    def settle(self, used_tokens: int) -> None:
        """It has ended; what it reserved and did not use may be used by others."""
        self._share.settle(self.tokens, used_tokens, self._limiter.monotonic())
        self._limiter.on_ended(self.key_id, self._share)

    def undo(self) -> None:
        """It was never sent on, and counts for nothing."""
        self._share.undo(self.tokens, self._limiter.monotonic())
        self._limiter.on_ended(self.key_id, self._share)


@dataclass(slots=True)
class _Waiter:
    tokens: int
    give_up_s: float
    admitted: asyncio.Future[None]
    was_asked_for: bool = False


class Limiter:
    """Run `run` beside it."""

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        clock: Clock,
        holder_id: str,
        *,
        keys_max: int,
        rpc_timeout_s: float,
    ) -> None:
        self._stub, self.monotonic, self._holder_id = stub, clock.monotonic, holder_id
        self._keys_max, self._rpc_timeout_s = keys_max, rpc_timeout_s
        self._shares: OrderedDict[str, KeyShare] = OrderedDict()  # the one that was made last at the end
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._to_ask: dict[str, KeyShare] = {}
        self._refused_until_s: dict[str, float] = {}
        self._alone_until_s = -math.inf
        self._wake = asyncio.Event()
        self._seq = 0

    def __len__(self) -> int:
        return len(self._shares)

    def share_of(self, grant: Grant, limits: Limits) -> KeyShare:
        """What this edge has of a key."""
        share = self._shares.get(grant.key_id)
        if share is None:
            share = self._shares[grant.key_id] = KeyShare(limits, self.monotonic())
            self._make_room()
            self._wake.set()  # begins to look
        elif share.limits is not limits and share.limits != limits:
            share.use(limits, self.monotonic())
        return share

    def try_admit(self, key_id: str, share: KeyShare, tokens: int) -> Ticket | None:
        """Admits a request that may use so many tokens, out of what is here; else None: then `admit`.

        Raises:
            RequestError: 400: it could never be admitted.
        """
        limit = share.limits.tokens_per_minute
        if limit and tokens > limit:
            metrics.LIMIT_REFUSALS.labels("too_large").inc()
            raise errors.tokens_over_limit(tokens, limit)
        if key_id in self._waiting or not share.take(tokens, self.monotonic()):
            return None
        return Ticket(self, share, key_id, tokens)

    async def admit(self, key_id: str, share: KeyShare, tokens: int) -> Ticket:
        """Admits a request after a call to usage_svc; alone, where usage_svc cannot be asked.

        Raises:
            RequestError: 429, with the time after which it is admitted if nobody else asks.
        """
        now_s = self.monotonic()
        if now_s < self._alone_until_s and key_id not in self._waiting:
            share.grant_alone(tokens, now_s)
            if share.take(tokens, now_s):
                return Ticket(self, share, key_id, tokens)
            raise self._refusal(share, tokens)
        if now_s < self._refused_until_s.get(key_id, now_s) and share.wait_s(tokens, now_s) > 0:
            raise self._refusal(share, tokens)
        waiters = self._waiting.setdefault(key_id, deque())
        if len(waiters) >= WAITING_MAX:
            raise self._refusal(share, tokens)
        waiter = _Waiter(tokens, now_s + SLOT_WAIT_S, asyncio.get_running_loop().create_future())
        waiters.append(waiter)
        share.note_waiting(len(waiters))
        self._ask(key_id, share)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
                share.undo(tokens, self.monotonic())
            raise
        return Ticket(self, share, key_id, tokens)

    def on_ended(self, key_id: str, share: KeyShare) -> None:
        """A request has ended here: whoever waits for its slot may go on, or another edge's."""
        if key_id in self._waiting:
            self._serve(key_id, share)
        else:
            self._lend_soon(key_id, share)

    def _lend_soon(self, key_id: str, share: KeyShare) -> None:
        if share.lends_slots and key_id not in self._to_ask:
            asyncio.get_running_loop().call_later(SLOT_LINGER_S, self._lend, key_id, share)

    async def run(self) -> None:
        """Fills shares and gives back what is left over, as long as the process runs."""
        next_look_s = self.monotonic() + LOOK_S
        while True:
            await self._until(next_look_s if self._shares else math.inf)
            now_s = self.monotonic()
            if now_s >= next_look_s:
                next_look_s = now_s + LOOK_S
                self._look(now_s)
            asked = [(key_id, self._to_ask.pop(key_id)) for key_id in list(self._to_ask)[:KEYS_PER_CALL_MAX]]
            if asked:
                await self._share(asked)

    async def _until(self, moment_s: float) -> None:
        if self._to_ask:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(None if moment_s == math.inf else max(0.0, moment_s - self.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _look(self, now_s: float) -> None:
        for key_id, share in list(self._shares.items()):
            share.look()
            if share.needs_word(now_s, RENEW_S):
                self._to_ask[key_id] = share
            elif not share.open_requests and now_s - share.used_s > FORGET_S and key_id not in self._waiting:
                del self._shares[key_id]
        self._refused_until_s = {key: until_s for key, until_s in self._refused_until_s.items() if now_s < until_s}

    def _make_room(self) -> None:
        if len(self._shares) <= self._keys_max:
            return
        for key_id, share in self._shares.items():
            if not share.open_requests and key_id not in self._waiting:
                del self._shares[key_id]  # what it had comes back with time
                return

    def _ask(self, key_id: str, share: KeyShare) -> None:
        self._to_ask[key_id] = share
        self._wake.set()

    def _lend(self, key_id: str, share: KeyShare) -> None:
        if share.lends_slots:
            self._ask(key_id, share)

    async def _share(self, asked: list[tuple[str, KeyShare]]) -> None:
        request = usage_pb2.ShareLimitsRequest(
            holder_id=self._holder_id, demands=[self._demand(key_id, share) for key_id, share in asked]
        )
        try:
            response = await call(self._stub.ShareLimits, request, timeout_s=self._rpc_timeout_s)
        except Fault as fault:
            now_s = self.monotonic()
            if now_s >= self._alone_until_s:
                _log.warning("limits are not shared with other edges now", reason=fault.reason, error=fault.message)
            self._alone_until_s = now_s + ALONE_S
            for key_id in list(self._waiting):
                self._serve_alone(key_id, self._shares[key_id], now_s)
            return
        self._alone_until_s = -math.inf
        now_s = self.monotonic()
        for (key_id, share), granted in zip(asked, response.shares, strict=True):
            share.granted(
                granted.granted_requests,
                granted.granted_tokens,
                granted.slots,
                contended=granted.contended,
                used=(granted.used_requests, granted.used_tokens),
                now_s=now_s,
            )
            self._serve(key_id, share)
            self._refuse_rest(key_id, share, now_s)
            self._lend_soon(key_id, share)

    def _demand(self, key_id: str, share: KeyShare) -> usage_pb2.LimitDemand:
        waiting = self._waiting.get(key_id, ())
        for waiter in waiting:
            waiter.was_asked_for = True
        demand = share.demand([waiter.tokens for waiter in waiting if not waiter.admitted.done()])
        self._seq += 1
        return usage_pb2.LimitDemand(
            key_id=key_id,
            seq=self._seq,
            requests_per_minute=share.limits.requests_per_minute,
            tokens_per_minute=share.limits.tokens_per_minute,
            concurrent_requests=share.limits.concurrent_requests,
            want_requests=demand.want_requests,
            want_tokens=demand.want_tokens,
            min_tokens=demand.min_tokens,
            want_slots=demand.want_slots,
            open_requests=demand.open_requests,
            returned_requests=demand.returned_requests,
            returned_tokens=demand.returned_tokens,
        )

    def _serve(self, key_id: str, share: KeyShare) -> None:
        """Admits of those who wait whoever fits, in the order in which they came."""
        waiters = self._waiting.get(key_id)
        if waiters is None:
            return
        now_s = self.monotonic()
        for waiter in list(waiters):
            if not waiter.admitted.done():
                if not share.take(waiter.tokens, now_s):
                    continue
                waiter.admitted.set_result(None)
            waiters.remove(waiter)
        if not waiters:
            del self._waiting[key_id]

    def _refuse_rest(self, key_id: str, share: KeyShare, now_s: float) -> None:
        """After an answer: refuses whoever it was not enough for. Who lacks only a slot waits a little for one."""
        waiters = self._waiting.get(key_id)
        if waiters is None:
            return
        for waiter in list(waiters):
            if not waiter.was_asked_for:
                self._ask(key_id, share)
                continue
            lacks_slot_only = share.lacks_slot and share.wait_s(waiter.tokens, now_s) <= 0
            if lacks_slot_only and share.contended and now_s < waiter.give_up_s:
                continue
            if not lacks_slot_only:
                self._refused_until_s[key_id] = now_s + REFUSAL_MEMORY_S
            waiter.admitted.set_exception(self._refusal(share, waiter.tokens))
            waiters.remove(waiter)
        if waiters:
            asyncio.get_running_loop().call_later(SLOT_RETRY_S, self._ask_again, key_id, share)
        else:
            del self._waiting[key_id]

    def _ask_again(self, key_id: str, share: KeyShare) -> None:
        if key_id in self._waiting:
            self._ask(key_id, share)

    def _serve_alone(self, key_id: str, share: KeyShare, now_s: float) -> None:
        for waiter in self._waiting.pop(key_id, ()):
            if waiter.admitted.done():
                continue
            share.grant_alone(waiter.tokens, now_s)
            if share.take(waiter.tokens, now_s):
                waiter.admitted.set_result(None)
            else:
                waiter.admitted.set_exception(self._refusal(share, waiter.tokens))

    def _refusal(self, share: KeyShare, tokens: int) -> RequestError:
        now_s, limits = self.monotonic(), share.limits
        requests_s, tokens_s = share.requests_wait_s(now_s), share.tokens_wait_s(tokens, now_s)
        if requests_s <= 0 and tokens_s <= 0:
            why, said = "concurrent_requests", f"{limits.concurrent_requests or WAITING_MAX} requests open at once"
        elif requests_s >= tokens_s:
            why, said = "requests_per_minute", f"{limits.requests_per_minute} requests per minute"
        else:
            why, said = "tokens_per_minute", f"{limits.tokens_per_minute} tokens per minute"
        metrics.LIMIT_REFUSALS.labels(why).inc()
        retry_after_s = max(1, math.ceil(max(requests_s, tokens_s)))
        return errors.rate_limited(f"This API key may have {said}.", retry_after_s)
