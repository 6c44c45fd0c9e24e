"""The spool of one session: its records in order, from the first append until usage_svc has them all.

Everything here runs on the event loop and is synchronous; while requests are served, syncing to disk is group_commit's.
"""

import os
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path

from chassis.log import logger
from edge.metering import metrics
from edge.metering.convert import UNREADABLE, decode_admitted, event_from_lost, record_from_event, request_id_of
from edge.metering.refusals import MeteringUnavailable, UnavailableReason
from edge.metering.segment import Segment
from edge.metering.spool_format import FRAME_BYTES_MAX, HEADER_BYTES, Damage, Kind, segment_seed

_RETURN_RESERVED_BYTES = 160  # a return of the lease may follow each event
_RESERVED_BYTES = FRAME_BYTES_MAX // 2 + _RETURN_RESERVED_BYTES
EVENT_BYTES_MAX = FRAME_BYTES_MAX // 2 - HEADER_BYTES
_TAIL_BYTES_MAX = 4 * 1024 * 1024  # newest records kept in memory, so that shipping them reads no file
_CARRY_SEGMENTS = 4  # a segment that only open requests keep is emptied once this many follow it
_RETRY_AFTER_S = 2.0

_log = logger(__name__)


class SpaceBudget:
    """Bytes on disk of all logs of a spool together."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max, self.used_bytes = bytes_max, 0


class SpoolLog:
    """One session's spool. Every admission reserves the space of its event, so an event is always accepted.

    Sequence numbers: records below `acknowledged_seq` are in usage_svc, below `safe_seq` may be shipped, `ship_seq`
    is the next to be sent, `next_seq` the next to be written.
    """

    def __init__(
        self, folder: Path, spool_uuid: str, incarnation: int, budget: SpaceBudget, segment_bytes: int
    ) -> None:
        self.folder, self.incarnation = folder, incarnation
        self.next_seq = self.safe_seq = self.acknowledged_seq = self.ship_seq = 1
        self.is_recovered = False  # a former process wrote it
        self.lost_count = 0  # requests that a dead process left open
        self.unwritable: OSError | None = None
        self.sync_failure: OSError | None = None  # of what a former process left; the system says it but once
        self._uuid, self._budget, self._segment_bytes = spool_uuid, budget, segment_bytes
        self._segments: deque[Segment] = deque()  # oldest first; `_writing` is the last of them
        self._writing: Segment | None = None
        self._spares: deque[Segment] = deque()  # allocated ahead, empty
        self._closing: list[int] = []  # files that are deleted, and may still be in a sync
        self._number = 0
        self._room = self._reserved = 0
        self._home: dict[str, Segment] = {}  # where each open request was admitted
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._unflushed: list[Segment] = []
        self._unsynced: set[Segment] = set()
        self._is_folder_unsynced = True
        self._read_from: tuple[int, Segment, int] | None = None  # (seq, where) at which the next read from disk begins
        folder.mkdir(exist_ok=True)
        self.folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def open_count(self) -> int:
        """Requests that were admitted and have no outcome yet."""
        return len(self._home)

    def append_admitted(self, request_id: str, body: bytes) -> None:
        """Writes that a request is about to be forwarded, and reserves space for its outcome. The system has it then.

        Raises:
            MeteringUnavailable: SPOOL_FULL or SPOOL_UNWRITABLE; nothing was written.
        """
        needed = HEADER_BYTES + len(body) + _RESERVED_BYTES
        while self._room - self._reserved < needed:
            self._extend()
        segment = self._append(Kind.ADMITTED, 0, body)
        try:
            self.flush()
        except OSError as error:
            self._room += segment.take_back_admitted()
            raise self._unwritable(error) from None
        segment.open[request_id] = body
        self._home[request_id] = segment
        self._reserved += _RESERVED_BYTES

    def append_event(self, request_id: str, record: bytes) -> int:
        """Buffers the outcome of an open request. Returns its seq."""
        segment = self._home.pop(request_id, None)
        if segment is not None:
            del segment.open[request_id]
            segment.needed_seq = self.next_seq
            self._reserved -= _RESERVED_BYTES
        return self._append_record(record)

    def append_return(self, record: bytes) -> int | None:
        """Buffers a return of funds. Returns its seq; None where there is no room, and the return must wait."""
        if self._room - self._reserved < HEADER_BYTES + len(record):
            try:
                self._extend()
            except MeteringUnavailable:
                return None
        return self._append_record(record)

    def flush(self) -> None:
        """Hands everything to the system. Raises: OSError: what is left stays buffered, and admissions are refused."""
        try:
            while self._unflushed:
                segment = self._unflushed[0]
                segment.flush()
                self._unsynced.add(segment)
                self._unflushed.pop(0)
        except OSError as error:
            self.unwritable = error
            raise
        self.unwritable = None

    def probe(self) -> None:
        """Tries again what failed, so that a disk with space again ends the refusals without waiting for a request."""
        try:
            if not self._spares:
                self._extend()
            self.flush()
        except (OSError, MeteringUnavailable):
            return
        self.unwritable = None

    def take_unsynced(self) -> tuple[list[int], int]:
        """What a sync has to cover: files, and the seq below which everything is then safe."""
        files = [segment.fd for segment in self._unsynced]
        if self._is_folder_unsynced:
            files.append(self.folder_fd)
        self._unsynced.clear()
        self._is_folder_unsynced = False
        return files, self.next_seq

    def sync_now(self) -> None:
        """Syncs what was flushed, here and now, and not beside the event loop as group_commit does. Raises: OSError."""
        files, next_seq = self.take_unsynced()
        _sync(files)
        self.safe_seq = next_seq

    def close_with_edge_lost(self, now: datetime, next_seq: int) -> int:
        """Gives every open request of a dead process its outcome. Returns how many there were.

        `next_seq` is what usage_svc wants next: it may know more records than a disk that lost power.

        Raises:
            MeteringUnavailable: no space; may be tried again.
        """
        self.ship_seq = next_seq
        self.next_seq = max(self.next_seq, next_seq)
        self.safe_seq = max(self.safe_seq, next_seq)
        lost = [(request_id, segment.open[request_id]) for request_id, segment in self._home.items()]
        for request_id, body in lost:
            if self._room < FRAME_BYTES_MAX:
                self._extend(is_forced=True)
            segment = self._home.pop(request_id)
            del segment.open[request_id]
            segment.needed_seq = self.next_seq
            self._append_record(record_from_event(event_from_lost(decode_admitted(body), now)))
        self.lost_count += len(lost)
        return len(lost)

    def _append_record(self, record: bytes) -> int:
        seq = self.next_seq
        self._append(Kind.RECORD, seq, record)
        self.next_seq = seq + 1
        self._tail.append(record)
        self._tail_bytes += len(record)
        while self._tail_bytes > _TAIL_BYTES_MAX:
            self._tail_bytes -= len(self._tail.popleft())
        return seq

    def _append(self, kind: Kind, seq: int, body: bytes) -> Segment:
        segment = self._writing
        if segment is None or not segment.fits(body):
            if segment is not None:
                self._room -= segment.usable_bytes
            segment = self._writing = self._spares.popleft()  # there is one: all room was allocated ahead
            self._segments.append(segment)
        self._room -= segment.append(kind, seq, body)
        if not self._unflushed or self._unflushed[-1] is not segment:
            self._unflushed.append(segment)
        return segment

    def _extend(self, *, is_forced: bool = False) -> None:
        if not is_forced and self._budget.used_bytes + self._segment_bytes > self._budget.bytes_max:
            raise MeteringUnavailable(UnavailableReason.SPOOL_FULL, _RETRY_AFTER_S)
        seed = segment_seed(self._uuid, self.incarnation, self._number + 1)
        try:
            segment = Segment.create(self.folder, self._number + 1, seed, self._segment_bytes)
        except OSError as error:
            raise self._unwritable(error) from None
        self._number += 1
        self._spares.append(segment)
        self._budget.used_bytes += segment.capacity
        self._room += segment.usable_bytes
        self._unsynced.add(segment)
        self._is_folder_unsynced = True

    def _unwritable(self, error: OSError) -> MeteringUnavailable:
        if self.unwritable is None:
            _log.error("spool not writable", folder=str(self.folder), error=str(error))
        self.unwritable = error
        return MeteringUnavailable(UnavailableReason.SPOOL_UNWRITABLE, _RETRY_AFTER_S)

    # What usage_svc lacks, and what it has

    def read(self, first_seq: int, count_max: int) -> list[bytes]:
        """Records from `first_seq` on as far as they are safe. One that cannot be read back is UNREADABLE."""
        count = min(count_max, self.safe_seq - first_seq)
        if count <= 0:
            return []
        tail_seq = self.next_seq - len(self._tail)
        if first_seq >= tail_seq:
            return list(islice(self._tail, first_seq - tail_seq, first_seq - tail_seq + count))
        return self._read_from_disk(first_seq, count)

    def acknowledge(self, next_seq: int) -> None:
        """Everything before `next_seq` is durable in usage_svc: segments that nothing needs any more are deleted."""
        self.acknowledged_seq = max(self.acknowledged_seq, next_seq)
        for _ in range(len(self._tail) - max(0, self.next_seq - next_seq)):
            self._tail_bytes -= len(self._tail.popleft())
        # From the front only: an outcome must not go before the segment in which its request was admitted, or a restart
        # would take that request for lost.
        while self._segments and self._segments[0] is not self._writing:
            oldest = self._segments[0]
            if oldest.last_seq >= self.acknowledged_seq or oldest.needed_seq >= self.acknowledged_seq:
                return
            if oldest.open:
                if len(self._segments) <= _CARRY_SEGMENTS or not self._carry(oldest):
                    return
                continue
            self._segments.popleft()
            self._delete(oldest)

    def close_deleted(self) -> None:
        """Closes what `acknowledge` deleted. Not while a sync is running."""
        while self._closing:
            os.close(self._closing.pop())

    def close(self, *, remove: bool) -> None:
        """Ends the use of this log; with `remove`, everything of it is deleted: usage_svc has sealed it."""
        if remove:
            for segment in self._segments:
                self._delete(segment)
        else:
            self._closing += [segment.fd for segment in self._segments]
        for segment in self._spares:  # a spare holds nothing
            self._delete(segment)
        self._segments.clear()
        self._spares.clear()
        self._unsynced.clear()
        self._writing = None
        self.close_deleted()
        os.close(self.folder_fd)
        if remove:
            self.folder.rmdir()

    def _carry(self, segment: Segment) -> bool:
        """Writes a segment's open requests again, further on, so that one long request does not keep all that follows.

        The segment goes once a later record is acknowledged: by then the copies are as safe as that record.
        """
        needed = sum(HEADER_BYTES + len(body) for body in segment.open.values())
        if self._room - self._reserved < needed:
            return False
        for request_id, body in segment.open.items():
            home = self._append(Kind.ADMITTED, 0, body)
            home.open[request_id] = body
            self._home[request_id] = home
        segment.open.clear()
        segment.needed_seq = self.next_seq
        return True

    def _delete(self, segment: Segment) -> None:
        segment.remove()
        self._unsynced.discard(segment)
        self._budget.used_bytes -= segment.capacity
        self._closing.append(segment.fd)

    def _read_from_disk(self, first_seq: int, count: int) -> list[bytes]:
        records: list[bytes] = []
        resume = self._read_from if self._read_from is not None and self._read_from[0] == first_seq else None
        for segment in self._segments:
            if segment.last_seq < first_seq or (resume is not None and segment.number < resume[1].number):
                continue
            offset = resume[2] if resume is not None and resume[1] is segment else 0
            for found in segment.read_frames(offset):
                if found.kind is not Kind.RECORD or found.seq < first_seq + len(records):
                    continue
                missing = min(found.seq - first_seq, count) - len(records)
                records += [UNREADABLE] * missing
                if len(records) == count:
                    return records
                records.append(found.body)
                self._read_from = (found.seq + 1, segment, found.end)
                if len(records) == count:
                    return records
        return records + [UNREADABLE] * (count - len(records))

    # After a restart

    @classmethod
    def recover(
        cls, folder: Path, spool_uuid: str, incarnation: int, budget: SpaceBudget, segment_bytes: int
    ) -> "SpoolLog":
        """Reads the log of a former process. Damage is reported by position, and costs only what it hit."""
        log = cls(folder, spool_uuid, incarnation, budget, segment_bytes)
        log.is_recovered = True
        for path in sorted(folder.glob("*.segment")):
            log._recover_segment(path)
        if log._segments:
            first = next((segment.first_seq for segment in log._segments if segment.first_seq), log.next_seq)
            log.acknowledged_seq = log.ship_seq = first
        try:
            # Who is killed leaves it with the system, which would lose it with the power; now somebody acts on it.
            log.sync_now()
        except OSError as error:
            # As where a sync of ours fails (group_commit.py): what the system has is shipped, and nothing is admitted.
            _log.error("former session cannot be synced", folder=str(folder), error=str(error))
            log.sync_failure = error
            log.safe_seq = log.next_seq
        return log

    def _recover_segment(self, path: Path) -> None:
        self._number = int(path.stem)
        seed = segment_seed(self._uuid, self.incarnation, self._number)
        segment, found = Segment.reopen(path, seed)
        self._segments.append(segment)
        self._budget.used_bytes += segment.capacity
        self._unsynced.add(segment)
        for each in found:
            if isinstance(each, Damage):
                metrics.SPOOL_DAMAGES.labels("torn" if each.is_tail else "corrupt").inc()
                report = _log.warning if each.is_tail else _log.error
                report("spool damaged", file=str(path), offset=each.offset, length=each.length, is_tail=each.is_tail)
            elif each.kind is Kind.ADMITTED:
                request_id = decode_admitted(each.body).request_id
                if (former := self._home.get(request_id)) is not None:  # it was carried
                    del former.open[request_id]
                segment.open[request_id] = each.body
                self._home[request_id] = segment
            else:
                segment.first_seq = segment.first_seq or each.seq
                segment.last_seq = each.seq
                self.next_seq = max(self.next_seq, each.seq + 1)
                home = self._home.pop(request_id_of(each.body), None)
                if home is not None:
                    del home.open[request_id_of(each.body)]
                    home.needed_seq = each.seq


def _sync(files: Iterable[int]) -> None:
    for fd in files:
        os.fdatasync(fd)
