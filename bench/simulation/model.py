"""The simulation itself: edges, their customers, and what is measured meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uuid_utils

import usage_svc.migrations
from bench.simulation.population import Population, Request
from bench.simulation.virtual_loop import VirtualClock, VirtualLoop
from bench.simulation.wire import Wire
from chassis.database import Database, open_engine
from chassis.lifetime import Lifetime
from chassis.migration import migrate
from edge.metering.meter import Admission, Meter
from edge.metering.refusals import FundsHeld, FundsUsedUp, MeteringUnavailable
from edge.metering.settings import Durability, MeteringSettings
from edge.metering.usage_event import decode_event, encode_event
from protos.usage.v1 import usage_pb2
from tests.harness.eventually import eventually
from tests.harness.usage_service import PRICE, event, spooled
from usage_svc.servicer import open_servicers
from usage_svc.settings import UsageSettings

_GRACE_NANOUSD = 0
_OPEN_S_MAX = 60.0
_SESSION_TTL_S = 86_400.0
_SEGMENT_BYTES = 256 * 1024


@dataclass(slots=True)
class Second:
    """What happened in one simulated second."""

    requests: int = 0
    refused: int = 0
    refused_while_idle: int = 0  # though the account had funds that no open request held
    unavailable: int = 0
    lease_calls: int = 0
    demands: int = 0
    hottest_updates: int = 0  # of the account row with the most in this second
    busiest_updates: int = 0  # of the account with the most requests


@dataclass(slots=True)
class _Truth:
    """What an account really has, known to nobody in the plant: credits less charges of ended requests, open holds."""

    left_nanousd: int
    held_nanousd: int = 0


@dataclass(slots=True)
class Simulation:
    """`seconds` is what was measured, warm-up included."""

    population: Population
    edges: int
    requests_per_s: float
    with_affinity: bool
    folder: Path
    seconds: list[Second] = field(default_factory=list)

    async def run(self, loop: VirtualLoop, duration_s: int) -> None:
        """Simulates so many seconds."""
        url = f"sqlite+aiosqlite:///{self.folder / 'usage.db'}"
        await migrate(url, usage_svc.migrations)
        async with self._plant(loop, url) as (meters, wire, database):
            truths = [_Truth(credit) for credit in self.population.credits_nanousd]
            load = _Load(self, loop, meters, truths)
            updates = {f"account-{number}": 0 for number in range(len(truths))}
            calls_before = demands_before = 0
            arrivals = asyncio.ensure_future(load.arrive())
            for _ in range(duration_s):
                load.second = Second()
                await asyncio.sleep(1.0)
                if arrivals.done():
                    arrivals.result()
                second = load.second
                second.lease_calls, calls_before = wire.calls["Acquire"] - calls_before, wire.calls["Acquire"]
                second.demands, demands_before = wire.demands - demands_before, wire.demands
                rows = await database.write_on_sqlite(
                    lambda connection: connection.execute("SELECT account_id, updates FROM account_updates").fetchall()
                )
                delta = {account_id: count - updates[account_id] for account_id, count in rows}
                updates = dict(rows)
                second.hottest_updates, second.busiest_updates = max(delta.values()), delta["account-0"]
                self.seconds.append(second)
            arrivals.cancel()
            await load.until_quiet()

    @asynccontextmanager
    async def _plant(self, loop: VirtualLoop, url: str) -> AsyncIterator[tuple[list[Meter], Wire, Database]]:
        lifetime, clock = Lifetime(), VirtualClock(loop)
        async with AsyncExitStack() as exits:
            database = await exits.enter_async_context(Database(open_engine(url)))
            await database.write_on_sqlite(self._fill)
            told: dict[str, Any] = {"database_url": url, "session_ttl_s": _SESSION_TTL_S}
            configured = UsageSettings(**told)
            servicers = await exits.enter_async_context(open_servicers(configured, database, _NothingBeside()))
            metering = next(each.servicer for each in servicers if each.service_name.endswith("MeteringService"))
            wire = Wire(metering, random.Random("latency"))
            meters = []
            for number in range(self.edges):
                settings = MeteringSettings(
                    self.folder / f"spool-{number}",
                    f"edge {number}",
                    segment_bytes=_SEGMENT_BYTES,
                    durability=Durability.INTERVAL,  # the disk is not what is simulated
                    sync_interval_s=5,
                    drain_s=60,
                )
                meters.append(await exits.enter_async_context(Meter(settings, wire.stub(), clock, lifetime)))
            await eventually(lambda: all(meter.ready for meter in meters), _OPEN_S_MAX)
            loop.begin()
            yield meters, wire, database
            assert lifetime.failure is None, lifetime.failure

    def _fill(self, connection: Any) -> None:
        """Every account with its credit, and a count of what is written to its row."""
        connection.execute("CREATE TABLE account_updates (account_id TEXT PRIMARY KEY, updates INTEGER NOT NULL)")
        for number, credit in enumerate(self.population.credits_nanousd):
            name = f"account-{number}"
            connection.execute(
                "INSERT INTO account (account_id, available_nanousd, grace_nanousd, overflow_nanousd, "
                "credited_nanousd, charged_nanousd, create_time_us) VALUES (?, ?, ?, 0, ?, 0, 0)",
                (name, credit, _GRACE_NANOUSD, credit),
            )
            connection.execute("INSERT INTO account_updates VALUES (?, 0)", (name,))
        connection.execute(
            "CREATE TRIGGER count_updates AFTER UPDATE ON account BEGIN "
            "UPDATE account_updates SET updates = updates + 1 WHERE account_id = NEW.account_id; END"
        )


class _NothingBeside(Lifetime):
    """For usage_svc: a sweep has a thread and a connection of its own, and would lock out who waits for no thread."""

    def supervise(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        work.close()
        return asyncio.get_running_loop().create_task(asyncio.sleep(0), name=name)


class _Load:
    """Arrivals and ends of requests."""

    def __init__(self, simulation: Simulation, loop: VirtualLoop, meters: list[Meter], truths: list[_Truth]) -> None:
        self._simulation, self._loop, self._meters, self._truths = simulation, loop, meters, truths
        self.second = Second()
        self._open, self._idle = 0, asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        template = event("account", tokens=usage_pb2.TokenCounts(), price=PRICE)
        for name in ("request_id", "account_id", "tokens"):
            template.ClearField(name)
        self._template = encode_event(spooled(template))

    async def arrive(self) -> None:
        """For ever: requests at random moments."""
        population, rate = self._simulation.population, self._simulation.requests_per_s
        next_s = self._loop.time()
        while True:
            next_s += population.dice.expovariate(rate)
            if next_s > self._loop.time():
                await asyncio.sleep(next_s - self._loop.time())
            self._begin(population.request())

    async def until_quiet(self) -> None:
        """Waits until the last request has ended."""
        await asyncio.gather(*self._waiting)
        if self._open:
            await self._idle.wait()

    def _begin(self, request: Request) -> None:
        self.second.requests += 1
        simulation = self._simulation
        edge = simulation.population.edge_of(request.account, with_affinity=simulation.with_affinity)
        meter, request_id, account_id = self._meters[edge], str(uuid_utils.uuid7()), f"account-{request.account}"
        try:
            admission = meter.try_admit(request_id, account_id, request.hold_nanousd)
        except MeteringUnavailable:
            self.second.unavailable += 1
            return
        if admission is not None:
            self._forward(meter, admission, request)
            return
        waiting = asyncio.ensure_future(self._admit(meter, request_id, account_id, request))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _admit(self, meter: Meter, request_id: str, account_id: str, request: Request) -> None:
        try:
            admission = await meter.admit(request_id, account_id, request.hold_nanousd)
        except (FundsHeld, FundsUsedUp):
            self.second.refused += 1
            truth = self._truths[request.account]
            if truth.left_nanousd - truth.held_nanousd + _GRACE_NANOUSD >= request.hold_nanousd:
                self.second.refused_while_idle += 1
        except MeteringUnavailable:
            self.second.unavailable += 1
        else:
            self._forward(meter, admission, request)

    def _forward(self, meter: Meter, admission: Admission, request: Request) -> None:
        self._open += 1
        self._idle.clear()
        self._truths[request.account].held_nanousd += request.hold_nanousd
        self._loop.call_later(request.duration_s, self._end, meter, admission, request)

    def _end(self, meter: Meter, admission: Admission, request: Request) -> None:
        truth = self._truths[request.account]
        truth.held_nanousd -= request.hold_nanousd
        truth.left_nanousd -= request.charge_nanousd
        self._open -= 1
        if not self._open:
            self._idle.set()
        ended = decode_event(self._template)
        ended.prompt_tokens, ended.completion_tokens = request.prompt_tokens, request.completion_tokens
        meter.finish(admission, ended, request.charge_nanousd)
