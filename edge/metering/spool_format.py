"""How records lie in a spool segment: framed, checksummed, findable again behind damage. Pure.

A frame is a header of 20 bytes and a body:

    marker 2 | kind 1 | version 1 | body length 4 | seq 8 | checksum 4 | body        (little endian)

The CRC-32 covers header and body and starts from a value that depends on the spool, the segment and the frame's own
offset. So bytes that look like a frame inside a body, or a frame that was copied elsewhere, never pass for a record.
Segments are zero-filled ahead; the marker is not zero, so zeros are never a frame.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct("<HBBIQ")
_MARKER = 0x51A7
_MARKER_BYTES = _MARKER.to_bytes(2, "little")
_VERSION = 1
_MASK = 0xFFFFFFFF

HEADER_BYTES = _HEAD.size + 4
FRAME_BYTES_MAX = 4096  # an event with its ids, price and attempts takes 400 to 1,200
BODY_BYTES_MAX = FRAME_BYTES_MAX - HEADER_BYTES


class Kind(IntEnum):
    """What a frame holds."""

    ADMITTED = 1  # a request is about to be forwarded; stays in the edge; seq is 0
    RECORD = 2  # a serialized tollgate.usage.v1.Record; goes to usage_svc under its seq, from 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A record that was read back whole."""

    kind: Kind
    seq: int
    body: bytes
    offset: int  # of its header, in the segment
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no record. With `is_tail` nothing good follows: a torn write, or the end of what was flushed."""

    offset: int
    length: int
    is_tail: bool


def segment_seed(spool_uuid: str, incarnation: int, number: int) -> int:
    """Where the checksums of a segment start from."""
    return zlib.crc32(f"{spool_uuid}/{incarnation}/{number}".encode())


def frame(kind: Kind, seq: int, body: bytes, offset: int, seed: int) -> bytes:
    """The bytes to write at `offset`.

    Raises:
        ValueError: the body is too long; a bug in the caller.
    """
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a record of {len(body)} bytes: at most {BODY_BYTES_MAX} fit into a frame")
    head = _HEAD.pack(_MARKER, kind, _VERSION, len(body), seq)
    checksum = zlib.crc32(body, zlib.crc32(head, (seed + offset) & _MASK))
    return head + checksum.to_bytes(4, "little") + body


def frame_at(data: bytes, position: int, offset: int, seed: int) -> Frame | None:
    """The frame at `position` of `data`, which lies at `offset` of its segment; None if there is no good one."""
    body_start = position + HEADER_BYTES
    if body_start > len(data):
        return None
    marker, kind, version, length, seq = _HEAD.unpack_from(data, position)
    end = body_start + length
    if marker != _MARKER or version != _VERSION or kind not in (1, 2) or length > BODY_BYTES_MAX or end > len(data):
        return None
    body = data[body_start:end]
    head = data[position : position + _HEAD.size]
    checksum = zlib.crc32(body, zlib.crc32(head, (seed + offset) & _MASK))
    if checksum != int.from_bytes(data[position + _HEAD.size : body_start], "little"):
        return None
    return Frame(Kind(kind), seq, body, offset, offset + HEADER_BYTES + length)


def scan(data: bytes, offset: int, seed: int) -> Iterator[Frame | Damage]:
    """Everything in `data`, which lies at `offset` of its segment, in order. Zeros at the end are not damage.

    Behind a bad record it looks for the next good one, so damage costs the records that it hit and no others.
    """
    position = 0
    while position < len(data):
        found = frame_at(data, position, offset + position, seed)
        if found is None:
            following = _next_frame(data, position + 1, offset, seed)
            damaged = data[position : following if following is not None else len(data)]
            if following is None:
                damaged = damaged.rstrip(b"\0")
            if damaged:
                yield Damage(offset + position, len(damaged), is_tail=following is None)
            if following is None:
                return
            position = following
            continue
        yield found
        position = found.end - offset


def _next_frame(data: bytes, position: int, offset: int, seed: int) -> int | None:
    while (position := data.find(_MARKER_BYTES, position)) >= 0:
        if frame_at(data, position, offset + position, seed) is not None:
            return position
        position += 1
    return None
