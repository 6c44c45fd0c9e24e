"""What an audit must find of one account: the books replayed from zero against every balance that is kept. Pure.

Nothing here uses the code that posts: an auditor that shares the bookkeeper's arithmetic shares its mistakes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pricing import Price, TokenUsage, charge_nanousd
from usage_svc.events import Outcome
from usage_svc.ledger import EntryKind, House
from usage_svc.rating import day_of

MAX_VIOLATIONS = 100

_CHARGE, _CREDIT, _PROMOTION = int(EntryKind.CHARGE), int(EntryKind.CREDIT), int(EntryKind.PROMOTION)
_WAIVER = int(EntryKind.WAIVER)
_CHARGED_OUTCOMES = frozenset({int(Outcome.MEASURED), int(Outcome.ESTIMATED)})
_ESTIMATED = int(Outcome.ESTIMATED)
# Who stands on the other side of a customer's movement; an adjustment goes either way. A charge is no movement.
_HOUSES = {
    EntryKind.CREDIT: ("debit", House.CASH),
    EntryKind.PROMOTION: ("debit", House.PROMO_EXPENSE),
    EntryKind.WAIVER: ("debit", House.WAIVER_EXPENSE),
    EntryKind.BREAKAGE: ("credit", House.BREAKAGE),
    EntryKind.WRITEOFF: ("debit", House.WRITEOFF),
    EntryKind.ADJUSTMENT: ("either", House.ADJUSTMENT),
}


class Violation(NamedTuple):
    """One thing that does not hold: of which invariant, where, and what was expected and found."""

    invariant: str
    subject: str
    message: str


class AccountRow(NamedTuple):
    """What is kept of an account."""

    account_id: str
    available_nanousd: int
    grace_nanousd: int
    overflow_nanousd: int
    credited_nanousd: int
    charged_nanousd: int
    refunded_nanousd: int = 0


class LeaseSums(NamedTuple):
    """What an account's leases hold: how many, how many are open, and sums."""

    leases: int = 0
    open_leases: int = 0
    reserved_nanousd: int = 0
    settled_nanousd: int = 0
    settled_open_nanousd: int = 0


class EntryRow(NamedTuple):
    """A movement: an entry that is no charge."""

    entry_id: int
    kind: int
    debit_account_id: str
    credit_account_id: str
    amount_nanousd: int
    overflow_nanousd: int
    request_id: str


class EventRow(NamedTuple):
    """What of a usage row decides its charge, and the charge."""

    day: int
    request_id: str
    outcome: int
    price_version: str
    hold_nanousd: int
    charged_nanousd: int
    overflow_nanousd: int
    refunded_nanousd: int
    tokens: TokenUsage


