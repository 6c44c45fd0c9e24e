"""The plant under torture: auth, catalog, usage, three edges and their database, and the links between them."""

import asyncio
import itertools
import os
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import auth_svc.migrations
import catalog_svc.migrations
import usage_svc.migrations
from chassis.migration import migrate
from tests.harness.postgres import PostgresServer, fresh_database, postgres_server
from tests.torture.disk import cut_power
from tests.torture.evidence import Drain, Kill
from tests.torture.faults import EDGES, SERVICES, Fault, Kind
from tests.torture.part import Part
from tests.torture.relay import Relay, Target

MODEL = "torture/model"
# A session may be silent for this long: long pauses and partitions go beyond it, so edges are fenced and come back.
_SESSION_TTL_S = 8.0
_MIGRATIONS = {"auth": auth_svc.migrations, "catalog": catalog_svc.migrations, "usage": usage_svc.migrations}
_EDGE_DRAIN_S = 30.0

CATALOG = """\
models:
  - id: torture/model
    name: Torture
    description: Does what a request says.
    context_length: 100000
    max_output_length: 4000
    prices:
      - per_million: {{prompt: 1.00, completion: 2.00, input_cache_read: 0.50}}
deployments:
  - id: scripted
    model: torture/model
    kind: openai
    base_url: {url}/v1
"""


