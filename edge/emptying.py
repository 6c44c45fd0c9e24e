"""Ships what is left in the spool of a process that there is no more, and ends."""

import asyncio

from chassis.client import channel
from chassis.clock import SystemClock
from chassis.faults import Unavailable
from chassis.lifetime import Lifetime
from chassis.log import logger
from edge.assembly import log_settings, metering_settings
from edge.group_folders import holds_logs, holds_usage
from edge.logs.keeper import LogKeeper
from edge.metering.meter import Meter
from edge.settings import EdgeSettings
from protos.usage.v1 import usage_pb2_grpc

_log = logger(__name__)

SESSION_S_MAX = 30.0
_POLL_S = 0.1


async def emptied(configured: EdgeSettings, process: Lifetime) -> None:
    """Opens the spool as an edge would, which takes up what it holds, and closes it as an edge would, which ships it.

    Raises:
        Unavailable: not everything is shipped (SPOOL_NOT_EMPTY); nothing is lost, it can be tried again.
        FailedPrecondition: another process has the spool (SPOOL_IN_USE).
    """
    async with channel(configured.usage_address, configured.tls_files) as usage:
        stub = usage_pb2_grpc.MeteringServiceStub(usage)
        clock = SystemClock()
        async with (
            Meter(metering_settings(configured), stub, clock, process) as meter,
            LogKeeper(log_settings(configured), stub, clock, process) as logs,
        ):
            try:
                async with asyncio.timeout(SESSION_S_MAX):
                    while not meter.ready and not process.stopping:  # noqa: ASYNC110 - as long as this is short
                        await asyncio.sleep(_POLL_S)
                    if not process.stopping:
                        await logs.until_sent()
            except TimeoutError:
                pass
    if holds_usage(configured.data_dir) or holds_logs(configured.data_dir):
        raise Unavailable(
            "SPOOL_NOT_EMPTY", f"the spool in {configured.data_dir} still holds usage or logs: it is tried again"
        )
    _log.info("spool emptied", folder=str(configured.data_dir))
