"""Carries hints between the replicas of one PostgreSQL database: NOTIFY and LISTEN, so that nobody polls.

One connection of its own for each process, beside the pool; while it is down (or behind a pooler that does not pass
notifications), edges of other replicas learn of nothing, and funds come back later by themselves.
"""

import asyncio
import json
import random
from collections import deque

import asyncpg
import uuid_utils

from chassis.database import Database
from chassis.faults import Unavailable
from chassis.log import logger
from usage_svc.driver import open_with
from usage_svc.sessions import SessionId
from usage_svc.signals import Funds, Hint, Recall, Signals

MAX_WAITING = 10_000
CONNECT_TIMEOUT_S = 10.0
RETRY_S = 1.0

_log = logger(__name__)


class Replicas:
    """Run `run` beside everything else on PostgreSQL. SQLite has one process, and needs none of this."""

    def __init__(self, database: Database, signals: Signals) -> None:
        self._database, self._signals = database, signals
        self._sender = str(uuid_utils.uuid7())
        self._waiting: deque[str] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._is_connected = False

    async def run(self) -> None:
        """Until cancelled: connects, listens, sends; again whenever the connection is lost."""
        self._signals.forward = self._forward
        while True:
            try:
                await self._listen()
            except (Unavailable, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("no hints between replicas", error=str(error))
            self._is_connected = False
            self._waiting.clear()  # old hints are of no use
            await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter

    async def _listen(self) -> None:
        async with self._database.read() as transaction:
            _, rows = await open_with(transaction, "SELECT current_schema()")
        channel = f"tollgate_usage_{rows[0][0]}"
        engine = self._database.engine
        _, options = engine.dialect.create_connect_args(engine.url)
        connection = await asyncpg.connect(**options, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.add_termination_listener(lambda _: self._wake.set())
            await connection.add_listener(channel, lambda *heard: self._hear(heard[3]))
            self._is_connected = True
            while not connection.is_closed():
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await connection.execute("SELECT pg_notify($1, $2)", channel, self._waiting.popleft())
        finally:
            connection.terminate()

    def _forward(self, hint: Hint) -> None:
        if not self._is_connected:
            return
        message = [self._sender, hint.account_id]
        if isinstance(hint, Recall):
            message += [hint.lease_id, hint.session_id.spool_uuid, str(hint.session_id.incarnation)]
        self._waiting.append(json.dumps(message))
        self._wake.set()

    def _hear(self, payload: str) -> None:
        sender, account_id, *recall = json.loads(payload)
        if sender == self._sender:
            return  # told to our own watchers before it was sent
        if recall:
            lease_id, spool_uuid, incarnation = recall
            self._signals.hear(Recall(SessionId(spool_uuid, int(incarnation)), lease_id, account_id))
        else:
            self._signals.hear(Funds(account_id))
