"""usage_svc keeps captured inputs and outputs for as long as it may, and not a moment longer; on both engines."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text
from sqlalchemy.engine import make_url

from chassis.faults import InvalidArgument, NotFound, ResourceExhausted
from protos.usage.v1 import usage_pb2 as pb
from tests.harness.eventually import eventually
from tests.harness.usage_service import UsageService, new_id, usage_service
from usage_svc import log_store
from usage_svc.log_partitions import LogPartitions
from usage_svc.logs import Span, merged

DAY_S = 86_400
SECRET = "the-words-nobody-may-find-again"


@pytest.fixture
async def usage(database_url: str) -> AsyncIterator[UsageService]:
    async with usage_service(database_url) as service:
        yield service


@pytest.fixture
async def sweeping(database_url: str) -> AsyncIterator[UsageService]:
    """It sweeps all the time."""
    async with usage_service(database_url, log_sweep_interval_s=0.1) as service:
        yield service


def moment(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def id_of(seconds: float) -> str:
    """A UUIDv7 of that time."""
    digits = f"{round(seconds * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def log(account_id: str = "acme", *, expires_in_s: float = DAY_S, ended_ago_s: float = 1.0, **values: Any) -> pb.Log:
    now_s = time.time()
    return pb.Log(
        **{
            "request_id": new_id(),
            "account_id": account_id,
            "key_id": "key-1",
            "model_id": "some/model",
            "resource": pb.RESOURCE_CHAT_COMPLETIONS,
            "status_code": 200,
            "end_time": moment(now_s - ended_ago_s),
            "expire_time": moment(now_s + expires_in_s),
            "input": b'{"messages": []}',
            "input_bytes": 16,
            **values,
        }
    )


async def append(usage: UsageService, *logs: pb.Log) -> int:
    answer: pb.AppendLogsResponse = await usage.call(usage.metering.AppendLogs, pb.AppendLogsRequest(logs=logs))
    return answer.dropped


async def listed(usage: UsageService, account_id: str = "acme", **values: Any) -> list[str]:
    request = pb.ListLogsRequest(account_id=account_id, **values)
    return [each.request_id for each in (await usage.call(usage.logs.ListLogs, request)).logs]


async def get(usage: UsageService, kept: pb.Log, account_id: str = "acme") -> pb.Log:
    request = pb.GetLogRequest(account_id=account_id, request_id=kept.request_id)
    found: pb.Log = (await usage.call(usage.logs.GetLog, request)).log
    return found


async def delete(usage: UsageService, request_id: str, account_id: str = "acme") -> None:
    await usage.call(usage.logs.DeleteLog, pb.DeleteLogRequest(account_id=account_id, request_id=request_id))


async def delete_all(usage: UsageService, account_id: str = "acme", **values: Any) -> int:
    request = pb.DeleteLogsRequest(account_id=account_id, **values)
    return int((await usage.call(usage.logs.DeleteLogs, request)).deleted)


async def test_a_log_comes_back_as_it_was_sent_and_once_however_often_it_is_sent(usage: UsageService) -> None:
    stream = log(
        streamed=True,
        output=b'{"object": "chat.completion"}',
        output_raw=b"data: [DONE]\n\n",
        output_raw_truncated=True,
        output_bytes=10_000,
        resource=pb.RESOURCE_RESPONSES,
    )
    nothing = log(input=None, input_bytes=7, output=b"", status_code=499)
    for _ in range(3):
        assert await append(usage, stream, nothing) == 0
    for sent in (stream, nothing):
        kept = await get(usage, sent)
        for name in ("end_time", "expire_time"):  # microseconds are kept
            assert abs(getattr(kept, name).ToNanoseconds() - getattr(sent, name).ToNanoseconds()) < 1000
            getattr(kept, name).CopyFrom(getattr(sent, name))
        assert kept == sent
    request = pb.ListLogsRequest(account_id="acme")
    for each in (await usage.call(usage.logs.ListLogs, request)).logs:
        assert each.input == each.output == each.output_raw == b""
        whole = stream if each.request_id == stream.request_id else nothing
        assert each.HasField("input") == whole.HasField("input")
        assert each.HasField("output_raw") == whole.HasField("output_raw")


async def test_logs_are_listed_newest_first_page_by_page_and_filtered(usage: UsageService) -> None:
    logs = [
        log(ended_ago_s=100 - 10 * number, key_id=f"key-{number % 2}", model_id=f"m/{number % 3}")
        for number in range(6)
    ]
    await append(usage, *logs, log("bell"))
    newest_first = [each.request_id for each in reversed(logs)]
    assert await listed(usage) == newest_first
    assert await listed(usage, page_size=2, after_request_id=newest_first[1]) == newest_first[2:4]
    request = pb.ListLogsRequest(account_id="acme", page_size=4)
    page = await usage.call(usage.logs.ListLogs, request)
    assert await listed(usage, page_size=4, page_token=page.next_page_token) == newest_first[4:]
    assert await listed(usage, key_id="key-1") == newest_first[::2]
    assert await listed(usage, model_id="m/2") == newest_first[::3]
    assert await listed(usage, start_time=logs[2].end_time, end_time=logs[4].end_time) == newest_first[2:4]
    with pytest.raises(InvalidArgument) as caught:
        await listed(usage, after_request_id=new_id())
    assert caught.value.violations[0].field == "after_request_id"
    with pytest.raises(InvalidArgument):
        await listed(usage, page_token=page.next_page_token, key_id="key-1")


async def test_nobody_sees_or_deletes_the_logs_of_another_account(usage: UsageService) -> None:
    theirs = log()
    await append(usage, theirs)
    for call in (get(usage, theirs, "bell"), delete(usage, theirs.request_id, "bell")):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "LOG_NOT_FOUND"
    assert await delete_all(usage, "bell") == 0
    with pytest.raises(InvalidArgument):
        await listed(usage, "bell", after_request_id=theirs.request_id)
    assert await listed(usage, "bell") == []
    assert await listed(usage) == [theirs.request_id]


async def test_what_cannot_be_kept_is_dropped_and_stops_nothing_else(usage: UsageService) -> None:
    good = log()
    bad = [
        log(request_id="no-uuid"),
        log(account_id=""),
        log(account_id="a\0b"),
        log(key_id=""),
        log(key_id="k" * 101),
        log(model_id="m" * 201),
        log(status_code=-1),
        log(end_time=Timestamp()),
        log(ended_ago_s=-2 * DAY_S),
        log(expires_in_s=5000 * DAY_S),
        log(expires_in_s=-1),
        log(expire_time=Timestamp()),
        log(ended_ago_s=8 * DAY_S),
        log(input_bytes=-1),
    ]
    assert await append(usage, *bad[:7], good, *bad[7:]) == len(bad)
    assert await listed(usage) == [good.request_id]


async def test_a_deleted_log_stays_deleted_though_it_is_sent_again_or_comes_later(usage: UsageService) -> None:
    known, coming = log(), log()
    await append(usage, known)
    await delete(usage, known.request_id)
    with pytest.raises(NotFound):
        await get(usage, known)
    with pytest.raises(NotFound):
        await delete(usage, coming.request_id)
    assert await append(usage, known, coming) == 2
    assert await listed(usage) == []
    # Only for the account that deleted it.
    theirs = log("bell")
    with pytest.raises(NotFound):
        await delete(usage, theirs.request_id)
    assert await append(usage, theirs) == 0


async def test_a_time_is_deleted_with_what_is_on_its_way_and_nothing_after(usage: UsageService) -> None:
    old, middle, new = log(ended_ago_s=3000), log(ended_ago_s=2000), log(ended_ago_s=1000)
    theirs = log("bell", ended_ago_s=2000)
    await append(usage, old, middle, new, theirs)
    now_s = time.time()
    assert await delete_all(usage, start_time=moment(now_s - 2500), end_time=moment(now_s - 1500)) == 1
    assert await listed(usage) == [new.request_id, old.request_id]
    late_in, late_out = log(ended_ago_s=1900), log(ended_ago_s=1400)
    assert await append(usage, middle, late_in, late_out) == 2
    # Without an end: until now, and what ends later is kept.
    assert await delete_all(usage, end_time=moment(now_s + DAY_S)) == 3
    later = log(ended_ago_s=-60)
    assert await append(usage, log(ended_ago_s=5), later) == 1
    assert await listed(usage) == [later.request_id]
    assert await listed(usage, "bell") == [theirs.request_id]
    assert (await usage.rows("SELECT COUNT(*) FROM log_deletion")) == [(1,)], "one time has taken in the other"


async def test_more_logs_than_go_in_one_transaction_are_deleted(usage: UsageService) -> None:
    for _ in range(2):
        await append(usage, *(log() for _ in range(700)))
    assert await delete_all(usage) == 1400
    assert await usage.rows("SELECT COUNT(*) FROM request_log") == [(0,)]


async def test_deletions_of_what_is_not_there_are_bounded(usage: UsageService) -> None:
    forget_us = round(time.time() * 1e6) + DAY_S * 1_000_000
    here = log()
    await append(usage, here)

    async def one(request_id: str) -> bool | None:
        return await usage.database.write(
            lambda transaction: log_store.delete_one(transaction, "acme", request_id, forget_us, 2)
        )

    assert [await one(new_id()) for _ in range(3)] == [False, False, None]
    assert await one(here.request_id) is True
    for gap in range(3):
        start_us = (round(time.time()) - 1000 * (gap + 1)) * 1_000_000
        span = Span(start_us, start_us + 1_000_000)
        remembered = await usage.database.write(
            lambda transaction, span=span: log_store.remember_span(transaction, "acme", span, forget_us, 2)  # type: ignore[misc] # mypy cannot see a lambda's default
        )
        assert (remembered is None) is (gap == 2)


async def test_requests_that_cannot_be_are_refused(usage: UsageService) -> None:
    with pytest.raises(NotFound):
        await delete(usage, "../etc")
    with pytest.raises(NotFound):
        await delete(usage, id_of(time.time() + 3 * DAY_S))
    with pytest.raises(InvalidArgument):
        await delete_all(usage, start_time=moment(2000), end_time=moment(1000))
    with pytest.raises(InvalidArgument):
        await delete_all(usage, "")
    with pytest.raises(InvalidArgument):
        await append(usage, *(log(input=None) for _ in range(1001)))


async def test_an_arrival_and_a_deletion_at_once_leave_nothing(usage: UsageService) -> None:
    for _ in range(20):
        coming = log()
        results = await asyncio.gather(
            append(usage, coming), delete(usage, coming.request_id), append(usage, coming), return_exceptions=True
        )
        assert not isinstance(results[0], BaseException)
        with pytest.raises(NotFound):
            await get(usage, coming)


def found_in_files(url: str, words: str) -> list[str]:
    """The SQLite files, its write-ahead log included, that have the words in them."""
    file = Path(str(make_url(url).database))
    return [path.name for path in file.parent.glob(f"{file.name}*") if words.encode() in path.read_bytes()]


def files_below(folder: str, words: str) -> list[str]:
    """The files of a folder that have the words in them."""
    return [path.name for path in Path(folder).iterdir() if path.is_file() and words.encode() in path.read_bytes()]


async def tables_with(usage: UsageService, words: str) -> list[str]:
    """The tables of PostgreSQL, partitions included, that have the words in a row."""
    tables = [row[0] for row in await usage.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    found = []
    for table in tables:
        as_hex = words.encode().hex()
        rows = await usage.rows(f"SELECT 1 FROM {table} t WHERE t::text LIKE '%{words}%' OR t::text LIKE '%{as_hex}%'")
        found += [table] if rows else []
    return found


async def found(usage: UsageService, url: str, words: str = SECRET) -> list[str]:
    return found_in_files(url, words) if url.startswith("sqlite") else await tables_with(usage, words)


def secret_log(size: int, number: int = 0, **values: Any) -> pb.Log:
    """A log that is full of the words."""
    body = (f"{SECRET} {number} " * (size // len(SECRET) + 1)).encode()[: max(size, len(SECRET))]
    return log(**{"input": body, "output": body, "output_raw": body, **values})


async def test_nothing_of_a_log_survives_its_expiry(sweeping: UsageService, database_url: str) -> None:
    usage = sweeping
    sizes = [1, 50, 400, 2000, 4000, 5000, 9000, 100_000]
    await append(usage, *(secret_log(size, expires_in_s=1.5) for size in sizes), log())
    assert await found(usage, database_url), "the search finds what is there"
    await eventually(lambda: _one_is_left(usage), 20)
    assert await listed(usage) == [each[0] for each in await usage.rows("SELECT request_id FROM request_log")]

    async def gone() -> None:
        assert await found(usage, database_url) == []

    await eventually(gone, 10)


async def _one_is_left(usage: UsageService) -> bool:
    return await usage.rows("SELECT COUNT(*) FROM request_log") == [(1,)]


async def test_a_log_that_has_expired_is_not_shown_though_it_was_not_swept(database_url: str) -> None:
    async with usage_service(database_url, log_sweep_interval_s=3600) as usage:
        kept = log(expires_in_s=0.5)
        assert await append(usage, kept) == 0
        await eventually(lambda: _is_hidden(usage, kept), 10)
        assert await usage.rows("SELECT COUNT(*) FROM request_log") == [(1,)]
        with pytest.raises(NotFound):
            await delete(usage, kept.request_id)
        assert await usage.rows("SELECT COUNT(*) FROM request_log") == [(0,)]


async def _is_hidden(usage: UsageService, kept: pb.Log) -> bool:
    try:
        await get(usage, kept)
    except NotFound:
        return await listed(usage) == []
    return False


async def test_nothing_of_what_a_customer_deletes_survives_among_what_stays(
    usage: UsageService, database_url: str
) -> None:
    """Rows of all sizes come and go in between one another, so that SQLite rearranges its pages."""
    sizes = [1, 100, 300, 700, 1500, 3000, 4500, 8000, 20_000]
    doomed, staying = [], []
    for turn in range(12):
        batch = [secret_log(size, turn) for size in sizes]
        others = [log(input=b"x" * size) for size in sizes]
        await append(usage, *(each for pair in zip(batch, others, strict=True) for each in pair))
        doomed += batch
        staying += others
    for each in [*doomed[::3], *doomed[1::3], *doomed[2::3]]:
        await delete(usage, each.request_id)
    assert await found(usage, database_url) == []
    assert len(await listed(usage, page_size=1000)) == len(staying)


def pages_of(url: str) -> list[bytes]:
    data = Path(str(make_url(url).database)).read_bytes()
    return [data[start : start + 4096] for start in range(0, len(data), 4096)]


async def test_bodies_stand_in_pages_of_their_own(sqlite_url: str) -> None:
    """SQLite moves cells between the pages of its trees and leaves old copies in their gaps, with secure_delete too: of
    rows of mixed sizes some can be found again. Pages that hold a part of one row are cleared when they are freed."""
    async with usage_service(sqlite_url) as usage:
        await append(usage, *(secret_log(size) for size in range(10, 12_000, 400)))
        await eventually(usage.database.empty_sqlite_wal, 10)
    table_leaf = 13  # https://www.sqlite.org/fileformat2.html#b_tree_pages
    pages = pages_of(sqlite_url)
    assert any(SECRET.encode() in page for page in pages)
    assert not any(SECRET.encode() in page for page in pages if page[0] == table_leaf)


async def test_a_reader_in_the_way_only_delays_the_clearing_of_the_write_ahead_log(sqlite_url: str) -> None:
    async with usage_service(sqlite_url, log_sweep_interval_s=0.05) as usage:
        await append(usage, log())
        reader = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM request_log").fetchall()
        doomed = secret_log(50_000)
        await append(usage, doomed)
        await delete(usage, doomed.request_id)
        assert found_in_files(sqlite_url, SECRET), "the reader's state is still there"
        reader.close()
        await eventually(lambda: not found_in_files(sqlite_url, SECRET), 10)


async def test_postgresql_drops_the_partition_of_a_day_that_is_over(postgres_url_factory: Any) -> None:
    url = postgres_url_factory()
    async with usage_service(url, log_sweep_interval_s=0.05) as usage:
        today = int(time.time()) // DAY_S
        await append(usage, log(expires_in_s=3 * DAY_S), log(expires_in_s=3 * DAY_S), log(expires_in_s=5 * DAY_S))
        partitions = "SELECT relname FROM pg_class WHERE relname LIKE 'request_log_day_%' AND relkind = 'r' ORDER BY 1"
        made = [name for (name,) in await usage.rows(partitions)]
        assert made == [f"request_log_day_{today + 3}", f"request_log_day_{today + 5}"]
        yesterday = f"request_log_day_{today - 1}"
        async with usage.database.engine.begin() as connection:
            await connection.execute(
                text(f"CREATE TABLE {yesterday} PARTITION OF request_log FOR VALUES FROM ({today - 1}) TO ({today})")
            )

        async def dropped() -> None:
            assert [name for (name,) in await usage.rows(partitions)] == made

        await eventually(dropped, 10)
        assert len(await listed(usage)) == 3


async def test_a_full_vacuum_takes_what_a_customer_deleted_out_of_postgresqls_files(postgres_url_factory: Any) -> None:
    """As docs/logs.md says; the body is short, so that it stands in its row as it is and can be searched for."""
    async with usage_service(postgres_url_factory(), log_sweep_interval_s=3600) as usage:
        doomed, staying = secret_log(200, expires_in_s=300 * DAY_S), log(expires_in_s=300 * DAY_S)
        await append(usage, doomed, staying)
        [(folder,)] = await usage.rows(
            "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database "
            "WHERE datname = current_database()"
        )

        async def files_with_it(*statements: str) -> list[str]:
            engine = usage.database.engine.execution_options(isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                for statement in (*statements, "CHECKPOINT"):
                    await connection.execute(text(statement))
            return files_below(str(folder), SECRET)

        assert await files_with_it(), "the search finds what is there"
        await delete(usage, doomed.request_id)
        assert await files_with_it("VACUUM FULL request_log") == []
        assert await listed(usage) == [staying.request_id]


async def test_partitions_made_by_many_at_once_are_made_once(postgres_url_factory: Any) -> None:
    async with usage_service(postgres_url_factory(), log_sweep_interval_s=3600) as usage:
        makers = [LogPartitions(usage.database) for _ in range(6)]
        await asyncio.gather(*(maker.make([30_000, 30_001 + n % 2]) for n, maker in enumerate(makers)))
        rows = await usage.rows(
            "SELECT relname FROM pg_class WHERE relname LIKE 'request_log_day_3%' AND relkind = 'r'"
        )
        assert len(rows) == 3


async def test_deletions_are_forgotten_when_what_they_are_for_would_be_too_late(sweeping: UsageService) -> None:
    usage = sweeping
    day_us = DAY_S * 1_000_000
    now_us = round(time.time() * 1e6)
    async with usage.database.engine.execution_options(writes=True).begin() as connection:
        for days in (6, 8):
            await connection.execute(
                text("INSERT INTO log_deletion VALUES ('acme', '', :start, :end)"),
                {"start": days, "end": now_us - days * day_us},
            )

    async def forgotten() -> None:
        assert await usage.rows("SELECT start_time_us FROM log_deletion") == [(6,)]

    await eventually(forgotten, 10)


async def test_too_many_deletions_say_what_to_do(usage: UsageService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usage_svc.log_servicer.MAX_DELETIONS_AHEAD", 0)
    with pytest.raises(ResourceExhausted, match="try again") as caught:
        await delete(usage, new_id())
    assert caught.value.reason == "TOO_MANY_DELETIONS"


def test_times_that_touch_become_one() -> None:
    assert merged([Span(5, 7), Span(1, 3), Span(3, 4), Span(6, 9)]) == [Span(1, 4), Span(5, 9)]
