"""A small plant in one process, for directed scenarios: the real usage_svc, real meters of edges, and three witnesses.

What the torture's run does by the thousand, a scenario does once and in order; both are judged by verdict.py.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from chassis import client
from chassis.clock import SystemClock
from chassis.lifetime import Lifetime
from edge import bill
from edge.metering.disk_sync import OnDone
from edge.metering.meter import Admission, Meter
from edge.metering.settings import MeteringSettings
from pricing import TokenUsage
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.harness.eventually import eventually
from tests.harness.usage_service import UsageService, event, new_id
from tests.torture.books import books_of
from tests.torture.evidence import Ending, Evidence, Kill, Reported, Sighting, Tokens
from tests.torture.relay import Relay
from tests.torture.verdict import Verdict, cost_nanousd, judge

ACCOUNT = "acme"
TOKENS = Tokens(100, 50)
COST = cost_nanousd(TOKENS)
HOLD = 20 * COST  # as holds are: far above what requests cost
_SETTLE_S_MAX = 4.0


@dataclass(slots=True)
class RigEdge:
    """One edge's metering, without its HTTP."""

    rig: "Rig"
    meter: Meter
    lifetime: Lifetime
    settings: MeteringSettings

    async def admit(self, hold_nanousd: int = HOLD) -> Admission:
        """A request that is forwarded; its upstream has not answered yet."""
        admission = await self.meter.admit(
            new_id(),
            ACCOUNT,
            hold_nanousd,
            key_id="key",
            model_id="model",
            resource=usage_pb2.RESOURCE_CHAT_COMPLETIONS,
        )
        self.rig.reported.append(Reported(admission.request_id, None, False))
        return admission

    async def finish(self, admission: Admission) -> None:
        """Its upstream answers and reports usage, and its client gets the end of the answer."""
        spooled = self.rig.answered(admission.request_id, "", admission.hold_nanousd)
        await self.meter.finish(admission, spooled, COST)
        self.rig.completed(admission.request_id)

    async def request(self) -> None:
        await self.finish(await self.admit())

    async def kill(self) -> MeteringSettings:
        """kill -9. Settings for the process that is started in its place, on what the system has of its spool."""
        folder = await self._die()
        shutil.copytree(self.settings.spool_dir, folder)
        return replace(self.settings, spool_dir=folder)

    async def cut_power(self, disk: "SimulatedDisk") -> MeteringSettings:
        """The same, and the system is gone with it: only what was synced is there again."""
        folder = await self._die()
        folder.mkdir()
        shutil.copy(self.settings.spool_dir / "uuid", folder / "uuid")
        for path, data in disk.synced.items():
            survivor = folder / path.relative_to(self.settings.spool_dir)
            survivor.parent.mkdir(exist_ok=True)
            survivor.write_bytes(data)
        return replace(self.settings, spool_dir=folder)

    async def _die(self) -> Path:
        await self.lifetime.cancel_supervised()
        uuid = (self.settings.spool_dir / "uuid").read_text().strip()
        self.rig.kills.append(Kill(uuid, time.time()))
        return self.settings.spool_dir.with_name(f"{self.settings.spool_dir.name}-after")


class SimulatedDisk:
    """What a disk would hold after a power cut: of each file what it had when it was last synced."""

    def __init__(self) -> None:
        self.synced: dict[Path, bytes] = {}

    def start_for(self, on_done: OnDone) -> "_SimulatedSync":
        return _SimulatedSync(self, on_done)


class _SimulatedSync:
    def __init__(self, disk: SimulatedDisk, on_done: OnDone) -> None:
        self._disk, self._on_done = disk, on_done

    def start(self, files: Sequence[int]) -> None:
        for fd in files:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            if path.is_file():
                self._disk.synced[path] = os.pread(fd, path.stat().st_size, 0)
        asyncio.get_running_loop().call_soon(self._on_done, None)

    def close(self) -> None:
        self._on_done = lambda _failure: None


@contextmanager
def simulated_disk() -> Iterator[SimulatedDisk]:
    """Meters that are opened in this block sync to it."""
    disk = SimulatedDisk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.metering.group_commit.open_disk_sync", disk.start_for)
        yield disk


@dataclass(slots=True)
class Rig:
    """usage_svc, a link to it, and what the witnesses saw."""

    usage: UsageService
    folder: Path
    link: Relay
    reported: list[Reported] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def answered(self, request_id: str, lease_id: str, hold_nanousd: int) -> usage_pb2.UsageEvent:
        """The upstream answers and reports usage; what the edge makes of it."""
        self.reported.append(Reported(request_id, TOKENS, True))
        spooled = event(
            ACCOUNT, lease_id, request_id=request_id, hold=hold_nanousd, tokens=usage_pb2.TokenCounts(images=0)
        )
        bill.set_tokens(spooled.tokens, TokenUsage(TOKENS.prompt, TOKENS.completion))
        return spooled

    def completed(self, request_id: str) -> None:
        """Its client gets the end of the answer."""
        now_s = time.time()
        self.sightings.append(Sighting(request_id, ACCOUNT, "edge", now_s, now_s, 200, Ending.COMPLETED, TOKENS))

    @asynccontextmanager
    async def edge(self, told: MeteringSettings | None = None, **values: Any) -> AsyncIterator[RigEdge]:
        """An edge; with the settings that `kill` gave, the one that is started in place of the dead."""
        settings = told or MeteringSettings(
            **{
                "spool_dir": self.folder / f"spool-{new_id()}",
                "edge_name": "edge",
                "segment_bytes": 16_384,
                "ship_linger_s": 0.01,
                "session_margin_s": 0.5,
                "drain_s": 0.5,
                **values,
            }
        )
        lifetime = Lifetime()
        async with client.channel(f"127.0.0.1:{self.link.port}") as channel:
            stub = usage_pb2_grpc.MeteringServiceStub(channel)
            async with Meter(settings, stub, SystemClock(), lifetime) as meter:
                await eventually(lambda: meter.ready)
                yield RigEdge(self, meter, lifetime, settings)

    async def is_settled(self) -> None:
        """Waits until every former session is sealed; not for ever, since what hangs is for the verdict to say."""

        async def sealed() -> bool:
            rows = await self.usage.rows("SELECT spool_uuid, MAX(incarnation) FROM session GROUP BY spool_uuid")
            newest = {(row[0], row[1]) for row in rows}
            rows = await self.usage.rows("SELECT spool_uuid, incarnation FROM session WHERE state NOT IN (3, 4)")
            return {(row[0], row[1]) for row in rows} <= newest

        try:
            await eventually(sealed, _SETTLE_S_MAX)
        except AssertionError:
            return

    async def verdict(self) -> Verdict:
        """To be asked when all edges have ended."""
        books = await books_of(self.usage.database)
        return judge(Evidence(self.reported, self.sightings, books, self.kills))
