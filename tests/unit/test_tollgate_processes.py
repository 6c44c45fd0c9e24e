"""How the command finds what runs, and what it says when something does not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chassis.faults import FieldViolation, InvalidArgument
from tests.harness.eventually import eventually_sync
from tollgate.children import LOG_TAIL_LINES, log_tail
from tollgate.failure import CommandFailed, report
from tollgate.folder import prepare, service_environment
from tollgate.processes import Service
from tollgate.running import RUN_FILE, FolderLock, Run, running, write_run

RUN = Run(
    pid=1,
    base_url="http://127.0.0.1:8080/v1",
    auth_address="127.0.0.1:1",
    catalog_address="127.0.0.1:2",
    usage_address="127.0.0.1:3",
    metrics_urls={},
    child_pids={},
)


def test_a_running_stack_is_found_by_its_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        write_run(tmp_path / RUN_FILE, RUN)
        assert running(tmp_path) == RUN


def test_what_a_crash_left_behind_is_not_a_running_stack(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        write_run(tmp_path / RUN_FILE, RUN)
    assert running(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1, "from": "another version"}'])
def test_an_unreadable_run_file_is_no_running_stack(tmp_path: Path, content: str) -> None:
    with FolderLock(tmp_path):
        (tmp_path / RUN_FILE).write_text(content)
        assert running(tmp_path) is None


def test_a_second_stack_on_one_folder_is_refused_and_told_where_the_first_is(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        write_run(tmp_path / RUN_FILE, RUN)
        with pytest.raises(CommandFailed, match="8080") as refused, FolderLock(tmp_path):
            pass
    assert refused.value.reason == "ALREADY_RUNNING"
    with FolderLock(tmp_path):
        pass


def test_the_pepper_is_drawn_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    data_dir = prepare(tmp_path / "data")
    first = service_environment(data_dir, Service.AUTH, {})
    second = service_environment(data_dir, Service.AUTH, {})
    assert first == second
    assert (data_dir / "key_pepper").stat().st_mode & 0o777 == 0o600
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_a_lost_pepper_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "auth.db").touch()
    with pytest.raises(CommandFailed, match="put it back") as failed:
        service_environment(tmp_path, Service.AUTH, {})
    assert failed.value.reason == "PEPPER_LOST"


def test_an_operators_own_database_wins(tmp_path: Path) -> None:
    own = {"TOLLGATE_USAGE_DATABASE_URL": "postgresql+asyncpg://db/usage"}
    assert "TOLLGATE_USAGE_DATABASE_URL" not in service_environment(tmp_path, Service.USAGE, own)


def test_the_tail_of_a_log_is_readable(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    lines = [f"line {number}" for number in range(100)]
    lines.append(json.dumps({"event": "failed", "level": "error", "timestamp": "2027-01-01T10:20:30.5Z", "port": 7}))
    log.write_text("\n".join(lines) + "\n\n")
    tail = log_tail(log)
    assert len(tail) == LOG_TAIL_LINES
    assert tail[-2:] == ["line 99", "10:20:30 error failed port=7"]


def test_a_log_that_is_not_there_has_no_tail(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "nothing") == []


def test_a_failure_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    report(CommandFailed("CATALOG_EMPTY", "there is no catalog."), as_json=False)
    assert "tollgate models apply FILE" in capsys.readouterr().err


def test_a_failure_for_programs_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    fault = InvalidArgument("document", "bad", "CATALOG_INVALID", [FieldViolation("models[0]", "line 3: no price")])
    report(fault, as_json=True)
    assert json.loads(capsys.readouterr().err)["error"] == {
        "reason": "CATALOG_INVALID",
        "message": "document: bad",
        "violations": [{"field": "models[0]", "message": "line 3: no price"}],
    }


def test_every_fault_of_a_bad_document_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    violations = [FieldViolation("models[0]", "line 3: no price"), FieldViolation("models[1]", "line 9: no id")]
    report(InvalidArgument("document", "two faults", "CATALOG_INVALID", violations), as_json=False)
    printed = capsys.readouterr().err
    assert "line 3: no price" in printed
    assert "line 9: no id" in printed


_PARENT = """
import os, subprocess, sys
lifeline, mine = os.pipe()
child = subprocess.Popen(
    [sys.executable, "-m", "tollgate.child", "--lifeline", str(lifeline), "http.server", "--bind", "127.0.0.1", "0"],
    pass_fds=[lifeline], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
print(child.pid, flush=True)
child.wait()
"""


def test_a_child_ends_with_its_parent_even_when_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        os.kill(child_pid, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    eventually_sync(lambda: not _alive(child_pid), 20)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # where nobody reaps orphans, a zombie is what is left
