"""One run: starts the plant, lets customers and faults at it, heals it, and asks the three witnesses."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

from tests.torture.books import read_books
from tests.torture.customers import Crowd, Customer
from tests.torture.evidence import Evidence
from tests.torture.faults import Fault, schedule
from tests.torture.operator import CANNOT_ASK, Operator
from tests.torture.plant import Plant
from tests.torture.upstream import read_journal, upstream_process
from tests.torture.verdict import Verdict, judge

USD = 1_000_000_000
# Of ten customers three are at their limit all the time: funds for a few requests, topped up now and then.
_RICH, _TIGHT = 7, 3
_TIGHT_CREDIT_NANOUSD, _TIGHT_GRACE_NANOUSD = 1_500_000, 300_000
_TOP_UP_NANOUSD = 800_000
_TOP_UP_S = 2.0
_PROGRESS_S, _AUDIT_S = 5.0, 7.0
_QUIET_S_MAX = 90.0


class Run:
    """A run's state. `say` prints a line of progress."""

    def __init__(self, folder: Path, seed: int, duration_s: float, *, engine: str, mutation: str, load: int) -> None:
        self.folder, self.seed, self.duration_s = folder, seed, duration_s
        self._load = load
        self._with_postgres = engine == "postgres"
        self._begin = time.monotonic()
        self._plant = Plant(folder, with_postgres=self._with_postgres, mutation=mutation, say=self.say)
        self.injected: list[Fault] = []
        self.audits = 0

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self._begin:6.1f} s  {line}", flush=True)

    async def run(self) -> Verdict:
        """From start to verdict."""
        journal = self.folder / "journal"
        journal.touch()
        with upstream_process(journal) as upstream_url:
            async with self._plant as plant:
                self.say("services are up")
                async with Operator(plant) as operator:
                    customers = await self._prepare(operator, upstream_url)
                    await plant.start_edges()
                    self.say("edges are up; the torture begins")
                    self._begin = time.monotonic()
                    sightings = await self._torture(operator, customers)
                    await plant.drain_edges()
                    await self._audit(operator)
                await plant.drain_services()
                evidence = Evidence(
                    read_journal(journal),
                    sightings.sightings,
                    await read_books(plant.database_urls["usage"]),
                    plant.kills(),
                    plant.drains(),
                    operator.credits_nanousd,
                    plant.complaints,
                )
        return judge(evidence)

    async def _prepare(self, operator: Operator, upstream_url: str) -> list[Customer]:
        await operator.apply_catalog(upstream_url)
        customers = [await operator.new_customer(f"customer {number}", 1000 * USD) for number in range(_RICH)]
        for number in range(_RICH, _RICH + _TIGHT):
            customers.append(
                await operator.new_customer(f"customer {number}", _TIGHT_CREDIT_NANOUSD, _TIGHT_GRACE_NANOUSD)
            )
        return customers

    async def _torture(self, operator: Operator, customers: list[Customer]) -> Crowd:
        crowd = Crowd(self._plant, customers, self.seed, think_s=0.2)
        load = asyncio.create_task(crowd.run(raw=self._load, sdk=max(1, self._load // 8)))
        beside = [
            asyncio.create_task(self._top_up(operator, [each.account_id for each in customers[_RICH:]])),
            asyncio.create_task(self._report_progress(crowd)),
            asyncio.create_task(self._audit_on_and_on(operator)),
        ]
        try:
            await self._inject()
            await _until_failure(load, self.duration_s - (time.monotonic() - self._begin))
            await self._plant.heal()
            self.say("healed; waiting for open requests")
            crowd.stop()
            await asyncio.wait_for(load, _QUIET_S_MAX)
        finally:
            for task in (load, *beside[1:]):
                task.cancel()
        # A top-up under way must end, so that what was credited is known.
        self._is_topping_up = False
        await asyncio.wait_for(beside[0], _QUIET_S_MAX)
        return crowd

    async def _inject(self) -> None:
        """All faults, each at its time; returns when the last has ended."""

        async def inject(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, fault.at_s - (time.monotonic() - self._begin)))
            if await self._plant.break_for(fault, self._begin + self.duration_s):
                self.injected.append(fault)

        async with asyncio.TaskGroup() as group:
            for fault in schedule(self.seed, self.duration_s, with_postgres=self._with_postgres):
                group.create_task(inject(fault))

    _is_topping_up = True

    async def _top_up(self, operator: Operator, account_ids: list[str]) -> None:
        dice = random.Random(f"top-ups {self.seed}")
        while self._is_topping_up:
            await asyncio.sleep(_TOP_UP_S)
            await operator.credit(dice.choice(account_ids), _TOP_UP_NANOUSD)

    async def _report_progress(self, crowd: Crowd) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            endings = Counter(each.ending.value for each in crowd.sightings)
            said = ", ".join(f"{count} {name}" for name, count in endings.most_common())
            complaints = f"; {len(self._plant.complaints)} COMPLAINTS" if self._plant.complaints else ""
            self.say(f"requests: {said}; {crowd.open} open{complaints}")

    async def _audit_on_and_on(self, operator: Operator) -> None:
        """The auditor must find nothing at any moment; that it cannot be asked now is another matter."""
        while True:
            await asyncio.sleep(_AUDIT_S)
            try:
                await self._audit(operator)
            except CANNOT_ASK:
                continue

    async def _audit(self, operator: Operator) -> None:
        """Lets usage_svc itself replay its ledger."""
        found = await operator.audit()
        self.audits += 1
        self._plant.complaints.extend(found)


async def _until_failure(task: "asyncio.Task[None]", seconds: float) -> None:
    """Waits, unless the load itself fails: that is a bug of the torture."""
    done, _ = await asyncio.wait({task}, timeout=max(0.0, seconds))
    for each in done:
        each.result()


def run_once(folder: Path, seed: int, minutes: float, engine: str, mutation: str, load: int) -> tuple[Run, Verdict]:
    """Runs to the end."""
    run = Run(folder, seed, minutes * 60, engine=engine, mutation=mutation, load=load)
    return run, asyncio.run(run.run())
