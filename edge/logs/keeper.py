"""Takes captures from requests, has them written beside the event loop, and sends them to usage_svc.

A request hands over what was captured and goes on: writing and sending are tasks of their own, and what they cannot
take is dropped and counted.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from chassis.client import call
from chassis.clock import Clock
from chassis.faults import Fault, InvalidArgument
from chassis.lifetime import Lifetime, end_tasks
from chassis.log import logger
from edge.access.key_cache import Grant
from edge.http.record import RequestRecord
from edge.logs import metrics
from edge.logs.capture import Capture, CaptureBounds, MemoryBudget
from edge.logs.spool import Batch, LogSpool
from edge.openai.ask import Ask
from protos.usage.v1 import usage_pb2, usage_pb2_grpc

BATCH_BYTES_MAX = 1024 * 1024
BATCH_LOGS_MAX = 500
_RETRY_S_MIN, _RETRY_S_MAX = 0.1, 5.0
_SWEEP_S = 10.0
_DRAIN_S = 2.0  # at the end: how long to go on sending
_POLL_S = 0.02

_log = logger(__name__)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Sizes in bytes, durations in seconds."""

    folder: Path
    body_bytes_max: int
    retention_days: int
    spool_bytes_max: int
    memory_bytes_max: int
    free_bytes_min: int  # of the disk; what the usage's spool may still want of it
    rpc_timeout_s: float


class LogKeeper:
    """Use it as a context; `begin` a capture for a request whose key logs."""

    def __init__(
        self,
        settings: LogSettings,
        stub: "usage_pb2_grpc.MeteringServiceAsyncStub",
        clock: Clock,
        process: Lifetime,
    ) -> None:
        self._settings, self._stub, self._clock, self._process = settings, stub, clock, process
        self._bounds = CaptureBounds(settings.body_bytes_max, settings.retention_days)
        self._budget = MemoryBudget(settings.memory_bytes_max)
        self._spool = LogSpool(settings.folder, settings.spool_bytes_max, settings.free_bytes_min)
        self._ended: list[Capture] = []
        self._written, self._to_write = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._tasks: list[asyncio.Task[None]] = []
        self._one_by_one = 0  # so many logs are sent alone, since one of them was refused
        metrics.LOG_SPOOL_BYTES.set_function(lambda: float(self._spool.used_bytes))
        metrics.LOG_MEMORY_BYTES.set_function(lambda: float(self._budget.used_bytes))

    async def __aenter__(self) -> "LogKeeper":
        """Raises: OSError: the folder cannot be used."""
        await self._on_thread(self._spool.open)
        self._tasks = [
            self._process.supervise("log writer", self._write_for_ever()),
            self._process.supervise("log sender", self._send_for_ever()),
            self._process.supervise("log sweeper", self._sweep_for_ever()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self.until_sent()
        except TimeoutError:
            pass
        await end_tasks(self._tasks)
        await self._write()
        await self._on_thread(self._spool.close)
        self._thread.shutdown()

    async def until_sent(self) -> None:
        """Waits until usage_svc has everything; the caller bounds it."""
        while self._ended or self._budget.used_bytes or not self._spool.is_empty:  # noqa: ASYNC110 - only at the end
            await asyncio.sleep(_POLL_S)

    # -- for requests --

    def begin(
        self,
        record: RequestRecord,
        grant: Grant,
        resource: "usage_pb2.Resource.ValueType",
        ask: Ask,
    ) -> Capture:
        """Begins to remember a request. Only for a grant that logs."""
        return Capture(self._bounds, self._budget, record, grant, resource, ask, self._take)

    def _take(self, capture: Capture) -> None:
        if capture.ended_at_s is None:
            capture.ended_at_s = self._clock.epoch_s()
        self._ended.append(capture)
        self._to_write.set()

    # -- to disk --

    async def _write_for_ever(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            await self._write()

    async def _write(self) -> None:
        captures, self._ended = self._ended, []
        if not captures:
            return
        try:
            dropped = await self._on_thread(lambda: self._append(captures))
        finally:
            self._budget.give_back(sum(capture.held_bytes for capture in captures))
        for why, count in dropped.items():
            metrics.LOGS.labels(why).inc(count)
        self._written.set()

    def _append(self, captures: Sequence[Capture]) -> dict[str, int]:
        logs = [log for log in (capture.log() for capture in captures) if log is not None]
        return self._spool.append([(log.expire_time.seconds, log.SerializeToString()) for log in logs])

    # -- to usage_svc --

    async def _send_for_ever(self) -> None:
        retry_s = _RETRY_S_MIN
        while True:
            self._written.clear()
            batch = await self._on_thread(self._read)
            if batch is None:
                await self._written.wait()
            elif await self._send(batch):
                retry_s = _RETRY_S_MIN
            else:
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                retry_s = min(retry_s * 2, _RETRY_S_MAX)

    def _read(self) -> Batch | None:
        return self._spool.read(BATCH_BYTES_MAX, 1 if self._one_by_one else BATCH_LOGS_MAX)

    async def _send(self, batch: Batch) -> bool:
        """Whether it is done with; otherwise it should be tried again later."""
        count = len(batch.bodies)
        if count:
            request = await self._on_thread(
                lambda: usage_pb2.AppendLogsRequest(logs=[usage_pb2.Log.FromString(body) for body in batch.bodies])
            )
            try:
                response = await call(self._stub.AppendLogs, request, timeout_s=self._settings.rpc_timeout_s)
            except InvalidArgument as fault:
                _log.error("logs refused", count=count, reason=fault.reason)
                if count > 1:
                    self._one_by_one = count
                    return True
                metrics.LOGS.labels("refused").inc()
            except Fault as fault:
                _log.warning("logs not sent", count=count, reason=fault.reason)
                return False
            else:
                metrics.LOGS.labels("not_kept").inc(response.dropped)
                metrics.LOGS.labels("sent").inc(count - response.dropped)
        if batch.damaged:
            _log.error("log spool damaged", folder=str(self._settings.folder), logs=batch.damaged)
            metrics.LOGS.labels("damaged").inc(batch.damaged)
        self._one_by_one = max(0, self._one_by_one - count)
        await self._on_thread(lambda: self._spool.done(batch))
        return True

    # -- what may not wait --

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._sweep()
            await asyncio.sleep(_SWEEP_S)

    async def _sweep(self) -> None:
        now_s = self._clock.epoch_s()
        expired, crowded = await self._on_thread(lambda: (self._spool.erase_expired(now_s), self._spool.make_room()))
        for why, count in (("expired", expired), ("disk_full", crowded)):
            if count:
                metrics.LOGS.labels(why).inc(count)
                _log.warning("logs lost", why=why, count=count)

    async def _on_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
