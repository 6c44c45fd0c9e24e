"""Captured inputs and outputs, and the pure rules of what is kept of them."""

from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

from usage_svc.ledger import HOUSE_ACCOUNT_IDS
from usage_svc.rating import MAX_ID_CHARS, MAX_MODEL_ID_CHARS, MICROSECONDS_PER_DAY, day_of

RETENTION_DAYS_MAX = 3650
# Deletions that an account may have in wait for logs that nobody has seen, and times that it may have deleted.
MAX_DELETIONS_AHEAD = 10_000
MAX_DELETED_TIMES = 1000

_STATUS_MAX = 999
_SIZE_MAX = 2**53


class Parts(IntFlag):
    """Which bodies there are, and of which there is only the beginning."""

    INPUT = 1
    OUTPUT = 2
    OUTPUT_RAW = 4
    INPUT_TRUNCATED = 8
    OUTPUT_TRUNCATED = 16
    OUTPUT_RAW_TRUNCATED = 32


class Log(NamedTuple):
    """What is kept of one request; its fields are the columns of `request_log`."""

    account_id: str
    request_id: str
    key_id: str
    model_id: str
    resource: int
    status_code: int
    streamed: bool
    end_time_us: int
    expire_time_us: int
    input_bytes: int
    output_bytes: int
    parts: int
    input: bytes | None = None
    output: bytes | None = None
    output_raw: bytes | None = None

    @property
    def expire_day(self) -> int:
        """Since 1970-01-01, UTC."""
        return self.expire_time_us // MICROSECONDS_PER_DAY

    @property
    def page_key(self) -> tuple[int, str]:
        return self.end_time_us, self.request_id


class LogFilter(NamedTuple):
    """Which logs are listed."""

    account_id: str
    start_time_us: int
    end_time_us: int
    model_id: str
    key_id: str


class Span(NamedTuple):
    """A time that an account had deleted, its end excluded."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Deletions:
    """What was deleted of the accounts of a batch."""

    requests: frozenset[tuple[str, str]]
    spans: dict[str, list[Span]]

    def cover(self, log: Log) -> bool:
        """Whether a log was deleted before it came."""
        if (log.account_id, log.request_id) in self.requests:
            return True
        return any(span.start_us <= log.end_time_us < span.end_us for span in self.spans.get(log.account_id, ()))


def reason_to_drop(log: Log, deletions: Deletions, now_us: int, horizon_us: int) -> str | None:
    """Why a log is not kept; None for one that is. What is late is not: its deletion may be forgotten by now."""
    if _is_invalid(log, now_us):
        return "invalid"
    if log.expire_time_us <= now_us:
        return "expired"
    if log.end_time_us < now_us - horizon_us:
        return "late"
    return "deleted" if deletions.cover(log) else None


def _is_invalid(log: Log, now_us: int) -> bool:
    ids = (log.account_id, log.key_id)
    return (
        day_of(log.request_id) is None
        or log.account_id in HOUSE_ACCOUNT_IDS
        or not all(0 < len(each) <= MAX_ID_CHARS and "\0" not in each for each in ids)
        or len(log.model_id) > MAX_MODEL_ID_CHARS
        or "\0" in log.model_id
        or not 0 <= log.status_code <= _STATUS_MAX
        or not 0 < log.end_time_us <= now_us + MICROSECONDS_PER_DAY
        or log.expire_time_us > now_us + (RETENTION_DAYS_MAX + 1) * MICROSECONDS_PER_DAY
        or not (0 <= log.input_bytes <= _SIZE_MAX and 0 <= log.output_bytes <= _SIZE_MAX)
    )


def merged(spans: list[Span]) -> list[Span]:
    """The same times in as few spans as can be, in order."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start_us <= found[-1].end_us:
            found[-1] = Span(found[-1].start_us, max(found[-1].end_us, span.end_us))
        else:
            found.append(span)
    return found
