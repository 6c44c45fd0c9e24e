"""The edge's meter against the real usage_svc: sessions, leases, spool and shipping, while usage_svc comes and goes."""

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from chassis import client, metrics
from chassis.clock import SystemClock
from chassis.faults import FailedPrecondition
from chassis.lifetime import Lifetime
from edge.metering import metrics as edge_metrics
from edge.metering.adoption import Adopter
from edge.metering.meter import Admission, Meter
from edge.metering.recall import RecallWatch
from edge.metering.refusals import FundsHeld, FundsUsedUp, MeteringRefusal, MeteringUnavailable, UnavailableReason
from edge.metering.settings import Durability, MeteringSettings
from protos.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.harness.eventually import eventually
from tests.harness.faulty_channel import FaultyCalls, FaultyHints, HeldCalls, MessageFault, OlderService, faulty_channel
from tests.harness.usage_service import USD, UsageService, event, new_id, spooled, uncharged, usage_service
from usage_svc import metrics as usage_metrics

HOLD = 10_000_000
CHARGE = 100 * 1000 + 50 * 2000  # what tests.harness.usage_service.event costs


class Relay:
    """A TCP relay between edge and usage_svc that can be cut."""

    def __init__(self) -> None:
        self.target_port = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()
        await eventually(lambda: not self._writers)

    def cut(self) -> None:
        self._is_cut = True
        for writer in list(self._writers):
            writer.close()

    def mend(self) -> None:
        self._is_cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._is_cut:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._is_cut:  # while the far end was connected to
            writer.close()
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class ShiftedClock(SystemClock):
    """The machine's, with a monotonic clock that a test can put forward."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.shift_s


class StoppedClock(ShiftedClock):
    """Its monotonic clock moves when a test says so, and only then."""

    def monotonic(self) -> float:
        return self.shift_s


@dataclass(frozen=True, slots=True)
class EdgeSide:
    """A meter and what it runs on."""

    meter: Meter
    lifetime: Lifetime
    clock: ShiftedClock

    async def admit(self, account_id: str, hold: int = HOLD) -> Admission:
        about = {"key_id": "key-1", "model_id": "some/model"}
        request_id, resource = new_id(), usage_pb2.RESOURCE_CHAT_COMPLETIONS
        return self.meter.try_admit(request_id, account_id, hold, resource=resource, **about) or await self.meter.admit(
            request_id, account_id, hold, resource=resource, **about
        )

    async def request(self, account_id: str, hold: int = HOLD) -> str:
        """One whole request. Its id."""
        admission = await self.admit(account_id, hold)
        await self.meter.finish(admission, spooled(event(account_id)), CHARGE)
        return admission.request_id


@asynccontextmanager
async def edge(
    port: int,
    settings: MeteringSettings,
    *,
    wait: bool = True,
    clock: ShiftedClock | None = None,
    faults: FaultyCalls | FaultyHints | HeldCalls | OlderService | None = None,
) -> AsyncIterator[EdgeSide]:
    lifetime, clock = Lifetime(), clock or ShiftedClock()
    async with client.channel(f"127.0.0.1:{port}") if faults is None else faulty_channel(port, faults) as channel:
        async with Meter(settings, usage_pb2_grpc.MeteringServiceStub(channel), clock, lifetime) as meter:
            if wait:
                await eventually(lambda: meter.ready)
            yield EdgeSide(meter, lifetime, clock)
        assert lifetime.failure is None, lifetime.failure


async def killed(side: EdgeSide) -> None:
    """Ends a meter's tasks as SIGKILL does: nothing is drained. Its folder must be copied to be opened again."""
    await side.lifetime.cancel_supervised()


@pytest.fixture
def settings(tmp_path: Path) -> MeteringSettings:
    return MeteringSettings(
        tmp_path / "spool", "test", segment_bytes=64 * 1024, ship_linger_s=0.02, session_margin_s=0.5, drain_s=5.0
    )


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service


@pytest.fixture
async def local_usage(sqlite_url: str) -> AsyncIterator[UsageService]:
    """For what does not depend on the database."""
    async with usage_service(sqlite_url) as service:
        yield service


@pytest.fixture
async def relay(local_usage: UsageService) -> AsyncIterator[Relay]:
    async with Relay() as relay:
        relay.target_port = local_usage.port
        yield relay


def calls(method: str, code: str = "OK") -> float:
    name = f"/tollgate.usage.v1.MeteringService/{method}"
    return float(metrics.RPC_CLIENT_CALLS.labels(name, code)._value.get())


async def states(service: UsageService) -> list[int]:
    return [row[0] for row in await service.rows("SELECT state FROM session ORDER BY incarnation")]


async def outcomes(service: UsageService) -> dict[str, int]:
    return dict(await service.rows("SELECT request_id, outcome FROM usage_event"))


async def test_requests_are_charged_shipped_and_the_session_is_sealed_at_the_end(
    usage: UsageService, settings: MeteringSettings
) -> None:
    await usage.credit("a", 5 * USD)
    async with edge(usage.port, settings) as side:
        for _ in range(20):
            await side.request("a")
        admission = await side.admit("a")
        await side.meter.finish(admission, spooled(uncharged("a", usage_pb2.OUTCOME_NONE)), 0)
    balance = await usage.balance("a")
    assert balance.charged_nanousd == 20 * CHARGE
    assert balance.reserved_nanousd == 0
    assert len(await outcomes(usage)) == 21
    assert await states(usage) == [usage_pb2.SESSION_STATE_DRAINED]
    assert sorted(path.name for path in settings.spool_dir.iterdir()) == ["lock", "uuid"]
    await usage.audit()


