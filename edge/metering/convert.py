"""The one place in metering that knows protobuf and the spool's bytes both."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from edge.metering.usage_event import UsageEvent, decode_event, encode_event
from protos.usage.v1 import usage_pb2

# Fields that the contract's UsageEvent has as messages.
_OF_ANOTHER_KIND = ("price", "admit_time_us", "end_time_us", "attempts")

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


def record_from_event(event: UsageEvent) -> bytes:
    """A serialized Record(event_row=...), framed by hand: building the message would copy the row twice."""
    body = encode_event(event)
    return b"\x22" + _varint(len(body)) + body


def record_from_return(lease_id: str, returned_total_nanousd: int) -> bytes:
    """A serialized Record(lease_return=...)."""
    return usage_pb2.Record(
        lease_return=usage_pb2.LeaseReturn(lease_id=lease_id, returned_total_nanousd=returned_total_nanousd)
    ).SerializeToString()


def request_id_of(record: bytes) -> str:
    """Which request's outcome a spooled record is; "" for a return."""
    return _event_of(record).request_id


def _event_of(record: bytes) -> UsageEvent | usage_pb2.UsageEvent:
    """A message where an edge of before there were rows wrote it. Empty for a return, and for a newer edge's row."""
    message = usage_pb2.Record.FromString(record)
    if not message.HasField("event_row"):
        return message.event
    try:
        return decode_event(message.event_row)
    except ValueError:
        return UsageEvent()


def record_for_older_service(record: bytes) -> bytes:
    """The same record in the form that a usage_svc of before there were rows understands."""
    message = usage_pb2.Record.FromString(record)
    if not message.HasField("event_row"):
        return record
    try:
        event = decode_event(message.event_row)
    except ValueError:
        return record  # a newer edge's: it waits for a newer usage_svc
    return usage_pb2.Record(event=_pb_from_event(event)).SerializeToString()


def _pb_from_event(event: UsageEvent) -> usage_pb2.UsageEvent:
    fields = event.__struct_fields__
    tokens = {name: getattr(event, name) for name in fields if name in usage_pb2.TokenCounts.DESCRIPTOR.fields_by_name}
    same = {name: getattr(event, name) for name in fields if name not in (*tokens, *_OF_ANOTHER_KIND)}
    return usage_pb2.UsageEvent(
        tokens=usage_pb2.TokenCounts(**tokens),
        price=usage_pb2.PriceVector.FromString(event.price) if event.price else None,
        admit_time=_timestamp(event.admit_time_us),
        end_time=_timestamp(event.end_time_us),
        attempts=[usage_pb2.Attempt(**attempt._asdict()) for attempt in event.attempts],
        **same,
    )


def _timestamp(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1000)


def end_time_s_of(record: bytes) -> float:
    """When its request ended, in seconds since the epoch; 0 for a return."""
    event = _event_of(record)
    if isinstance(event, UsageEvent):
        return event.end_time_us / 1e6
    return event.end_time.seconds + event.end_time.nanos / 1e9


def record_usage_request(
    session: usage_pb2.Session, first_seq: int, records: Sequence[bytes]
) -> usage_pb2.RecordUsageRequest:
    """A batch, out of serialized records, without a Python object for each."""
    request = usage_pb2.RecordUsageRequest(session=session, first_seq=first_seq)
    request.MergeFromString(b"".join(b"\x1a" + _varint(len(record)) + record for record in records))
    return request


def event_from_lost(admitted: Admitted, now: datetime) -> UsageEvent:
    """The outcome of a request whose edge died before it knew: charged nothing."""
    now_us = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    admit_time_us = _time_us_of(admitted.request_id) or now_us
    return UsageEvent(
        request_id=admitted.request_id,
        lease_id=admitted.lease_id,
        account_id=admitted.account_id,
        key_id=admitted.key_id,
        model_id=admitted.model_id,
        resource=admitted.resource,
        admit_time_us=admit_time_us,
        end_time_us=max(now_us, admit_time_us),
        outcome=usage_pb2.OUTCOME_EDGE_LOST,
        source=usage_pb2.USAGE_SOURCE_NONE,
        ending=usage_pb2.ENDING_EDGE_LOST,
        hold_nanousd=admitted.hold_nanousd,
    )


def _time_us_of(request_id: str) -> int | None:
    # A UUIDv7 begins with milliseconds since 1970 (RFC 9562, 5.7), so admission need not write the time again.
    try:
        value = UUID(request_id)
    except ValueError:
        return None
    return (value.int >> 80) * 1000 if value.version == 7 else None


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    if value < 16_384:
        return bytes((value & 127 | 128, value >> 7))
    return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))  # a frame's body is far below 2 MiB
