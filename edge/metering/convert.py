"""The one place in metering that knows protobuf and the spool's bytes both."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from protos.usage.v1 import usage_pb2

EVENT_SCHEMA = 1

# A record that could not be read back: Record(unreadable=b""). It keeps its place, so those behind it can be posted.
UNREADABLE = b"\x1a\x00"


class Admitted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request that is about to be forwarded: all that its `edge_lost` event will need. Fields are only ever added."""

    request_id: str
    account_id: str
    lease_id: str
    hold_nanousd: int
    key_id: str = ""
    model_id: str = ""
    resource: int = 0


encode_admitted = msgspec.json.Encoder().encode
decode_admitted = msgspec.json.Decoder(Admitted).decode


def record_from_event(event: usage_pb2.UsageEvent, template: bytes = b"") -> bytes:
    """A serialized Record(event=...), framed by hand: building the outer message would copy the inner one twice.

    `template`: serialized fields of the same event, which `event` leaves out or overrides.
    """
    body = template + event.SerializeToString()
    return b"\x0a" + _varint(len(body)) + body


def record_from_return(lease_id: str, returned_total_nanousd: int) -> bytes:
    """A serialized Record(lease_return=...)."""
    return usage_pb2.Record(
        lease_return=usage_pb2.LeaseReturn(lease_id=lease_id, returned_total_nanousd=returned_total_nanousd)
    ).SerializeToString()


def request_id_of(record: bytes) -> str:
    """Which request's outcome a spooled record is; "" for a return."""
    return usage_pb2.Record.FromString(record).event.request_id


def end_time_s_of(record: bytes) -> float:
    """When its request ended, in seconds since the epoch; 0 for a return."""
    end_time = usage_pb2.Record.FromString(record).event.end_time
    return end_time.seconds + end_time.nanos / 1e9


def record_usage_request(
    session: usage_pb2.Session, first_seq: int, records: Sequence[bytes]
) -> usage_pb2.RecordUsageRequest:
    """A batch, out of serialized records, without a Python object for each."""
    request = usage_pb2.RecordUsageRequest(session=session, first_seq=first_seq)
    request.MergeFromString(b"".join(b"\x1a" + _varint(len(record)) + record for record in records))
    return request


def event_from_lost(admitted: Admitted, now: datetime) -> usage_pb2.UsageEvent:
    """The outcome of a request whose edge died before it knew: charged nothing."""
    admit_time = _time_of(admitted.request_id) or now
    return usage_pb2.UsageEvent(
        schema=EVENT_SCHEMA,
        request_id=admitted.request_id,
        lease_id=admitted.lease_id,
        account_id=admitted.account_id,
        key_id=admitted.key_id,
        model_id=admitted.model_id,
        resource=usage_pb2.Resource.ValueType(admitted.resource),
        admit_time=_timestamp(admit_time),
        end_time=_timestamp(max(now, admit_time)),
        outcome=usage_pb2.OUTCOME_EDGE_LOST,
        source=usage_pb2.USAGE_SOURCE_NONE,
        ending=usage_pb2.ENDING_EDGE_LOST,
        hold_nanousd=admitted.hold_nanousd,
    )


def _time_of(request_id: str) -> datetime | None:
    # A UUIDv7 begins with milliseconds since 1970 (RFC 9562, 5.7), so admission need not write the time again.
    try:
        value = UUID(request_id)
    except ValueError:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value.int >> 80) if value.version == 7 else None


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    if value < 16_384:
        return bytes((value & 127 | 128, value >> 7))
    return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))  # a frame's body is far below 2 MiB
