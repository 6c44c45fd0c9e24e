"""Keeps the newest catalog snapshot in memory, and on disk for a start without catalog_svc."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError

from chassis.client import follow
from chassis.clock import Clock
from chassis.log import logger
from edge import metrics
from edge.routing.snapshot import EMPTY, Snapshot, snapshot_from_pb, unknown_fields
from protos.catalog.v1 import catalog_pb2, catalog_pb2_grpc

_log = logger(__name__)

FILE_NAME = "catalog.snapshot"


class CatalogWatch:
    """The current snapshot; run `follow` beside it."""

    def __init__(
        self,
        stub: "catalog_pb2_grpc.CatalogServiceAsyncStub",
        folder: Path,
        clock: Clock,
        credential_found: Callable[[catalog_pb2.CredentialSource], bool],
        *,
        first_timeout_s: float,
    ) -> None:
        self._stub, self._clock, self._credential_found = stub, clock, credential_found
        self._file = folder / FILE_NAME
        self._first_timeout_s = first_timeout_s
        self._proven_at = float("-inf")
        self.current: Snapshot = EMPTY
        self.on_change: list[Callable[[Snapshot], None]] = []

    def age_s(self) -> float:
        """Seconds since catalog_svc last said that this is the newest; infinite before the first time."""
        return self._clock.monotonic() - self._proven_at

    def load_from_disk(self) -> None:
        """Starts from the last snapshot that this edge had, if there is one."""
        try:
            pb = catalog_pb2.Snapshot.FromString(self._file.read_bytes())
        except FileNotFoundError:
            return
        except DecodeError:
            _log.warning("last catalog on disk is unreadable; waiting for catalog_svc", file=str(self._file))
            return
        self._use(pb)

    async def follow(self) -> None:
        """Takes every newer snapshot; runs as long as the process."""
        async for message in follow(
            "catalog",
            self._stub.WatchSnapshot,
            lambda: catalog_pb2.WatchSnapshotRequest(after_number=self.current.number),
            first_timeout_s=self._first_timeout_s,
        ):
            if message.HasField("snapshot") and self._use(message.snapshot):
                await asyncio.get_running_loop().run_in_executor(None, self._save, message.snapshot)
            self._proven_at = self._clock.monotonic()

    def _use(self, pb: catalog_pb2.Snapshot) -> bool:
        try:
            self.current = snapshot_from_pb(pb, self._credential_found)
        except ValueError as error:
            _log.error("catalog snapshot cannot be used; keeping the one before", number=pb.number, reason=str(error))
            return False
        for each in pb.deployments:
            if unknown := unknown_fields(each):
                _log.warning("unknown fields in allow", deployment=each.deployment_id, fields=sorted(unknown))
        missing = [
            each.deployment_id
            for each in pb.deployments
            if each.HasField("credential") and not self._credential_found(each.credential)
        ]
        metrics.CREDENTIALS_MISSING.set(len(missing))
        if missing:
            _log.warning("credentials are not to be found here; left out", deployments=missing)
        _log.info("catalog", number=pb.number, models=len(pb.models), deployments=len(pb.deployments))
        for tell in self.on_change:
            tell(self.current)
        return True

    def _save(self, pb: catalog_pb2.Snapshot) -> None:
        unfinished = self._file.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            file.write(pb.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._file)