@dataclass(slots=True)
class AccountAudit:
    """The replay of one account, fed with all its rows in any order, then asked for what does not hold."""

    account_id: str
    leases: LeaseSums = field(default_factory=LeaseSums)
    replayed_nanousd: int = 0
    overflow_nanousd: int = 0
    settled_nanousd: int = 0  # of charges, what leases covered
    refunded_nanousd: int = 0  # as the requests say
    entries: int = 0
    rated: int = 0
    events: int = 0
    by_kind: Counter[int] = field(default_factory=Counter)

    def take_entry(self, entry: EntryRow) -> Iterator[Violation]:
        """Replays a movement."""
        self.entries += 1
        gives = entry.credit_account_id == self.account_id
        self.replayed_nanousd += entry.amount_nanousd if gives else -entry.amount_nanousd
        self.overflow_nanousd += entry.overflow_nanousd
        self.by_kind[entry.kind] += entry.amount_nanousd
        if (problem := _problem_of_pair(entry, self.account_id)) is not None:
            yield Violation("I4", f"entry {entry.entry_id} of account {self.account_id}", problem)

    def take_event(self, event: EventRow, prices: Mapping[str, Price | None]) -> Iterator[Violation]:
        """Replays a request's charge, and rates it again from its stored counts and the vector of its price version."""
        self.events += 1
        subject = f"request {event.request_id} of account {self.account_id}"
        if event.charged_nanousd:
            self.entries += 1
            self.replayed_nanousd -= event.charged_nanousd
            self.overflow_nanousd += event.overflow_nanousd
            self.by_kind[_CHARGE] += event.charged_nanousd
            self.settled_nanousd += event.charged_nanousd - event.overflow_nanousd
        if not 0 <= event.overflow_nanousd <= event.charged_nanousd:
            yield Violation(
                "I4", subject, f"{event.overflow_nanousd} nano-USD of {event.charged_nanousd} are labelled as overflow"
            )
        self.refunded_nanousd += event.refunded_nanousd
        if not 0 <= event.refunded_nanousd <= event.charged_nanousd:
            yield Violation(
                "I4", subject, f"{event.refunded_nanousd} nano-USD of {event.charged_nanousd} were given back"
            )
        if day_of(event.request_id) != event.day:
            # The key is (day, request id): under another day the same request could be charged a second time.
            yield Violation("I5", subject, f"it is kept under day {event.day}, and its id is of another")
        expected = 0
        if event.outcome in _CHARGED_OUTCOMES:
            self.rated += 1
            price = prices.get(event.price_version)
            if price is None:
                yield Violation("I5", subject, f"its price version {event.price_version!r} is not kept")
                return
            expected = charge_nanousd(event.tokens, price)
            if event.outcome == _ESTIMATED:
                expected = min(expected, event.hold_nanousd)
        if expected != event.charged_nanousd:
            yield Violation(
                "I5", subject, f"its counts cost {expected} nano-USD, and {event.charged_nanousd} were charged"
            )

    def conclude(self, kept: AccountRow | None) -> Iterator[Violation]:
        """What does not hold once everything was fed. `kept` is None where the account has no row."""
        subject = f"account {self.account_id}"
        if kept is None:
            if not self.entries:
                return  # requests that cost nothing make no account
            yield Violation("I4", subject, f"it has {self.entries} entries and {self.events} requests, and no row")
            return
        if kept.available_nanousd + kept.grace_nanousd + kept.overflow_nanousd < 0:
            yield Violation(
                "I1",
                subject,
                f"available is {kept.available_nanousd}, below its grace of {kept.grace_nanousd} and its labelled "
                f"overflow of {kept.overflow_nanousd} together",
            )
        if kept.overflow_nanousd < self.overflow_nanousd:
            yield Violation(
                "I1", subject, f"its entries label {self.overflow_nanousd} as overflow, its row {kept.overflow_nanousd}"
            )
        posted = kept.available_nanousd + self.leases.reserved_nanousd
        if posted != self.replayed_nanousd:
            yield Violation(
                "I4",
                subject,
                f"available + reserved is {kept.available_nanousd} + {self.leases.reserved_nanousd} = {posted}, and "
                f"the replay of its {self.entries} entries is {self.replayed_nanousd}: {posted - self.replayed_nanousd}"
                " too many",
            )
        credited = self.by_kind[_CREDIT] + self.by_kind[_PROMOTION]
        if kept.credited_nanousd != credited:
            yield Violation("I4", subject, f"credited is {kept.credited_nanousd}, its entries say {credited}")
        charged = kept.charged_nanousd + self.leases.settled_open_nanousd
        if charged != self.by_kind[_CHARGE]:
            yield Violation("I4", subject, f"charged is {charged}, its entries say {self.by_kind[_CHARGE]}")
        refunded = self.by_kind[_WAIVER]
        if kept.refunded_nanousd != refunded:
            yield Violation("I4", subject, f"refunded is {kept.refunded_nanousd}, its entries say {refunded}")
        if self.refunded_nanousd != refunded:
            yield Violation("I4", subject, f"its requests got {self.refunded_nanousd} back, its entries say {refunded}")
        if self.leases.settled_nanousd != self.settled_nanousd:
            yield Violation(
                "I4",
                subject,
                f"its leases settled {self.leases.settled_nanousd}, its requests {self.settled_nanousd}",
            )


def _problem_of_pair(entry: EntryRow, account_id: str) -> str | None:
    """What is wrong with a movement's two sides."""
    if entry.amount_nanousd <= 0:
        return f"its amount is {entry.amount_nanousd}: it must be more than 0"
    try:
        side, house = _HOUSES[EntryKind(entry.kind)]
    except (KeyError, ValueError):  # a charge is its request's own row
        return f"{entry.kind} is no kind of movement"
    pair = (entry.debit_account_id, entry.credit_account_id)
    given, taken = (house.value, account_id), (account_id, house.value)
    allowed = {"debit": (given,), "credit": (taken,), "either": (given, taken)}[side]
    if pair not in allowed:
        return f"a {EntryKind(entry.kind).name.lower()} from {pair[0]!r} to {pair[1]!r}"
    return None
