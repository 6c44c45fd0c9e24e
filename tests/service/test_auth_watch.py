"""auth_svc: how edges learn of changes, on both engines, with several replicas, and through an outage."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.faults import InvalidArgument, Unavailable
from protos.auth.v1 import auth_pb2 as pb
from tests.harness.auth_service import AuthService, auth_service
from tests.harness.postgres_proxy import PostgresProxy

PATIENCE_S = 10.0

Messages = AsyncIterator[pb.WatchKeysResponse]


async def next_message(messages: Messages, kind: str = "") -> pb.WatchKeysResponse:
    """The next message, or the next one of a kind."""
    async with asyncio.timeout(PATIENCE_S):
        async for message in messages:
            if not kind or message.WhichOneof("message") == kind:
                return message
    raise AssertionError("the watch ended")


async def opened(messages: Messages) -> int:
    """Reads past the opening of a watch that follows nothing; the revision from which it goes on."""
    assert (await next_message(messages)).WhichOneof("message") == "reset"
    return (await next_message(messages, "heartbeat")).heartbeat.revision


async def until_silent(messages: Messages, silence_s: float) -> "asyncio.Task[pb.WatchKeysResponse]":
    """Reads heartbeats until none comes for so long; the read that is still waiting."""
    while True:
        waiting = asyncio.create_task(next_message(messages))
        await asyncio.wait([waiting], timeout=silence_s)
        if not waiting.done():
            return waiting
        assert waiting.result().WhichOneof("message") == "heartbeat"


@pytest.fixture
async def auth(database_url: str) -> AsyncIterator[AuthService]:
    async with auth_service(database_url, watch_heartbeat_s=1.0) as service:
        yield service


async def test_a_heartbeat_comes_at_once_and_again_within_its_interval(auth: AuthService) -> None:
    async with auth.watch() as messages:
        assert (await next_message(messages)).reset.revision > 0
        first = (await next_message(messages)).heartbeat
        assert first.interval.ToMilliseconds() == 1000
        start_s = time.monotonic()
        second = (await next_message(messages)).heartbeat
        assert time.monotonic() - start_s < 1.0
        assert second == first


async def test_a_revocation_is_seen_in_much_less_than_a_second(auth: AuthService) -> None:
    made = await auth.create_key(await auth.create_account())
    async with auth.watch() as messages:
        revision = await opened(messages)
        start_s = time.monotonic()
        await auth.revoke_key(made.key.key_id)
        change = (await next_message(messages, "change")).change
        assert time.monotonic() - start_s < 1.0
    assert change == pb.KeyChange(revision=revision + 1, key_id=made.key.key_id)
    assert (await auth.authenticate((await auth.create_key(await auth.create_account())).secret)).revision == (
        change.revision
    )


async def test_only_what_a_grant_holds_is_a_change(auth: AuthService) -> None:
    account = await auth.create_account()
    made = await auth.create_key(account)
    async with auth.watch() as messages:
        revision = await opened(messages)
        await auth.update_key(made.key.key_id, ["name"], name="another name")
        await auth.update_key(made.key.key_id, ["allowed_models"], allowed_models=["a/b"])
        await auth.update_key(made.key.key_id, ["allowed_models"], allowed_models=["a/b"])
        await auth.revoke_key(made.key.key_id)
        await auth.revoke_key(made.key.key_id)
        await auth.suspend(account)
        changes = [(await next_message(messages, "change")).change for _ in range(3)]
        beat = (await next_message(messages, "heartbeat")).heartbeat
    assert changes == [
        pb.KeyChange(revision=revision + 1, key_id=made.key.key_id),
        pb.KeyChange(revision=revision + 2, key_id=made.key.key_id),
        pb.KeyChange(revision=revision + 3, account_id=account.account_id),
    ]
    assert beat.revision == revision + 3


async def test_a_watch_resumes_where_it_ended_without_loss(auth: AuthService) -> None:
    account = await auth.create_account()
    keys = [(await auth.create_key(account)).key.key_id for _ in range(6)]
    async with auth.watch() as messages:
        revision = await opened(messages)
        for key_id in keys[:2]:
            await auth.revoke_key(key_id)
        for _ in range(2):
            await next_message(messages, "change")
    for key_id in keys[2:]:
        await auth.revoke_key(key_id)
    async with auth.watch(revision + 1) as messages:
        changes = [(await next_message(messages)).change for _ in range(5)]
        assert (await next_message(messages)).heartbeat.revision == revision + 6
    assert [change.key_id for change in changes] == keys[1:]
    assert [change.revision for change in changes] == list(range(revision + 2, revision + 7))


async def test_a_restarted_service_continues_the_history(database_url: str) -> None:
    async with auth_service(database_url) as first:
        made = await first.create_key(await first.create_account())
        async with first.watch() as messages:
            revision = await opened(messages)
        await first.revoke_key(made.key.key_id)
    async with auth_service(database_url) as second, second.watch(revision) as messages:
        change = (await next_message(messages)).change
        assert change == pb.KeyChange(revision=revision + 1, key_id=made.key.key_id)


async def test_a_reader_from_before_the_kept_history_starts_anew(database_url: str) -> None:
    async with auth_service(database_url, key_change_history_max=3) as auth:
        made = await auth.create_key(await auth.create_account())
        async with auth.watch() as messages:
            revision = await opened(messages)
        for days in range(1, 6):
            await auth.update_key(made.key.key_id, ["log_retention_days"], log_retention_days=days)
    # A new process, so that nothing is left in memory.
    async with auth_service(database_url, key_change_history_max=3) as auth:
        async with auth.watch(revision + 1) as messages:
            assert (await next_message(messages)).reset.revision == revision + 5
            assert (await next_message(messages)).heartbeat.revision == revision + 5
        async with auth.watch(revision + 2) as messages:
            revisions = [(await next_message(messages)).change.revision for _ in range(3)]
    assert revisions == [revision + 3, revision + 4, revision + 5]


async def test_a_reader_of_another_database_starts_anew(database_url: str, tmp_path: Path) -> None:
    async with auth_service(f"sqlite+aiosqlite:///{tmp_path / 'older.db'}") as older:
        async with older.watch() as messages:
            revision_of_older = await opened(messages)
        async with auth_service(database_url) as newer:
            async with newer.watch(revision_of_older) as messages:
                revision_of_newer = (await next_message(messages)).reset.revision
            assert revision_of_newer > revision_of_older
        async with older.watch(revision_of_newer) as messages:
            assert (await next_message(messages)).reset.revision == revision_of_older


async def test_a_negative_revision_is_refused(auth: AuthService) -> None:
    with pytest.raises(InvalidArgument, match="after_revision"):
        async with auth.watch(-1) as messages:
            await next_message(messages)


async def test_every_watcher_hears_every_change_in_order_while_writers_race(auth: AuthService) -> None:
    account = await auth.create_account()
    keys = [(await auth.create_key(account)).key.key_id for _ in range(30)]

    async def heard() -> list[pb.KeyChange]:
        async with auth.watch() as messages:
            await opened(messages)
            ready.release()
            return [(await next_message(messages, "change")).change for _ in keys]

    ready = asyncio.Semaphore(0)
    watchers = [asyncio.create_task(heard()) for _ in range(5)]
    for _ in watchers:
        await ready.acquire()
    await asyncio.gather(*(auth.revoke_key(key_id) for key_id in keys))
    histories = await asyncio.gather(*watchers)
    for history in histories:
        assert history == histories[0]
        assert sorted(change.key_id for change in history) == sorted(keys)
        revisions = [change.revision for change in history]
        assert revisions == list(range(revisions[0], revisions[0] + len(keys)))


async def test_a_stopping_server_ends_its_watches_so_that_they_go_elsewhere(auth: AuthService) -> None:
    async with auth.watch() as messages:
        await opened(messages)
        auth.lifetime.stop()
        start_s = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await next_message(messages, "change")
        assert caught.value.reason == "SHUTTING_DOWN"
        assert time.monotonic() - start_s < 1.0


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("postgres_url_factory")()
    return url


async def test_a_replica_tells_what_another_one_wrote_in_less_than_a_second(postgres_url: str) -> None:
    async with (
        auth_service(postgres_url) as one,
        auth_service(postgres_url) as other,
        one.watch() as at_one,
        other.watch() as at_other,
    ):
        await opened(at_one)
        await opened(at_other)
        account = await one.create_account()
        keys = [(await one.create_key(account)).key.key_id for _ in range(10)]
        start_s = time.monotonic()
        await asyncio.gather(*((one, other)[n % 2].revoke_key(key_id) for n, key_id in enumerate(keys)))
        first = [(await next_message(at_one, "change")).change for _ in keys]
        second = [(await next_message(at_other, "change")).change for _ in keys]
        assert time.monotonic() - start_s < 2.0  # ten commits included
        assert first == second
        assert sorted(change.key_id for change in first) == sorted(keys)


async def test_a_watcher_that_moves_to_a_replica_that_lags_is_not_reset(postgres_url: str) -> None:
    async with auth_service(postgres_url) as one, auth_service(postgres_url) as other:
        made = await one.create_key(await one.create_account())
        async with one.watch() as messages:
            await opened(messages)
            for days in range(1, 20):
                await one.update_key(made.key.key_id, ["log_retention_days"], log_retention_days=days)
                revision = (await next_message(messages, "change")).change.revision
                async with other.watch(revision) as elsewhere:
                    assert (await next_message(elsewhere)).heartbeat.revision == revision


async def test_without_the_database_watches_fall_silent_and_go_on_when_it_is_back(postgres_url: str) -> None:
    async with (
        auth_service(postgres_url) as writer,
        PostgresProxy(postgres_url) as wire,
        auth_service(wire.url, watch_heartbeat_s=1.0) as auth,
        auth.watch() as messages,
    ):
        revision = await opened(messages)
        made = await writer.create_key(await writer.create_account())
        await wire.cut()
        with pytest.raises(Unavailable) as caught:
            await auth.authenticate(made.secret)
        assert caught.value.reason == "DATABASE_UNREACHABLE"
        with pytest.raises(Unavailable):
            async with auth.watch(revision) as refused:
                await next_message(refused)
        await writer.revoke_key(made.key.key_id)
        silent = await until_silent(messages, 1.2)
        await wire.mend()
        await wire.mend()
        assert (await silent).change == pb.KeyChange(revision=revision + 1, key_id=made.key.key_id)
        assert (await next_message(messages)).heartbeat.revision == revision + 1
        assert (await auth.create_account()).account_id
