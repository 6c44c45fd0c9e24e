"""Both ways to sync, by the same tests."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edge.metering.disk_sync import FILES_PER_ROUND_MAX, DiskSync, KernelSync, OnDone, ThreadSync, open_disk_sync
from tests.harness.eventually import eventually

Opener = Callable[[OnDone], DiskSync]


@pytest.fixture(params=[KernelSync, ThreadSync])
def opener(request: pytest.FixtureRequest) -> Opener:
    found: Opener = request.param
    return found


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    opened = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(FILES_PER_ROUND_MAX + 3)]
    for fd in opened:
        os.pwrite(fd, b"usage", 0)
    yield opened
    for fd in opened:
        os.close(fd)


def _has(words: list[OSError | None], count: int) -> bool:
    return len(words) == count


async def test_every_round_ends_with_one_word(opener: Opener, files: list[int]) -> None:
    words: list[OSError | None] = []
    disk = opener(words.append)
    for rounds, count in enumerate((1, 2, len(files), 1), start=1):
        disk.start(files[:count])
        await eventually(partial(_has, words, rounds))
    disk.close()
    assert words == [None] * 4


async def test_a_failure_is_told_and_the_next_round_works(opener: Opener, files: list[int]) -> None:
    words: list[OSError | None] = []
    disk = opener(words.append)
    closed = os.dup(files[0])
    os.close(closed)
    disk.start([files[0], closed])
    await eventually(lambda: len(words) == 1)
    assert words[0] is not None
    assert words[0].errno == errno.EBADF
    disk.start(files[:1])
    await eventually(lambda: len(words) == 2)
    disk.close()
    assert words[1] is None


async def test_nothing_is_told_after_the_end(opener: Opener, files: list[int]) -> None:
    words: list[OSError | None] = []
    disk = opener(words.append)
    disk.start(files[:1])
    disk.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert words == []


async def test_the_best_way_of_this_machine_is_found() -> None:
    disk = open_disk_sync(lambda failure: None)
    disk.close()
