"""What an edge spools, as values: usage events, returns of funds, and what cannot be understood."""

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

SCHEMA_KNOWN = 1  # the newest layout of a usage event that this code understands


class Outcome(IntEnum):
    """What became of an admitted request's bill; the numbers are the contract's."""

    MEASURED = 1
    ESTIMATED = 2
    WAIVED = 3
    NONE = 4
    EDGE_LOST = 5


class Source(IntEnum):
    """Where the counts come from."""

    UPSTREAM_FINAL = 1
    UPSTREAM_PARTIAL = 2
    ESTIMATED = 3
    NONE = 4


class Ending(IntEnum):
    """How the request ended."""

    COMPLETED = 1
    CLIENT_GONE = 2
    UPSTREAM_FAILED = 3
    EDGE_LOST = 4


class Resource(IntEnum):
    """Which public resource was called."""

    CHAT_COMPLETIONS = 1
    RESPONSES = 2


class UsageEvent(NamedTuple):
    """One admitted request's final outcome, flat: in the order of the contract's Record.event_row, then the price.

    A named tuple and not a dataclass: it is made for every request and goes to the driver as it is, and a frozen
    dataclass of this width takes six times as long to make. Enum fields are plain integers, since the gate must be able
    to see a number that no enum has. Times are microseconds since 1970 in UTC; 0 means absent.
    """

    request_id: str
    account_id: str
    lease_id: str
    key_id: str
    model_id: str
    deployment_id: str
    resource: int
    status_code: int
    streamed: bool
    outcome: int
    source: int
    ending: int
    hold_nanousd: int
    plausible_tokens_max: int
    first_byte_ms: int
    duration_ms: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int
    images: int
    admit_time_us: int
    end_time_us: int
    attempts: bytes  # opaque here: only convert.py and the people who read it care
    price_version: str


# What of it the contract's UsageEvent and TokenCounts have under the same names: convert.py reads each with one getter.
EVENT_FIELDS, TOKEN_FIELDS = UsageEvent._fields[:16], UsageEvent._fields[16:24]


class PriceTerms(NamedTuple):
    """A price version and its vector as the event carries them: decimals in text, "" for absent."""

    price_version: str = ""
    prompt: str = ""
    completion: str = ""
    input_cache_read: str = ""
    input_cache_write: str = ""
    image: str = ""
    request: str = ""


class EventRecord(NamedTuple):
    """A spooled request outcome."""

    event: UsageEvent
    schema: int
    terms: PriceTerms


class ReturnRecord(NamedTuple):
    """Spooled return of funds; cumulative over the lease."""

    lease_id: str
    returned_total_nanousd: int


class DamagedRecord(NamedTuple):
    """Something at this position that says nothing that can be posted; `reason` says why."""

    reason: str


class NewerRecord(NamedTuple):
    """A kind of record that this code does not know. It must wait for code that does."""


Record = EventRecord | ReturnRecord | DamagedRecord | NewerRecord


def is_newer(record: Record) -> bool:
    """Whether the record waits for newer code: such a one is refused whole, never half understood."""
    return isinstance(record, NewerRecord) or (isinstance(record, EventRecord) and record.schema > SCHEMA_KNOWN)


class EventColumns(NamedTuple):
    """A batch that is nothing but events of the newest layout, by column; `fields` are UsageEvent's, in its order.

    Each number is within the gate's bounds for it. `terms` are each event's, `distinct_terms` the few that there are.
    """

    fields: Sequence[Sequence[Any]]
    terms: Sequence[PriceTerms]
    distinct_terms: Sequence[PriceTerms]

    def field(self, name: str) -> Sequence[Any]:
        """One of the fields, for all events."""
        return self.fields[UsageEvent._fields.index(name)]


class Batch:
    """The records of one call. `columns` is what they are where they are nothing else, as nearly always; each by itself
    they are read only when somebody asks."""

    def __init__(self, size: int, columns: EventColumns | None, read: Callable[[], Sequence[Record]]) -> None:
        self.size, self.columns, self._read = size, columns, read

    @cached_property
    def records(self) -> Sequence[Record]:
        return self._read()
