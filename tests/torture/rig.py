"""A small plant in one process, for directed scenarios: the real usage_svc, real meters of edges, and three witnesses.

What the torture's run does by the thousand, a scenario does once and in order; both are judged by verdict.py.
"""

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from chassis import client
from chassis.clock import SystemClock
from chassis.lifetime import Lifetime
from edge import bill
from edge.metering.meter import Admission, Meter
from edge.metering.settings import MeteringSettings
from edge.metering.usage_event import UsageEvent
from pricing import TokenUsage
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.harness.eventually import eventually
from tests.harness.usage_service import UsageService, event, new_id, spooled
from tests.torture import disk
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
        ended = self.rig.answered(admission.request_id, "", admission.hold_nanousd)
        await self.meter.finish(admission, ended, COST)
        self.rig.completed(admission.request_id)

    async def request(self) -> None:
        await self.finish(await self.admit())

    async def kill(self) -> MeteringSettings:
        """kill -9. Settings for the process that is started in its place, on what the system has of its spool."""
        folder = await self._die()
        shutil.copytree(self.settings.spool_dir, folder)
        return replace(self.settings, spool_dir=folder)

    async def cut_power(self) -> MeteringSettings:
        """The same, and the system is gone with it: only what was synced is there again. In `synced_copies`."""
        folder = await self._die()
        shutil.copytree(self.settings.spool_dir, folder)
        shutil.copytree(disk.copies_of(self.settings.spool_dir), disk.copies_of(folder))
        disk.cut_power(folder, None)
        return replace(self.settings, spool_dir=folder)

    async def _die(self) -> Path:
        await self.lifetime.cancel_supervised()
        uuid = (self.settings.spool_dir / "uuid").read_text().strip()
        self.rig.kills.append(Kill(uuid, time.time()))
        return self.settings.spool_dir.with_name(f"{self.settings.spool_dir.name}-after")


@contextmanager
def synced_copies() -> Iterator[None]:
    """Edges that are opened in this block can lose power."""
    with pytest.MonkeyPatch.context() as patch:
        disk.copy_what_is_synced(patch.setattr)
        yield


@dataclass(slots=True)
class Rig:
    """usage_svc, a link to it, and what the witnesses saw."""

    usage: UsageService
    folder: Path
    link: Relay
    reported: list[Reported] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def answered(self, request_id: str, lease_id: str, hold_nanousd: int) -> UsageEvent:
        """The upstream answers and reports usage; what the edge makes of it."""
        self.reported.append(Reported(request_id, TOKENS, True))
        ended = spooled(
            event(ACCOUNT, lease_id, request_id=request_id, hold=hold_nanousd, tokens=usage_pb2.TokenCounts(images=0))
        )
        bill.set_tokens(ended, TokenUsage(TOKENS.prompt, TOKENS.completion))
        return ended

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
