"""The common batch, taken in by columns: new, plausible events within their leases, and nothing else.

Both functions answer None for any other batch, and have then changed nothing: intake.py decides it record by record.
What they do decide comes to the same there (tests/unit/test_usage_bulk.py holds them to it, whatever the batch).
"""

import operator
from collections.abc import Mapping, Sequence

from pricing import Price, charges_nanousd
from usage_svc.events import EventColumns, Outcome, PriceTerms
from usage_svc.intake import Intake, Lookups, Posted, Sifted, is_ours
from usage_svc.leases import Lease
from usage_svc.ledger import HOUSE_ACCOUNT_IDS, MAX_AMOUNT_NANOUSD
from usage_svc.rating import (
    CHARGED_OUTCOMES,
    MAX_ID_CHARS,
    MAX_MODEL_ID_CHARS,
    PLAUSIBLE_KINDS,
    day_of,
)
from usage_svc.sessions import SessionId

_MEASURED, _ESTIMATED = int(Outcome.MEASURED), int(Outcome.ESTIMATED)
_TOKENS = slice(16, 24)  # of UsageEvent
_TEXT_CHARS_MAX = {
    "account_id": MAX_ID_CHARS,
    "lease_id": MAX_ID_CHARS,
    "key_id": MAX_ID_CHARS,
    "model_id": MAX_MODEL_ID_CHARS,
    "deployment_id": MAX_MODEL_ID_CHARS,
    "price_version": MAX_ID_CHARS,
}


def sift(columns: EventColumns, today: int, horizon_days: int) -> Sifted | None:
    """The gate for all of them at once; its bounds of single numbers are held already, see event_rows.py."""
    request_ids = columns.field("request_id")
    day = _one_day_of(request_ids)
    if day is None or not today - horizon_days <= day <= today + 1 or not _is_plausible(columns):
        return None
    terms = [each for each in columns.distinct_terms if each.price_version]
    lease_ids = sorted(set(columns.field("lease_id")))
    return Sifted({}, dict.fromkeys(request_ids, day), {day: request_ids}, lease_ids, terms)


def take_in(
    session_id: SessionId, first_seq: int, columns: EventColumns, sifted: Sifted, known: Lookups
) -> Intake | None:
    """As intake.take_in, where each event is new, has its price, and fits its lease."""
    count = len(columns.terms)
    if known.seen_outcomes or len(sifted.days) != count:
        return None  # requests that were posted before, or twice in it
    if not all(terms in known.prices for terms in sifted.terms):
        return None
    charges = _charges(columns, known.prices)
    if charges is None or max(charges) > MAX_AMOUNT_NANOUSD:
        return None
    leases = _drawn(session_id, columns, charges, known.leases)
    if leases is None:
        return None
    seqs = range(first_seq, first_seq + count)
    posted = Posted(list(sifted.days.values()), columns.fields, charges, [0] * count, seqs)
    return Intake(posted=posted, leases=leases)


def _one_day_of(request_ids: Sequence[str]) -> int | None:
    """See day_of. None where one of them is no UUIDv7 in its canonical form, or they are of several days."""
    text, count = "".join(request_ids), len(request_ids)
    hyphens = "-" * count
    are_canonical = (
        set(map(len, request_ids)) == {36}
        and text.isascii()
        and not text.encode().translate(None, b"0123456789abcdef-")
        and text.count("-") == 4 * count
        and text[8::36] == text[13::36] == text[18::36] == text[23::36] == hyphens
        and text[14::36] == "7" * count
        and not text[19::36].strip("89ab")
    )
    if not are_canonical:
        return None
    day = day_of(min(request_ids))  # they sort by their time
    return day if day == day_of(max(request_ids)) else None


def _is_plausible(columns: EventColumns) -> bool:
    """What reason_against would find of any of them, but for its id's time and the bounds of single numbers."""
    account_ids, model_ids = columns.field("account_id"), columns.field("model_id")
    texts = [columns.field(name) for name in _TEXT_CHARS_MAX]
    kinds = zip(*map(columns.field, ("outcome", "source", "ending", "resource")), strict=True)
    plausible_tokens_max, tokens = columns.field("plausible_tokens_max"), columns.fields[_TOKENS][:-1]
    return (
        PLAUSIBLE_KINDS.issuperset(kinds)
        and HOUSE_ACCOUNT_IDS.isdisjoint(account_ids)
        and all(account_ids)
        and all(model_ids)
        and not any("\0" in text for text in map("".join, texts))
        and all(max(map(len, column)) <= most for column, most in zip(texts, _TEXT_CHARS_MAX.values(), strict=True))
        and (
            max(map(max, tokens)) <= min(plausible_tokens_max)
            or all(map(operator.le, map(max, *tokens), plausible_tokens_max))
        )
    )


def _charges(columns: EventColumns, prices: Mapping[PriceTerms, Price]) -> list[int] | None:
    """See charge_of; 0 for what is not charged. None where something is to be charged without a price."""
    outcomes, count = columns.field("outcome"), len(columns.terms)
    usages = columns.fields[_TOKENS]
    charges = [0] * count
    for terms, rows in _rows_by_terms(columns).items():
        price = prices.get(terms)
        if price is None:
            if any(outcomes[row] in CHARGED_OUTCOMES for row in rows):
                return None
        elif len(rows) == count:
            charges = charges_nanousd(usages, price)
        else:
            of_rows = charges_nanousd([[column[row] for row in rows] for column in usages], price)
            for row, charge in zip(rows, of_rows, strict=True):
                charges[row] = charge
    if set(outcomes) == {_MEASURED}:
        return charges
    holds = columns.field("hold_nanousd")
    return [
        (min(charge, hold) if outcome == _ESTIMATED else charge) if outcome in CHARGED_OUTCOMES else 0
        for outcome, charge, hold in zip(outcomes, charges, holds, strict=True)
    ]


def _rows_by_terms(columns: EventColumns) -> Mapping[PriceTerms, Sequence[int]]:
    if len(columns.distinct_terms) == 1:
        return {columns.distinct_terms[0]: range(len(columns.terms))}
    rows: dict[PriceTerms, list[int]] = {}
    for row, terms in enumerate(columns.terms):
        rows.setdefault(terms, []).append(row)
    return rows


def _drawn(
    session_id: SessionId, columns: EventColumns, charges: Sequence[int], leases: Mapping[str, Lease]
) -> dict[str, Lease] | None:
    """The leases that these charges are drawn from, drawn down; None, and nothing is drawn, where one does not fit."""
    owners = list(zip(columns.field("lease_id"), columns.field("account_id"), strict=True))
    totals: dict[tuple[str, str], int] = {}
    if owners.count(owners[0]) == len(owners):  # one account's batch: the busiest, and the cheapest
        totals[owners[0]] = sum(charges)
    else:
        for owner, charge in zip(owners, charges, strict=True):
            totals[owner] = totals.get(owner, 0) + charge
    drawn: dict[str, Lease] = {}
    for (lease_id, account_id), total in totals.items():
        if not total:
            continue
        lease = leases.get(lease_id)
        if lease is None or lease.closed or not is_ours(lease, session_id) or lease.account_id != account_id:
            return None
        if total > lease.reserved_nanousd:
            return None
        drawn[lease_id] = lease
    for (lease_id, _), total in totals.items():
        if total:
            drawn[lease_id].settle(total)
    return drawn
