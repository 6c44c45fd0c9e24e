"""When a price holds: the rule that turns what a document says into price versions.

The rule: **the past never changes; from the moment of application on, the catalog is what the document says.**

- A model that is new (or was removed and comes back) gets the version that the document has in force, from the moment
  that the document states, or from the beginning: nobody can have been charged for it before.
- For a model that is there, a price in force that differs from the catalog's becomes a new version from the moment of
  application, even where the document states an earlier moment. Nothing is ever priced backwards.
- Moments in the future are taken as they stand: added, changed (a new version) or withdrawn until they come.
- What is in force already and equal keeps its version, whatever moment the document states for it.

So the same document applied again changes nothing, at any time, also after one of its future prices has come.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from catalog_svc.catalog import PriceSpan, PriceVersion
from catalog_svc.fields import plain
from pricing import Price

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

# An ended version stays in snapshots for this long, so that an edge with a slow clock still finds its price.
ENDED_KEPT = timedelta(days=1)


def schedule(
    model_id: str, known: Sequence[PriceVersion], wanted: Sequence[PriceSpan], now: datetime
) -> tuple[PriceVersion, ...]:
    """The versions of a model after a document is applied at `now`. Both inputs in the order of time.

    `known` are those of the newest snapshot, none for a model that is not in it. A parsed document has exactly one
    price in force at `now` (document.py).
    """
    in_force = span_in_force(wanted, now)
    assert in_force is not None  # the parser refuses a model without a price in force
    past = [version for version in known if version.effective_time <= now]
    if not past:
        past = [_version(model_id, in_force.effective_time or BEGINNING, in_force.price)]
    elif past[-1].price != in_force.price:
        # One that would begin at this very moment has not held for any time: it gives way.
        past = [version for version in past if version.effective_time < now]
        past.append(_version(model_id, now, in_force.price))
    future = [
        _version(model_id, span.effective_time, span.price)
        for span in wanted
        if span.effective_time is not None and span.effective_time > now
    ]
    return (*_without_long_ended(past, now), *future)


def span_in_force(spans: Sequence[PriceSpan], now: datetime) -> PriceSpan | None:
    """The one that holds at `now`."""
    begun = [span for span in spans if span.effective_time is None or span.effective_time <= now]
    return begun[-1] if begun else None


def version_in_force(versions: Sequence[PriceVersion], now: datetime) -> PriceVersion | None:
    """The one that holds at `now`."""
    begun = [version for version in versions if version.effective_time <= now]
    return begun[-1] if begun else None


def versions_after(versions: Sequence[PriceVersion], now: datetime) -> list[PriceVersion]:
    """Those that are still to come."""
    return [version for version in versions if version.effective_time > now]


# The dimensions that people write per million tokens; the others are per image and per request.
PER_MILLION = ("prompt", "completion", "input_cache_read", "input_cache_write")


def price_texts(price: Price) -> dict[str, str]:
    """Each dimension as a plain decimal in USD per single unit; empty where the price has none."""
    values: dict[str, Decimal | None] = {
        "prompt": price.prompt,
        "completion": price.completion,
        "input_cache_read": price.input_cache_read,
        "input_cache_write": price.input_cache_write,
        "image": price.image,
        "request": price.request,
    }
    return {name: "" if value is None else plain(value) for name, value in values.items()}


def _version(model_id: str, effective_time: datetime, price: Price) -> PriceVersion:
    # The name is a digest of what it names: the same triple always has the same one, and no other triple ever does,
    # even after the catalog's database was lost and made anew. Usage events refer to it for years.
    triple = [model_id, effective_time.astimezone(UTC).isoformat(timespec="microseconds"), price_texts(price)]
    digest = hashlib.sha256(json.dumps(triple, sort_keys=True).encode()).hexdigest()
    return PriceVersion(f"pv_{digest[:32]}", effective_time, price)


def _without_long_ended(past: Sequence[PriceVersion], now: datetime) -> list[PriceVersion]:
    ends = [version.effective_time for version in past[1:]] + [now + ENDED_KEPT]
    return [version for version, end in zip(past, ends, strict=True) if end > now - ENDED_KEPT]
