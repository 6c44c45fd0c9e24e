"""Timestamps and durations of requests: the wire lets through more than there is."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.faults import InvalidArgument

# As timestamp.proto and duration.proto have them: the years 1 to 9999, and as many years either way.
_SECONDS_MIN, _SECONDS_MAX = -62_135_596_800, 253_402_300_799
_DURATION_SECONDS_MAX = 315_576_000_000
_NANOS = 1_000_000_000


def require_timestamp(field: str, timestamp: Timestamp) -> Timestamp:
    """A moment that there is.

    Raises:
        InvalidArgument: there is none.
    """
    if not (_SECONDS_MIN <= timestamp.seconds <= _SECONDS_MAX and 0 <= timestamp.nanos < _NANOS):
        raise InvalidArgument(field, "not a moment of the years 1 to 9999 with nanos from 0 to 999,999,999")
    return timestamp


def datetime_from_pb(field: str, timestamp: Timestamp) -> datetime:
    """A moment in UTC.

    Raises:
        InvalidArgument: there is none.
    """
    moment: datetime = require_timestamp(field, timestamp).ToDatetime(tzinfo=UTC)
    return moment


def timedelta_from_pb(field: str, duration: Duration) -> timedelta:
    """A time span, whose parts must agree.

    Raises:
        InvalidArgument: they do not, or it is too long.
    """
    seconds, nanos = duration.seconds, duration.nanos
    if abs(seconds) > _DURATION_SECONDS_MAX or abs(nanos) >= _NANOS or seconds * nanos < 0:
        raise InvalidArgument(field, "not a duration: seconds and nanos of one sign, nanos below 1,000,000,000")
    return timedelta(seconds=seconds, microseconds=nanos // 1000)
