"""The spool on a real disk: whatever moment a process dies at, nothing that was accepted is lost or invented."""

import errno
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uuid_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.faults import FailedPrecondition
from edge.metering.convert import UNREADABLE, Admitted, encode_admitted, record_from_event, record_from_return
from edge.metering.convert import record_usage_request as batch
from edge.metering.refusals import MeteringUnavailable, UnavailableReason
from edge.metering.settings import MeteringSettings
from edge.metering.spool import Spool
from edge.metering.spool_log import EVENT_BYTES_MAX, SpaceBudget, SpoolLog
from edge.metering.usage_event import UsageEvent, decode_event, encode_event
from protos.usage.v1 import usage_pb2
from tests.torture import disk

UUID = "0190b5a0-0000-7000-8000-000000000000"
SEGMENT_BYTES = 16 * 1024
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def new_log(folder: Path, bytes_max: int = 64 * SEGMENT_BYTES) -> SpoolLog:
    return SpoolLog(folder, UUID, 1, SpaceBudget(bytes_max), SEGMENT_BYTES)


def recover(folder: Path) -> SpoolLog:
    return SpoolLog.recover(folder, UUID, 1, SpaceBudget(64 * SEGMENT_BYTES), SEGMENT_BYTES)


def admitted(request_id: str, length: int = 0) -> bytes:
    return encode_admitted(Admitted(request_id, "account", "lease", 1000, "key", "m" * length, 1))


def event_of(record: bytes) -> UsageEvent:
    return decode_event(usage_pb2.Record.FromString(record).event_row)


def event(request_id: str, length: int = 0) -> bytes:
    return record_from_event(UsageEvent(request_id=request_id, model_id="m" * length))


def write_through(log: SpoolLog) -> None:
    """What a round of group commit does, without the sync."""
    log.flush()
    _, log.safe_seq = log.take_unsynced()


