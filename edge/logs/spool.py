"""Logs on disk until usage_svc has them. Files of its own, within bytes of its own, and never at the usage's expense.

    logs/<n>.logs: frames, one behind the other

A frame is a header of 20 bytes and a body (a serialized tollgate.usage.v1.Log):

    marker 2 | state 1 | 0 | body length 4 | expiry, seconds since 1970, 8 | CRC-32 of the body 4      (little endian)

Nothing is synced: a power cut may cost logs, and a torn end is cut. What expires here is overwritten where it stands; a
file goes when all of it is with usage_svc. All methods are for one thread, which is not the event loop's.
"""

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chassis.log import logger

_HEAD = struct.Struct("<HBBIQI")
_MARKER = 0x51A9
_ERASED, _LOG = 0, 1
_STATE_OFFSET = 2
_SUFFIX = ".logs"
SEGMENT_BYTES = 8 * 1024 * 1024
NEVER_S = 2**63

_log = logger(__name__)


class Frame(NamedTuple):
    """Where a log stands."""

    offset: int
    length: int  # of its body
    expire_s: int
    checksum: int
    erased: bool

    @property
    def end(self) -> int:
        return self.offset + _HEAD.size + self.length


class Batch(NamedTuple):
    """Logs that were read, and where to go on when they are done with; `damaged` could not be read."""

    bodies: Sequence[bytes]
    segment: int
    end: int
    damaged: int


class _Segment:
    """One file."""

    __slots__ = ("expire_s_min", "fd", "number", "path", "read_offset", "size")

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.stem)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = self.read_offset = 0
        self.expire_s_min = NEVER_S

    def frames(self, offset: int, end: int) -> Iterator[Frame]:
        """Those between two offsets, as far as they can be told apart."""
        while offset + _HEAD.size <= end:
            marker, state, _, length, expire_s, checksum = _HEAD.unpack(os.pread(self.fd, _HEAD.size, offset))
            frame = Frame(offset, length, expire_s, checksum, state == _ERASED)
            if marker != _MARKER or frame.end > end:
                return
            yield frame
            offset = frame.end

    def recover(self) -> None:
        """What a former process wrote; its torn end is cut."""
        for frame in self.frames(0, os.fstat(self.fd).st_size):
            self.size = frame.end
            if not frame.erased:
                self.expire_s_min = min(self.expire_s_min, frame.expire_s)
        os.ftruncate(self.fd, self.size)

    def remove(self) -> None:
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


class LogSpool:
    """The folder. `open` it first, on the thread that will use it."""

    def __init__(self, folder: Path, bytes_max: int, free_bytes_min: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.used_bytes = 0
        self._bytes_max, self._free_bytes_min, self._segment_bytes = bytes_max, free_bytes_min, segment_bytes
        self._segments: deque[_Segment] = deque()  # oldest first
        self._number = 0

    def open(self) -> None:
        """Takes up what a former process left. Raises: OSError: the folder cannot be used."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            segment = _Segment(path)
            segment.recover()
            self._number = segment.number
            self._segments.append(segment)
            self.used_bytes += segment.size
            self._remove_done(segment)

    def close(self) -> None:
        """Leaves everything for the next process."""
        for segment in self._segments:
            os.close(segment.fd)
        self._segments.clear()

    @property
    def is_empty(self) -> bool:
        return not self._segments

    # -- in --

    def append(self, bodies: Sequence[tuple[int, bytes]]) -> dict[str, int]:
        """Writes logs, each with its expiry. Returns how many it did not, by why: spool_full, disk_full."""
        dropped: dict[str, int] = {}
        for expire_s, body in bodies:
            why = self._append(expire_s, body)
            if why:
                dropped[why] = dropped.get(why, 0) + 1
        return dropped

    def _append(self, expire_s: int, body: bytes) -> str:
        size = _HEAD.size + len(body)
        if self.used_bytes + size > self._bytes_max:
            return "spool_full"
        try:
            if self._lacks_space(size):
                return "disk_full"
            segment = self._writing()
            frame = _HEAD.pack(_MARKER, _LOG, 0, len(body), expire_s, zlib.crc32(body)) + body
            try:
                _write_all(segment.fd, frame, segment.size)
            except OSError:
                os.ftruncate(segment.fd, segment.size)
                raise
        except OSError as error:
            _log.warning("logs cannot be written", folder=str(self.folder), error=str(error))
            return "disk_full"
        segment.size += size
        segment.expire_s_min = min(segment.expire_s_min, expire_s)
        self.used_bytes += size
        return ""

    def _writing(self) -> _Segment:
        if not self._segments or self._segments[-1].size >= self._segment_bytes:
            self._number += 1
            self._segments.append(_Segment(self.folder / f"{self._number:08d}{_SUFFIX}"))
        return self._segments[-1]

    def _lacks_space(self, size: int) -> bool:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize - size < self._free_bytes_min

    # -- out --

    def read(self, bytes_max: int, count_max: int) -> Batch | None:
        """The oldest logs, at least one; None if there are none."""
        while self._segments:
            segment = self._segments[0]
            bodies: list[bytes] = []
            size, damaged, end = 0, 0, segment.read_offset
            for frame in segment.frames(segment.read_offset, segment.size):
                if bodies and (size + frame.length > bytes_max or len(bodies) >= count_max):
                    return Batch(bodies, segment.number, end, damaged)
                end = frame.end
                if frame.erased:
                    continue
                body = os.pread(segment.fd, frame.length, frame.offset + _HEAD.size)
                if zlib.crc32(body) == frame.checksum:
                    bodies.append(body)
                    size += len(body)
                else:
                    damaged += 1
            else:
                damaged += end < segment.size  # what follows a damaged header cannot be found
            if bodies or damaged:
                return Batch(bodies, segment.number, segment.size, damaged)
            segment.read_offset = segment.size
            self._remove_done(segment)
        return None

    def done(self, batch: Batch) -> None:
        """usage_svc has them, or will never take them."""
        segment = next((each for each in self._segments if each.number == batch.segment), None)
        if segment is not None:
            segment.read_offset = batch.end
            self._remove_done(segment)

    def _remove_done(self, segment: _Segment) -> None:
        if segment.read_offset >= segment.size:
            self._remove(segment)

    def _remove(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        self.used_bytes -= segment.size
        segment.remove()

    # -- what may not wait --

    def erase_expired(self, now_s: float) -> int:
        """Overwrites what has expired. Returns how many logs were lost to that: they had not been sent."""
        lost = 0
        for segment in list(self._segments):
            if segment.expire_s_min > now_s:
                continue
            segment.expire_s_min = NEVER_S
            for frame in segment.frames(0, segment.size):
                if not frame.erased and frame.expire_s <= now_s:
                    _write_all(segment.fd, bytes(frame.length), frame.offset + _HEAD.size)
                    _write_all(segment.fd, bytes([_ERASED]), frame.offset + _STATE_OFFSET)
                    lost += frame.offset >= segment.read_offset
                elif not frame.erased:
                    segment.expire_s_min = min(segment.expire_s_min, frame.expire_s)
        return lost

    def make_room(self) -> int:
        """Drops the oldest files while the disk has too little room for the usage. Returns how many logs were lost."""
        lost = 0
        while self._segments and self._lacks_space(0):
            segment = self._segments[0]
            lost += sum(not frame.erased for frame in segment.frames(segment.read_offset, segment.size))
            self._remove(segment)
        return lost


def _write_all(fd: int, data: bytes, offset: int) -> None:
    """Raises: OSError."""
    count = 0
    while count < len(data):
        count += os.pwrite(fd, data[count:] if count else data, offset + count)
