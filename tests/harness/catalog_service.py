"""catalog_svc inside the test's own process, behind real gRPC, over a real database."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from catalog_svc import migrations
from catalog_svc.service import open_servicers
from catalog_svc.settings import CatalogSettings
from chassis import client
from chassis.clock import SystemClock
from chassis.lifetime import Lifetime
from chassis.service import serving
from protos.catalog.v1 import catalog_pb2 as pb
from protos.catalog.v1 import catalog_pb2_grpc as rpc
from tests.harness.databases import migrate

CALL_TIMEOUT_S = 20.0


class ShiftedClock(SystemClock):
    """The machine's, with a wall clock that a test can put forward."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> Any:
        return super().now() + self.shift


class SnapshotWatch:
    """A watch that a test reads message by message."""

    def __init__(self, messages: AsyncIterator[pb.WatchSnapshotResponse]) -> None:
        self._messages = messages

    async def next(self, timeout_s: float = 5.0) -> pb.WatchSnapshotResponse:
        """The next message, whatever it is.

        Raises:
            TimeoutError: there was none.
        """
        async with asyncio.timeout(timeout_s):
            return await anext(self._messages)

    async def next_snapshot(self, timeout_s: float = 5.0) -> pb.Snapshot:
        """The next snapshot; heartbeats before it are skipped."""
        async with asyncio.timeout(timeout_s):
            async for message in self._messages:
                if message.HasField("snapshot"):
                    return message.snapshot
        raise AssertionError("the watch ended")


@dataclass(frozen=True, slots=True)
class CatalogService:
    """A running catalog_svc and the calls that tests make."""

    port: int
    catalog: "rpc.CatalogServiceAsyncStub"
    admin: "rpc.CatalogAdminServiceAsyncStub"
    lifetime: Lifetime

    async def call(self, method: Any, request: Any) -> Any:
        return await client.call(method, request, timeout_s=CALL_TIMEOUT_S)

    async def apply(self, document: str, request_id: str = "", *, dry_run: bool = False) -> pb.ApplyDocumentResponse:
        request = pb.ApplyDocumentRequest(request_id=request_id or new_id(), document=document, dry_run=dry_run)
        response: pb.ApplyDocumentResponse = await self.call(self.admin.ApplyDocument, request)
        return response

    async def snapshot(self) -> pb.Snapshot:
        response: pb.GetSnapshotResponse = await self.call(self.catalog.GetSnapshot, pb.GetSnapshotRequest())
        return response.snapshot

    async def prices(self, model_id: str) -> list[pb.PriceVersion]:
        response: pb.GetModelResponse = await self.call(self.catalog.GetModel, pb.GetModelRequest(model_id=model_id))
        return list(response.model.prices)

    @asynccontextmanager
    async def watch(self, after_number: int = 0) -> AsyncIterator[SnapshotWatch]:
        """A watch, cancelled at the end of the block."""
        request = pb.WatchSnapshotRequest(after_number=after_number)
        messages: Any = client.watch(
            self.catalog.WatchSnapshot, request, first_timeout_s=CALL_TIMEOUT_S, silence_s=lambda _: None
        )
        async with aclosing(messages):
            yield SnapshotWatch(messages)


def new_id() -> str:
    """A request_id that no other call uses."""
    return secrets.token_hex(8)


@asynccontextmanager
async def catalog_service(
    database_url: str, *, clock: SystemClock | None = None, **values: Any
) -> AsyncIterator[CatalogService]:
    """Migrates the database and serves for as long as the block lasts. `values` are settings."""
    await migrate(database_url, migrations)
    lifetime = Lifetime()
    settings = CatalogSettings(**{"database_url": database_url, "drain_s": 2.0, **values})
    opener = partial(open_servicers, clock=clock or SystemClock())
    async with (
        serving(settings, migrations, opener, lifetime) as (server, _),
        client.channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield CatalogService(
            server.port, rpc.CatalogServiceStub(channel), rpc.CatalogAdminServiceStub(channel), lifetime
        )
        lifetime.stop()
        assert lifetime.failure is None, lifetime.failure
