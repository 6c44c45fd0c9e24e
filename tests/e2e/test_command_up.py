"""`tollgate up`: starts, ends, and the ways in which it must not end. Second starts are in test_restart.py."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from openai import OpenAI

from tests.harness.eventually import eventually_sync
from tests.harness.processes import (
    STOP_S_MAX,
    RunningStack,
    run_command,
    running_stack,
    scripted_catalog,
    starting_stack,
)
from tests.harness.upstream_answer import Answer
from tests.harness.upstream_process import upstream_process

NO_UPSTREAM = "http://127.0.0.1:9"  # nothing ever connects to it in these tests


def test_a_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    with upstream_process() as upstream, running_stack(scripted_catalog(upstream.url), tmp_path) as stack:
        secret = stack.create_key()
        upstream.script(Answer(events=3, gap_ms=60_000))
        with OpenAI(base_url=stack.base_url, api_key=secret, max_retries=0) as client:
            stream = client.chat.completions.create(
                model="scripted/ok", messages=[{"role": "user", "content": "for ever"}], stream=True
            )
            next(iter(stream))
            stack.process.send_signal(signal.SIGINT)
            eventually_sync(lambda: '"stopping"' in stack.log("edge"), 20)
            stack.process.send_signal(signal.SIGINT)
            assert stack.process.wait(STOP_S_MAX) == 130
        _all_gone(stack)


def test_a_child_that_dies_takes_the_rest_down_and_is_named(tmp_path: Path) -> None:
    with running_stack(scripted_catalog(NO_UPSTREAM), tmp_path) as stack:
        stack.kill("usage_svc")
        assert stack.process.wait(STOP_S_MAX) == 1
        printed = stack.output.read_text()
        assert printed.index("usage_svc was ended by SIGKILL: the rest stops") < printed.index("Stopping")
        assert "usage_svc.log" in printed
        assert "ready port=" in printed, "its last log lines are shown"
        assert "Traceback" not in printed
        _all_gone(stack)
        assert not (stack.data_dir / "run.json").exists()


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with running_stack(scripted_catalog(NO_UPSTREAM), tmp_path) as stack:
        stack.process.kill()
        stack.process.wait()
        _all_gone(stack)
        # The lock went with the last of them, so the folder can be used again; what was left behind does not mislead.
        stale = stack.command("accounts", "list")
        assert stale.returncode == 1
        assert "nothing is running here" in stale.stderr


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run_command("up", "--data-dir", str(tmp_path / "data"), "--port", port)
    assert refused.returncode == 1
    assert port in refused.stderr
    assert "--port" in refused.stderr
    assert not (tmp_path / "data" / "logs").exists()


def test_a_bad_catalog_ends_the_start_with_its_lines(tmp_path: Path) -> None:
    with starting_stack("models:\n  - id: free/lunch\n", tmp_path) as (process, output):
        assert process.wait(STOP_S_MAX * 2) == 1
        printed = output.read_text()
    assert "line 2" in printed
    assert "Traceback" not in printed


def test_a_catalog_that_cannot_be_read_starts_nothing(tmp_path: Path) -> None:
    refused = run_command("up", "--data-dir", str(tmp_path / "data"), "--catalog", str(tmp_path / "nowhere.yaml"))
    assert refused.returncode == 1
    assert "nowhere.yaml" in refused.stderr
    assert not (tmp_path / "data" / "logs").exists()


def test_a_wrong_setting_of_a_service_ends_the_start_and_is_named(tmp_path: Path) -> None:
    wrong = {"TOLLGATE_USAGE_SESSION_TTL_S": "soon"}
    with starting_stack(None, tmp_path, environment=wrong) as (process, output):
        assert process.wait(STOP_S_MAX * 2) == 1
        printed = output.read_text()
    assert "usage_svc ended with exit status" in printed
    assert "TOLLGATE_USAGE_SESSION_TTL_S" in printed


def test_a_stop_during_the_start_is_clean(tmp_path: Path) -> None:
    with starting_stack(None, tmp_path) as (process, output):
        eventually_sync(lambda: (tmp_path / "data" / "logs" / "auth_svc.log").exists(), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S_MAX) == 0
        assert "Traceback" not in output.read_text()


def test_migrate_brings_each_database_to_the_newest_schema_and_may_be_repeated(tmp_path: Path) -> None:
    environment = {"TOLLGATE_AUTH_KEY_PEPPER": "x" * 32} | {
        f"TOLLGATE_{name.upper()}_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / name}.db"
        for name in ("auth", "catalog", "usage")
    }
    first = run_command("migrate", "--json", environment=environment)
    assert first.returncode == 0, first.stderr
    assert set(json.loads(first.stdout)["revisions"]) == {"auth", "catalog", "usage"}
    assert run_command("migrate", "--json", environment=environment).stdout == first.stdout


def test_migrate_without_a_database_is_wrong_usage() -> None:
    refused = run_command("migrate", "usage")
    assert refused.returncode == 2
    assert "TOLLGATE_USAGE_DATABASE_URL" in refused.stderr
    assert "TOLLGATE_AUTH_DATABASE_URL" not in refused.stderr
    for name in ("AUTH", "CATALOG", "USAGE"):
        assert f"TOLLGATE_{name}_DATABASE_URL: is not set" in run_command("migrate").stderr


def _all_gone(stack: RunningStack) -> None:
    for pid in stack.run["child_pids"].values():
        eventually_sync(_gone(pid), STOP_S_MAX)


def _gone(pid: int) -> Callable[[], bool]:
    def check() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"  # where nobody reaps orphans, a zombie is what is left

    return check
