"""Brings home the spools of edges that died and do not come back, where spool folders lie under one root.

A spool is adopted whole, under its owner's lock: its requests without an outcome become `edge_lost`, what usage_svc
lacks is shipped, every session is sealed. That is what the owner's own next start would do, and it is the same code.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from chassis.clock import Clock
from chassis.faults import Fault
from chassis.lifetime import Lifetime
from chassis.log import logger
from edge.metering import metrics
from edge.metering.meter import Meter
from edge.metering.settings import MeteringSettings
from edge.metering.spool import is_abandoned
from protos.usage.v1 import usage_pb2_grpc

LOOK_S = 30.0
SESSION_WAIT_S = 60.0

_log = logger(__name__)


class Adopter:
    """One task: looks under `root` every half minute. A folder must lie there without an owner at two looks in a row,
    so that an edge that is just being restarted finds its own.
    """

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        settings: MeteringSettings,
        clock: Clock,
        root: Path,
        look_s: float = LOOK_S,
        new_lifetime: Callable[[], Lifetime] = Lifetime,
    ) -> None:
        self._stub, self._settings, self._clock = stub, settings, clock
        self._root, self._look_s, self._new_lifetime = root, look_s, new_lifetime
        self._abandoned: set[Path] = set()  # at the last look

    async def run(self) -> None:
        """For ever."""
        while True:
            # Jitter, so that edges that started together do not look together.
            await asyncio.sleep(self._look_s * random.uniform(0.75, 1.25))  # noqa: S311
            await self.look()

    async def look(self) -> int:
        """One look; adopts what was abandoned at the last one too. Returns how many spools it brought home."""
        found = await asyncio.to_thread(self._find)
        adopted = 0
        for folder in sorted(found & self._abandoned):
            adopted += await self._adopt(folder)
        self._abandoned = found
        return adopted

    def _find(self) -> set[Path]:
        own = self._settings.spool_dir.resolve()
        folders = {path.parent.resolve() for path in self._root.glob("*/spool/uuid")}
        return {folder for folder in folders if folder != own and is_abandoned(folder)}

    async def _adopt(self, folder: Path) -> bool:
        _log.info("adopting a spool", folder=str(folder))
        lifetime = self._new_lifetime()
        settings = replace(self._settings, spool_dir=folder, edge_name=f"{self._settings.edge_name} adopting"[:200])
        try:
            meter = Meter(settings, self._stub, self._clock, lifetime, reports=False)
            async with meter, asyncio.timeout(SESSION_WAIT_S):
                await meter.until_worked_off()
        except (Fault, OSError, TimeoutError) as error:
            # Somebody was faster, or usage_svc or the disk is away: the next look will tell.
            _log.warning("spool not adopted", folder=str(folder), error=str(error) or type(error).__name__)
            return False
        if lifetime.failure is not None:
            _log.error("spool cannot be adopted", folder=str(folder), failure=lifetime.failure)
            return False
        metrics.SPOOLS_ADOPTED.inc()
        _log.info("spool adopted", folder=str(folder))
        return True
