"""What a batch of spooled records does to the books, decided in full before anything is written.

These are the rules, record by record. Where nothing is exceptional, bulk.py comes to the same at a fraction of the
cost.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from pricing import Price
from usage_svc.events import EventRecord, Outcome, PriceTerms, Record, ReturnRecord, UsageEvent
from usage_svc.leases import Lease
from usage_svc.ledger import MAX_AMOUNT_NANOUSD
from usage_svc.rating import (
    CHARGED_OUTCOMES,
    MAX_ID_CHARS,
    charge_of,
    day_of,
    reason_against,
)
from usage_svc.sessions import SessionId

_EDGE_LOST = int(Outcome.EDGE_LOST)


class RecordOutcome(IntEnum):
    """What became of a record that was not simply posted; the numbers are the contract's."""

    DUPLICATE = 1
    QUARANTINED = 2


class Exceptional(NamedTuple):
    """A record that was not simply posted, and why."""

    seq: int
    outcome: RecordOutcome
    reason: str


class PostedEvent(NamedTuple):
    """A row of the usage table: the event, its day, its charge, and its position in the spool."""

    day: int
    event: UsageEvent
    charge_nanousd: int
    overflow_nanousd: int
    seq: int


class Posted(NamedTuple):
    """Rows of the usage table by column, as the database takes them; `fields` are UsageEvent's, in its order."""

    days: Sequence[int]
    fields: Sequence[Sequence[Any]]
    charges_nanousd: Sequence[int]
    overflows_nanousd: Sequence[int]
    seqs: Sequence[int]

    def field(self, name: str) -> Sequence[Any]:
        """A column of the events."""
        return self.fields[UsageEvent._fields.index(name)]


_NOTHING_POSTED = Posted((), [()] * len(UsageEvent._fields), (), (), ())


def _posted(events: Iterable[PostedEvent]) -> Posted:
    rows = list(events)
    if not rows:
        return _NOTHING_POSTED
    days, fields, charges, overflows, seqs = zip(*rows, strict=True)
    return Posted(days, list(zip(*fields, strict=True)), charges, overflows, seqs)


@dataclass(slots=True)
class AccountChange:
    """What a batch does to one account row. Charges inside a lease are not in it: they touch only the lease."""

    available_nanousd: int = 0
    overflow_nanousd: int = 0
    charged_nanousd: int = 0  # by no open lease


@dataclass(slots=True)
class Intake:
    """Everything that a batch writes, in one transaction."""

    posted: Posted = _NOTHING_POSTED
    superseded: list[tuple[int, str]] = field(default_factory=list)
    leases: dict[str, Lease] = field(default_factory=dict)
    accounts: dict[str, AccountChange] = field(default_factory=dict)
    exceptions: list[Exceptional] = field(default_factory=list)
    overflows: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Sifted:
    """A batch after the plausibility gate: a reason per refused event, and what must be looked up for the rest."""

    reasons: Mapping[int, str]
    days: Mapping[str, int]
    request_ids_by_day: Mapping[int, Sequence[str]]
    lease_ids: Sequence[str]
    terms: Sequence[PriceTerms]


def sift(records: Sequence[Record], today: int, horizon_days: int) -> Sifted:
    """Judges each event by itself. What the gate refuses is not looked up, and teaches us no price."""
    reasons: dict[int, str] = {}
    days: dict[str, int] = {}
    ids: dict[int, list[str]] = {}
    lease_ids: set[str] = set()
    terms: dict[PriceTerms, None] = {}
    for index, record in enumerate(records):
        if isinstance(record, EventRecord):
            event = record.event
            day = day_of(event.request_id)
            reason = reason_against(record, day, today, horizon_days)
            if reason is not None or day is None:
                reasons[index] = reason or "REQUEST_ID_INVALID"
                continue
            days[event.request_id] = day
            ids.setdefault(day, []).append(event.request_id)
            lease_ids.add(event.lease_id)
            if record.terms.price_version:
                terms[record.terms] = None
        elif isinstance(record, ReturnRecord):
            if len(record.lease_id) > MAX_ID_CHARS or "\0" in record.lease_id:
                reasons[index] = "TEXT_INVALID"
            else:
                lease_ids.add(record.lease_id)
    return Sifted(reasons, days, ids, sorted(lease_ids), list(terms))


@dataclass(frozen=True, slots=True)
class Lookups:
    """What the database knows of a batch, read under the session's lock."""

    leases: Mapping[str, Lease]
    seen_outcomes: Mapping[str, int]
    prices: Mapping[PriceTerms, Price]
    price_reasons: Mapping[PriceTerms, str]


