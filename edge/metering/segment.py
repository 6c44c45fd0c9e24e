"""One file of a spool: allocated whole before its first byte is written, so that a reserved write never lacks space."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from edge.metering.spool_format import FRAME_BYTES_MAX, HEADER_BYTES, Damage, Frame, Kind, frame, scan

_SUFFIX = ".segment"


class Segment:
    """Appends at `end`; what is beyond `written` is still in this process only."""

    __slots__ = (
        "_buffer",
        "capacity",
        "end",
        "fd",
        "first_seq",
        "last_seq",
        "needed_seq",
        "number",
        "open",
        "path",
        "seed",
        "written",
    )

    def __init__(self, path: Path, fd: int, number: int, seed: int, capacity: int, end: int) -> None:
        self.path, self.fd, self.number, self.seed, self.capacity = path, fd, number, seed, capacity
        self.end = self.written = end
        self.first_seq = self.last_seq = 0  # of the records in it; 0: none
        self.needed_seq = 0  # it must stay until this record is acknowledged, which resolves a request admitted in it
        self.open: dict[str, bytes] = {}  # bodies of requests admitted in it that have no outcome yet
        self._buffer: list[bytes] = []

    @classmethod
    def create(cls, folder: Path, number: int, seed: int, capacity: int) -> "Segment":
        """Raises: OSError: no space, or the disk refuses; nothing is left behind."""
        path = folder / f"{number:08d}{_SUFFIX}"
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, capacity)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        return cls(path, fd, number, seed, capacity, 0)

    @classmethod
    def reopen(cls, path: Path, seed: int) -> "tuple[Segment, list[Frame | Damage]]":
        """A segment of a former process with all that is in it. Nothing is appended to it again; its zeros are cut."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        data = path.read_bytes()
        found = list(scan(data, 0, seed))
        last_frame_end = max((each.end for each in found if isinstance(each, Frame)), default=0)  # may end in zeros
        end = max(last_frame_end, len(data.rstrip(b"\0")))
        os.ftruncate(fd, end)
        return cls(path, fd, int(path.name.removesuffix(_SUFFIX)), seed, end, end), found

    @property
    def usable_bytes(self) -> int:
        """What frames can surely have: the end may be wasted where one does not fit. May be below zero."""
        return self.capacity - self.end - FRAME_BYTES_MAX

    def fits(self, body: bytes) -> bool:
        return self.end + HEADER_BYTES + len(body) <= self.capacity

    def append(self, kind: Kind, seq: int, body: bytes) -> int:
        """Buffers a frame. Returns its length."""
        data = frame(kind, seq, body, self.end, self.seed)
        self._buffer.append(data)
        self.end += len(data)
        if seq:
            self.first_seq = self.first_seq or seq
            self.last_seq = seq
        return len(data)

    def take_back_admitted(self) -> int:
        """Forgets the last frame, which must be an unwritten one without a seq. Returns its length."""
        length = len(self._buffer.pop())
        self.end -= length
        return length

    def flush(self) -> None:
        """Hands what is buffered to the system. Raises: OSError: it stays buffered, and may be tried again."""
        if not self._buffer:
            return
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        count = os.pwrite(self.fd, data, self.written)
        while count < len(data):
            step = os.pwrite(self.fd, data[count:], self.written + count)
            if step == 0:
                raise OSError(errno.EIO, "the disk took nothing")
            count += step
        self.written += count
        self._buffer.clear()

    def read_frames(self, offset: int) -> Iterator[Frame]:
        """Frames from `offset` on as far as they are written; damage is passed over."""
        data = os.pread(self.fd, self.written - offset, offset)
        return (each for each in scan(data, offset, self.seed) if isinstance(each, Frame))

    def remove(self) -> None:
        """Deletes the file. The caller closes `fd`, when no sync can be using it."""
        self.path.unlink(missing_ok=True)
