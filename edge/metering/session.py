"""Keeps a metering session open: opens it, sends heartbeats, opens the next when usage_svc has given this one up."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from chassis.client import call
from chassis.clock import Clock
from chassis.faults import FailedPrecondition, Fault, NotFound
from chassis.log import logger
from edge.metering import metrics
from edge.metering.settings import MeteringSettings
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

_RETRY_S_MIN, _RETRY_S_MAX = 0.1, 2.0
_HEARTBEATS_PER_TTL = 5
_MISSED_MAX = 3  # heartbeats in a row without an acknowledgement: then usage_svc is away

_log = logger(__name__)


class SessionKeeper:
    """One task. `on_opened` gets each new session, before anything is admitted under it."""

    def __init__(
        self,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        spool_uuid: str,
        settings: MeteringSettings,
        clock: Clock,
        new_id: Callable[[], str],
        on_opened: Callable[[usage_pb2.OpenSessionResponse], Awaitable[None]],
    ) -> None:
        self._stub, self._spool_uuid, self._settings = stub, spool_uuid, settings
        self._clock, self._new_id, self._on_opened = clock, new_id, on_opened
        self._session = usage_pb2.Session()
        self._ttl_s = 0.0
        self._fenced = asyncio.Event()
        self.beat_time: float | None = None  # when the last acknowledged heartbeat was sent; None before the first
        # By the clock's monotonic time. usage_svc counts from the arrival of a heartbeat, which is after its sending;
        # so while we admit, it cannot have given us up (docs/billing.md, "Session, lease, spool").
        self.admit_until = float("-inf")

    @property
    def is_heard(self) -> bool:
        """Whether usage_svc has acknowledged a heartbeat lately."""
        if self.beat_time is None:
            return False
        return self._clock.monotonic() - self.beat_time < _MISSED_MAX * self._interval_s()

    async def run(self) -> None:
        """For ever.

        Raises:
            FailedPrecondition: the spool and usage_svc contradict each other (SPOOL_AHEAD).
        """
        while True:
            await self._open()
            await self._beat_until_fenced()

    def fence(self) -> None:
        """Somebody was told that this session is over."""
        self.admit_until = float("-inf")
        self._fenced.set()

    async def _open(self) -> None:
        request = usage_pb2.OpenSessionRequest(
            request_id=self._new_id(), spool_uuid=self._spool_uuid, edge_name=self._settings.edge_name[:200]
        )
        retry_s = _RETRY_S_MIN
        while True:
            sent = self._clock.monotonic()
            try:
                response = await call(self._stub.OpenSession, request, timeout_s=self._settings.rpc_timeout_s)
                break
            except Fault as fault:
                _log.warning("no metering session yet", reason=fault.reason, error=fault.message)
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                retry_s = min(retry_s * 2, _RETRY_S_MAX)
        await self._on_opened(response)
        self._session = response.session
        self._fenced.clear()
        self._acknowledge(sent, response.ttl.ToTimedelta().total_seconds())
        metrics.SESSION_OPENED.inc()
        _log.info("metering session opened", incarnation=self._session.incarnation, ttl_s=self._ttl_s)

    async def _beat_until_fenced(self) -> None:
        wait_s = self._interval_s()
        while True:
            try:
                await asyncio.wait_for(self._fenced.wait(), wait_s)
            except TimeoutError:
                pass
            if self._fenced.is_set() or not await self._beat():
                _log.warning("metering session fenced", incarnation=self._session.incarnation)
                self.fence()
                return
            wait_s = self._interval_s()

    async def _beat(self) -> bool:
        """Whether the session may still be alive."""
        sent = self._clock.monotonic()
        try:
            response = await call(
                self._stub.Heartbeat,
                usage_pb2.HeartbeatRequest(session=self._session),
                timeout_s=max(self._interval_s(), 0.5),
            )
        except (FailedPrecondition, NotFound):
            return False
        except Fault as fault:
            _log.warning("heartbeat failed", reason=fault.reason, error=fault.message)
            return True
        self._acknowledge(sent, response.ttl.ToTimedelta().total_seconds())
        return True

    def _acknowledge(self, sent: float, ttl_s: float) -> None:
        if self._fenced.is_set():
            return
        self._ttl_s, self.beat_time = ttl_s, sent
        self.admit_until = sent + ttl_s - self._settings.session_margin_s

    def _interval_s(self) -> float:
        return min(self._ttl_s / _HEARTBEATS_PER_TTL, self._settings.heartbeat_s_max)
