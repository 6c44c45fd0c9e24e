"""Tells every watcher of this process what changed: one task asks the database, all watchers read what it found.

Other replicas write too, so the database is polled; a change made by this process is looked for at once. What is
promised to watchers is decided in key_changes.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from auth_svc import metrics, store
from auth_svc.key_changes import Gap, KeyChange, RecentChanges, is_complete
from chassis.clock import Clock
from chassis.database import Database
from chassis.faults import Unavailable
from chassis.lifetime import Lifetime
from chassis.log import logger

# A revocation at another replica must be at every edge within a second: this is most of what we spend of it.
POLL_S = 0.2
POLL_SQLITE_S = 0.5  # no replicas on other machines there, and a poll costs as much as several look-ups
BATCH_MAX = 1000
RECENT_MAX = 10_000

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Everything up to the revision was sent, and the database confirmed a moment ago that there is no more."""

    revision: int


@dataclass(frozen=True, slots=True)
class Reset:
    """What lies between the watcher's revision and this one is not known."""

    revision: int


class ChangeFeed:
    """The changes of one database, for any number of watchers. Run `poll_until_stopped` beside everything else."""

    def __init__(self, database: Database, clock: Clock, lifetime: Lifetime, revision: int, heartbeat_s: float) -> None:
        self._database, self._clock, self._lifetime = database, clock, lifetime
        # The reader is promised to hear something within heartbeat_s: half of it is left for the way.
        self._beat_s = heartbeat_s / 2
        self._poll_s = POLL_SQLITE_S if database.is_sqlite else POLL_S
        self._recent = RecentChanges(revision, RECENT_MAX)
        self._confirm_time_s = clock.monotonic()
        self._reachable = True
        self._seen_version: int | None = None  # of the database, when all of it was in `_recent`
        self._polling = asyncio.Lock()
        self._poll_now = asyncio.Event()
        self._news = asyncio.Event()

    def look_now(self) -> None:
        """Asks for a poll at once: this process has just written something."""
        self._poll_now.set()

    async def poll_until_stopped(self) -> None:
        """Polls until the process is asked to stop, then ends every watch. A database that is away is waited for."""
        while not self._lifetime.stopping:
            try:
                await self._poll()
            except Unavailable as fault:
                metrics.WATCH_POLLS_FAILED.inc()
                if self._reachable:
                    _log.warning("database lost; watchers hear nothing until it is back", failure=str(fault))
                self._reachable = False
            await _set_or_timeout(self._poll_now, self._poll_s)
            self._poll_now.clear()
        self._wake_watchers()

    async def follow(self, after_revision: int) -> AsyncGenerator[KeyChange | Heartbeat | Reset]:
        """What a watcher is sent, from its first message until the process stops.

        Raises:
            Unavailable: the database cannot be asked where the watcher stands, or the process stops (SHUTTING_DOWN).
        """
        # Another replica may have shown the watcher more than we have seen yet; now we see at least as much.
        await self._poll()
        sent_revision, next_beat_s = after_revision, self._clock.monotonic()
        while not self._lifetime.stopping:
            news = self._news  # taken before reading: a change that comes after is in it
            changes = await self._changes_after(sent_revision)
            if changes is None:
                sent_revision = self._recent.revision
                yield Reset(sent_revision)
                continue
            for change in changes:
                yield change
                sent_revision = change.revision
            if changes:
                continue
            now_s = self._clock.monotonic()
            if now_s >= next_beat_s and now_s - self._confirm_time_s < self._beat_s:
                next_beat_s = now_s + self._beat_s
                yield Heartbeat(sent_revision)
                continue
            # A beat that is due but not confirmed waits for the next poll's answer.
            await _set_or_timeout(news, max(next_beat_s - now_s, POLL_S / 2))
        raise Unavailable("SHUTTING_DOWN", "this server stops: watch another one, from the last revision seen")

    async def _changes_after(self, revision: int) -> Sequence[KeyChange] | None:
        """Some that follow; empty if there are none yet; None if the watcher must start anew."""
        changes = self._recent.after(revision, BATCH_MAX)
        if changes is Gap.FROM_ELSEWHERE:
            return None
        if changes is Gap.TOO_OLD:
            async with self._database.read() as session:
                history = await store.changes_after(session, revision, BATCH_MAX)
            return history.changes if is_complete(revision, history) else None
        return changes

    async def _poll(self) -> None:
        async with self._polling:  # watchers that start poll too, and two must not add the same changes
            asked_s = self._clock.monotonic()
            before, version = self._recent.revision, self._database.data_version()
            while version is None or version != self._seen_version:
                async with self._database.read() as session:
                    history = await store.changes_after(session, self._recent.revision, BATCH_MAX)
                if not is_complete(self._recent.revision, history):
                    _log.warning("history lost; watchers start anew", revision=history.revision)
                    self._recent.restart(history.revision)
                elif history.changes:
                    self._recent.extend(history.changes)
                if len(history.changes) < BATCH_MAX:
                    self._seen_version = version
                    break
            if not self._reachable:
                _log.info("database found again", revision=self._recent.revision)
            self._reachable = True
            self._confirm_time_s = asked_s
            metrics.WATCH_REVISION.set(self._recent.revision)
            if self._recent.revision != before:
                self._wake_watchers()

    def _wake_watchers(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _set_or_timeout(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