async def test_a_thousand_requests_of_one_account_need_few_calls(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 500 * USD)
    settings = replace(settings, durability=Durability.INTERVAL, ship_linger_s=0.2)
    async with edge(local_usage.port, settings) as side:
        before = {method: calls(method) for method in ("Acquire", "RecordUsage", "Heartbeat", "OpenSession")}
        for _ in range(1000):
            await side.request("a")
        made = {method: calls(method) - count for method, count in before.items()}
    assert made["Acquire"] <= 20
    assert sum(made.values()) <= 100
    assert (await local_usage.balance("a")).charged_nanousd == 1000 * CHARGE
    await local_usage.audit()


async def test_under_load_every_batch_is_full_but_the_last(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    """Records that come while a batch is on its way wait for the next full one."""
    await local_usage.credit("a", 500 * USD)
    before = calls("RecordUsage")
    async with edge(local_usage.port, replace(settings, ship_linger_s=60.0, ship_batch_max=50)) as side:

        async def client() -> None:
            for _ in range(255):
                await side.request("a")

        await asyncio.gather(*(client() for _ in range(4)))
        await eventually(lambda: side.meter._shipper.unshipped_records == 20)
        assert calls("RecordUsage") - before == 20
    assert calls("RecordUsage") - before == 21
    assert (await local_usage.balance("a")).charged_nanousd == 1020 * CHARGE


async def test_a_record_that_has_waited_while_a_batch_was_on_its_way_is_shipped_right_behind_it(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 500 * USD)
    answers = HeldCalls("RecordUsage")
    async with edge(local_usage.port, replace(settings, ship_linger_s=0.1), faults=answers) as side:
        await side.request("a")
        await eventually(lambda: answers.held == 1)
        await side.request("a")
        await eventually(side.meter._shipper._wake.is_set)  # it has waited long enough, and the batch is still away
        answers.released.set()
        await eventually(lambda: not side.meter._shipper.unshipped_records, timeout_s=2)


async def test_cold_accounts_share_calls_and_one_account_has_one_demand_at_a_time(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    for number in range(30):
        await local_usage.credit(f"account-{number}", 100 * USD)
    async with edge(local_usage.port, settings) as side:
        before = calls("Acquire")
        await asyncio.gather(*(side.request(f"account-{number % 30}") for number in range(300)))
        assert calls("Acquire") - before <= 10
    assert len(await outcomes(local_usage)) == 300
    await local_usage.audit()


async def test_an_account_without_funds_is_refused_and_hammering_causes_no_calls(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    async with edge(local_usage.port, settings) as side:
        with pytest.raises(FundsUsedUp) as refusal:
            await side.request("poor")
        assert refusal.value.available_nanousd == 0
        before = calls("Acquire")
        for _ in range(50):
            with pytest.raises(FundsUsedUp):
                await side.request("poor")
        assert calls("Acquire") == before
        await local_usage.credit("poor", USD)
        side.clock.shift_s += 1.1
        await side.request("poor")


async def test_near_the_limit_each_request_holds_exactly_its_own_and_gives_it_back(
    usage: UsageService, settings: MeteringSettings
) -> None:
    await usage.set_grace("a", 0)
    await usage.credit("a", 3 * HOLD)
    async with edge(usage.port, settings) as side:
        first = await side.admit("a")
        assert (await usage.balance("a")).reserved_nanousd == HOLD
        second = await side.admit("a")
        assert (await usage.balance("a")).reserved_nanousd == 2 * HOLD
        await side.meter.finish(first, spooled(event("a")), CHARGE)
        await side.meter.finish(second, spooled(event("a")), CHARGE)

        async def all_is_back() -> bool:
            return (await usage.balance("a")).reserved_nanousd == 0

        await eventually(all_is_back)
    assert (await usage.balance("a")).charged_nanousd == 2 * CHARGE
    await usage.audit()


async def test_requests_one_after_the_other_near_the_limit_are_all_admitted(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.set_grace("a", 0)
    await local_usage.credit("a", HOLD + 40 * CHARGE)
    async with edge(local_usage.port, replace(settings, ship_linger_s=0.2)) as side:
        for _ in range(40):
            await side.request("a")
    assert (await local_usage.balance("a")).charged_nanousd == 40 * CHARGE
    await local_usage.audit()


async def test_funds_held_by_open_requests_are_429_and_funds_used_up_are_402(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.set_grace("a", 0)
    await local_usage.credit("a", HOLD)
    async with edge(local_usage.port, settings) as side:
        first = await side.admit("a")
        with pytest.raises(FundsHeld) as held:
            await side.request("a")
        assert held.value.retry_after_s > 0
        await side.meter.finish(first, spooled(event("a", prompt=9_900)), HOLD)

        async def is_used_up() -> bool:
            side.clock.shift_s += 1.1
            try:
                await side.request("a")
            except FundsHeld:
                return False
            except FundsUsedUp:
                return True
            raise AssertionError("it was admitted without funds")

        await eventually(is_used_up)
    await local_usage.audit()


async def test_the_last_request_runs_under_held_one_at_a_time_and_what_it_overdraws_is_labelled(
    usage: UsageService, settings: MeteringSettings, tmp_path: Path
) -> None:
    await usage.set_grace("a", 0)
    await usage.credit("a", HOLD // 2)
    other = replace(settings, spool_dir=tmp_path / "other")
    async with edge(usage.port, settings) as side, edge(usage.port, other) as elsewhere:
        last = await side.admit("a")
        assert last.hold_nanousd == HOLD // 2
        for each in (side, elsewhere):
            with pytest.raises(FundsHeld):
                await each.admit("a")
        await side.meter.finish(last, spooled(event("a", prompt=9_900)), HOLD)
        side.clock.shift_s += 1.1

        async def is_back() -> bool:
            return (await usage.balance("a")).posted_nanousd == HOLD // 2 - HOLD

        await eventually(is_back)
        with pytest.raises(FundsUsedUp):
            await side.admit("a")
    balance = await usage.balance("a")
    assert (balance.posted_nanousd, balance.reserved_nanousd) == (HOLD // 2 - HOLD, 0)
    assert (await usage.rows("SELECT overflow_nanousd FROM account"))[0][0] == HOLD - HOLD // 2
    await usage.audit()


async def test_what_a_last_request_does_not_cost_goes_back_with_it_and_the_next_may_run(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.set_grace("a", 0)
    await local_usage.credit("a", 3 * CHARGE)
    async with edge(local_usage.port, replace(settings, held_wait_s=5.0)) as side:
        await asyncio.gather(*(side.request("a") for _ in range(3)))
        with pytest.raises(FundsUsedUp):
            await side.request("a")
    assert (await local_usage.balance("a")).posted_nanousd == 0
    assert await local_usage.rows("SELECT COUNT(*) FROM lease WHERE NOT closed") == [(0,)]
    await local_usage.audit()


async def test_a_last_request_that_nobody_waits_for_any_more_gives_its_slot_back(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.set_grace("a", 0)
    await local_usage.credit("a", HOLD // 2)
    async with edge(local_usage.port, settings) as side:

        async def nothing_is_reserved() -> bool:
            return (await local_usage.balance("a")).reserved_nanousd == 0

        for patience_ms in range(12):  # before, between and after the calls that it takes
            asking = asyncio.create_task(side.admit("a"))
            await asyncio.wait({asking}, timeout=patience_ms / 1000)
            asking.cancel()
            [outcome] = await asyncio.gather(asking, return_exceptions=True)
            if isinstance(outcome, Admission):  # it was sooner
                await side.meter.finish(outcome, spooled(uncharged("a", usage_pb2.OUTCOME_NONE)), 0)
            await eventually(nothing_is_reserved)
        await eventually(lambda: is_admitted(side, "a"))
    await local_usage.audit()


async def test_idle_funds_of_one_edge_come_back_for_another_before_it_refuses(
    usage: UsageService, settings: MeteringSettings, tmp_path: Path
) -> None:
    await usage.set_grace("a", 0)
    await usage.credit("a", 100 * HOLD)
    other = replace(settings, spool_dir=tmp_path / "other")
    async with edge(usage.port, settings) as rich, edge(usage.port, other) as poor:
        await eventually(lambda: rich.meter._recall.stands and poor.meter._recall.stands)
        await rich.request("a")
        await usage.adjust("a", -(await usage.balance("a")).available_nanousd)
        assert (await usage.balance("a")).reserved_nanousd >= HOLD
        await poor.request("a")
    assert (await usage.balance("a")).reserved_nanousd == 0
    await usage.audit()


async def test_while_thousands_of_records_catch_up_a_new_account_is_let_in(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings
) -> None:
    await local_usage.credit("old", USD)
    await local_usage.credit("new", USD)
    async with edge(relay.port, replace(settings, ship_batch_max=50)) as side:
        await side.request("old")
        relay.cut()

        async def cost_nothing() -> None:
            admission = await side.admit("old")
            await side.meter.finish(admission, spooled(uncharged("old", usage_pb2.OUTCOME_NONE)), 0)

        for _ in range(30):
            await asyncio.gather(*(cost_nothing() for _ in range(100)))
        assert side.meter._shipper.unshipped_records >= 3000
        relay.mend()
        await eventually(lambda: is_admitted(side, "new"))
        assert side.meter._shipper.unshipped_records > 0  # it did not wait for all that came before it
        await eventually(lambda: not side.meter._shipper.unshipped_records, 20)
    assert await local_usage.rows("SELECT account_id, COUNT(*) FROM usage_event GROUP BY 1 ORDER BY 1") == [
        ("new", 1),
        ("old", 3001),
    ]
    await local_usage.audit()


async def is_admitted(side: EdgeSide, account_id: str) -> bool:
    try:
        await side.request(account_id)
    except MeteringRefusal:
        return False
    return True


async def test_a_credit_ends_refusals_at_once(usage: UsageService, settings: MeteringSettings) -> None:
    await usage.set_grace("a", 0)
    async with edge(usage.port, settings) as side:
        await eventually(lambda: side.meter._recall.stands)
        with pytest.raises(FundsUsedUp):
            await side.request("a")
        await usage.credit("a", USD)
        await eventually(lambda: is_admitted(side, "a"), timeout_s=0.9)
    await usage.audit()


async def test_hints_reach_edges_of_other_replicas_of_one_database(
    postgres_url_factory: Callable[[], str], settings: MeteringSettings, tmp_path: Path
) -> None:
    database_url = postgres_url_factory()
    other = replace(settings, spool_dir=tmp_path / "other")
    async with (
        usage_service(database_url) as usage,
        usage_service(database_url) as replica,
        edge(usage.port, settings) as rich,
        edge(replica.port, other) as poor,
    ):
        await usage.set_grace("a", 0)
        await usage.credit("a", 100 * HOLD)
        await eventually(lambda: rich.meter._recall.stands and poor.meter._recall.stands)
        await rich.request("a")
        await usage.adjust("a", -(await usage.balance("a")).available_nanousd)
        await eventually(lambda: is_admitted(poor, "a"))
        with pytest.raises(FundsUsedUp):
            await poor.request("b")
        await usage.credit("b", USD)
        await eventually(lambda: is_admitted(poor, "b"), timeout_s=0.9)
        await usage.audit()


async def test_a_request_waits_for_a_hold_that_is_about_to_end(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.set_grace("a", 0)
    await local_usage.credit("a", HOLD + CHARGE)
    async with edge(local_usage.port, replace(settings, held_wait_s=5.0)) as side:
        first = await side.admit("a")
        second = asyncio.create_task(side.request("a"))
        before = calls("Acquire")
        await eventually(lambda: calls("Acquire") > before)
        await side.meter.finish(first, spooled(event("a")), CHARGE)
        await second
    assert (await local_usage.balance("a")).charged_nanousd == 2 * CHARGE
    await local_usage.audit()


async def test_a_cancelled_request_gives_its_place_and_its_funds_back(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.set_grace("a", 0)
    await local_usage.credit("a", HOLD + CHARGE)
    async with edge(local_usage.port, replace(settings, held_wait_s=5.0)) as side:
        first = await side.admit("a")
        waiting = [asyncio.create_task(side.request("a")) for _ in range(3)]
        before = calls("Acquire")
        await eventually(lambda: calls("Acquire") > before)
        for task in waiting[:2]:
            task.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        await side.meter.finish(first, spooled(event("a")), CHARGE)
        await waiting[2]
    assert (await local_usage.balance("a")).charged_nanousd == 2 * CHARGE
    assert (await local_usage.balance("a")).reserved_nanousd == 0
    await local_usage.audit()


async def test_records_of_a_killed_process_are_shipped_once_its_open_requests_are_lost_and_its_session_sealed(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings, tmp_path: Path
) -> None:
    await local_usage.credit("a", 5 * USD)
    finished: list[str] = []
    async with edge(relay.port, replace(settings, drain_s=0.1)) as side:
        shipped = await side.request("a")

        async def is_shipped() -> bool:
            return shipped in await outcomes(local_usage)

        await eventually(is_shipped)
        relay.cut()
        for _ in range(30):
            finished.append(await side.request("a"))
        lost = await side.admit("a")
        await killed(side)
        shutil.copytree(settings.spool_dir, tmp_path / "after")
        finished.append(shipped)
    assert list(await outcomes(local_usage)) == [shipped]
    relay.mend()
    async with edge(relay.port, replace(settings, spool_dir=tmp_path / "after")) as side:
        await side.request("a")

        async def former_is_sealed() -> bool:
            return (await states(local_usage))[0] == usage_pb2.SESSION_STATE_DRAINED

        await eventually(former_is_sealed)
    found = await outcomes(local_usage)
    assert {found[request_id] for request_id in finished} == {usage_pb2.OUTCOME_MEASURED}
    assert found[lost.request_id] == usage_pb2.OUTCOME_EDGE_LOST
    assert len(found) == 33
    balance = await local_usage.balance("a")
    assert (balance.charged_nanousd, balance.reserved_nanousd) == (32 * CHARGE, 0)
    assert await local_usage.rows("SELECT * FROM quarantine") == []
    await local_usage.audit()


async def test_a_disk_that_cannot_sync_what_a_killed_process_left_ships_it_and_admits_nothing(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(relay.port, replace(settings, drain_s=0.1)) as side:
        await side.admit("a")
        relay.cut()
        finished = await side.request("a")
        await killed(side)
        shutil.copytree(settings.spool_dir, tmp_path / "after")

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "as a broken disk says")

    monkeypatch.setattr(os, "fdatasync", broken)
    relay.mend()
    async with edge(relay.port, replace(settings, spool_dir=tmp_path / "after"), wait=False) as side:
        await eventually(lambda: is_posted(local_usage, finished))
        with pytest.raises(MeteringUnavailable) as refusal:
            await side.request("a")
        assert refusal.value.reason is UnavailableReason.SPOOL_UNWRITABLE
        monkeypatch.undo()


async def test_a_corrupt_spool_costs_the_record_that_it_hit_and_operators_see_which(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings, tmp_path: Path
) -> None:
    await local_usage.credit("a", 5 * USD)
    finished: list[str] = []
    async with edge(relay.port, replace(settings, drain_s=0.1)) as side:
        await side.request("a")
        relay.cut()
        for _ in range(10):
            finished.append(await side.request("a"))
        await killed(side)
        shutil.copytree(settings.spool_dir, tmp_path / "after")
    (segment,) = (tmp_path / "after" / "00000001").glob("*.segment")
    data = bytearray(segment.read_bytes())
    place = data.rindex(finished[4].encode())  # of its outcome; before it is its admission
    data[place] ^= 1
    segment.write_bytes(data)
    damages = edge_metrics.SPOOL_DAMAGES.labels("corrupt")._value.get()
    set_aside = usage_metrics.QUARANTINED.labels("UNREADABLE")._value.get()
    relay.mend()
    async with edge(relay.port, replace(settings, spool_dir=tmp_path / "after")):

        async def former_is_sealed() -> bool:
            return (await states(local_usage))[0] == usage_pb2.SESSION_STATE_DRAINED

        await eventually(former_is_sealed)
    found = await outcomes(local_usage)
    assert found.pop(finished.pop(4)) == usage_pb2.OUTCOME_EDGE_LOST
    assert {found[request_id] for request_id in finished} == {usage_pb2.OUTCOME_MEASURED}
    assert await local_usage.rows("SELECT incarnation, seq, reason FROM quarantine") == [(1, 6, "UNREADABLE")]
    assert edge_metrics.SPOOL_DAMAGES.labels("corrupt")._value.get() == damages + 1
    assert usage_metrics.QUARANTINED.labels("UNREADABLE")._value.get() == set_aside + 1
    await local_usage.audit()


async def test_what_a_former_process_left_counts_as_waiting_before_usage_svc_is_there(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(relay.port, replace(settings, drain_s=0.1)) as side:
        await side.request("a")
        relay.cut()
        for _ in range(10):
            admission = await side.admit("a")
            long_ago = event("a")
            long_ago.end_time.FromSeconds(long_ago.end_time.seconds - 3600)
            await side.meter.finish(admission, spooled(long_ago), CHARGE)
    async with edge(relay.port, settings, wait=False) as side:
        await eventually(lambda: edge_metrics.SPOOL_UNSHIPPED_RECORDS._value.get() >= 10)
        assert edge_metrics.SPOOL_LAG._value.get() > 0
        relay.mend()
        await eventually(lambda: side.meter.ready, timeout_s=20)
        await eventually(lambda: edge_metrics.SPOOL_UNSHIPPED_RECORDS._value.get() == 0)
        assert edge_metrics.SPOOL_LAG._value.get() == 0
    assert len(await outcomes(local_usage)) == 11


async def test_records_that_could_not_be_shipped_before_the_end_are_shipped_at_the_next_start(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(relay.port, replace(settings, drain_s=0.1)) as side:
        await side.request("a")
        relay.cut()
        for _ in range(10):
            await side.request("a")
    relay.mend()
    async with edge(relay.port, settings):

        async def all_is_there() -> bool:
            return len(await outcomes(local_usage)) == 11

        await eventually(all_is_there)
    assert await states(local_usage) == [usage_pb2.SESSION_STATE_DRAINED] * 2
    assert (await local_usage.balance("a")).reserved_nanousd == 0
    await local_usage.audit()


async def test_without_usage_svc_requests_go_on_from_the_lease_until_the_session_expires(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(relay.port, settings, clock=StoppedClock()) as side:
        await side.request("a")
        relay.cut()
        for _ in range(20):
            await side.request("a")
        with pytest.raises(MeteringUnavailable) as refusal:
            await side.request("never seen before")
        assert refusal.value.reason is UnavailableReason.USAGE_UNREACHABLE
        open_request = await side.admit("a")
        side.clock.shift_s += 599
        await side.request("a")
        side.clock.shift_s += 1
        assert not side.meter.ready
        with pytest.raises(MeteringUnavailable) as refusal:
            await side.request("a")
        assert refusal.value.reason is UnavailableReason.SESSION_EXPIRED
        await side.meter.finish(open_request, spooled(event("a")), CHARGE)
        relay.mend()
        await eventually(lambda: side.meter.ready, timeout_s=20)
        await side.request("a")
    assert len(await outcomes(local_usage)) == 24
    await local_usage.audit()


async def test_an_hour_of_traffic_without_usage_svc_is_served_and_catches_up(
    sqlite_url: str, settings: MeteringSettings
) -> None:
    """One request a second of each of two accounts, and of a third one every two minutes."""
    async with usage_service(sqlite_url, session_ttl_s=4200.0) as usage, Relay() as relay:
        relay.target_port = usage.port
        for account_id in ("a", "b", "seldom", "new"):
            await usage.credit(account_id, 1000 * USD)
        prepared = replace(settings, outage_s=3600.0, durability=Durability.INTERVAL)
        async with edge(relay.port, prepared, clock=StoppedClock()) as side:

            async def pass_time(seconds: int) -> None:
                for second in range(seconds):
                    side.clock.shift_s += 1
                    await side.request("a")
                    await side.request("b")
                    if second % 120 == 59:
                        await side.request("seldom")

            await pass_time(360)
            await eventually(lambda: not side.meter._shipper.unshipped_records)
            # An hour passes in a second here: a refill that is on its way would have been there long before.
            await eventually(lambda: side.meter._book is not None and not any(e.is_asking for e in side.meter._book))
            relay.cut()
            await pass_time(3600)
            assert side.meter.ready
            assert side.meter._shipper.unshipped_records >= 7200
            relay.mend()
            await eventually(lambda: is_admitted(side, "new"), timeout_s=20)
            await side.request("a")
            await eventually(lambda: not side.meter._shipper.unshipped_records, timeout_s=30)
        assert len(await states(usage)) == 1  # never fenced
        assert await usage.rows("SELECT account_id, COUNT(*) FROM usage_event GROUP BY 1 ORDER BY 1") == [
            ("a", 3961),
            ("b", 3960),
            ("new", 1),
            ("seldom", 33),
        ]
        await usage.audit()


async def test_an_edge_starts_without_usage_svc_and_is_ready_once_it_is_there(
    local_usage: UsageService, relay: Relay, settings: MeteringSettings
) -> None:
    relay.cut()
    async with edge(relay.port, settings, wait=False) as side:
        with pytest.raises(MeteringUnavailable) as refusal:
            await side.request("a")
        assert refusal.value.reason is UnavailableReason.USAGE_UNREACHABLE
        assert not side.meter.ready
        relay.mend()
        await eventually(lambda: side.meter.ready, timeout_s=20)


async def test_a_fenced_edge_opens_a_new_session_and_open_requests_end_in_the_old_one(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(local_usage.port, replace(settings, heartbeat_s_max=0.05)) as side:
        open_request = await side.admit("a")
        uuid = (settings.spool_dir / "uuid").read_text().strip()
        await local_usage.open_edge(uuid)  # another incarnation, as an operator's mistake would open it

        async def is_fenced() -> bool:
            return len(await states(local_usage)) == 3

        await eventually(is_fenced)
        await eventually(lambda: side.meter.ready)
        await side.request("a")
        await side.meter.finish(open_request, spooled(event("a")), CHARGE)

        async def former_are_sealed() -> bool:
            return (await states(local_usage))[:2] == [usage_pb2.SESSION_STATE_DRAINED] * 2

        await eventually(former_are_sealed)
        assert side.meter.ready
    assert await states(local_usage) == [usage_pb2.SESSION_STATE_DRAINED] * 3
    balance = await local_usage.balance("a")
    assert (balance.charged_nanousd, balance.reserved_nanousd) == (2 * CHARGE, 0)
    overflow = await local_usage.rows("SELECT SUM(overflow_nanousd) FROM usage_event")
    assert overflow[0][0] == 0, "the old session's lease paid for the old session's request"
    await local_usage.audit()


async def test_a_database_that_forgot_sessions_stops_the_edge_with_what_to_do(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    async with edge(local_usage.port, replace(settings, drain_s=0.1)) as side:
        await side.lifetime.cancel_supervised()
    (settings.spool_dir / "uuid").write_text("0190b5a0-0000-7000-8000-000000000000\n")
    lifetime = Lifetime()
    async with client.channel(f"127.0.0.1:{local_usage.port}") as channel:
        stub = usage_pb2_grpc.MeteringServiceStub(channel)
        async with Meter(replace(settings, drain_s=0.1), stub, SystemClock(), lifetime):
            await asyncio.wait_for(lifetime.until_stopped(), 5)
    assert lifetime.failure is not None
    assert "Move the spool folder aside" in lifetime.failure


async def test_an_admission_is_finished_once(local_usage: UsageService, settings: MeteringSettings) -> None:
    await local_usage.credit("a", USD)
    async with edge(local_usage.port, settings) as side:
        admission = await side.admit("a")
        await side.meter.finish(admission, spooled(event("a")), CHARGE)
        with pytest.raises(RuntimeError, match="finished before"):
            side.meter.finish(admission, spooled(event("a")), CHARGE)


async def test_an_outcome_that_comes_after_the_end_is_dropped_and_the_next_start_calls_it_lost(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", USD)
    async with edge(local_usage.port, settings) as side:
        await side.request("a")
        late = await side.admit("a")
    with capture_logs() as logs:
        await asyncio.wait_for(side.meter.finish(late, spooled(event("a")), CHARGE), 1.0)
    [line] = [each for each in logs if each["event"].startswith("outcome too late")]
    assert line["request_id"] == late.request_id
    async with edge(local_usage.port, settings) as side:
        await asyncio.wait_for(side.meter.until_worked_off(), 5.0)
    assert (await outcomes(local_usage))[late.request_id] == usage_pb2.OUTCOME_EDGE_LOST
    balance = await local_usage.balance("a")
    assert (balance.charged_nanousd, balance.reserved_nanousd) == (CHARGE, 0)


async def test_a_cancelled_waiter_does_not_cancel_the_round_for_others(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(local_usage.port, settings) as side:
        admissions = [await side.admit("a") for _ in range(3)]

        async def finish(admission: Admission) -> None:
            await side.meter.finish(admission, spooled(event("a")), CHARGE)

        tasks = [asyncio.create_task(finish(admission)) for admission in admissions]
        await asyncio.sleep(0)
        tasks[0].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert done[1:] == [None, None]
    assert len(await outcomes(local_usage)) == 3


async def test_an_event_with_too_many_attempts_is_recorded_without_them(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", USD)
    async with edge(local_usage.port, settings) as side:
        admission = await side.admit("a")
        attempts = [usage_pb2.Attempt(deployment_id="d" * 100, failure="closed") for _ in range(50)]
        await side.meter.finish(admission, spooled(event("a", attempts=attempts)), CHARGE)
    assert (await local_usage.balance("a")).charged_nanousd == CHARGE


@pytest.mark.parametrize("durability", list(Durability))
async def test_a_finished_request_is_on_disk_when_its_wait_is_over(
    local_usage: UsageService, settings: MeteringSettings, durability: Durability
) -> None:
    await local_usage.credit("a", USD)
    settings = replace(settings, durability=durability, sync_interval_s=0.05, ship_linger_s=60.0)
    async with edge(local_usage.port, settings) as side:
        request_id = await side.request("a")
        segments = list(settings.spool_dir.glob("*/*.segment"))
        assert sum(path.read_bytes().count(request_id.encode()) for path in segments) == 2, "admitted, and its event"


async def test_after_a_restart_of_usage_svc_the_same_session_goes_on(
    sqlite_url: str, settings: MeteringSettings
) -> None:
    async with Relay() as relay:
        async with usage_service(sqlite_url) as service:
            relay.target_port = service.port
            await service.credit("a", 5 * USD)
            running = edge(relay.port, settings)
            side = await running.__aenter__()
            await side.request("a")
        relay.cut()
        await side.request("a")
        async with usage_service(sqlite_url) as service:
            relay.target_port = service.port
            relay.mend()
            await side.request("a")
            await running.__aexit__(None, None, None)
            assert len(await outcomes(service)) == 3
            assert await states(service) == [usage_pb2.SESSION_STATE_DRAINED]
            await service.audit()


async def test_a_cursor_that_went_back_is_followed(local_usage: UsageService, settings: MeteringSettings) -> None:
    await local_usage.credit("a", 5 * USD)
    async with edge(local_usage.port, settings) as side:
        for _ in range(5):
            await side.request("a")

        async def is_shipped() -> bool:
            return len(await outcomes(local_usage)) == 5

        await eventually(is_shipped)
        await local_usage.database.write(_forget_everything_but_the_first)
        await side.request("a")
    assert len(await outcomes(local_usage)) == 6
    assert await states(local_usage) == [usage_pb2.SESSION_STATE_DRAINED]
    await local_usage.audit()


async def _forget_everything_but_the_first(transaction: AsyncSession) -> None:
    """As a database does that was restored from an earlier moment; duplicates are then known by their request ids."""
    connection = await transaction.connection()
    await connection.execute(text("UPDATE session SET next_seq = 2"))


async def test_a_dead_edges_spool_is_adopted_whole_by_another_and_its_funds_are_free_again(
    usage: UsageService, settings: MeteringSettings, tmp_path: Path
) -> None:
    await usage.credit("a", 5 * USD)
    dying = replace(settings, spool_dir=tmp_path / "edges" / "dying" / "spool", ship_linger_s=60.0, drain_s=0.1)
    abandoned = tmp_path / "others" / "dead" / "spool"
    async with edge(usage.port, dying) as side:
        finished = await side.request("a")
        lost = await side.admit("a")
        await killed(side)
        shutil.copytree(dying.spool_dir, abandoned)
    living = replace(settings, spool_dir=tmp_path / "others" / "living" / "spool")
    async with edge(usage.port, living) as side, client.channel(f"127.0.0.1:{usage.port}") as channel:
        stub = usage_pb2_grpc.MeteringServiceStub(channel)
        adopter = Adopter(stub, living, side.clock, tmp_path / "others")
        assert await adopter.look() == 0  # it may be restarting just now
        assert await adopter.look() == 1
        assert await adopter.look() == 0
        assert await outcomes(usage) == {
            finished: usage_pb2.OUTCOME_MEASURED,
            lost.request_id: usage_pb2.OUTCOME_EDGE_LOST,
        }
        assert (await usage.balance("a")).reserved_nanousd == 0
    assert sorted(path.name for path in abandoned.iterdir()) == ["lock", "uuid"]
    assert set(await states(usage)) == {usage_pb2.SESSION_STATE_DRAINED}
    await usage.audit()


async def test_a_forced_session_is_released_and_what_it_still_brings_is_labelled(usage: UsageService) -> None:
    await usage.credit("a", 5 * USD)
    gone = await usage.open_edge()
    grant = await gone.acquire("a", USD)
    gone.spool(event("a", grant.lease_id))
    request = usage_pb2.ForceSessionRequest(session=gone.session)
    with pytest.raises(FailedPrecondition, match="alive"):
        await usage.call(usage.admin.ForceSession, request)
    await usage.open_edge(gone.session.spool_uuid)
    listed = (await usage.call(usage.admin.ListSessions, usage_pb2.ListSessionsRequest())).sessions
    assert {each.state for each in listed} == {usage_pb2.SESSION_STATE_ALIVE, usage_pb2.SESSION_STATE_LOST}
    assert {each.reserved_nanousd for each in listed} == {0, USD}
    for _ in range(2):
        released = await usage.call(usage.admin.ForceSession, request)
        assert released.released_nanousd == USD
    assert (await usage.balance("a")).reserved_nanousd == 0
    await gone.ship()
    assert await usage.rows("SELECT overflow_nanousd FROM usage_event") == [(CHARGE,)]
    assert await gone.seal() == USD
    await usage.audit()


async def test_orphans_are_released_by_force_once_their_time_is_over(database_url: str) -> None:
    async with usage_service(database_url, orphan_ttl_s=1.0, session_ttl_s=1.0) as usage:
        await usage.credit("a", 5 * USD)
        gone = await usage.open_edge()
        await gone.acquire("a", USD)

        async def is_released() -> bool:
            return (await usage.balance("a")).reserved_nanousd == 0

        await eventually(is_released, timeout_s=20.0)
        assert await states(usage) == [usage_pb2.SESSION_STATE_FORCED]
        await usage.audit()


async def test_many_clients_race_for_the_funds_of_twenty_requests_over_three_edges(
    usage: UsageService, settings: MeteringSettings, tmp_path: Path
) -> None:
    """Each costs all that it holds, so exactly twenty fit."""
    await usage.set_grace("a", 0)
    await usage.credit("a", 20 * HOLD)
    sides: list[EdgeSide] = []
    refused: list[MeteringRefusal] = []

    async def one_client(side: EdgeSide) -> int:
        try:
            admission = await side.admit("a")
        except (FundsHeld, FundsUsedUp) as refusal:
            refused.append(refusal)
            return 0
        await side.meter.finish(admission, spooled(event("a", prompt=9_900)), HOLD)
        return 1

    async with AsyncExitStack() as stack:
        for name in ("one", "two", "three"):
            each = replace(settings, spool_dir=tmp_path / name)
            sides.append(await stack.enter_async_context(edge(usage.port, each)))
        await eventually(lambda: all(side.meter._recall.stands for side in sides))
        admitted = sum(await asyncio.gather(*(one_client(sides[number % 3]) for number in range(200))))
        assert admitted + len(refused) == 200
        assert admitted <= 20

        async def used_up() -> bool:
            """Whoever was told to try again does so until nothing is left."""
            nonlocal admitted
            before = len(refused)
            admitted += sum([await one_client(side) for side in sides])
            return all(isinstance(refusal, FundsUsedUp) for refusal in refused[before:]) and len(refused) > before + 2

        await eventually(used_up, timeout_s=30.0)
        assert admitted == 20
        assert (await usage.balance("a")).reserved_nanousd == 0
        await usage.credit("a", HOLD)
        await eventually(lambda: is_admitted(sides[0], "a"), timeout_s=1.0)
    balance = await usage.balance("a")
    assert balance.reserved_nanousd == 0
    assert balance.posted_nanousd == HOLD - CHARGE
    await usage.audit()


async def patient_request(side: EdgeSide, account_id: str) -> str:
    """One whole request of a client that tries again while usage_svc cannot be asked. Its id."""
    admitted: list[Admission] = []

    async def is_admitted() -> bool:
        try:
            admitted.append(await side.admit(account_id))
        except (MeteringUnavailable, FundsHeld):
            return False
        return True

    await eventually(is_admitted, timeout_s=20.0)
    await side.meter.finish(admitted[0], spooled(event(account_id)), CHARGE)
    return admitted[0].request_id


@pytest.mark.parametrize("method", ["OpenSession", "Heartbeat", "Acquire", "RecordUsage", "Seal"])
@pytest.mark.parametrize("fault", list(MessageFault))
async def test_messages_that_get_lost_come_twice_or_come_late_change_no_bill(
    usage: UsageService, settings: MeteringSettings, method: str, fault: MessageFault
) -> None:
    """`last` runs under-held on a lease of its own, and hands its slot on: five in a row."""
    await usage.credit("usual", 5 * USD)
    await usage.set_grace("last", 0)
    await usage.credit("last", HOLD // 2)
    faults = FaultyCalls(method, fault)
    async with edge(usage.port, replace(settings, heartbeat_s_max=0.05), faults=faults) as side:
        asked = {await patient_request(side, account) for account in ["usual", "last"] * 5}
        if method == "Heartbeat":
            await eventually(lambda: faults.count["broken"] >= 2)
        assert side.meter.ready
    assert faults.count["broken"] > 0
    assert set(await outcomes(usage)) == asked
    for account_id in ("usual", "last"):
        balance = await usage.balance(account_id)
        assert (balance.charged_nanousd, balance.reserved_nanousd) == (5 * CHARGE, 0)
    assert await states(usage) == [usage_pb2.SESSION_STATE_DRAINED]
    assert await usage.rows("SELECT COALESCE(SUM(overflow_nanousd), 0) FROM usage_event") == [(0,)]
    await usage.audit()


async def is_posted(service: UsageService, request_id: str) -> bool:
    return request_id in await outcomes(service)


async def test_a_usage_svc_that_knows_no_rows_gets_events(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    await local_usage.credit("a", 5 * USD)
    older = OlderService()
    attempts = [usage_pb2.Attempt(deployment_id="one", failure="connect", duration_ms=7), usage_pb2.Attempt()]
    ended = event("a", prompt=101, attempts=attempts, first_byte_ms=3)
    async with edge(local_usage.port, settings, faults=older) as side:
        admission = await side.admit("a")
        await side.meter.finish(admission, spooled(ended), 201_000)
        await eventually(lambda: is_posted(local_usage, admission.request_id))
        assert older.refused == 1
        await side.request("a")
    assert older.refused == 1, "a session asks once"
    assert sorted((await outcomes(local_usage)).values()) == [usage_pb2.OUTCOME_MEASURED] * 2
    request = usage_pb2.GetRequestRequest(account_id="a", request_id=admission.request_id)
    posted = await local_usage.call(local_usage.reading.GetRequest, request)
    ended.request_id, ended.lease_id, ended.hold_nanousd = admission.request_id, posted.request.event.lease_id, HOLD
    assert posted.request.event == ended
    assert posted.request.charged_nanousd == 201_000


@pytest.mark.parametrize("fault", [MessageFault.LOST, MessageFault.REPEATED])
async def test_recalls_that_get_lost_or_come_twice_only_cost_time(
    usage: UsageService, settings: MeteringSettings, tmp_path: Path, fault: MessageFault
) -> None:
    await usage.set_grace("a", 0)
    await usage.credit("a", 3 * HOLD)
    hints = FaultyHints(fault)
    sitting = replace(settings, lease_window_s=0.5)  # without a recall, idle funds come back after this
    asking = replace(settings, spool_dir=tmp_path / "asking")
    async with edge(usage.port, sitting, faults=hints) as one, edge(usage.port, asking) as other:
        await eventually(lambda: one.meter._recall.stands or fault is MessageFault.LOST)
        asked = {await patient_request(one, "a")}
        asked.add(await patient_request(other, "a"))
        asked.add(await patient_request(one, "a"))
        await eventually(lambda: hints.broken > 0)
    assert set(await outcomes(usage)) == asked
    balance = await usage.balance("a")
    assert (balance.charged_nanousd, balance.reserved_nanousd) == (3 * CHARGE, 0)
    await usage.audit()


async def test_a_bug_in_what_hears_a_recall_reaches_the_supervisor(
    local_usage: UsageService, settings: MeteringSettings
) -> None:
    def broken(*_: str) -> None:
        raise ValueError("a bug")

    async with edge(local_usage.port, settings) as side:
        deaf = RecallWatch(local_usage.metering, settings, broken, broken)
        deaf.use(side.meter._keeper._session)
        running = asyncio.create_task(deaf.run())
        await eventually(lambda: deaf.stands)
        await local_usage.credit("a", USD)
        with pytest.raises(ValueError, match="a bug"):
            await asyncio.wait_for(running, 10)
