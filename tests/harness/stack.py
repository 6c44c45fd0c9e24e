"""The whole of Tollgate in one process: three services over SQLite behind real gRPC, an edge, and a scripted upstream.

    async with open_stack(tmp_path) as stack:
        customer = await stack.customer(usd=5)
        ... requests to stack.edge_url with customer.secret ...
        [request] = await stack.settled(customer, 1)

Every process has a lifetime of its own and can be stopped and restarted on its port: `stack.stop("usage")`.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from prometheus_client import REGISTRY

import auth_svc.migrations
import auth_svc.service
import catalog_svc.migrations
import catalog_svc.service
import usage_svc.migrations
import usage_svc.servicer
from auth_svc.settings import AuthSettings
from catalog_svc.settings import CatalogSettings
from chassis import client
from chassis.database import Database, open_engine
from chassis.faults import Unavailable
from chassis.lifetime import Lifetime
from chassis.service import serving
from edge.assembly import Edge, open_edge
from edge.settings import EdgeSettings
from protos.auth.v1 import auth_pb2, auth_pb2_grpc
from protos.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from protos.client import TlsFiles
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.harness.databases import migrate
from tests.harness.eventually import eventually
from tests.harness.scripted_upstream import ScriptedUpstream
from tests.harness.usage_service import UsageService
from usage_svc.settings import UsageSettings

MODEL = "test/model"  # what every stack offers, served by its scripted upstream
NANOUSD = 1_000_000_000
# Short, since a stopped service is one that is gone.
DRAIN_S = 0.1
CALL_TIMEOUT_S = 10.0
PEPPER = "a pepper that is only good for tests, and long"
INFERENCE, MANAGEMENT = auth_pb2.SCOPE_INFERENCE, auth_pb2.SCOPE_MANAGEMENT

Json = dict[str, Any]
_MIGRATIONS: Mapping[str, ModuleType] = {
    "auth": auth_svc.migrations,
    "catalog": catalog_svc.migrations,
    "usage": usage_svc.migrations,
}


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with one key."""

    account_id: str
    key_id: str
    secret: str


@dataclass(slots=True)
class Process:
    """Something that can be started and stopped again and again, on the port that it had at first."""

    open: Callable[[Lifetime, int], AbstractAsyncContextManager[int]]
    port: int = 0
    lifetime: Lifetime = field(default_factory=Lifetime)
    _exits: AsyncExitStack | None = None

    async def start(self) -> None:
        assert self._exits is None, "it runs already"
        self.lifetime = Lifetime()
        exits = AsyncExitStack()
        self.port = await exits.enter_async_context(self.open(self.lifetime, self.port))
        self._exits = exits

    async def stop(self) -> None:
        """Nothing happens if it does not run. Fails if something in it had failed."""
        exits, self._exits = self._exits, None
        if exits is not None:
            self.lifetime.stop()
            await exits.aclose()
            await self.lifetime.cancel_supervised()
            assert self.lifetime.failure is None, self.lifetime.failure


