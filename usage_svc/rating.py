"""From a usage event to its charge: the plausibility gate, the price as it was admitted, the amount.

Upstream's numbers are charged unaltered or not at all: what is not plausible is set aside under a reason.
"""

import itertools
import re
from decimal import Decimal, InvalidOperation

from pricing import Price, TokenUsage, charge_nanousd, is_plausible
from usage_svc.events import (
    SCHEMA_KNOWN,
    Ending,
    EventRecord,
    Outcome,
    PriceTerms,
    Resource,
    Source,
    UsageEvent,
)
from usage_svc.ledger import HOUSE_ACCOUNT_IDS, MAX_AMOUNT_NANOUSD

# Why a record was set aside. Keys are what the contract's RecordException.reason says.
QUARANTINE_REASONS = {
    "UNREADABLE": "the edge could not read this position of its spool",
    "EMPTY_RECORD": "the record says nothing",
    "SCHEMA_MISSING": "the event names no layout",
    "REQUEST_ID_INVALID": "the request id is not a UUIDv7 in lower case with hyphens",
    "TOO_OLD": "the request id is older than the horizon of de-duplication",
    "FROM_THE_FUTURE": "the request id is more than a day ahead of the database's clock",
    "TEXT_INVALID": "an id is missing, too long, has a NUL character, or is reserved",
    "ENUM_UNKNOWN": "outcome, source, ending or resource is none of the known ones",
    "SOURCE_CONTRADICTS_OUTCOME": "it is to be charged, and its counts come from nowhere",
    "TIME_INVALID": "admit_time or end_time is missing or beyond the year 9999",
    "NUMBER_INVALID": "a count, amount or duration is negative or beyond its maximum",
    "TOKENS_IMPLAUSIBLE": "more tokens than the model could have taken or made",
    "PRICE_INVALID": "it is to be charged without a price, or a price is not a decimal within bounds",
    "PRICE_CONTRADICTS_VERSION": "its price is not what was seen of this version before",
    "CHARGE_TOO_LARGE": "it would cost more than a billion USD",
    "ROW_INVALID": "the event's row is not what its layout says",
    "LEASE_UNKNOWN": "a return for a lease that this session does not have",
}

MAX_TOKENS = 10**10
MAX_IMAGES = 10**5
MAX_ID_CHARS = 100
MAX_MODEL_ID_CHARS = 200
MAX_PRICE_CHARS = 50
MAX_DURATION_MS = 366 * 86_400_000
MICROSECONDS_PER_DAY = 86_400_000_000
END_OF_TIME_US = 253_402_300_800_000_000  # the year 10000, where datetime ends

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_OUTCOMES, _SOURCES = frozenset(map(int, Outcome)), frozenset(map(int, Source))
_ENDINGS, _RESOURCES = frozenset(map(int, Ending)), frozenset(map(int, Resource))
CHARGED_OUTCOMES = {  # and the sources that each may have
    int(Outcome.MEASURED): frozenset({int(Source.UPSTREAM_FINAL), int(Source.UPSTREAM_PARTIAL)}),
    int(Outcome.ESTIMATED): frozenset({int(Source.ESTIMATED)}),
}
_ESTIMATED = int(Outcome.ESTIMATED)
# Every way that (outcome, source, ending, resource) may be: one look for what is nearly always so.
PLAUSIBLE_KINDS = frozenset(
    (outcome, source, ending, resource)
    for outcome, source, ending, resource in itertools.product(_OUTCOMES, _SOURCES, _ENDINGS, _RESOURCES)
    if source in CHARGED_OUTCOMES.get(outcome, _SOURCES)
)


def day_of(request_id: str) -> int | None:
    """The day of a UUIDv7, counted from 1970-01-01 in UTC; None if it is not one in its canonical form.

    Canonical, since the id is compared as text: an id in capitals would pass for another request.
    """
    if _UUID7.fullmatch(request_id) is None:
        return None
    return int(request_id[:8] + request_id[9:13], 16) // 86_400_000