def take_in(session_id: SessionId, first_seq: int, records: Sequence[Record], sifted: Sifted, known: Lookups) -> Intake:
    """Posts records in order on paper. Draws down the leases in `known`, which are this transaction's own copies."""
    intake = Intake()
    events: dict[str, PostedEvent] = {}
    for seq, record in enumerate(records, start=first_seq):
        reason = sifted.reasons.get(seq - first_seq)
        if reason is None:
            if isinstance(record, EventRecord):
                reason = _take_event(intake, events, session_id, seq, record, sifted.days, known)
            elif isinstance(record, ReturnRecord):
                reason = _take_return(intake, session_id, record, known)
            else:
                reason = getattr(record, "reason", "EMPTY_RECORD")
        if reason is not None:
            intake.exceptions.append(Exceptional(seq, RecordOutcome.QUARANTINED, reason))
    intake.posted = _posted(events.values())
    return intake


def _take_event(
    intake: Intake,
    events: dict[str, PostedEvent],
    session_id: SessionId,
    seq: int,
    record: EventRecord,
    days: Mapping[str, int],
    known: Lookups,
) -> str | None:
    event, _, terms = record
    request_id = event.request_id
    day = days[request_id]
    posted = events.get(request_id)
    seen = known.seen_outcomes.get(request_id) if posted is None else posted.event.outcome
    # What an edge took for lost may have been measured by whoever read its spool: the measurement is the truth, in
    # whatever order the two arrive. An edge_lost is never charged, so there is nothing to take back.
    if seen is not None and (seen != _EDGE_LOST or event.outcome == _EDGE_LOST):
        intake.exceptions.append(Exceptional(seq, RecordOutcome.DUPLICATE, "REQUEST_ID_POSTED"))
        return None
    charge = overflow = 0
    price = known.prices.get(terms)
    if event.outcome in CHARGED_OUTCOMES:
        if price is None:
            return known.price_reasons.get(terms, "PRICE_INVALID")
        charge = charge_of(event, price)
        if charge > MAX_AMOUNT_NANOUSD:
            return "CHARGE_TOO_LARGE"
    elif price is None and terms.price_version:
        return known.price_reasons.get(terms, "PRICE_INVALID")
    if seen is not None and posted is None:
        intake.superseded.append((day, request_id))
    if charge:
        overflow = _settle(intake, session_id, event, charge, known)
    events[request_id] = tuple.__new__(PostedEvent, (day, event, charge, overflow, seq))
    return None


def _settle(intake: Intake, session_id: SessionId, event: UsageEvent, charge: int, known: Lookups) -> int:
    """Draws a charge from its lease, the rest from the account. Returns the rest.

    Whose request it was decides who pays, not what the lease says: an event with a lease of somebody else is charged to
    its own account, whole and labelled, and the other's lease is not touched.
    """
    lease = known.leases.get(event.lease_id)
    if lease is None or lease.closed:
        overflow, why = charge, "lease_gone"
    elif not is_ours(lease, session_id) or lease.account_id != event.account_id:
        overflow, why = charge, "lease_foreign"
    else:
        overflow, why = lease.settle(charge), "last" if lease.is_last else "beyond_lease"
        intake.leases[lease.lease_id] = lease
    if overflow:
        intake.overflows[why] += overflow
        change = intake.accounts.setdefault(event.account_id, AccountChange())
        change.available_nanousd -= overflow
        change.overflow_nanousd += overflow
        change.charged_nanousd += overflow
    return overflow


def _take_return(intake: Intake, session_id: SessionId, record: ReturnRecord, known: Lookups) -> str | None:
    lease = known.leases.get(record.lease_id)
    if record.returned_total_nanousd < 0:
        return "NUMBER_INVALID"
    if lease is None or not is_ours(lease, session_id):
        return "LEASE_UNKNOWN"
    if lease.closed:
        return None  # released as a whole before; there is nothing left to return
    if lease.is_last:
        # It was for one request, whose event stands before this: the account's slot for such is free again.
        change = intake.accounts.setdefault(lease.account_id, AccountChange())
        change.available_nanousd += lease.release()
        change.charged_nanousd += lease.settled_nanousd
        intake.leases[lease.lease_id] = lease
        return None
    delta = lease.give_back(record.returned_total_nanousd)
    if delta:
        intake.leases[lease.lease_id] = lease
        intake.accounts.setdefault(lease.account_id, AccountChange()).available_nanousd += delta
    return None


def is_ours(lease: Lease, session_id: SessionId) -> bool:
    """Whether this session may charge that lease."""
    return lease.incarnation == session_id.incarnation and lease.spool_uuid == session_id.spool_uuid
