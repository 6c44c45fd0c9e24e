"""Group commit: who waits for which sync."""

import asyncio
import time
from pathlib import Path

import pytest

from edge.metering import group_commit
from edge.metering.group_commit import GroupCommit
from edge.metering.settings import Durability
from edge.metering.spool_log import SpaceBudget, SpoolLog

_SEGMENT_BYTES = 1024**2
_LONG_GAP_S = 0.3


@pytest.fixture
def log(tmp_path: Path) -> SpoolLog:
    return SpoolLog(tmp_path / "1", "spool", 1, SpaceBudget(4 * _SEGMENT_BYTES), _SEGMENT_BYTES)


class _Rounds:
    """A commit whose rounds are counted, with the moments at which they began."""

    def __init__(self) -> None:
        self.commit = GroupCommit(Durability.GROUP, 1.0, lambda: None)
        self.began_at_s: list[float] = []
        disk = self.commit._disk
        start = disk.start

        def counted(files: list[int]) -> None:
            self.began_at_s.append(time.perf_counter())
            start(files)

        disk.start = counted  # type: ignore[method-assign,assignment]  # looked at, not replaced


async def _end(rounds: _Rounds, log: SpoolLog, request_id: str) -> None:
    log.append_event(request_id, b"outcome")
    await rounds.commit.settle(log)


async def test_requests_that_end_soon_after_a_round_share_the_next(
    log: SpoolLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "ROUND_GAP_S", _LONG_GAP_S)
    rounds = _Rounds()
    ids = [str(number) for number in range(20)]
    for request_id in ["first", *ids, "stays open"]:
        log.append_admitted(request_id, b"body")
    await _end(rounds, log, "first")
    assert len(rounds.began_at_s) == 1
    await asyncio.gather(*(_end(rounds, log, request_id) for request_id in ids))
    assert len(rounds.began_at_s) == 2
    assert rounds.began_at_s[1] - rounds.began_at_s[0] >= _LONG_GAP_S * 0.9  # the loop's timers are coarse
    rounds.commit.close([log])


async def test_where_no_other_request_is_under_way_nothing_is_waited_for(
    log: SpoolLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "ROUND_GAP_S", 3600.0)
    rounds = _Rounds()
    for number in range(3):
        log.append_admitted(str(number), b"body")
        await asyncio.wait_for(_end(rounds, log, str(number)), 60.0)
    assert len(rounds.began_at_s) == 3
    rounds.commit.close([log])
