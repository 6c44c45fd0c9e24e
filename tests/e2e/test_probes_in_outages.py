"""An outage of PostgreSQL restarts nothing: what Kubernetes' probes ask the services, and what they answer."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import auth_svc.migrations
import catalog_svc.migrations
import usage_svc.migrations
from chassis.health import LIVE, READY
from chassis.migration import migrate_now
from protos.auth.v1 import auth_pb2, auth_pb2_grpc
from protos.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.harness.eventually import eventually_sync
from tests.harness.postgres import PostgresServer, fresh_database, postgres_server
from tests.harness.processes import START_S_MAX, STOP_S_MAX

MIGRATIONS = {"auth": auth_svc.migrations, "catalog": catalog_svc.migrations, "usage": usage_svc.migrations}
SERVING = health_pb2.HealthCheckResponse.SERVING
# The manifests' readiness probe gives up after this long, the liveness probe later.
PROBE_TIMEOUT_S = 2.0
RECOVERY_S_MAX = 30.0


class Service:
    """One service's process, and what one asks it."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", ready_file: Path) -> None:
        self.name, self.process = name, process
        eventually_sync(ready_file.exists, START_S_MAX)
        ports = json.loads(ready_file.read_text())
        self._grpc, self._health = (
            grpc.insecure_channel(f"127.0.0.1:{ports[port]}") for port in ("port", "health_port")
        )

    def probes(self) -> "list[health_pb2.HealthCheckResponse.ServingStatus.ValueType]":
        """What liveness and readiness are told.

        Raises:
            grpc.RpcError: not within a probe's time.
        """
        ask = health_pb2_grpc.HealthStub(self._health).Check
        names = (LIVE, READY)
        return [ask(health_pb2.HealthCheckRequest(service=name), timeout=PROBE_TIMEOUT_S).status for name in names]

    def reaches_its_database(self) -> bool:
        """Whether a call is answered that must ask it; that there is nothing in it is an answer."""
        call: Any
        request: Any
        if self.name == "auth":
            call = auth_pb2_grpc.AuthAdminServiceStub(self._grpc).ListAccounts
            request = auth_pb2.ListAccountsRequest()
        elif self.name == "catalog":
            call = catalog_pb2_grpc.CatalogAdminServiceStub(self._grpc).GetDocument
            request = catalog_pb2.GetDocumentRequest()
        else:
            call = usage_pb2_grpc.UsageAdminServiceStub(self._grpc).ListSessions
            request = usage_pb2.ListSessionsRequest()
        try:
            call(request, timeout=PROBE_TIMEOUT_S)
        except grpc.RpcError as error:
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return True

    def close(self) -> None:
        """Ends it, as Kubernetes does, and the channels."""
        self._grpc.close()
        self._health.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_S_MAX) == 0, self.name


@contextmanager
def running_service(name: str, url: str, folder: Path) -> Iterator[Service]:
    ready_file = folder / f"{name}.json"
    prefix = f"TOLLGATE_{name.upper()}"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("TOLLGATE_")},
        f"{prefix}_DATABASE_URL": url,
        f"{prefix}_DATABASE_SCHEMA": name,
        f"{prefix}_LISTEN_PORT": "0",
        f"{prefix}_HEALTH_PORT": "0",
        f"{prefix}_READY_FILE": str(ready_file),
        "TOLLGATE_AUTH_KEY_PEPPER": "x" * 40,
    }
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tollgate", name], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        service = Service(name, process, ready_file)
        yield service
        service.close()
    finally:
        process.kill()
        process.wait(STOP_S_MAX)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server of this module's own, since it is killed."""
    with postgres_server(survives_kills=True) as server:
        yield server


@pytest.fixture(scope="module")
def services(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    folder = tmp_path_factory.mktemp("services")
    url = fresh_database(postgres)
    with ExitStack() as stack:
        for name in MIGRATIONS:
            migrate_now(url, MIGRATIONS[name], schema=name)
        yield [stack.enter_context(running_service(name, url, folder)) for name in MIGRATIONS]


def test_while_postgresql_is_gone_services_are_alive_and_ready_and_nothing_ends(
    postgres: PostgresServer, services: list[Service]
) -> None:
    assert all(each.reaches_its_database() for each in services)
    postgres.kill()
    for each in services * 3:
        assert not each.reaches_its_database(), each.name
        assert each.probes() == [SERVING, SERVING], each.name
    postgres.start()
    for each in services:
        eventually_sync(each.reaches_its_database, RECOVERY_S_MAX)
        assert each.process.poll() is None, f"{each.name} ended"


def test_while_postgresql_hangs_probes_are_answered_all_the_same(
    postgres: PostgresServer, services: list[Service]
) -> None:
    postgres.pause()
    try:
        for each in services:
            assert not each.reaches_its_database(), each.name
            assert each.probes() == [SERVING, SERVING], each.name
    finally:
        postgres.resume()
    for each in services:
        eventually_sync(each.reaches_its_database, RECOVERY_S_MAX)
