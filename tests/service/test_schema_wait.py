"""A service that starts before its database is migrated: alive, not serving, then serving; and one that was undone."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import text
from sqlalchemy.exc import MultipleResultsFound
from structlog.testing import capture_logs

import auth_svc.migrations
import catalog_svc.migrations
import usage_svc.migrations
from auth_svc import migrations
from auth_svc.service import open_servicers
from chassis import migration
from chassis.database import open_engine
from chassis.faults import FailedPrecondition, Unavailable
from chassis.health import LIVE, READY
from chassis.lifetime import Lifetime
from chassis.migration import SchemaState
from chassis.service import serve
from tests.harness.auth_service import settings
from tests.harness.eventually import eventually

Status = health_pb2.HealthCheckResponse


async def health(port: int, name: str) -> "health_pb2.HealthCheckResponse.ServingStatus.ValueType":
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    status: health_pb2.HealthCheckResponse.ServingStatus.ValueType = answer.status
    return status


async def migrate_to(url: str, revision: str) -> None:
    engine = open_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    await engine.dispose()


async def test_a_service_waits_alive_until_its_schema_is_there(
    database_url: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    ready, port = tmp_path / "ready", unused_tcp_port
    configured = settings(database_url, schema_wait_s=60, health_port=port, ready_file=ready)
    process = Lifetime()
    serving = asyncio.create_task(serve(configured, migrations, open_servicers, process))

    async def is_alive() -> bool:
        try:
            return bool(await health(port, LIVE) == Status.SERVING)
        except grpc.aio.AioRpcError:
            return False

    await eventually(is_alive)
    assert await health(port, READY) == Status.NOT_SERVING
    assert not ready.exists()
    await migration.migrate(database_url, migrations)
    await eventually(ready.exists)
    assert await health(port, READY) == Status.SERVING
    assert json.loads(ready.read_text())["health_port"] == port
    process.stop()
    await serving


async def test_a_service_that_waits_ends_when_it_is_asked_to(sqlite_url: str) -> None:
    process = Lifetime()
    serving = asyncio.create_task(serve(settings(sqlite_url, schema_wait_s=60), migrations, open_servicers, process))
    await asyncio.sleep(0)
    process.stop()
    await asyncio.wait_for(serving, 10)


async def test_a_database_that_cannot_be_reached_is_waited_for_and_its_password_is_not_logged(
    unused_tcp_port: int,
) -> None:
    url = f"postgresql+asyncpg://somebody:hunter2@127.0.0.1:{unused_tcp_port}/nowhere"
    process = Lifetime()
    with capture_logs() as lines:
        serving = asyncio.create_task(serve(settings(url, schema_wait_s=60), migrations, open_servicers, process))
        await eventually(lambda: lines)
    process.stop()
    await asyncio.wait_for(serving, 10)
    assert "cannot be asked" in lines[0]["obstacle"]
    assert "hunter2" not in str(lines)


async def test_a_database_that_cannot_be_reached_and_is_not_waited_for_is_one_line_that_says_what_to_do(
    unused_tcp_port: int,
) -> None:
    url = f"postgresql+asyncpg://somebody:hunter2@127.0.0.1:{unused_tcp_port}/nowhere"
    with pytest.raises(Unavailable, match=r"start it, .*SCHEMA_WAIT_S") as raised:
        await serve(settings(url), migrations, open_servicers, Lifetime())
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_when_the_wait_is_over_the_service_says_what_to_do(sqlite_url: str) -> None:
    with pytest.raises(FailedPrecondition, match="run `tollgate migrate`"):
        await serve(settings(sqlite_url, schema_wait_s=0.01), migrations, open_servicers, Lifetime())


async def test_the_version_before_a_migration_serves_on_and_leaves_the_newer_schema_alone(
    database_url: str, tmp_path: Path
) -> None:
    await migration.migrate(database_url, migrations)
    await migrate_to(database_url, "9999")
    assert await migration.migrate(database_url, migrations) == "9999"
    ready, process = tmp_path / "ready", Lifetime()
    serving = asyncio.create_task(serve(settings(database_url, ready_file=ready), migrations, open_servicers, process))
    await eventually(ready.exists)
    process.stop()
    await serving


def test_revisions_are_told_apart_by_their_order() -> None:
    head = migration.head(migrations)
    assert migration.state(None, migrations) is SchemaState.BEHIND
    assert migration.state("0000", migrations) is SchemaState.BEHIND
    assert migration.state(head, migrations) is SchemaState.CURRENT
    assert migration.state("9999", migrations) is SchemaState.AHEAD


async def test_a_database_at_two_revisions_is_refused_as_it_is(database_url: str) -> None:
    await migration.migrate(database_url, migrations)
    engine = open_engine(database_url)
    async with engine.execution_options(writes=True).begin() as connection:
        await connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    await engine.dispose()
    with pytest.raises(MultipleResultsFound):
        await migration.current(database_url)
    with pytest.raises(MultipleResultsFound):
        await migration.migrate(database_url, migrations)


@pytest.mark.parametrize("package", [auth_svc.migrations, catalog_svc.migrations, usage_svc.migrations])
def test_the_newest_revision_is_what_the_last_file_begins_with_and_what_alembic_finds(package: ModuleType) -> None:
    assert package.__file__ is not None
    config = Config()
    config.set_main_option("script_location", str(Path(package.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == migration.head(package)
    for script in scripts.walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")


def test_a_service_with_a_current_schema_starts_without_alembic() -> None:
    """It takes a tenth of the start to load."""
    loaded = "import sys, usage_svc.__main__; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


async def test_two_who_migrate_one_database_at_once_both_succeed(database_url: str) -> None:
    both = await asyncio.gather(*(migration.migrate(database_url, migrations) for _ in range(2)))
    assert both == [migration.head(migrations)] * 2