class Stack:
    """Four running processes and what tests do to them."""

    def __init__(
        self, folder: Path, upstream: ScriptedUpstream, settings: Mapping[str, Json], operator: TlsFiles | None
    ) -> None:
        self.folder, self.upstream = folder, upstream
        self._operator = operator
        self._settings = settings
        self._models: dict[str, Json] = {}
        self._deployments: dict[str, list[Json]] = {}
        self.edge: Edge | None = None
        self.processes = {
            "auth": Process(self._service(AuthSettings, "auth", auth_svc.service.open_servicers, key_pepper=PEPPER)),
            "catalog": Process(self._service(CatalogSettings, "catalog", catalog_svc.service.open_servicers)),
            "usage": Process(self._service(UsageSettings, "usage", usage_svc.servicer.open_servicers)),
            "edge": Process(self._edge),
        }
        self._channels: dict[str, grpc.aio.Channel] = {}

    # -- processes --

    def _service(self, settings: Any, name: str, open_servicers: Any, **values: Any) -> Any:
        configured = {"database_url": f"sqlite+aiosqlite:///{self.folder / name}.db", "drain_s": DRAIN_S, **values}

        @asynccontextmanager
        async def opened(lifetime: Lifetime, port: int) -> AsyncIterator[int]:
            chosen = settings(**{**configured, "listen_port": port, **self._settings.get(name, {})})
            async with serving(chosen, _MIGRATIONS[name], open_servicers, lifetime) as (server, _):
                yield server.port

        return opened

    @asynccontextmanager
    async def _edge(self, lifetime: Lifetime, port: int) -> AsyncIterator[int]:
        async with open_edge(self._edge_settings(port, "edge"), lifetime) as edge:
            self.edge = edge
            yield edge.port
            self.edge = None

    @asynccontextmanager
    async def further_edge(self, name: str) -> AsyncIterator[str]:
        """One more edge of the same services, with a folder of its own. Gives its root URL."""
        lifetime = Lifetime()
        async with open_edge(self._edge_settings(0, name), lifetime) as edge:
            await eventually(lambda: edge.catalog.current.number and edge.meter.ready)
            yield f"http://127.0.0.1:{edge.port}"
            lifetime.stop()
        await lifetime.cancel_supervised()
        assert lifetime.failure is None, lifetime.failure

    def _edge_settings(self, port: int, folder: str) -> EdgeSettings:
        values = {
            "listen_port": port,
            "auth_address": f"127.0.0.1:{self.processes['auth'].port}",
            "catalog_address": f"127.0.0.1:{self.processes['catalog'].port}",
            "usage_address": f"127.0.0.1:{self.processes['usage'].port}",
            "data_dir": self.folder / folder,
            "endpoint_lag_s": 0,
            "drain_s": 5,
            "ship_linger_s": 0.01,  # tests wait for what is shipped
            **self._settings.get("edge", {}),
        }
        return EdgeSettings(**values)

    async def start(self, name: str) -> None:
        """Starts a process that was stopped, on its port."""
        await self.processes[name].start()

    async def stop(self, name: str) -> None:
        """Stops a process; calls to it fail."""
        await self.processes[name].stop()

    async def restart(self, name: str) -> None:
        await self.stop(name)
        await self.start(name)

    @property
    def edge_url(self) -> str:
        """The root, without /v1."""
        return f"http://127.0.0.1:{self.processes['edge'].port}"

    # -- what operators do --

    def _channel(self, name: str) -> grpc.aio.Channel:
        if name not in self._channels:
            self._channels[name] = client.channel(f"127.0.0.1:{self.processes[name].port}", self._operator)
        return self._channels[name]

    @property
    def auth(self) -> "auth_pb2_grpc.AuthAdminServiceAsyncStub":
        return auth_pb2_grpc.AuthAdminServiceStub(self._channel("auth"))

    @property
    def catalog(self) -> "catalog_pb2_grpc.CatalogAdminServiceAsyncStub":
        return catalog_pb2_grpc.CatalogAdminServiceStub(self._channel("catalog"))

    @property
    def usage_admin(self) -> "usage_pb2_grpc.UsageAdminServiceAsyncStub":
        return usage_pb2_grpc.UsageAdminServiceStub(self._channel("usage"))

    @property
    def usage_reader(self) -> "usage_pb2_grpc.UsageServiceAsyncStub":
        return usage_pb2_grpc.UsageServiceStub(self._channel("usage"))

    @property
    def usage_logs(self) -> "usage_pb2_grpc.LogServiceAsyncStub":
        return usage_pb2_grpc.LogServiceStub(self._channel("usage"))

    async def call(self, method: Any, request: Any) -> Any:
        """One call; waits for a service that was just started, which gRPC finds only at its next attempt."""

        async def answered() -> list[Any]:
            try:
                return [await client.call(method, request, timeout_s=CALL_TIMEOUT_S)]
            except Unavailable as fault:
                raise AssertionError(str(fault)) from fault

        return (await eventually(answered))[0]

    async def customer(self, usd: float = 5.0, **key: Any) -> Customer:
        """A new account with credit and a key."""
        account_id = await self.create_account()
        if usd:
            await self.grant(account_id, usd)
        return await self.create_key(account_id, **key)

    async def create_account(self) -> str:
        """Returns its id."""
        request = auth_pb2.CreateAccountRequest(request_id=new_id(), name=f"customer {new_id()}")
        answer = await self.call(self.auth.CreateAccount, request)
        account_id: str = answer.account.account_id
        return account_id

    async def create_key(self, account_id: str, **fields: Any) -> Customer:
        """A key of an account; `fields` are those of tollgate.auth.v1.Key."""
        key = auth_pb2.Key(**{"account_id": account_id, "name": "a key", "scopes": [INFERENCE], **fields})
        answer = await self.call(self.auth.CreateKey, auth_pb2.CreateKeyRequest(request_id=new_id(), key=key))
        return Customer(account_id, answer.key.key_id, answer.secret)

    async def revoke(self, customer: Customer) -> None:
        await self.call(self.auth.RevokeKey, auth_pb2.RevokeKeyRequest(request_id=new_id(), key_id=customer.key_id))

    async def set_state(self, account_id: str, state: "auth_pb2.AccountState.ValueType") -> None:
        account = auth_pb2.Account(account_id=account_id, state=state)
        request = auth_pb2.UpdateAccountRequest(request_id=new_id(), account=account)
        request.update_mask.paths.append("state")
        await self.call(self.auth.UpdateAccount, request)

    async def grant(self, account_id: str, usd: float) -> None:
        """Credit."""
        request = usage_pb2.GrantCreditRequest(
            request_id=new_id(), account_id=account_id, amount_nanousd=round(usd * NANOUSD)
        )
        await self.call(self.usage_admin.GrantCredit, request)

    async def set_grace(self, account_id: str, usd: float) -> None:
        request = usage_pb2.SetTermsRequest(
            request_id=new_id(), account_id=account_id, grace_nanousd=round(usd * NANOUSD)
        )
        await self.call(self.usage_admin.SetTerms, request)

    # -- the catalog --

    async def offer(self, model_id: str = MODEL, deployments: list[Json] | None = None, **fields: Any) -> str:
        """Adds or replaces a model, with one deployment at the scripted upstream unless others are given.

        Every edge has it when this returns. Returns the model's id.
        """
        self._models[model_id] = {
            "id": model_id,
            "context_length": 100_000,
            "max_output_length": 1_000,
            "prices": [{"per_million": {"prompt": 1, "completion": 2, "input_cache_read": "0.5"}}],
            **fields,
        }
        here = [{}] if deployments is None else deployments
        self._deployments[model_id] = [
            {
                "id": f"{model_id.replace('/', '-')}-{number}",
                "model": model_id,
                "kind": "vllm",
                "base_url": f"{self.upstream.url}/v1",
                "priority": number,
                **each,
            }
            for number, each in enumerate(here)
        ]
        await self._apply_models()
        return model_id

    async def offer_new(self, deployments: list[Json] | None = None, **fields: Any) -> str:
        """`offer` under an id that no other test uses."""
        return await self.offer(f"test/{new_id()}", deployments, **fields)

    async def withdraw(self, model_id: str) -> None:
        """Takes a model off the catalog."""
        del self._models[model_id], self._deployments[model_id]
        await self._apply_models()

    async def _apply_models(self) -> None:
        deployments = [each for some in self._deployments.values() for each in some]
        await self.apply(json.dumps({"models": list(self._models.values()), "deployments": deployments}))

    async def apply(self, document: str) -> None:
        """Applies a whole catalog document (YAML) and waits until the edge has it, if there is one."""
        request = catalog_pb2.ApplyDocumentRequest(request_id=new_id(), document=document)
        answer = await self.call(self.catalog.ApplyDocument, request)
        await self._edge_has(answer.number)

    async def _edge_has(self, number: int) -> None:
        edge = self.edge
        if edge is not None:
            await eventually(lambda: edge.catalog.current.number >= number)

    # -- the bill --

    async def balance(self, account_id: str) -> usage_pb2.Balance:
        request = usage_pb2.GetBalanceRequest(account_id=account_id)
        balance: usage_pb2.Balance = (await self.call(self.usage_reader.GetBalance, request)).balance
        return balance

    async def requests(self, account_id: str) -> list[usage_pb2.RequestSummary]:
        """What usage_svc has of an account, oldest first."""
        request = usage_pb2.ListRequestsRequest(account_id=account_id, page_size=200)
        answer = await self.call(self.usage_reader.ListRequests, request)
        return sorted(answer.requests, key=lambda each: str(each.event.request_id))

    async def settled(self, customer: Customer, count: int, timeout_s: float = 5.0) -> list[usage_pb2.RequestSummary]:
        """The account's requests, once so many have been recorded; fails if there are more."""

        async def recorded() -> list[usage_pb2.RequestSummary]:
            found = await self.requests(customer.account_id)
            assert len(found) >= count, f"{len(found)} of {count} requests are recorded"
            return found

        found = await eventually(recorded, timeout_s) if count else await self.requests(customer.account_id)
        assert len(found) == count, f"{len(found)} requests are recorded, not {count}"
        return found

    async def audit(self) -> None:
        """Fails unless the ledger's invariants hold for everything that is committed."""
        async with Database(open_engine(f"sqlite+aiosqlite:///{self.folder / 'usage'}.db")) as database:
            port = self.processes["usage"].port
            metering = usage_pb2_grpc.MeteringServiceStub(self._channel("usage"))
            await UsageService(port, metering, self.usage_reader, self.usage_admin, self.usage_logs, database).audit()

    async def close(self) -> None:
        await self.stop("edge")  # it drains into the others
        await asyncio.gather(*(self.stop(name) for name in ("usage", "catalog", "auth")))
        for each in self._channels.values():
            await each.close()


def new_id() -> str:
    """A request_id, or a name that no other test uses."""
    return secrets.token_hex(8)


def metric(name: str, **labels: str) -> float:
    """A sample of this process's registry, which the edge and the services share here; 0 where there is none."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def open_stack(
    folder: Path,
    *,
    settings: Mapping[str, Json] | None = None,
    operator: TlsFiles | None = None,
) -> AsyncIterator[Stack]:
    """All four processes, offering MODEL, for as long as the block lasts.

    folder: an empty one for what they keep. settings: by process name.
    operator: the certificate that the stack's own calls are made with, if the services' settings ask for one.
    """
    for name, package in _MIGRATIONS.items():
        await migrate(f"sqlite+aiosqlite:///{folder / name}.db", package)
    async with ScriptedUpstream() as upstream:
        stack = Stack(folder, upstream, settings or {}, operator)
        try:
            for name in ("auth", "catalog", "usage"):
                await stack.start(name)
            await stack.offer()
            await stack.start("edge")
            await stack.offer()
            yield stack
        finally:
            await stack.close()