def reason_against(record: EventRecord, day: int | None, today: int, horizon_days: int) -> str | None:
    """Why this event of `day` (see day_of) must not be posted; None for a plausible one. Judges all but its price."""
    event = record.event
    if record.schema < SCHEMA_KNOWN:
        return "SCHEMA_MISSING"
    if day is None:
        return "REQUEST_ID_INVALID"
    if not today - horizon_days <= day <= today + 1:
        return "TOO_OLD" if day < today else "FROM_THE_FUTURE"
    if _has_bad_words((*event[1:6], event.price_version)):
        return "TEXT_INVALID"
    if (event.outcome, event.source, event.ending, event.resource) not in PLAUSIBLE_KINDS:
        return _reason_against_kinds(event)
    if not (0 < event.admit_time_us < END_OF_TIME_US and 0 < event.end_time_us < END_OF_TIME_US):
        return "TIME_INVALID"
    return _reason_against_numbers(event)


def _has_bad_words(words: tuple[str, str, str, str, str, str]) -> bool:
    account_id, lease_id, key_id, model_id, deployment_id, price_version = words
    # PostgreSQL refuses NUL in text, which would hold up every record behind this one.
    return (
        not 0 < len(account_id) <= MAX_ID_CHARS
        or not 0 < len(model_id) <= MAX_MODEL_ID_CHARS
        or len(key_id) > MAX_ID_CHARS
        or len(lease_id) > MAX_ID_CHARS
        or len(deployment_id) > MAX_MODEL_ID_CHARS
        or len(price_version) > MAX_ID_CHARS
        or "\0" in account_id + model_id + key_id + lease_id + deployment_id + price_version
        or account_id in HOUSE_ACCOUNT_IDS
    )


def _reason_against_kinds(event: UsageEvent) -> str:
    known = (
        event.outcome in _OUTCOMES
        and event.source in _SOURCES
        and event.ending in _ENDINGS
        and event.resource in _RESOURCES
    )
    return "SOURCE_CONTRADICTS_OUTCOME" if known else "ENUM_UNKNOWN"


def _reason_against_numbers(event: UsageEvent) -> str | None:
    hold, plausible_max, first_byte, whole = event[12:16]
    usage = tuple.__new__(TokenUsage, event[16:24])
    if not (
        0 <= usage.images <= MAX_IMAGES
        and 0 <= hold <= MAX_AMOUNT_NANOUSD
        and 0 <= first_byte <= MAX_DURATION_MS
        and 0 <= whole <= MAX_DURATION_MS
    ):
        return "NUMBER_INVALID"
    if is_plausible(usage, min(plausible_max, MAX_TOKENS)):
        return None
    return "TOKENS_IMPLAUSIBLE" if is_plausible(usage, MAX_TOKENS) and plausible_max >= 0 else "NUMBER_INVALID"


def price_from_terms(terms: PriceTerms) -> Price | None:
    """The price that an event carries; None where it is not one."""
    if max(map(len, terms[1:])) > MAX_PRICE_CHARS:
        return None
    try:
        return Price(
            prompt=Decimal(terms.prompt),
            completion=Decimal(terms.completion),
            input_cache_read=Decimal(terms.input_cache_read) if terms.input_cache_read else None,
            input_cache_write=Decimal(terms.input_cache_write) if terms.input_cache_write else None,
            image=Decimal(terms.image or 0),
            request=Decimal(terms.request or 0),
        )
    except (InvalidOperation, ValueError):
        return None


def charge_of(event: UsageEvent, price: Price) -> int:
    """What an event of a charged outcome costs, in nano-USD. An estimate is never charged above its hold."""
    charge = charge_nanousd(tuple.__new__(TokenUsage, event[16:24]), price)
    return min(charge, event.hold_nanousd) if event.outcome == _ESTIMATED else charge