def all_records(log: SpoolLog) -> list[bytes]:
    return log.read(log.ship_seq, 10_000)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, 1500)),
        st.tuples(st.just("finish"), st.integers(0, 1500)),
        st.tuples(st.just("return"), st.just(0)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("acknowledge"), st.integers(1, 20)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_a_crash_at_any_point_loses_no_request(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    log = new_log(tmp_path_factory.mktemp("spool") / "1")
    outcome_seq: dict[str, int] = {}  # of every request that was admitted; 0 while it is open
    records: dict[int, bytes] = {}
    written_seq = 1
    try:
        for number, (step, amount) in enumerate([*steps, ("crash", 0)]):
            open_ids = [request_id for request_id, seq in outcome_seq.items() if not seq]
            if step == "admit":
                log.append_admitted(f"request-{number}", admitted(f"request-{number}", amount))
                outcome_seq[f"request-{number}"] = 0
                written_seq = log.next_seq  # an admission takes everything before it along
            elif step == "finish" and open_ids:
                request_id = open_ids[amount % len(open_ids)]
                record = event(request_id, amount)
                outcome_seq[request_id] = log.append_event(request_id, record)
                records[outcome_seq[request_id]] = record
            elif step == "return":
                record = record_from_return("lease", number)
                seq = log.append_return(record)
                assert seq is not None
                records[seq] = record
            elif step == "flush":
                write_through(log)
                written_seq = log.next_seq
            elif step == "acknowledge":
                # usage_svc acknowledges what it was sent, which is what is safe.
                log.ship_seq = min(log.safe_seq, log.ship_seq + amount)
                log.acknowledge(log.ship_seq)
            elif step == "crash":
                copy = tmp_path_factory.mktemp("crash") / "1"
                shutil.copytree(log.folder, copy)
                found = recover(copy)
                at = log.ship_seq
                survivors = found.read(at, 10_000)
                assert survivors == [records[seq] for seq in range(at, written_seq)], "exactly what was written"
                lost = {
                    request_id
                    for request_id, seq in outcome_seq.items()
                    if not seq or seq >= max(written_seq, at)  # open, or its outcome never reached the system
                }
                assert found.open_count == len(lost)
                assert found.close_with_edge_lost(NOW, at) == len(lost)
                write_through(found)
                events = [event_of(each) for each in all_records(found)[len(survivors) :]]
                assert {each.request_id for each in events} == lost
                assert all(each.outcome == usage_pb2.OUTCOME_EDGE_LOST for each in events)
                found.close(remove=True)
    finally:
        log.close(remove=True)


def test_segments_go_when_everything_in_them_is_acknowledged(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    for number in range(100):
        log.append_admitted(f"r{number}", admitted(f"r{number}", 500))
        log.append_event(f"r{number}", event(f"r{number}", 500))
    write_through(log)
    many = len(list(log.folder.iterdir()))
    log.acknowledge(log.next_seq)
    assert many > 5
    assert len(list(log.folder.iterdir())) <= 2
    log.close(remove=True)


def test_an_open_request_keeps_its_segment_until_it_is_carried_on(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    log.append_admitted("slow", admitted("slow"))
    sizes = []
    for number in range(400):
        log.append_admitted(f"r{number}", admitted(f"r{number}", 500))
        log.append_event(f"r{number}", event(f"r{number}", 500))
        write_through(log)
        log.acknowledge(log.next_seq)
        sizes.append(len(list(log.folder.iterdir())))
        copy = tmp_path / "copy"
        shutil.copytree(log.folder, copy)
        found = recover(copy)
        assert found.open_count == 1, "it is found open after a crash, once"
        found.close(remove=True)
    assert max(sizes) <= 8, "one slow request does not fill the disk"
    seq = log.append_event("slow", event("slow"))
    write_through(log)
    assert log.read(seq, 1) == [event("slow")]
    log.close(remove=True)


def test_a_full_spool_refuses_admissions_and_still_takes_every_open_requests_event(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1", bytes_max=4 * SEGMENT_BYTES)
    open_ids: list[str] = []

    def fill() -> None:
        for number in range(10_000):
            log.append_admitted(f"r{number}", admitted(f"r{number}"))
            open_ids.append(f"r{number}")

    with pytest.raises(MeteringUnavailable) as refusal:
        fill()
    assert refusal.value.reason is UnavailableReason.SPOOL_FULL
    assert len(open_ids) > 10
    largest = b"\x0a" + bytes(EVENT_BYTES_MAX - 1)
    for request_id in open_ids:
        log.append_event(request_id, largest)
        assert log.append_return(record_from_return(str(uuid_utils.uuid7()), 2**62)) is not None
    write_through(log)
    assert len(all_records(log)) == 2 * len(open_ids)
    assert sum(path.stat().st_size for path in log.folder.iterdir()) <= 4 * SEGMENT_BYTES
    log.acknowledge(log.next_seq)
    log.append_admitted("again", admitted("again"))
    log.close(remove=True)


def test_a_disk_without_space_refuses_admissions_and_loses_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path / "1")
    log.append_admitted("first", admitted("first"))
    real, is_full = os.pwrite, True

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:7], offset)  # and short writes are written on

    monkeypatch.setattr(os, "pwrite", pwrite)
    log.append_event("first", event("first"))
    with pytest.raises(MeteringUnavailable) as refusal:
        log.append_admitted("second", admitted("second"))
    assert refusal.value.reason is UnavailableReason.SPOOL_UNWRITABLE
    assert log.open_count == 0
    is_full = False
    log.probe()
    assert log.unwritable is None
    write_through(log)
    found = recover(log.folder)
    assert (found.read(1, 10), found.open_count) == ([event("first")], 0)
    found.close(remove=False)
    log.close(remove=True)


def test_a_disk_that_cannot_grow_the_spool_refuses_admissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fallocate(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = new_log(tmp_path / "1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fallocate)
        with pytest.raises(MeteringUnavailable) as refusal:
            log.append_admitted("r", admitted("r"))
        assert refusal.value.reason is UnavailableReason.SPOOL_UNWRITABLE
        assert list(log.folder.iterdir()) == []
    log.append_admitted("r", admitted("r"))
    log.close(remove=True)


def test_a_damaged_record_keeps_its_place_and_those_behind_it_survive(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    for name in "abc":
        log.append_admitted(name, admitted(name))
        log.append_event(name, event(name))
    write_through(log)
    log.close(remove=False)
    path = next((tmp_path / "1").iterdir())
    data = path.read_bytes()
    position = data.index(event("b"))
    path.write_bytes(data[:position] + b"\xff" + data[position + 1 :])
    found = recover(tmp_path / "1")
    assert found.read(1, 10) == [event("a"), UNREADABLE, event("c")]
    assert found.close_with_edge_lost(NOW, 1) == 1, "the request whose outcome was damaged"
    write_through(found)
    assert event_of(found.read(4, 1)[0]).request_id == "b"
    found.close(remove=True)


def test_new_records_never_take_the_number_of_one_that_usage_svc_has_and_the_disk_lost(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    log.append_admitted("open", admitted("open"))
    log.close(remove=False)
    found = recover(tmp_path / "1")
    found.close_with_edge_lost(NOW, 7)
    write_through(found)
    assert (found.ship_seq, found.next_seq) == (7, 8)
    assert event_of(found.read(7, 10)[0]).request_id == "open"
    found.close(remove=True)


def test_a_rewind_beyond_what_is_kept_is_answered_with_unreadable_records(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    for number in range(60):
        log.append_admitted(f"r{number}", admitted(f"r{number}", 1000))
        log.append_event(f"r{number}", event(f"r{number}", 1000))
    write_through(log)
    log.acknowledge(50)
    assert log.read(50, 100) == [event(f"r{number}", 1000) for number in range(49, 60)]
    reread = log.read(1, 100)
    assert len(reread) == 60
    assert set(reread) <= {UNREADABLE, *(event(f"r{number}", 1000) for number in range(60))}
    assert reread[0] == UNREADABLE
    assert reread[49:] == log.read(50, 100)
    log.close(remove=True)


def test_a_long_backlog_is_read_from_disk_in_batches(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    written = []
    for number in range(300):
        log.append_admitted(f"r{number}", admitted(f"r{number}"))
        written.append(event(f"r{number}", number))
        log.append_event(f"r{number}", written[-1])
    write_through(log)
    log.close(remove=False)
    found = recover(tmp_path / "1")
    read: list[bytes] = []
    while found.ship_seq < found.safe_seq:
        some = found.read(found.ship_seq, 7)
        read += some
        found.ship_seq += len(some)
    assert read == written
    found.close(remove=True)


def test_an_edge_lost_event_says_all_that_was_known_at_admission(tmp_path: Path) -> None:
    log = new_log(tmp_path / "1")
    request_id = "0190b5a0-0000-7000-8000-0000000000aa"
    body = encode_admitted(Admitted(request_id, "account", "lease", 1234, "key", "model", usage_pb2.RESOURCE_RESPONSES))
    log.append_admitted(request_id, body)
    log.close(remove=False)
    found = recover(tmp_path / "1")
    found.close_with_edge_lost(NOW, 1)
    write_through(found)
    lost = event_of(found.read(1, 1)[0])
    assert (lost.request_id, lost.account_id, lost.lease_id) == (request_id, "account", "lease")
    assert (lost.key_id, lost.model_id, lost.resource) == ("key", "model", usage_pb2.RESOURCE_RESPONSES)
    assert (lost.outcome, lost.source, lost.ending) == (
        usage_pb2.OUTCOME_EDGE_LOST,
        usage_pb2.USAGE_SOURCE_NONE,
        usage_pb2.ENDING_EDGE_LOST,
    )
    assert lost.hold_nanousd == 1234
    assert lost.admit_time_us == 0x0190B5A00000 * 1000
    found.close(remove=True)


@pytest.mark.parametrize("length", [0, 1, 120, 127, 128, 300, 16_000, 17_000])
def test_records_framed_by_hand_are_what_protobuf_would_write(length: int) -> None:
    ended = UsageEvent(request_id="r" * length, hold_nanousd=5)
    record = record_from_event(ended)
    assert record == usage_pb2.Record(event_row=encode_event(ended)).SerializeToString()
    session = usage_pb2.Session(spool_uuid=UUID, incarnation=2)
    returned = record_from_return("lease", 7)
    assert batch(session, 3, [record, returned, UNREADABLE]) == usage_pb2.RecordUsageRequest(
        session=session,
        first_seq=3,
        records=[
            usage_pb2.Record(event_row=encode_event(ended)),
            usage_pb2.Record(lease_return=usage_pb2.LeaseReturn(lease_id="lease", returned_total_nanousd=7)),
            usage_pb2.Record(unreadable=b""),
        ],
    )
    assert usage_pb2.Record.FromString(UNREADABLE).WhichOneof("record") == "unreadable"


def metering_settings(folder: Path) -> MeteringSettings:
    return MeteringSettings(folder, "test", segment_bytes=SEGMENT_BYTES)


def test_a_spool_keeps_its_uuid_and_its_logs(tmp_path: Path) -> None:
    spool = Spool.open(metering_settings(tmp_path))
    uuid = spool.uuid
    log = spool.create_log(3)
    log.append_admitted("r", admitted("r"))
    spool.close()
    spool = Spool.open(metering_settings(tmp_path))
    assert spool.uuid == uuid
    assert spool.logs[3].open_count == 1
    with pytest.raises(FailedPrecondition, match="SPOOL_AHEAD"):
        spool.create_log(3)
    spool.remove_log(spool.logs[3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "uuid"]
    spool.close()


def test_a_second_process_is_refused_the_folder_and_told_who_has_it(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from edge.metering.settings import MeteringSettings\n"
        "from edge.metering.spool import Spool\n"
        "Spool.open(MeteringSettings(Path(sys.argv[1]), 'other'))\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(FailedPrecondition, match=rf"SPOOL_IN_USE.*process {other.pid}"):
            Spool.open(metering_settings(tmp_path))
        other.kill()
    Spool.open(metering_settings(tmp_path)).close()


def test_a_spool_whose_uuid_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "uuid").write_text("not a uuid\n")
    with pytest.raises(FailedPrecondition, match="SPOOL_DAMAGED"):
        Spool.open(metering_settings(tmp_path))


@pytest.mark.parametrize(
    "values",
    [{"segment_bytes": 1000}, {"spool_bytes_max": 1000}, {"ship_batch_max": 1001}, {"refusal_memory_s": 2.0}],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        MeteringSettings(tmp_path, "test", **values)  # type: ignore[arg-type]  # one dict for several fields


def test_what_a_killed_process_left_survives_a_power_cut_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system had it. From the start on the disk has it too, though no session stands yet and nothing is written."""
    disk.copy_what_is_synced(monkeypatch.setattr)
    settings = MeteringSettings(tmp_path / "spool", "edge", segment_bytes=SEGMENT_BYTES)
    killed = Spool.open(settings)
    killed.create_log(1).append_admitted("open", admitted("open"))
    killed.close()
    Spool.open(settings).close()
    disk.cut_power(settings.spool_dir, None)
    after = Spool.open(settings)
    assert after.logs[1].open_count == 1
    after.close()


def test_a_disk_that_cannot_sync_what_a_former_process_left_does_not_keep_it_from_being_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path / "log")
    log.append_admitted("one", admitted("one"))
    log.append_event("one", event("one"))
    log.flush()

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "as a broken disk says")

    monkeypatch.setattr(os, "fdatasync", broken)
    found = recover(tmp_path / "log")
    assert all_records(found) == [event("one")]
    assert found.sync_failure is not None
