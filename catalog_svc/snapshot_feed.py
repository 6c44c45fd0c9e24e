"""The newest snapshot in memory, kept true by asking the database often, and its push to whoever watches."""

import asyncio
from collections.abc import AsyncIterator

from sqlalchemy.exc import SQLAlchemyError

from catalog_svc import metrics
from catalog_svc.convert import interval_to_pb
from catalog_svc.store import CatalogStore
from chassis.clock import Clock
from chassis.faults import ResourceExhausted, Unavailable
from chassis.log import logger
from protos.catalog.v1 import catalog_pb2 as pb

# A change at another replica is pushed within this and one query. SQLite has no replicas on other machines, and a poll
# there costs as much as twenty requests cost the service: a second process on the file may wait a little longer.
POLL_INTERVAL_S = 0.2
POLL_INTERVAL_SQLITE_S = 0.5
CHECK_TIMEOUT_S = 5.0
CHECK_AGE_S_MAX = 1.0  # a heartbeat says "nothing newer", so it needs a look at the database that is no older

_log = logger(__name__)


class SnapshotFeed:
    """One per process. `poll` must run beside it, and `close` ends every watch so that a server can stop."""

    def __init__(
        self, store: CatalogStore, clock: Clock, *, heartbeat_s: float, watches_max: int, poll_interval_s: float
    ) -> None:
        self._poll_interval_s = poll_interval_s
        self._store = store
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._watches_max = watches_max
        self._watches = 0
        self._newest: pb.Snapshot | None = None
        self._check_s = float("-inf")  # when the database was last asked with success, on the monotonic clock
        self._checking = asyncio.Lock()
        self._news = asyncio.Event()
        self._closed = False

    @property
    def number(self) -> int:
        """The newest number known; 0 for none."""
        return self._newest.number if self._newest is not None else 0

    async def newest(self) -> pb.Snapshot | None:
        """The newest snapshot, asked for now. Must not be altered: everybody shares it.

        Raises:
            Unavailable: the database cannot be asked.
        """
        called_s = self._clock.monotonic()
        async with self._checking:  # one after the other, so that an old answer never replaces a newer one
            if self._check_s < called_s:  # else somebody asked while this call waited
                await self._check()
        return self._newest

    async def _check(self) -> None:
        begin_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                if await self._store.newest_number() != self.number:
                    await self._load()
        except TimeoutError:
            raise Unavailable("DATABASE_UNREACHABLE", "the database does not answer; try again") from None
        recovered = begin_s - self._check_s > CHECK_AGE_S_MAX
        self._check_s = begin_s
        if recovered:
            self._tell()

    async def poll(self) -> None:
        """Asks the database for ever; its outages pass, and are logged at their begin and end."""
        reachable = True
        while True:
            try:
                await self.newest()
                if not reachable:
                    _log.info("database reachable again; heartbeats go on")
                reachable = True
            except (Unavailable, SQLAlchemyError, OSError) as error:
                metrics.WATCH_POLLS_FAILED.inc()
                if reachable:
                    _log.warning("database unreachable; watchers hear no heartbeat until it is back", error=str(error))
                reachable = False
            await asyncio.sleep(self._poll_interval_s)

    async def watch(self, after_number: int) -> AsyncIterator[pb.WatchSnapshotResponse]:
        """Each snapshot that the reader does not have, and heartbeats. Ends when the feed is closed.

        A heartbeat goes out at half the interval that it names, so that a slow network does not look like silence.

        Raises:
            ResourceExhausted: too many watches at once.
        """
        if self._watches >= self._watches_max:
            raise ResourceExhausted(
                "TOO_MANY_WATCHES", f"{self._watches_max} watches are open at this process: try another one, or later"
            )
        self._watches += 1
        metrics.WATCHES_OPEN.inc()
        try:
            async for message in self._messages(after_number):
                yield message
        finally:
            self._watches -= 1
            metrics.WATCHES_OPEN.dec()

    def close(self) -> None:
        """Ends every watch, open and future."""
        self._closed = True
        self._tell()

    async def _messages(self, sent_number: int) -> AsyncIterator[pb.WatchSnapshotResponse]:
        begin_s = self._clock.monotonic()
        heartbeat_due_s = begin_s
        try:
            await self.newest()
        except Unavailable:
            pass  # what is in memory is worth sending if it is newer; heartbeats wait for the database
        while not self._closed:
            news = self._news
            now_s = self._clock.monotonic()
            # A number below the reader's means that he had another catalog, but only once the database has said so:
            # memory may be behind what he saw at another replica.
            confirmed = self._check_s >= begin_s
            newest = self._newest
            if newest is not None and (newest.number > sent_number or (confirmed and newest.number != sent_number)):
                sent_number = newest.number
                yield pb.WatchSnapshotResponse(snapshot=newest)
                continue
            if now_s >= heartbeat_due_s and now_s - self._check_s <= CHECK_AGE_S_MAX:
                heartbeat_due_s = now_s + self._heartbeat_s / 2
                yield pb.WatchSnapshotResponse(
                    heartbeat=pb.SnapshotHeartbeat(number=self.number, interval=interval_to_pb(self._heartbeat_s))
                )
                continue
            # Overdue and the database silent: its return is news, so there is no time to wait for.
            await _wait(news, heartbeat_due_s - now_s if heartbeat_due_s > now_s else None)

    async def _load(self) -> None:
        stored = await self._store.newest_snapshot()
        self._newest = pb.Snapshot.FromString(stored.content) if stored is not None else None
        metrics.SNAPSHOT_NUMBER.set(self.number)
        metrics.MODELS.set(len(self._newest.models) if self._newest is not None else 0)
        metrics.DEPLOYMENTS.set(len(self._newest.deployments) if self._newest is not None else 0)
        self._tell()

    def _tell(self) -> None:
        """Wakes whoever waits for news."""
        self._news.set()
        self._news = asyncio.Event()


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
