"""The processes as a cluster starts them: each by the command alone, beside a migration, and set up by `bootstrap`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from chassis import secret_token
from tests.harness.eventually import eventually_sync
from tests.harness.processes import run_command, scripted_catalog
from tests.harness.upstream_process import upstream_process

SERVICES = ("auth", "catalog", "usage")
SECRET = secret_token.make("tg_", bytes(range(24)))


@contextmanager
def started(name: str, environment: dict[str, str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TOLLGATE_")}
    command = [sys.executable, "-m", "tollgate", name]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=inherited | environment, stdout=sink, stderr=sink)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def facts(ready: Path, log: Path) -> dict[str, int]:
    eventually_sync(ready.exists, timeout_s=60)
    found: dict[str, int] = json.loads(ready.read_text())
    return found


def test_each_process_starts_by_its_command_before_its_database_is_migrated_and_a_key_that_was_brought_works(
    tmp_path: Path,
) -> None:
    environment = {"TOLLGATE_AUTH_KEY_PEPPER": "x" * 32}
    for name in SERVICES:
        environment |= {
            f"TOLLGATE_{name.upper()}_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / name}.db",
            f"TOLLGATE_{name.upper()}_SCHEMA_WAIT_S": "120",
            f"TOLLGATE_{name.upper()}_READY_FILE": str(tmp_path / f"{name}.ready"),
        }
    with ExitStack() as stack:
        upstream = stack.enter_context(upstream_process())
        services = {
            name: stack.enter_context(started(name, environment, tmp_path / f"{name}.log")) for name in SERVICES
        }
        migrated = run_command("migrate", "--wait-s", "30", "--json", environment=environment)
        assert migrated.returncode == 0, migrated.stderr
        ports = {name: facts(tmp_path / f"{name}.ready", tmp_path / f"{name}.log") for name in SERVICES}
        for name, process in services.items():
            assert ports[name]["pid"] == process.pid  # what got the signal of the cluster is the process itself

        addresses = {name: f"127.0.0.1:{ports[name]['port']}" for name in SERVICES}
        (tmp_path / "catalog.yaml").write_text(scripted_catalog(upstream.url))
        (tmp_path / "secret").write_text(SECRET + "\n")
        command = [
            "bootstrap",
            "--catalog",
            f"{tmp_path}/catalog.yaml",
            "--secret-file",
            f"{tmp_path}/secret",
            "--json",
        ]
        for _ in range(2):
            done = run_command(
                *command, environment={f"TOLLGATE_COMMAND_{name.upper()}_ADDRESS": addresses[name] for name in SERVICES}
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout) == {"snapshot": 1, "account": "demo", "balance_usd": "5.00"}
            assert SECRET[11:] not in done.stdout

        ready = tmp_path / "edge.ready"
        edge = {f"TOLLGATE_EDGE_{name.upper()}_ADDRESS": addresses[name] for name in SERVICES} | {
            "TOLLGATE_EDGE_LISTEN_PORT": "0",
            "TOLLGATE_EDGE_DATA_DIR": str(tmp_path / "edge"),
            "TOLLGATE_EDGE_ENDPOINT_LAG_S": "0",
            "TOLLGATE_EDGE_READY_FILE": str(ready),
        }
        stack.enter_context(started("edge", edge, tmp_path / "edge.log"))
        port = facts(ready, tmp_path / "edge.log")["port"]
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=SECRET) as client:
            answer = client.chat.completions.create(
                model="scripted/ok", messages=[{"role": "user", "content": "one two three"}], max_tokens=50
            )
        assert answer.usage is not None


def test_usage_without_an_account_and_without_a_database_says_that_there_are_two_ways_to_mean_it() -> None:
    refused = run_command("usage")
    assert refused.returncode == 2
    assert "name one" in refused.stderr
    assert "TOLLGATE_USAGE_DATABASE_URL" in refused.stderr


def waiting(*arguments: str, environment: dict[str, str]) -> str:
    """What a command that waits says on standard error within its first three tries; then it is ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "tollgate", *arguments, "--wait-s", "600"],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.kill()
        return first + process.stderr.read()


def test_a_migration_that_waits_says_once_what_for_and_no_password(unused_tcp_port: int) -> None:
    url = f"postgresql+asyncpg://somebody:hunter2@127.0.0.1:{unused_tcp_port}/nowhere"
    said = waiting("migrate", "auth", environment={"TOLLGATE_AUTH_DATABASE_URL": url})
    assert said.count("waiting: auth_svc's database cannot be migrated") == 1
    assert "hunter2" not in said


def test_a_bootstrap_that_waits_says_once_what_for(tmp_path: Path, unused_tcp_port: int) -> None:
    (tmp_path / "catalog.yaml").write_text(scripted_catalog("http://127.0.0.1:9"))
    (tmp_path / "secret").write_text(SECRET)
    command = ("bootstrap", "--catalog", f"{tmp_path}/catalog.yaml", "--secret-file", f"{tmp_path}/secret")
    addresses = {f"TOLLGATE_COMMAND_{name.upper()}_ADDRESS": f"127.0.0.1:{unused_tcp_port}" for name in SERVICES}
    said = waiting(*command, environment=addresses)
    assert said.count("waiting: catalog_svc does not answer at") == 1
    assert SECRET[11:] not in said