class Plant:
    """Everything that can be broken. `say` prints progress; `complaints` are violations by themselves."""

    def __init__(self, folder: Path, *, with_postgres: bool, mutation: str, say: Callable[[str], None]) -> None:
        self.folder, self._with_postgres, self._mutation, self._say = folder, with_postgres, mutation, say
        self.complaints: list[str] = []
        self.parts: dict[str, Part] = {}
        self.links: dict[str, Relay] = {}
        self.postgres: PostgresServer | None = None
        self.database_urls: dict[str, str] = {}
        self._exits = AsyncExitStack()
        self._lifeline, self._own_end = os.pipe()
        self._impaired: set[str] = set()  # what breaks the databases now
        # A busy machine starts processes late: the next fault of a target waits until it is well again.
        self._whole: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # -- up and down --

    async def __aenter__(self) -> "Plant":
        try:
            await self._open()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for part in self.parts.values():
            part.resume()
            await part.kill()
        await self._exits.aclose()
        os.close(self._own_end)
        os.close(self._lifeline)

    async def _open(self) -> None:
        if self._with_postgres:
            self.postgres = self._exits.enter_context(postgres_server(survives_kills=True))
        for service in SERVICES:
            self.database_urls[service] = (
                fresh_database(self.postgres) if self.postgres else f"sqlite+aiosqlite:///{self.folder / service}.db"
            )
            await migrate(self.database_urls[service], _MIGRATIONS[service])
        if self.postgres is not None:
            socket = self.postgres.socket_dir / ".s.PGSQL.5432"
            for service in SERVICES:
                await self._link(f"{service}-postgres", lambda: socket)
        for service in SERVICES:
            self._part(service, f"{service}_svc", self._service_environment(service))
            await self._link(f"operator-{service}", self._port_of(service))
        for edge in EDGES:
            for service in SERVICES:
                await self._link(f"{edge}-{service}", self._port_of(service))
            self._part(edge, "edge", self._edge_environment(edge))
        await asyncio.gather(*(self.parts[service].start() for service in SERVICES))

    async def start_edges(self) -> None:
        await asyncio.gather(*(self.parts[edge].start() for edge in EDGES))

    async def _link(self, name: str, target: Callable[[], Target | None]) -> None:
        self.links[name] = await self._exits.enter_async_context(Relay(name, target))

    def _port_of(self, service: str) -> Callable[[], Target | None]:
        return lambda: ("127.0.0.1", self.parts[service].port) if self.parts[service].port else None

    def _part(self, name: str, module: str, environment: Callable[[], dict[str, str]]) -> None:
        self.parts[name] = Part(name, module, self.folder, environment, self.complaints.append, self._lifeline)

    def _service_environment(self, service: str) -> Callable[[], dict[str, str]]:
        prefix = f"TOLLGATE_{service.upper()}_"

        def environment() -> dict[str, str]:
            url = self.database_urls[service]
            if self.postgres is not None:
                url = (
                    f"postgresql+asyncpg://postgres@127.0.0.1:{self.links[f'{service}-postgres'].port}/"
                    + (url.partition("@/")[2].partition("?")[0])
                )
            told = {
                "DATABASE_URL": url,
                "LISTEN_PORT": "0",
                "READY_FILE": str(self.folder / f"{service}.ready.json"),
                "DRAIN_S": "3",
                "SCHEMA_WAIT_S": "60",
            }
            if service == "auth":
                told["KEY_PEPPER"] = "a pepper for the torture, of no use to anybody else"
            if service == "usage":
                told["SESSION_TTL_S"] = str(_SESSION_TTL_S)
            return self._told(prefix, told)

        return environment

    def _edge_environment(self, edge: str) -> Callable[[], dict[str, str]]:
        def environment() -> dict[str, str]:
            told = {
                "LISTEN_PORT": "0",
                "READY_FILE": str(self.folder / f"{edge}.ready.json"),
                "DATA_DIR": str(self.folder / edge),
                "ENDPOINT_LAG_S": "0",
                "DRAIN_S": str(_EDGE_DRAIN_S),
                "SESSION_MARGIN_S": "1",
                "SHIP_LINGER_S": "0.2",
                # Small files, so that segments come and go; the last edge's disk is full within seconds of an outage.
                "SPOOL_SEGMENT_BYTES": "16384",
                "SPOOL_BYTES_MAX": "98304" if edge == EDGES[-1] else "16777216",
                **{f"{name.upper()}_ADDRESS": f"127.0.0.1:{self.links[f'{edge}-{name}'].port}" for name in SERVICES},
            }
            return self._told("TOLLGATE_EDGE_", told)

        return environment

    def _told(self, prefix: str, told: dict[str, str]) -> dict[str, str]:
        mutation = {"TORTURE_MUTATION": self._mutation} if self._mutation else {}
        return {**{f"{prefix}{name}": value for name, value in told.items()}, **mutation}

    # -- breaking and mending --

    async def break_for(self, fault: Fault, deadline_s: float) -> bool:
        """One fault from its beginning to its end. False: its target was not well again before the deadline."""
        ways: dict[Kind, Callable[[Fault], Awaitable[None]]] = {
            Kind.KILL: self._kill,
            Kind.POWER: self._cut_power,
            Kind.DOUBLE: self._intrude,
            Kind.TERMINATE: self._terminate,
            Kind.PAUSE: self._pause,
            Kind.CUT: self._cut,
            Kind.HANG: self._hang,
        }
        async with self._whole[fault.target]:
            if time.monotonic() >= deadline_s:
                return False
            self._say(f"fault: {fault}")
            is_about_databases = "postgres" in fault.target
            if is_about_databases:
                self._impair(fault.target, True)
            try:
                await ways[fault.kind](fault)
            finally:
                if is_about_databases:
                    self._impair(fault.target, False)
            return True

    def _impair(self, target: str, is_impaired: bool) -> None:
        (self._impaired.add if is_impaired else self._impaired.discard)(target)
        for service in SERVICES:
            part = self.parts[service]
            part.is_without_database = bool(self._impaired & {"postgres", f"{service}-postgres"})
            if target in ("postgres", f"{service}-postgres"):
                part.database_back_s = time.monotonic()

    async def _kill(self, fault: Fault) -> None:
        if fault.target == "postgres":
            assert self.postgres is not None
            await asyncio.to_thread(self.postgres.kill)
            await asyncio.sleep(fault.for_s)
            await asyncio.to_thread(self.postgres.start)
            return
        part = self.parts[fault.target]
        await part.kill()
        await asyncio.sleep(fault.for_s)
        await part.start()

    async def _cut_power(self, fault: Fault) -> None:
        part = self.parts[fault.target]
        dice = random.Random(str(fault))
        await part.lose_power(lambda: cut_power(self.folder / fault.target / "spool", dice))
        await asyncio.sleep(fault.for_s)
        await part.start()

    async def _intrude(self, fault: Fault) -> None:
        await self.parts[fault.target].intrude()

    async def _terminate(self, fault: Fault) -> None:
        part = self.parts[fault.target]
        await part.terminate()
        await asyncio.sleep(fault.for_s)
        await part.start()

    async def _pause(self, fault: Fault) -> None:
        if fault.target == "postgres":
            assert self.postgres is not None
            self.postgres.pause()
            await asyncio.sleep(fault.for_s)
            self.postgres.resume()
            return
        part = self.parts[fault.target]
        part.pause()
        await asyncio.sleep(fault.for_s)
        part.resume()

    async def _cut(self, fault: Fault) -> None:
        self.links[fault.target].cut()
        await asyncio.sleep(fault.for_s)
        self.links[fault.target].mend()

    async def _hang(self, fault: Fault) -> None:
        self.links[fault.target].hang()
        await asyncio.sleep(fault.for_s)
        self.links[fault.target].mend()

    # -- the end --

    async def heal(self) -> None:
        """Mends what is broken, and waits until everything serves."""
        for link in self.links.values():
            link.mend()
        for part in self.parts.values():
            part.resume()
            if not part.is_running:
                await part.start()

    async def drain_edges(self) -> None:
        """Asks all edges to end. With all well they must leave nothing in their spools."""
        start = time.monotonic()
        await asyncio.gather(*(self.parts[edge].terminate() for edge in EDGES))
        self._say(f"edges drained in {time.monotonic() - start:.1f} s")
        for edge in EDGES:
            left = [path.name for path in (self.folder / edge / "spool").iterdir() if path.name.isdecimal()]
            if left:
                self.complaints.append(f"{edge} ended with sessions in its spool, with all well: {left}")

    async def drain_services(self) -> None:
        await asyncio.gather(*(self.parts[service].terminate() for service in SERVICES))

    def kills(self) -> list[Kill]:
        """Every edge that was ended without warning."""
        return list(
            itertools.chain.from_iterable(
                (
                    Kill(self.spool_uuid(edge), at_s, at_s in self.parts[edge].power_cut_times_s, edge)
                    for at_s in self.parts[edge].kill_times_s
                )
                for edge in EDGES
            )
        )

    def drains(self) -> list[Drain]:
        """Every edge that was asked to end, and when."""
        return [Drain(edge, *times) for edge in EDGES for times in self.parts[edge].drain_times_s]

    def spool_uuid(self, edge: str) -> str:
        return (self.folder / edge / "spool" / "uuid").read_text().strip()
