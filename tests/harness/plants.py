"""Each service running, with a request of every one of its methods that it answers: for tests of all methods."""

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from protos.auth.v1 import auth_pb2
from protos.catalog.v1 import catalog_pb2
from tests.harness.auth_service import AuthService, auth_service
from tests.harness.catalog_service import catalog_service
from tests.harness.usage_service import new_id

# A new request that is answered with OK each time that it is asked for.
Good = Callable[[], Awaitable[Message]]
DOCUMENT = """
models:
  - id: acme/{name}
    context_length: 8192
    prices:
      - per_million: {{prompt: 0.10, completion: 0.40}}
"""


@asynccontextmanager
async def auth_plant(url: str) -> AsyncIterator[tuple[int, Mapping[str, Good]]]:
    """auth_svc's port, and its requests by their methods' full names."""
    async with auth_service(url, keys_per_account_max=1000) as service:
        yield service.port, await _auth_requests(service)


async def _auth_requests(service: AuthService) -> Mapping[str, Good]:
    pb = auth_pb2
    account = await service.create_account()
    managing = (await service.create_key(account, scopes=[pb.SCOPE_MANAGEMENT])).key.key_id
    working = await service.create_key(account)

    def terms(**values: Any) -> auth_pb2.Key:
        return pb.Key(
            **{
                "name": "a key",
                "scopes": [pb.SCOPE_INFERENCE],
                "allowed_models": ["acme/small"],
                "expire_time": Timestamp(seconds=int(time.time()) + 86_400),
                "log_retention_days": 7,
                "limits": pb.KeyLimits(requests_per_minute=5, tokens_per_minute=1000, concurrent_requests=2),
                "spend_limit": pb.SpendLimit(limit_nanousd=10**9, period=pb.SPEND_PERIOD_DAY),
                **values,
            }
        )

    mask = FieldMask(paths=["name", "scopes", "allowed_models", "expire_time", "log_retention_days", "limits"])
    mask.paths.extend(("spend_limit", "log_inputs", "log_outputs"))

    async def fresh_key() -> str:
        return (await service.create_key(account)).key.key_id

    async def authenticate() -> Message:
        return pb.AuthenticateRequest(key_sha256=hashlib.sha256(working.secret.encode()).digest())

    async def watch_keys() -> Message:
        return pb.WatchKeysRequest()

    async def create_own() -> Message:
        return pb.CreateOwnKeyRequest(request_id=new_id(), manager_key_id=managing, key=terms())

    async def get_own() -> Message:
        return pb.GetOwnKeyRequest(manager_key_id=managing, key_id=working.key.key_id)

    async def list_own() -> Message:
        return pb.ListOwnKeysRequest(manager_key_id=managing, page_size=1, after_key_id=working.key.key_id)

    async def update_own() -> Message:
        key = terms(key_id=working.key.key_id)
        return pb.UpdateOwnKeyRequest(request_id=new_id(), manager_key_id=managing, key=key, update_mask=mask)

    async def rotate_own() -> Message:
        return pb.RotateOwnKeyRequest(
            request_id=new_id(),
            manager_key_id=managing,
            key_id=await fresh_key(),
            overlap=Duration(seconds=60),
            expire_time=Timestamp(seconds=int(time.time()) + 86_400),
        )

    async def revoke_own() -> Message:
        return pb.RevokeOwnKeyRequest(request_id=new_id(), manager_key_id=managing, key_id=await fresh_key())

    async def create_account() -> Message:
        return pb.CreateAccountRequest(request_id=new_id(), name=f"customer {new_id()}")

    async def get_account() -> Message:
        return pb.GetAccountRequest(account_id=account.account_id)

    async def list_accounts() -> Message:
        return pb.ListAccountsRequest(page_size=2)

    other = await service.create_account()

    async def update_account() -> Message:
        changed = pb.Account(account_id=other.account_id, name=f"customer {new_id()}", state=pb.ACCOUNT_STATE_ACTIVE)
        return pb.UpdateAccountRequest(
            request_id=new_id(), account=changed, update_mask=FieldMask(paths=["name", "state"])
        )

    async def create_key() -> Message:
        return pb.CreateKeyRequest(request_id=new_id(), key=terms(account_id=account.account_id))

    async def get_key() -> Message:
        return pb.GetKeyRequest(key_id=working.key.key_id)

    async def list_keys() -> Message:
        return pb.ListKeysRequest(account_id=account.account_id, page_size=1)

    async def update_key() -> Message:
        return pb.UpdateKeyRequest(request_id=new_id(), key=terms(key_id=working.key.key_id), update_mask=mask)

    async def revoke_key() -> Message:
        return pb.RevokeKeyRequest(request_id=new_id(), key_id=await fresh_key())

    keys, own, admin = (
        f"tollgate.auth.v1.{name}" for name in ("KeyService", "KeyManagementService", "AuthAdminService")
    )
    return {
        f"{keys}.Authenticate": authenticate,
        f"{keys}.WatchKeys": watch_keys,
        f"{own}.CreateOwnKey": create_own,
        f"{own}.GetOwnKey": get_own,
        f"{own}.ListOwnKeys": list_own,
        f"{own}.UpdateOwnKey": update_own,
        f"{own}.RotateOwnKey": rotate_own,
        f"{own}.RevokeOwnKey": revoke_own,
        f"{admin}.CreateAccount": create_account,
        f"{admin}.GetAccount": get_account,
        f"{admin}.ListAccounts": list_accounts,
        f"{admin}.UpdateAccount": update_account,
        f"{admin}.CreateKey": create_key,
        f"{admin}.GetKey": get_key,
        f"{admin}.ListKeys": list_keys,
        f"{admin}.UpdateKey": update_key,
        f"{admin}.RevokeKey": revoke_key,
    }


@asynccontextmanager
async def catalog_plant(url: str) -> AsyncIterator[tuple[int, Mapping[str, Good]]]:
    """catalog_svc's port, and its requests by their methods' full names."""
    pb = catalog_pb2
    async with catalog_service(url, watches_max=1000) as service:
        await service.apply(DOCUMENT.format(name="small"))

        async def get_snapshot() -> Message:
            return pb.GetSnapshotRequest()

        async def watch_snapshot() -> Message:
            return pb.WatchSnapshotRequest()

        async def list_models() -> Message:
            return pb.ListModelsRequest(page_size=1)

        async def get_model() -> Message:
            return pb.GetModelRequest(model_id="acme/small")

        async def apply() -> Message:
            return pb.ApplyDocumentRequest(request_id=new_id(), document=DOCUMENT.format(name="small"))

        async def get_document() -> Message:
            return pb.GetDocumentRequest()

        reading, admin = (f"tollgate.catalog.v1.{name}" for name in ("CatalogService", "CatalogAdminService"))
        yield (
            service.port,
            {
                f"{reading}.GetSnapshot": get_snapshot,
                f"{reading}.WatchSnapshot": watch_snapshot,
                f"{reading}.ListModels": list_models,
                f"{reading}.GetModel": get_model,
                f"{admin}.ApplyDocument": apply,
                f"{admin}.GetDocument": get_document,
            },
        )
