"""gRPC between the processes: who may call whom, by certificates that change while everything runs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from auth_svc import migrations
from auth_svc.service import open_servicers
from chassis import client, migration
from chassis.faults import NotFound, PermissionDenied, Unavailable
from chassis.lifetime import Lifetime
from chassis.service import serving
from chassis.settings import SettingsInvalid, load
from edge.settings import EdgeSettings
from protos import client as wire
from protos.auth.v1 import auth_pb2 as pb
from protos.auth.v1 import auth_pb2_grpc as rpc
from protos.client import TlsFiles, TlsReader, TlsUnusable, tls
from tests.harness.auth_service import new_id, settings
from tests.harness.certificates import Authority, settings_of
from tests.harness.eventually import eventually
from tollgate.settings import CommandSettings

CALL_TIMEOUT_S = 10.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture(autouse=True)
def _files_are_looked_at_whenever_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "CHECK_PERIOD_S", 0.0)


@asynccontextmanager
async def auth_over_tls(database_url: str, authority: Authority, **values: Any) -> AsyncIterator[str]:
    """auth_svc with a certificate; its address."""
    configured = settings(database_url, **settings_of(authority.issue("auth")), **values)
    await migration.migrate(database_url, migrations)
    lifetime = Lifetime()
    async with serving(configured, migrations, open_servicers, lifetime) as (server, _):
        yield f"localhost:{server.port}"
        lifetime.stop()
        assert lifetime.failure is None, lifetime.failure


async def authenticate(channel: grpc.aio.Channel) -> None:
    """A call that only the edge may make, and that says so if it was let in."""
    with pytest.raises(NotFound):
        await client.call(
            rpc.KeyServiceStub(channel).Authenticate,
            pb.AuthenticateRequest(key_sha256=bytes(32)),
            timeout_s=CALL_TIMEOUT_S,
        )


async def create_account(channel: grpc.aio.Channel) -> pb.Account:
    """A call that only operators may make."""
    answer = await client.call(
        rpc.AuthAdminServiceStub(channel).CreateAccount,
        pb.CreateAccountRequest(request_id=new_id(), name=new_id()),
        timeout_s=CALL_TIMEOUT_S,
    )
    return answer.account


async def test_only_the_edge_may_use_the_edges_service_and_only_operators_theirs(
    sqlite_url: str, authority: Authority
) -> None:
    async with (
        auth_over_tls(sqlite_url, authority) as address,
        client.channel(address, authority.issue("edge")) as edge,
        client.channel(address, authority.issue("operator")) as operator,
        client.channel(address, authority.issue("internal")) as stranger,
    ):
        await authenticate(edge)
        await create_account(operator)
        for channel, call in ((operator, authenticate), (edge, create_account), (stranger, create_account)):
            with pytest.raises(PermissionDenied) as refused:
                await call(channel)
            assert refused.value.reason == "CALLER_NOT_ALLOWED"
        assert "internal" in refused.value.message
        assert "CreateAccount is for operator" in refused.value.message
        with pytest.raises(PermissionDenied):
            async for _ in client.watch(
                rpc.KeyServiceStub(stranger).WatchKeys, pb.WatchKeysRequest(), first_timeout_s=CALL_TIMEOUT_S
            ):
                pass


async def test_who_may_call_is_a_setting_by_service_and_by_method_and_by_any_name_of_a_certificate(
    sqlite_url: str, authority: Authority
) -> None:
    spiffe = "spiffe://cluster.local/ns/tollgate/sa/edge"
    callers = f"KeyService={spiffe} AuthAdminService/CreateAccount=portal.example,operator"
    async with (
        auth_over_tls(sqlite_url, authority, callers=callers) as address,
        client.channel(address, authority.issue("a", hosts=(), uri=spiffe)) as edge,
        client.channel(address, authority.issue("b", hosts=("portal.example",))) as portal,
    ):
        await authenticate(edge)
        account = await create_account(portal)
        with pytest.raises(PermissionDenied):
            await client.call(
                rpc.AuthAdminServiceStub(portal).GetAccount,
                pb.GetAccountRequest(account_id=account.account_id),
                timeout_s=CALL_TIMEOUT_S,
            )


async def test_health_is_for_every_certificate_and_nothing_is_for_those_without_one_of_ours(
    sqlite_url: str, authority: Authority, tmp_path: Path
) -> None:
    check = health_pb2.HealthCheckRequest()
    async with auth_over_tls(sqlite_url, authority) as address:
        async with client.channel(address, authority.issue("anybody")) as known:
            answer = await client.call(health_pb2_grpc.HealthStub(known).Check, check, timeout_s=CALL_TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            watched = client.watch(health_pb2_grpc.HealthStub(known).Watch, check, first_timeout_s=CALL_TIMEOUT_S)
            async with aclosing(watched) as messages:  # type: ignore[type-var]  # typed as an iterator
                assert (await anext(messages)).status == health_pb2.HealthCheckResponse.SERVING
        forged = Authority(tmp_path / "forged").issue("edge")
        ours = authority.issue("somebody")
        for stranger in (None, TlsFiles(forged.certificate, forged.key, ours.ca)):
            async with client.channel(address, stranger) as channel:
                with pytest.raises(Unavailable):
                    await authenticate(channel)


async def test_certificates_of_both_sides_are_replaced_while_a_watch_goes_on(
    sqlite_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire.channel, "DRAIN_S", 0.1)
    async with auth_over_tls(sqlite_url, authority, watch_heartbeat_s=1.0) as address:
        files = authority.issue("edge")
        revision = 0
        broken: list[str] = []
        async with client.channel(address, files) as channel:
            stub = rpc.KeyServiceStub(channel)
            heard = wire.follow(
                stub.WatchKeys,
                lambda: pb.WatchKeysRequest(after_revision=revision),
                first_timeout_s=CALL_TIMEOUT_S,
                on_break=broken.append,
            )
            assert (await anext(heard)).HasField("reset")
            await authenticate(channel)
            # Another authority: nobody of before would be let in now, nor would let the server in.
            successor = Authority(tmp_path / "tls")
            successor.issue("auth")
            successor.issue("edge")
            await authenticate(channel)  # over a new connection: the old one's certificates are gone
            async with asyncio.timeout(CALL_TIMEOUT_S):
                while not (await anext(heard)).HasField("reset"):  # the watch has begun anew, on the new connection
                    pass
            await heard.aclose()  # type: ignore[attr-defined]  # a generator, typed as an iterator
        assert not broken
        old = Authority(tmp_path / "old").issue("edge")
        async with client.channel(address, old) as channel:
            with pytest.raises(Unavailable):
                await authenticate(channel)


async def test_a_service_whose_certificate_is_for_another_name_is_not_spoken_to(
    sqlite_url: str, authority: Authority
) -> None:
    edge = authority.issue("edge")
    async with auth_over_tls(sqlite_url, authority) as address:
        authority.issue("auth", hosts=("usage.example",))  # another service of the same CA, in auth_svc's place
        async with client.channel(address, edge) as channel:
            with pytest.raises(Unavailable):
                await authenticate(channel)
            authority.issue("auth")

            async def is_spoken_to() -> bool:
                try:
                    await authenticate(channel)
                except Unavailable:  # the channel waits a moment between two tries to connect
                    return False
                return True

            await eventually(is_spoken_to)


async def test_half_written_certificates_are_left_alone_until_they_are_whole(authority: Authority) -> None:
    files = authority.issue("edge")
    troubles: list[str] = []
    reader = TlsReader(files, check_period_s=0.0, on_trouble=troubles.append)
    before = reader.newest()
    key = authority.issue("other").key.read_bytes()
    files.key.write_bytes(key)
    assert reader.newest() is before
    assert reader.newest() is before
    assert len(troubles) == 1
    assert str(files.key) in troubles[0]
    authority.issue("edge")
    after = reader.newest()
    assert after.key not in (before.key, key)
    assert reader.newest() is after
    files.certificate.unlink()
    assert reader.newest() is after
    with pytest.raises(TlsUnusable, match="cannot be read"):
        TlsReader(files)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "auth.example"])
def test_without_tls_a_service_beyond_loopback_does_not_start_unless_told_so(host: str, sqlite_url: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        load(type(settings(sqlite_url)), database_url=sqlite_url, key_pepper="x" * 32, listen_host=host)
    assert "TOLLGATE_AUTH_TLS_CERTIFICATE_FILE" in str(refused.value)
    assert "TOLLGATE_AUTH_PLAINTEXT_BEYOND_LOOPBACK=true" in str(refused.value)
    settings(sqlite_url, listen_host=host, plaintext_beyond_loopback=True)


@pytest.mark.parametrize("kind", [EdgeSettings, CommandSettings])
def test_without_tls_nobody_calls_a_service_beyond_loopback_unless_told_so(
    kind: Callable[..., Any], authority: Authority
) -> None:
    for address in ("127.0.0.1:7101", "[::1]:7101", "localhost:7101"):
        kind(usage_address=address)
    for address in ("auth:7101", "dns:///auth.example:7101", "10.0.0.7:7101"):
        with pytest.raises(SettingsInvalid, match=r"_USAGE_ADDRESS: .* is beyond this machine's loopback"):
            load(kind, usage_address=address)  # type: ignore[arg-type]  # one of two settings classes
        kind(usage_address=address, plaintext_beyond_loopback=True)
        kind(usage_address=address, **settings_of(authority.issue("edge")))


def test_half_of_tls_is_refused(sqlite_url: str, authority: Authority) -> None:
    half: dict[str, Any] = {**settings_of(authority.issue("edge"))}
    del half["tls_ca_file"]
    with pytest.raises(SettingsInvalid, match="TOLLGATE_EDGE_TLS_CA_FILE: is not set"):
        load(EdgeSettings, **half)
    with pytest.raises(SettingsInvalid, match="TOLLGATE_AUTH_CALLERS: 'Key' is no service"):
        load(type(settings(sqlite_url)), database_url=sqlite_url, key_pepper="x" * 32, callers="Key=x")
