"""The three services as the command calls them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeVar

import grpc
import uuid_utils

from chassis import client
from chassis.faults import DeadlineExceeded, NotFound, Unavailable
from chassis.settings import load
from protos.auth.v1 import auth_pb2, auth_pb2_grpc
from protos.catalog.v1 import catalog_pb2_grpc
from protos.client import TlsFiles
from protos.usage.v1 import usage_pb2_grpc
from tollgate.failure import CommandFailed
from tollgate.running import running
from tollgate.settings import CommandSettings

ResponseT = TypeVar("ResponseT")
ResultT = TypeVar("ResultT")


class Addresses(NamedTuple):
    """host:port of each service."""

    auth: str
    catalog: str
    usage: str


class Services:
    """Stubs of all three; costs nothing until the first call, and closes its channels at the end of the block."""

    def __init__(self, addresses: Addresses, timeout_s: float, tls: TlsFiles | None = None) -> None:
        self._timeout_s = timeout_s
        self._channels = {
            "auth": (addresses.auth, client.channel(addresses.auth, tls)),
            "catalog": (addresses.catalog, client.channel(addresses.catalog, tls)),
            "usage": (addresses.usage, client.channel(addresses.usage, tls)),
        }
        auth, catalog, usage = (channel for _, channel in self._channels.values())
        self.auth_admin = auth_pb2_grpc.AuthAdminServiceStub(auth)
        self.catalog = catalog_pb2_grpc.CatalogServiceStub(catalog)
        self.catalog_admin = catalog_pb2_grpc.CatalogAdminServiceStub(catalog)
        self.usage = usage_pb2_grpc.UsageServiceStub(usage)
        self.usage_admin = usage_pb2_grpc.UsageAdminServiceStub(usage)

    async def __aenter__(self) -> "Services":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as stack:
            for _address, channel in self._channels.values():
                await stack.enter_async_context(channel)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Any, ResponseT],
        request: Any,
        *,
        timeout_s: float | None = None,
    ) -> ResponseT:
        """One call, within the command's time-out unless another is given.

        Raises:
            Fault: what the service answered.
            CommandFailed: it does not answer; names it and where it should be.
        """
        try:
            return await client.call(method, request, timeout_s=timeout_s or self._timeout_s)
        except (Unavailable, DeadlineExceeded) as fault:
            if fault.reason not in (Unavailable.code.name, DeadlineExceeded.code.name):
                raise  # the service itself says so, and says why
            name = request.DESCRIPTOR.full_name.split(".")[1]
            raise CommandFailed(
                "SERVICE_UNREACHABLE",
                f"{name}_svc does not answer at {self._channels[name][0]}: is it running? Start everything on this "
                f"machine with `tollgate up`, or set TOLLGATE_COMMAND_{name.upper()}_ADDRESS to where it is",
            ) from None

    async def account(self, account: str) -> auth_pb2.Account:
        """An account by its id or by its name.

        Raises:
            NotFound: no account has it (ACCOUNT_NOT_FOUND).
        """
        if account.startswith("acct_"):
            try:
                by_id = auth_pb2.GetAccountRequest(account_id=account)
                return (await self.call(self.auth_admin.GetAccount, by_id)).account
            except NotFound:
                pass  # a name may look like an id
        by_name = auth_pb2.GetAccountRequest(name=account)
        try:
            return (await self.call(self.auth_admin.GetAccount, by_name)).account
        except NotFound:
            raise NotFound("ACCOUNT_NOT_FOUND", f"no account has the id or the name {account!r}") from None


def ask(work: Callable[[Services], Awaitable[ResultT]]) -> ResultT:
    """Runs `work` against the services that the settings name, or else against those that `tollgate up` runs.

    Raises:
        CommandFailed: neither is there (NOTHING_RUNNING), or a service does not answer.
        Fault: what a service answered.
    """
    settings = load(CommandSettings)
    addresses = _addresses(settings)

    async def main() -> ResultT:
        async with Services(addresses, settings.timeout_s, settings.tls_files) as services:
            return await work(services)

    return asyncio.run(main())


def _addresses(settings: CommandSettings) -> Addresses:
    told = Addresses(settings.auth_address, settings.catalog_address, settings.usage_address)
    if all(told):
        return told
    run = running(settings.data_dir)
    if run is None:
        unset = [f"TOLLGATE_COMMAND_{name.upper()}_ADDRESS" for name in Addresses._fields if not getattr(told, name)]
        raise CommandFailed(
            "NOTHING_RUNNING",
            f"nothing is running here ({settings.data_dir.absolute()}): start it with `tollgate up`, or set "
            f"TOLLGATE_COMMAND_DATA_DIR to its data folder, or {', '.join(unset)} to where the services are",
        )
    return Addresses(
        told.auth or run.auth_address, told.catalog or run.catalog_address, told.usage or run.usage_address
    )


def new_request_id() -> str:
    """For one write: a repeat of it must use the same one."""
    return str(uuid_utils.uuid7())
