"""Logs on disk: in order, within their bytes, whole after a crash, and gone when they are sent or have expired."""

import os
from collections import namedtuple
from pathlib import Path

import pytest

from edge.logs.spool import Batch, LogSpool

FOREVER_S = 10_000_000_000
WORDS = b"the words of a customer"


def opened(folder: Path, *, bytes_max: int = 1_000_000, free_bytes_min: int = 0, segment_bytes: int = 1000) -> LogSpool:
    spool = LogSpool(folder, bytes_max, free_bytes_min, segment_bytes)
    spool.open()
    return spool


def bodies(count: int, size: int = 200) -> list[bytes]:
    return [f"{number:06d}".encode() + b"." * size for number in range(count)]


def read_all(spool: LogSpool, bytes_max: int = 500, count_max: int = 100) -> list[bytes]:
    found: list[bytes] = []
    while (batch := spool.read(bytes_max, count_max)) is not None:
        found += batch.bodies
        spool.done(batch)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def test_logs_come_out_in_order_in_bounded_batches_and_leave_no_file(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    written = bodies(30)
    assert spool.append([(FOREVER_S, body) for body in written]) == {}
    assert len(files(tmp_path)) > 3
    batch = spool.read(500, 100)
    assert batch is not None
    assert batch.bodies == written[:2]
    assert spool.read(500, 1) == Batch(written[:1], 1, batch.end // 2, 0), "what is not done with is read again"
    assert read_all(spool) == written
    assert files(tmp_path) == []
    assert spool.is_empty
    assert spool.used_bytes == 0
    spool.append([(FOREVER_S, b"more")])
    assert read_all(spool) == [b"more"]


def test_one_log_that_is_larger_than_a_batch_goes_alone(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append([(FOREVER_S, body) for body in (b"a", b"b" * 5000, b"c")])
    batch = spool.read(100, 100)
    assert batch is not None
    assert batch.bodies == [b"a"]
    spool.done(batch)
    assert read_all(spool, bytes_max=100) == [b"b" * 5000, b"c"]


def test_what_a_dead_process_left_is_taken_up_and_a_torn_end_is_cut(tmp_path: Path) -> None:
    written = bodies(8)
    for cut in range(1, 226):
        folder = tmp_path / str(cut)
        opened(folder, segment_bytes=10_000).append([(FOREVER_S, body) for body in written])
        [path] = files(folder)
        os.truncate(path, path.stat().st_size - cut)
        spool = opened(folder)
        assert spool.used_bytes == path.stat().st_size
        spool.append([(FOREVER_S, b"new")])
        assert read_all(spool) == [*written[:7], b"new"]
        spool.close()


def test_damage_costs_what_it_hit(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=700)
    written = bodies(6)
    spool.append([(FOREVER_S, body) for body in written])
    first, second = files(tmp_path)[:2]
    with first.open("r+b") as file:
        file.seek(20 + 50)  # in the first body
        file.write(b"?")
    with second.open("r+b") as file:
        file.write(b"??")  # a header
    batch = spool.read(10_000, 100)
    assert batch is not None
    assert (batch.bodies, batch.damaged) == (written[1:4], 1)
    spool.done(batch)
    batch = spool.read(10_000, 100)
    assert batch is not None
    assert (list(batch.bodies), batch.damaged) == ([], 1)
    spool.done(batch)
    assert read_all(spool) == []


def test_beyond_its_bytes_new_logs_are_dropped_and_old_ones_stay(tmp_path: Path) -> None:
    spool = opened(tmp_path, bytes_max=1000)
    written = bodies(10)
    assert spool.append([(FOREVER_S, body) for body in written]) == {"spool_full": 6}
    assert sum(path.stat().st_size for path in files(tmp_path)) == spool.used_bytes <= 1000
    assert read_all(spool) == written[:4]
    assert spool.append([(FOREVER_S, b"again")]) == {}


def test_the_disks_last_room_is_not_for_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path, free_bytes_min=10_000)
    free = 11_000
    found = namedtuple("found", ["f_bavail", "f_frsize"])
    monkeypatch.setattr(os, "statvfs", lambda _path: found(free, 1))
    assert spool.append([(FOREVER_S, body) for body in bodies(3, 800)]) == {}
    free = 10_100
    assert spool.append([(FOREVER_S, bodies(1)[0])]) == {"disk_full": 1}
    assert spool.make_room() == 0
    free = 9_999
    assert spool.make_room() == 3, "what is there goes, too"
    assert files(tmp_path) == []


def test_a_disk_that_refuses_costs_the_log_and_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    spool.append([(FOREVER_S, b"first")])
    write = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        if len(data) < 30:
            raise OSError(28, "No space left on device")
        return write(fd, data[:-20], offset)

    monkeypatch.setattr(os, "pwrite", half)
    assert spool.append([(FOREVER_S, b"x" * 100)]) == {"disk_full": 1}
    monkeypatch.undo()
    assert files(tmp_path)[0].stat().st_size == spool.used_bytes
    spool.append([(FOREVER_S, b"last")])
    assert read_all(spool) == [b"first", b"last"]


def test_what_expires_is_overwritten_and_not_sent(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=10_000)
    logs = [(100, WORDS), (300, b"stays"), (200, WORDS * 3), (100, WORDS)]
    spool.append(logs)
    assert spool.erase_expired(99) == 0
    assert spool.erase_expired(100) == 2
    assert spool.erase_expired(199) == 0
    assert WORDS in files(tmp_path)[0].read_bytes()
    again = opened(tmp_path)
    assert again.erase_expired(250) == 1, "also what a former process wrote"
    assert WORDS not in files(tmp_path)[0].read_bytes()
    assert read_all(again) == [b"stays"]


def test_what_was_sent_and_expires_is_overwritten_though_its_file_stays(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=10_000)
    spool.append([(100, WORDS), (300, b"stays")])
    batch = spool.read(1, 1)
    assert batch is not None
    spool.done(batch)
    assert spool.erase_expired(150) == 0, "nothing was lost"
    assert WORDS not in files(tmp_path)[0].read_bytes()
    assert read_all(spool) == [b"stays"]
