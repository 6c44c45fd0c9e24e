"""auth_svc inside the test's own process, behind real gRPC, over a real database."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from auth_svc import migrations
from auth_svc.service import open_servicers
from auth_svc.settings import AuthSettings
from chassis import client, secret_token
from chassis.clock import SystemClock
from chassis.database import Database, open_engine
from chassis.lifetime import Lifetime
from chassis.server import RpcServer, Serving
from protos.auth.v1 import auth_pb2 as pb
from protos.auth.v1 import auth_pb2_grpc as rpc
from tests.harness.databases import migrate

PEPPER = "a pepper that is only good for tests, and long"
CALL_TIMEOUT_S = 10.0


class ShiftedClock(SystemClock):
    """The machine's, with a wall clock that a test can put forward."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return super().now() + self.shift


@dataclass(frozen=True, slots=True)
class AuthService:
    """A running auth_svc and the calls that tests make, each with a request_id of its own unless it is given."""

    port: int
    keys: "rpc.KeyServiceAsyncStub"  # in the stubs only
    admin: "rpc.AuthAdminServiceAsyncStub"
    own: "rpc.KeyManagementServiceAsyncStub"
    lifetime: Lifetime

    async def call(self, method: Any, request: Any) -> Any:
        return await client.call(method, request, timeout_s=CALL_TIMEOUT_S)

    async def create_account(self, name: str = "") -> pb.Account:
        request = pb.CreateAccountRequest(request_id=new_id(), name=name or f"customer {new_id()}")
        response: pb.CreateAccountResponse = await self.call(self.admin.CreateAccount, request)
        return response.account

    async def suspend(self, account: pb.Account) -> None:
        request = pb.UpdateAccountRequest(request_id=new_id(), account=account)
        request.account.state = pb.ACCOUNT_STATE_SUSPENDED
        request.update_mask.paths.append("state")
        await self.call(self.admin.UpdateAccount, request)

    async def create_key(self, account: pb.Account, secret: str = "", **terms: Any) -> pb.CreateKeyResponse:
        key = pb.Key(account_id=account.account_id, **{"name": "a key", "scopes": [pb.SCOPE_INFERENCE], **terms})
        request = pb.CreateKeyRequest(request_id=new_id(), key=key, secret=secret)
        response: pb.CreateKeyResponse = await self.call(self.admin.CreateKey, request)
        return response

    async def update_key(self, key_id: str, paths: Sequence[str], **terms: Any) -> pb.Key:
        request = pb.UpdateKeyRequest(request_id=new_id(), key=pb.Key(key_id=key_id, **terms))
        request.update_mask.paths.extend(paths)
        response: pb.UpdateKeyResponse = await self.call(self.admin.UpdateKey, request)
        return response.key

    async def revoke_key(self, key_id: str) -> pb.Key:
        request = pb.RevokeKeyRequest(request_id=new_id(), key_id=key_id)
        response: pb.RevokeKeyResponse = await self.call(self.admin.RevokeKey, request)
        return response.key

    async def authenticate(self, secret: str) -> pb.AuthenticateResponse:
        request = pb.AuthenticateRequest(key_sha256=secret_token.digest(secret))
        response: pb.AuthenticateResponse = await self.call(self.keys.Authenticate, request)
        return response

    @asynccontextmanager
    async def watch(self, after_revision: int = 0) -> AsyncIterator[AsyncIterator[pb.WatchKeysResponse]]:
        """A watch, cancelled at the end of the block."""
        request = pb.WatchKeysRequest(after_revision=after_revision)
        # The tests themselves judge how long a watch may be silent.
        messages: Any = client.watch(
            self.keys.WatchKeys, request, first_timeout_s=CALL_TIMEOUT_S, silence_s=lambda message: None
        )
        async with aclosing(messages):
            yield messages


def new_id() -> str:
    """A request_id, or a name that no other test uses."""
    return secrets.token_hex(8)


def settings(database_url: str, **values: Any) -> AuthSettings:
    """auth_svc's settings, as a test wants them."""
    return AuthSettings(**{"database_url": database_url, "key_pepper": PEPPER, "drain_s": 2.0, **values})


@asynccontextmanager
async def auth_service(
    database_url: str, *, clock: SystemClock | None = None, **values: Any
) -> AsyncIterator[AuthService]:
    """Migrates the database and serves for as long as the block lasts. `values` are settings."""
    configured = settings(database_url, **values)
    await migrate(database_url, migrations)
    lifetime = Lifetime()
    async with (
        Database(open_engine(database_url)) as database,
        open_servicers(configured, database, lifetime, clock=clock or SystemClock()) as servicers,
        RpcServer(
            servicers, Serving(drain_s=configured.drain_s, connection_age_s=configured.connection_age_s)
        ) as server,
        client.channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield AuthService(
            server.port,
            rpc.KeyServiceStub(channel),
            rpc.AuthAdminServiceStub(channel),
            rpc.KeyManagementServiceStub(channel),
            lifetime,
        )
        lifetime.stop()
        assert lifetime.failure is None, lifetime.failure
