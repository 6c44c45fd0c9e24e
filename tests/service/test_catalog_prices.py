"""catalog_svc: prices over time, over gRPC, on both engines."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import col, select

from catalog_svc.tables import PriceVersionRow
from chassis.database import Database, open_engine
from chassis.faults import InvalidArgument
from tests.harness.catalog_service import CatalogService, ShiftedClock, catalog_service

MODEL = "models:\n  - {id: m, context_length: 10, prices: [%s]}\n"
DAY = timedelta(days=1)


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def service(database_url: str, clock: ShiftedClock) -> AsyncIterator[CatalogService]:
    async with catalog_service(database_url, clock=clock) as running:
        yield running


def document(*prices: tuple[datetime | None, str]) -> str:
    rows = []
    for moment, prompt in prices:
        effective = f"effective: {moment:%Y-%m-%dT%H:%M:%SZ}, " if moment is not None else ""
        rows.append(f"{{{effective}per_million: {{prompt: {prompt}, completion: 1}}}}")
    return MODEL % ", ".join(rows)


async def told(service: CatalogService) -> list[tuple[datetime, str]]:
    return [(price.effective_time.ToDatetime(tzinfo=UTC), price.prompt) for price in await service.prices("m")]


async def test_a_changed_price_begins_when_it_is_applied(service: CatalogService) -> None:
    await service.apply(document((None, "1")))
    before = datetime.now(UTC)
    response = await service.apply(document((None, "1"), (before - 9 * DAY, "2")))
    (_, old), (moment, new) = await told(service)
    assert (old, new) == ("0.000001", "0.000002")
    assert before <= moment <= datetime.now(UTC)
    assert [change.field for change in response.changes] == ["price.prompt"]


async def test_a_price_to_come_is_known_before_and_changes_nothing_when_it_comes(
    service: CatalogService, clock: ShiftedClock
) -> None:
    moment = (datetime.now(UTC) + DAY).replace(microsecond=0)
    text = document((None, "1"), (moment, "2"))
    await service.apply(text)
    known = await service.prices("m")
    assert [price.prompt for price in known] == ["0.000001", "0.000002"]
    for _ in range(3):
        clock.shift += DAY
        again = await service.apply(text)
        assert (again.number, len(again.changes)) == (1, 0)
        assert await service.prices("m") == known
    # The operator tidies up: what has ended is taken out, and what is in force loses its moment.
    assert (await service.apply(document((None, "2")))).number == 1
    assert await service.prices("m") == known


async def test_a_price_to_come_can_be_withdrawn(service: CatalogService) -> None:
    moment = (datetime.now(UTC) + DAY).replace(microsecond=0)
    await service.apply(document((None, "1"), (moment, "2")))
    response = await service.apply(document((None, "1")))
    (change,) = response.changes
    assert change.field == f"price from {moment:%Y-%m-%dT%H:%M:%SZ}"
    assert (change.before, change.after) == ("prompt 2 USD per 1M tokens, completion 1 USD per 1M tokens", "")
    assert [price.prompt for price in await service.prices("m")] == ["0.000001"]


async def test_ended_prices_leave_the_snapshot_after_a_day_and_the_history_never(
    service: CatalogService, clock: ShiftedClock, database_url: str
) -> None:
    names = []
    for prompt in ("1", "2", "3"):
        await service.apply(document((None, prompt)))
        names.append((await service.prices("m"))[-1].price_version)
        clock.shift += 2 * DAY
    await service.apply(document((None, "4")))
    assert [price.prompt for price in await service.prices("m")] == ["0.000003", "0.000004"]
    async with Database(open_engine(database_url)) as database, database.read() as session:
        rows = (await session.exec(select(PriceVersionRow).order_by(col(PriceVersionRow.effective_time)))).all()
    assert [row.price_version for row in rows][:3] == names
    assert [row.prompt for row in rows] == ["0.000001", "0.000002", "0.000003", "0.000004"]
    assert {row.model_id for row in rows} == {"m"}


async def test_a_removed_model_comes_back_as_a_new_one(service: CatalogService, clock: ShiftedClock) -> None:
    await service.apply(document((None, "1")))
    (first,) = await service.prices("m")
    await service.apply("models: []\n")
    clock.shift += DAY
    await service.apply(document((None, "1")))
    assert await service.prices("m") == [first]  # the same model, moment and vector have the same name
    await service.apply("models: []\n")
    await service.apply(document((None, "2")))
    (other,) = await service.prices("m")
    assert other.price_version != first.price_version


async def test_a_model_needs_a_price_now(service: CatalogService) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await service.apply(document((datetime.now(UTC) + DAY, "1")))
    assert "none is in force yet" in caught.value.violations[0].message


async def test_two_catalogs_give_one_price_one_name(database_url: str, sqlite_url: str) -> None:
    async with catalog_service(database_url) as one:
        await one.apply(document((None, "1")))
        here = await one.prices("m")
    async with catalog_service(sqlite_url + "-other") as other:
        await other.apply(document((None, "1")))
        assert await other.prices("m") == here
