"""How much of a key's limits is in use by all edges together, and what one of them gets of the rest. Pure.

What is granted counts as used from then on, so what edges hold and what they have let through never is more than the
key's own rate allows; what they do not use they bring back, or it comes back with time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chassis.gcra import Gcra

PERIOD_S = 60.0
# Slots of an edge that is not heard of any more: longer than it takes one to restart usage_svc.
HOLDING_TTL_S = 30.0
# After so long without a demand a row says nothing that no row would not.
FORGET_S = PERIOD_S + HOLDING_TTL_S


class LimitDemand(NamedTuple):
    """What an edge needs; the contract's, field by field."""

    key_id: str
    seq: int
    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int
    want_requests: int
    want_tokens: int
    min_tokens: int
    want_slots: int
    open_requests: int
    returned_requests: int
    returned_tokens: int


class LimitShare(NamedTuple):
    """What it gets; the contract's, field by field."""

    key_id: str
    granted_requests: int
    granted_tokens: int
    slots: int
    contended: bool
    used_requests: float
    used_tokens: float


class Holding(NamedTuple):
    """What one edge has of a key: its slots, those that it lacks, until when, and the answer to its last demand."""

    slots: int
    lacking: int
    expire_s: float
    seq: int
    granted_requests: int
    granted_tokens: int


@dataclass(slots=True)
class KeyRate:
    """The working copy of one key's row during one transaction. Times are seconds since 1970, the database's."""

    key_id: str
    used_requests: float = 0.0
    used_tokens: float = 0.0
    time_s: float = 0.0
    holdings: dict[str, Holding] = field(default_factory=dict)

    def share(self, holder_id: str, demand: LimitDemand, now_s: float) -> LimitShare:
        """Answers a demand."""
        now_s = max(now_s, self.time_s)  # the clocks of two databases, after one has taken over, may differ
        self.holdings = {each: holding for each, holding in self.holdings.items() if holding.expire_s > now_s}
        mine = self.holdings.get(holder_id)
        others = [holding for each, holding in self.holdings.items() if each != holder_id]
        if mine is not None and demand.seq <= mine.seq:  # it went through, and its answer was lost on the way
            return self._answer(demand, mine.granted_requests, mine.granted_tokens, mine.slots, others)
        requests = self._rate(demand.requests_per_minute, self.used_requests)
        tokens = self._rate(demand.tokens_per_minute, self.used_tokens)
        granted_requests = _draw(requests, demand.returned_requests, demand.want_requests, 1, now_s)
        granted_tokens = _draw(tokens, demand.returned_tokens, demand.want_tokens, demand.min_tokens, now_s)
        self.used_requests = requests.used if requests is not None else 0.0
        self.used_tokens = tokens.used if tokens is not None else 0.0
        self.time_s = now_s
        slots = 0
        if demand.concurrent_requests:
            left = demand.concurrent_requests - sum(holding.slots for holding in others)
            slots = max(min(demand.want_slots, left), demand.open_requests, 0)
        lacking = max(0, demand.want_slots - slots)
        expire_s = now_s + HOLDING_TTL_S
        self.holdings[holder_id] = Holding(slots, lacking, expire_s, demand.seq, granted_requests, granted_tokens)
        return self._answer(demand, granted_requests, granted_tokens, slots, others)

    def _rate(self, limit: int, used: float) -> Gcra | None:
        return Gcra(limit, PERIOD_S, used, self.time_s) if limit else None

    def _answer(
        self, demand: LimitDemand, requests: int, tokens: int, slots: int, others: Sequence[Holding]
    ) -> LimitShare:
        limit, elsewhere = demand.concurrent_requests, sum(holding.slots for holding in others)
        contended = limit > 0 and (any(each.lacking for each in others) or elsewhere + slots >= limit > slots)
        return LimitShare(demand.key_id, requests, tokens, slots, contended, self.used_requests, self.used_tokens)


def _draw(rate: Gcra | None, returned: int, want: int, least: int, now_s: float) -> int:
    if rate is None:
        return 0
    rate.give_back(returned, now_s)
    granted = min(want, rate.left(now_s))
    if granted < least:
        return 0
    rate.take(granted, now_s)
    return granted


def holdings_from_json(stored: Mapping[str, list[float]]) -> dict[str, Holding]:
    """As they stand in a row."""
    return {
        holder_id: Holding(int(slots), int(lacking), expire_s, int(seq), int(requests), int(tokens))
        for holder_id, (slots, lacking, expire_s, seq, requests, tokens) in stored.items()
    }
