"""catalog_svc: watching for snapshots, on both engines."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import REGISTRY

from chassis.faults import InvalidArgument, ResourceExhausted, Unavailable
from tests.harness.catalog_service import CatalogService, catalog_service
from tests.harness.eventually import eventually
from tests.harness.postgres_proxy import PostgresProxy

MODEL = "models: [{id: a, context_length: 10, prices: [{per_million: {prompt: 1, completion: 1}}]}]\n"
OTHER = MODEL.replace("10", "11")


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[CatalogService]:
    async with catalog_service(database_url) as running:
        yield running


@pytest.fixture
async def postgres_proxy(postgres_url_factory: Callable[[], str]) -> AsyncIterator[PostgresProxy]:
    async with PostgresProxy(postgres_url_factory()) as proxy:
        yield proxy


async def test_the_newest_snapshot_comes_at_once_and_then_a_heartbeat(service: CatalogService) -> None:
    await service.apply(MODEL)
    await service.apply(OTHER)
    async with service.watch() as watch:
        first, second = await watch.next(), await watch.next(1.0)
    assert first.snapshot == await service.snapshot()
    assert second.heartbeat.number == 2
    assert second.heartbeat.interval.ToMilliseconds() == 2000


async def test_a_reader_that_has_it_hears_a_heartbeat_at_once(service: CatalogService) -> None:
    await service.apply(MODEL)
    async with service.watch(after_number=1) as watch:
        assert (await watch.next(1.0)).heartbeat.number == 1


async def test_a_reader_of_an_empty_catalog_hears_heartbeats_and_then_the_first_snapshot(
    service: CatalogService,
) -> None:
    async with service.watch(after_number=7) as watch:
        assert (await watch.next(1.0)).heartbeat.number == 0
        await service.apply(MODEL)
        assert (await watch.next_snapshot(1.0)).number == 1


async def test_a_reader_that_had_another_catalog_gets_this_one(service: CatalogService) -> None:
    await service.apply(MODEL)
    async with service.watch(after_number=9000) as watch:
        assert (await watch.next(1.0)).snapshot.number == 1
        assert (await watch.next(1.0)).heartbeat.number == 1


async def test_a_change_is_pushed_within_a_second_whichever_replica_takes_it(database_url: str) -> None:
    async with (
        catalog_service(database_url) as one,
        catalog_service(database_url) as other,
        one.watch() as near,
        other.watch() as far,
    ):
        assert (await near.next()).heartbeat.number == (await far.next()).heartbeat.number == 0
        for number, document in ((1, MODEL), (2, OTHER), (3, MODEL)):
            await one.apply(document)
            start_s = time.monotonic()
            pushed = [await near.next_snapshot(), await far.next_snapshot()]
            assert time.monotonic() - start_s < 1.0
            assert [snapshot.number for snapshot in pushed] == [number, number]
            assert pushed[0] == pushed[1]


async def test_heartbeats_come_within_the_interval_that_they_name(database_url: str) -> None:
    async with catalog_service(database_url, watch_heartbeat_s=0.5) as service, service.watch() as watch:
        first = await watch.next()
        for _ in range(4):
            assert (await watch.next(first.heartbeat.interval.ToMilliseconds() / 1000)).HasField("heartbeat")


async def test_a_watch_ends_when_the_service_stops(database_url: str) -> None:
    async with catalog_service(database_url, drain_s=10.0) as service, service.watch() as watch:
        await watch.next()
        service.lifetime.stop()
        with pytest.raises(StopAsyncIteration):
            await watch.next()


async def test_watches_are_bounded_and_make_room_when_they_end(database_url: str) -> None:
    async with catalog_service(database_url, watches_max=1) as service:
        async with service.watch() as watch:
            await watch.next()
            assert REGISTRY.get_sample_value("tollgate_catalog_watches_open") == 1
            async with service.watch() as refused:
                with pytest.raises(ResourceExhausted) as caught:
                    await refused.next()
                assert caught.value.reason == "TOO_MANY_WATCHES"

        async def there_is_room() -> bool:
            try:
                async with service.watch() as next_watch:
                    return (await next_watch.next()).HasField("heartbeat")
            except ResourceExhausted:
                return False

        assert await eventually(there_is_room)


async def test_a_negative_number_is_refused(service: CatalogService) -> None:
    async with service.watch(after_number=-1) as watch:
        with pytest.raises(InvalidArgument) as caught:
            await watch.next()
    assert caught.value.violations[0].field == "after_number"


async def test_an_outage_of_the_database_silences_watches_until_it_is_over(postgres_proxy: PostgresProxy) -> None:
    async with catalog_service(postgres_proxy.url, watch_heartbeat_s=0.5) as service, service.watch() as watch:
        assert (await watch.next()).heartbeat.number == 0
        await service.apply(MODEL)
        assert (await watch.next_snapshot()).number == 1
        await postgres_proxy.cut()

        async def silent() -> bool:
            try:
                await watch.next(1.5)
            except TimeoutError:
                return True
            return False

        # The read that timed out has ended this watch; the next one starts in the outage.
        assert await eventually(silent, timeout_s=10.0)
        with pytest.raises(Unavailable):
            await service.snapshot()
        with pytest.raises(Unavailable):
            await service.apply(OTHER)
        async with service.watch() as blind, service.watch(after_number=9) as ahead:
            assert (await blind.next()).snapshot.number == 1  # from memory, newer than nothing
            waiting = asyncio.ensure_future(ahead.next(20.0))
            assert service.lifetime.failure is None
            await postgres_proxy.mend()
            assert (await blind.next(10.0)).heartbeat.number == 1
            assert (await waiting).snapshot.number == 1  # only now is it sure that the reader had another catalog
        assert (await service.apply(OTHER)).number == 2


async def test_the_metrics_tell_what_is_served(service: CatalogService) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"tollgate_catalog_{name}", labels) or 0.0

    before = {
        result: value("applications_total", result=result)
        for result in ("changed", "unchanged", "repeated", "dry_run", "invalid")
    }
    await service.apply(MODEL, "the same")
    await service.apply(MODEL, "the same")
    await service.apply(MODEL)
    await service.apply(OTHER, dry_run=True)
    with pytest.raises(InvalidArgument):
        await service.apply("nothing")
    await service.snapshot()
    assert {result: value("applications_total", result=result) - before[result] for result in before} == {
        "changed": 1,
        "unchanged": 1,
        "repeated": 1,
        "dry_run": 1,
        "invalid": 1,
    }
    assert (value("snapshot_number"), value("models"), value("deployments")) == (1, 1, 0)
