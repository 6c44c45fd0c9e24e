"""auth_svc as an operator runs it: a process, its settings, its log and its end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from auth_svc import migrations
from auth_svc.service import open_servicers
from chassis import client, migration, secret_token
from chassis.faults import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from chassis.lifetime import Lifetime
from chassis.service import serve
from protos.auth.v1 import auth_pb2_grpc as rpc
from tests.harness.auth_service import PEPPER, AuthService, settings
from tests.harness.eventually import eventually_sync

REPOSITORY = Path(__file__).parents[2]


def environment(database_url: str, **variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return {
        **inherited,
        "TOLLGATE_AUTH_DATABASE_URL": database_url,
        "TOLLGATE_AUTH_KEY_PEPPER": PEPPER,
        "TOLLGATE_AUTH_LOG_LEVEL": "debug",
        **variables,
    }


@contextmanager
def started(variables: dict[str, str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "auth_svc"], cwd=REPOSITORY, env=variables, stdout=sink, stderr=sink
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def page(url: str) -> str:
    with urlopen(url) as response:
        content: bytes = response.read()
    return content.decode()


async def until_the_end(messages: AsyncIterator[object]) -> None:
    async for _ in messages:
        pass


async def test_a_process_serves_logs_no_secret_and_ends_at_once_when_asked_although_it_is_watched(
    sqlite_url: str, tmp_path: Path
) -> None:
    await migration.migrate(sqlite_url, migrations)
    log, ready = tmp_path / "log", tmp_path / "ready.json"
    with started(environment(sqlite_url, TOLLGATE_AUTH_READY_FILE=str(ready)), log) as process:
        facts = json.loads(eventually_sync(lambda: ready.read_text() if ready.exists() else "", timeout_s=60))
        async with client.channel(f"127.0.0.1:{facts['port']}") as channel:
            auth = AuthService(
                facts["port"],
                rpc.KeyServiceStub(channel),
                rpc.AuthAdminServiceStub(channel),
                rpc.KeyManagementServiceStub(channel),
                Lifetime(),
            )
            account = await auth.create_account()
            imported = secret_token.make("tg_", bytes(range(24)))
            secrets = [(await auth.create_key(account)).secret, (await auth.create_key(account, imported)).secret]
            for secret in secrets:
                await auth.authenticate(secret)
            with pytest.raises(NotFound):
                await auth.authenticate("tg_unknown")
            with pytest.raises(InvalidArgument):
                await auth.create_key(account, imported[:-1])
            metrics = await asyncio.to_thread(page, f"http://127.0.0.1:{facts['metrics_port']}/metrics")
            async with auth.watch() as messages:
                assert (await anext(messages)).HasField("reset")
                process.send_signal(signal.SIGTERM)
                start_s = time.monotonic()
                with pytest.raises(Unavailable):
                    await until_the_end(messages)
            eventually_sync(lambda: process.poll() is not None, timeout_s=10)
    assert process.returncode == 0, log.read_text()
    assert time.monotonic() - start_s < 5  # of the 10 that drain_s allows
    written = log.read_text()
    for secret in (*secrets, imported):
        assert secret[11:] not in written
        assert secret_token.digest(secret).hex() not in written
    assert PEPPER not in written
    assert 'tollgate_auth_authentications_total{result="granted"} 2.0' in metrics
    assert 'tollgate_auth_authentications_total{result="unknown"} 1.0' in metrics
    assert "tollgate_auth_watches_open 0.0" in metrics
    assert account.account_id not in metrics


def test_wrong_settings_are_named_and_not_repeated(sqlite_url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "auth_svc"],
        cwd=REPOSITORY,
        env=environment(
            sqlite_url, TOLLGATE_AUTH_KEY_PEPPER="too short a pepper", TOLLGATE_AUTH_WATCH_HEARTBEAT_S="soon"
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "TOLLGATE_AUTH_KEY_PEPPER: " in ended.stderr
    assert "TOLLGATE_AUTH_WATCH_HEARTBEAT_S: " in ended.stderr
    assert "too short a pepper" not in ended.stderr


async def test_a_database_that_was_not_migrated_is_refused_with_what_to_do(sqlite_url: str) -> None:
    with pytest.raises(FailedPrecondition, match="run `tollgate migrate`"):
        await serve(settings(sqlite_url), migrations, open_servicers, Lifetime())
