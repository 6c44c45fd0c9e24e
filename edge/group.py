"""Several edge processes on one port: started by exec, watched, started again when they die, stopped together.

Each member binds the port with SO_REUSEPORT, and the kernel gives each connection to one of them. They share nothing
else: each has its own spool, leases and caches. This process serves no request; it holds the port's number, shows the
sum of the members' metrics, and passes the request to stop on.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from chassis import lifetime
from chassis.faults import PortTaken, Unavailable
from chassis.lifetime import Lifetime
from chassis.log import logger
from chassis.metrics import MetricsServer
from edge.group_folders import folder_of, left_behind
from edge.group_metrics import Tally
from edge.group_scrape import PROCESS_RESTARTS, GroupMetrics
from edge.settings import EdgeSettings

_log = logger(__name__)

READY_S_MAX = 90.0
_READY_POLL_S = 0.05
# A member that dies is started again after this; twice as long each time, until one has lived for LIVED_S.
_RESTART_S_MIN, _RESTART_S_MAX = 0.5, 30.0
LIVED_S = 60.0
_EMPTY_AGAIN_S = 60.0
# What a member may take to stop beyond its own drain: shipping, and closing what it has open.
_STOP_MARGIN_S = 30.0


class MemberFailed(Unavailable):
    """A member did not come up with the group; the log says why."""


class Member:
    """One place in the group, whichever process has it."""

    def __init__(self, number: int, configured: EdgeSettings, port: int, lifeline: int) -> None:
        self.number, self.tally = number, Tally()
        self.folder = folder_of(configured.data_dir, number)
        self._ready_file = self.folder / "ready.json"
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = lifeline
        self._environment = {
            "TOLLGATE_EDGE_PROCESSES": "1",
            "TOLLGATE_EDGE_DATA_DIR": str(self.folder),
            "TOLLGATE_EDGE_LISTEN_PORT": str(port),
            "TOLLGATE_EDGE_METRICS_HOST": "127.0.0.1",
            "TOLLGATE_EDGE_METRICS_PORT": "0",
            "TOLLGATE_EDGE_READY_FILE": str(self._ready_file),
        }

    async def start(self) -> None:
        """Returns when it serves.

        Raises:
            MemberFailed: it ended, or took too long.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        self._process = await _exec(self._environment, self._lifeline)
        deadline_s = time.monotonic() + READY_S_MAX
        while not self._ready_file.exists():
            if self._process.returncode is not None:
                raise MemberFailed("MEMBER_FAILED", f"process {self.number} {_how(self._process.returncode)}")
            if time.monotonic() > deadline_s:
                self.signal(signal.SIGKILL)
                raise MemberFailed("MEMBER_FAILED", f"process {self.number} was not ready in {READY_S_MAX:.0f} s")
            await asyncio.sleep(_READY_POLL_S)
        self.tally.began(json.loads(self._ready_file.read_text())["metrics_port"])

    async def ended(self) -> int:
        """Waits for its end. Returns the exit status, negative for a signal."""
        assert self._process is not None
        status = await self._process.wait()
        self.tally.died()
        return status

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.alive and self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        if self.alive and self._process is not None:
            self._process.send_signal(number)

    async def stopped(self, within_s: float) -> None:
        """Waits for the end of what was asked to stop, and ends it if it takes too long."""
        if self._process is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            _log.error("killed: it did not stop", process_number=self.number, after_s=within_s)
            self.signal(signal.SIGKILL)
            await self._process.wait()


async def serve_group(configured: EdgeSettings, process: Lifetime) -> None:
    """Serves until the process is told to stop; then every member drains.

    Raises:
        PortTaken: the port or the metrics port is in use.
        MemberFailed: a member did not come up; the others are stopped.
    """
    async with AsyncExitStack() as stack:
        reserved, port = _reserved_port(configured)
        stack.callback(reserved.close)
        lifeline, ours = os.pipe()
        stack.callback(os.close, ours)
        stack.callback(os.close, lifeline)
        members = [Member(number, configured, port, lifeline) for number in range(configured.processes)]
        metrics = GroupMetrics(members)
        server = await stack.enter_async_context(
            MetricsServer(configured.metrics_host, configured.metrics_port, metrics.registry)
        )
        stack.push_async_callback(_stop, members, configured)
        started = await asyncio.gather(*(member.start() for member in members), return_exceptions=True)
        for failure in filter(None, started):
            raise failure
        for member in members:
            stack.callback(process.supervise(f"member {member.number}", _kept_alive(member, process)).cancel)
        emptying = process.supervise("left behind", _empty(configured, lifeline, process))
        stack.callback(emptying.cancel)
        lifetime.announce_ready(
            configured.ready_file, port=port, metrics_port=server.port, member_pids=[member.pid for member in members]
        )
        await process.until_stopped()


async def _kept_alive(member: Member, process: Lifetime) -> None:
    """Starts a member again whenever it ends, until the group stops. The others go on serving meanwhile."""
    pause_s = _RESTART_S_MIN
    while True:
        began_s = time.monotonic()
        status = await member.ended()
        if process.stopping:
            return
        if time.monotonic() - began_s > LIVED_S:
            pause_s = _RESTART_S_MIN
        while True:
            _log.error("a process died", process_number=member.number, how=_how(status), again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RESTART_S_MAX)
            PROCESS_RESTARTS.inc()
            try:
                await member.start()
                break
            except MemberFailed:
                status = await member.ended()


async def _stop(members: list[Member], configured: EdgeSettings) -> None:
    for member in members:
        member.signal(signal.SIGTERM)
    within_s = configured.endpoint_lag_s + configured.drain_s + _STOP_MARGIN_S
    await asyncio.gather(*(member.stopped(within_s) for member in members))


async def _empty(configured: EdgeSettings, lifeline: int, process: Lifetime) -> None:
    """Has the spools of members that there are no more shipped, one after the other, until none holds usage."""
    while folders := left_behind(configured.data_dir, configured.processes):
        for folder in folders:
            child = await _exec({"TOLLGATE_EDGE_DATA_DIR": str(folder)}, lifeline, "--empty")
            try:
                status = await child.wait()
            except asyncio.CancelledError:
                child.send_signal(signal.SIGTERM)
                raise
            _log.info("spool of a former process", folder=str(folder), result=_how(status))
        if left_behind(configured.data_dir, configured.processes):
            await asyncio.sleep(_EMPTY_AGAIN_S)


async def _exec(environment: Mapping[str, str], lifeline: int, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "edge", "--lifeline", str(lifeline), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment},
        pass_fds=(lifeline,),
        start_new_session=True,  # Ctrl-C in the terminal is ours alone: we pass it on once
    )


def _reserved_port(configured: EdgeSettings) -> tuple[socket.socket, int]:
    """The port for the members: ours while this socket is open, and without connections since it does not listen.

    Raises:
        PortTaken: somebody has it, also somebody who would share it.
    """
    host, port = configured.listen_host, configured.listen_port
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen(1)
        reserved = socket.socket(family, kind, number)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        raise PortTaken(
            f"cannot listen on {host}:{port}: {error.strerror or error}. Stop the process that has the port, or set "
            "TOLLGATE_EDGE_LISTEN_PORT"
        ) from None
    return reserved, int(reserved.getsockname()[1])


def _how(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with exit status {status}"
