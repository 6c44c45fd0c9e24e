"""What this edge may admit of one key: granted amounts that are drawn down here, and what is asked for next. Pure.

Granted amounts count as used at usage_svc from the moment of their grant, so the edges of a key need not know of each
other. What is left over is given back at the next look.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis.gcra import Gcra
from edge.access.key_cache import Limits

PERIOD_S = 60.0
# Looks ahead that a grant should last: two, so that a key in steady use is asked for before it runs dry.
LOOKS_AHEAD = 2
# And at most this part of a minute's limit, so that no edge sits on what another needs: six seconds at the full rate.
AHEAD_PARTS = 10
# As in chassis.gcra: less than this of a request or a token is an error of rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Demand:
    """What a key needs of usage_svc now; the contract's LimitDemand without its ids and limits."""

    want_requests: int
    want_tokens: int
    min_tokens: int
    want_slots: int
    open_requests: int
    returned_requests: int
    returned_tokens: int


class KeyShare:
    """One key's. `waiting` has the tokens of requests that wait for a grant, whoever keeps them in order.

    Times are seconds of a clock that does not jump.
    """

    __slots__ = (
        "_ahead_slots",
        "_free_requests",
        "_free_tokens",
        "_last_requests",
        "_last_tokens",
        "_peak_open",
        "_requests",
        "_returned_requests",
        "_returned_tokens",
        "_spent_requests",
        "_spent_tokens",
        "_tokens",
        "contended",
        "limits",
        "open_requests",
        "renewed_s",
        "slots",
        "used_s",
    )

    def __init__(self, limits: Limits, now_s: float) -> None:
        self._free_requests = self._free_tokens = self._returned_requests = self._returned_tokens = 0
        self._spent_requests = self._spent_tokens = self._last_requests = self._last_tokens = 0
        self._peak_open = self._ahead_slots = 0
        self.slots = self.open_requests = 0
        self.contended = False
        self.renewed_s = self.used_s = now_s
        self._requests: Gcra | None = None
        self._tokens: Gcra | None = None
        self.use(limits, now_s)

    def use(self, limits: Limits, now_s: float) -> None:
        """Takes other limits on: what is in use stays in use."""
        self.limits = limits
        self._requests = _rate(limits.requests_per_minute, self._requests, now_s)
        self._tokens = _rate(limits.tokens_per_minute, self._tokens, now_s)
        self._free_requests = min(self._free_requests, limits.requests_per_minute)
        self._free_tokens = max(min(self._free_tokens, limits.tokens_per_minute), -self._debt_max(now_s))

    def take(self, tokens: int, now_s: float) -> bool:
        """Admits a request that may use so many tokens, out of what was granted before; else changes nothing."""
        if (
            (self._requests is not None and self._free_requests < 1)
            or (self._tokens is not None and self._free_tokens < tokens)
            or self.lacks_slot
        ):
            return False
        if self._requests is not None:
            self._free_requests -= 1
        if self._tokens is not None:
            self._free_tokens -= tokens
        self._spent_requests += 1
        self._spent_tokens += tokens
        self.open_requests += 1
        self._peak_open = max(self._peak_open, self.open_requests)
        self.used_s = now_s
        return True

    def settle(self, reserved_tokens: int, used_tokens: int, now_s: float) -> None:
        """A request has ended. What it used beyond its bound is a debt that is asked for first: `_free_tokens` below 0.

        It makes a minute's limit used up at most. More, and no client that waits a minute would be admitted; and what
        an upstream says that it used is any number.
        """
        self.open_requests -= 1
        if self._tokens is not None:
            if used_tokens <= reserved_tokens:
                self._returned_tokens += reserved_tokens - used_tokens
            else:
                left = self._free_tokens - (used_tokens - reserved_tokens)
                self._free_tokens = max(left, -self._debt_max(now_s))

    def _debt_max(self, now_s: float) -> int:
        return self._tokens.left(now_s) if self._tokens is not None else 0

    def undo(self, reserved_tokens: int, now_s: float) -> None:
        """A request that was admitted and never sent on."""
        self.settle(reserved_tokens, 0, now_s)
        if self._requests is not None:
            self._returned_requests += 1

    def note_waiting(self, count: int) -> None:
        """So many requests wait now. Slots are asked for them too, though they may be served before the demand is made:
        else too few slots would be asked for again and again."""
        self._peak_open = max(self._peak_open, self.open_requests + count)

    @property
    def lacks_slot(self) -> bool:
        """Whether no further request may be open here now."""
        return self.limits.concurrent_requests > 0 and self.open_requests >= self.slots

    @property
    def lends_slots(self) -> bool:
        """Whether slots are held here that others wait for."""
        return self.contended and self.slots > self.open_requests

    def look(self) -> None:
        """Sees what was used since the last look, to ask for as much ahead. Call it at even intervals."""
        self._last_requests, self._spent_requests = self._spent_requests, 0
        self._last_tokens, self._spent_tokens = self._spent_tokens, 0
        self._ahead_slots, self._peak_open = self._peak_open, self.open_requests

    def demand(self, waiting: Sequence[int]) -> Demand:
        """What to ask for, given the tokens of each request that waits. What it gives back is gone from here.

        An answer that is lost leaves this edge with less than it might have, never with more.
        """
        want_requests, want_tokens, least = 0, 0, 0
        if self._requests is not None:
            ahead = _ahead(self._last_requests, self._spent_requests, self.limits.requests_per_minute)
            want_requests = len(waiting) + ahead - self._free_requests
            if want_requests < 0:
                self._returned_requests -= want_requests
                self._free_requests += want_requests
        if self._tokens is not None:
            ahead = _ahead(self._last_tokens, self._spent_tokens, self.limits.tokens_per_minute)
            want_tokens = sum(waiting) + ahead - self._free_tokens
            # In debt any amount helps; a request's and the debt together may be more than can ever be had at once.
            least = max(0, min(waiting, default=0) - self._free_tokens) if self._free_tokens >= 0 else 0
            if want_tokens < 0:
                self._returned_tokens -= want_tokens
                self._free_tokens += want_tokens
        want_slots = 0
        if self.limits.concurrent_requests:
            ahead_slots = 0 if self.contended else max(self._ahead_slots, self._peak_open)
            want_slots = min(max(self.open_requests + len(waiting), ahead_slots), self.limits.concurrent_requests)
            self.slots = min(self.slots, want_slots)
        asked = Demand(
            want_requests=max(0, want_requests),
            want_tokens=max(0, want_tokens),
            min_tokens=least,
            want_slots=want_slots,
            open_requests=self.open_requests if self.limits.concurrent_requests else 0,
            returned_requests=self._returned_requests,
            returned_tokens=self._returned_tokens,
        )
        self._returned_requests = self._returned_tokens = 0
        return asked

    def needs_word(self, now_s: float, renew_s: float) -> bool:
        """Whether there is something to ask for, to give back, or to renew."""
        if self._returned_requests or self._returned_tokens:
            return True
        limits = self.limits
        if self._free_requests != _ahead(self._last_requests, 0, limits.requests_per_minute):
            return True
        if self._free_tokens != _ahead(self._last_tokens, 0, limits.tokens_per_minute):
            return True
        if limits.concurrent_requests:
            # With idle slots too: whether others wait for them is only heard with an answer.
            return self.slots > self.open_requests or (self.slots > 0 and now_s - self.renewed_s >= renew_s)
        return False

    def granted(
        self, requests: int, tokens: int, slots: int, *, contended: bool, used: tuple[float, float], now_s: float
    ) -> None:
        """Takes an answer. `used` is what all edges together use of the minute, in requests and tokens."""
        self.renewed_s = now_s
        self.slots, self.contended = slots, contended
        if self._requests is not None:
            self._free_requests += requests
            self._requests = Gcra(self.limits.requests_per_minute, PERIOD_S, used[0], now_s)
        if self._tokens is not None:
            self._free_tokens += tokens
            self._tokens = Gcra(self.limits.tokens_per_minute, PERIOD_S, used[1], now_s)

    def grant_alone(self, tokens: int, now_s: float) -> None:
        """While usage_svc cannot be asked: grants what the whole limit allows, as if there were no other edge."""
        self.slots, self.contended = self.limits.concurrent_requests, False
        if self._requests is not None and self._free_requests < 1 and self._requests.take(1, now_s):
            self._free_requests += 1
        if self._tokens is not None:
            debt_paid = min(max(0, -self._free_tokens), self._tokens.left(now_s))
            self._tokens.take(debt_paid, now_s)
            self._free_tokens += debt_paid
            needed = tokens - self._free_tokens
            if needed > 0 and self._tokens.take(needed, now_s):
                self._free_tokens += needed

    def wait_s(self, tokens: int, now_s: float) -> float:
        """After how many seconds a request of so many tokens is within both rates, if nobody else asks."""
        return max(self.requests_wait_s(now_s), self.tokens_wait_s(tokens, now_s))

    def requests_wait_s(self, now_s: float) -> float:
        """The same, of the requests alone."""
        if self._requests is None:
            return 0.0
        return _wait_s(self._requests, 1, self._free_requests + self._returned_requests, now_s)

    def tokens_wait_s(self, tokens: int, now_s: float) -> float:
        """The same, of the tokens alone."""
        if self._tokens is None:
            return 0.0
        return _wait_s(self._tokens, tokens, self._free_tokens + self._returned_tokens, now_s)

    def requests_left(self, now_s: float) -> tuple[int, float]:
        """Requests that may be made at once, as far as this edge knows, and the seconds until all of them may."""
        assert self._requests is not None
        return _left(self._requests, self._free_requests + self._returned_requests, now_s)

    def tokens_left(self, now_s: float) -> tuple[int, float]:
        """The same of tokens."""
        assert self._tokens is not None
        return _left(self._tokens, self._free_tokens + self._returned_tokens, now_s)


def _ahead(last_look: int, since: int, limit: int) -> int:
    return min(LOOKS_AHEAD * max(last_look, since), limit // AHEAD_PARTS)


def _rate(limit: int, before: Gcra | None, now_s: float) -> Gcra | None:
    if not limit:
        return None
    return Gcra(limit, PERIOD_S, before.used if before is not None else 0.0, now_s)


def _wait_s(rate: Gcra, amount: int, unused: int, now_s: float) -> float:
    """Until an amount may pass; `unused` is below 0 where more passed than `rate` knows."""
    rate.left(now_s)
    return max(0.0, rate.used - unused + amount - rate.limit - _ROUNDING) * PERIOD_S / rate.limit


def _left(rate: Gcra, unused: int, now_s: float) -> tuple[int, float]:
    left = min(rate.limit, max(0, rate.left(now_s) + unused))
    return left, max(0.0, rate.used - unused) * PERIOD_S / rate.limit
