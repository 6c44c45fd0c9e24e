"""What readers see, as values: finished requests, sums of usage, ledger entries."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from usage_svc.events import PriceTerms, UsageEvent
from usage_svc.ledger import Posting

MAX_USAGE_ROWS = 10_000
MICROSECONDS_PER_HOUR = 3_600_000_000
MICROSECONDS_PER_DAY = 24 * MICROSECONDS_PER_HOUR


class Grouping(IntEnum):
    """What sums are grouped by; the numbers are the contract's."""

    HOUR = 1
    DAY = 2
    MODEL = 3
    KEY = 4


PERIOD_US = {Grouping.HOUR: MICROSECONDS_PER_HOUR, Grouping.DAY: MICROSECONDS_PER_DAY}


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which sums are asked for. Moments are microseconds since 1970; `end_time_us` is not part of it."""

    account_id: str
    start_time_us: int
    end_time_us: int
    group_by: frozenset[Grouping]
    model_id: str = ""
    key_id: str = ""

    @property
    def period_us(self) -> int:
        """The length of a period; 0 where the sums are not grouped by time."""
        return max((PERIOD_US.get(grouping, 0) for grouping in self.group_by), default=0)


class UsageSums(NamedTuple):
    """One row of sums, in the order of the query's columns."""

    period_start_us: int
    model_id: str
    key_id: str
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int
    images: int
    charged_nanousd: int
    refunded_nanousd: int


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests are listed. Moments are as in UsageQuery; empty texts mean all."""

    account_id: str
    start_time_us: int
    end_time_us: int
    model_id: str = ""
    key_id: str = ""
    errors_only: bool = False


class Refund(NamedTuple):
    """A part of a charge that was given back; `reason` is for the customer."""

    amount_nanousd: int
    reason: str
    create_time_us: int


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request as it was posted, and what was given back of its charge since."""

    event: UsageEvent
    terms: PriceTerms
    charged_nanousd: int
    overflow_nanousd: int
    refunded_nanousd: int = 0
    refunds: tuple[Refund, ...] = ()

    @property
    def page_key(self) -> tuple[int, str]:
        """Where it stands in a listing."""
        return self.event.end_time_us, self.event.request_id


@dataclass(frozen=True, slots=True)
class Entry:
    """A posting as it stands in the ledger."""

    entry_id: int
    posting: Posting
    create_time_us: int

    @property
    def page_key(self) -> tuple[int, int]:
        """Where it stands in a listing."""
        return self.create_time_us, self.entry_id
