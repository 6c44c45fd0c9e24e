"""The processes of one machine from their start to their end: in which order, and what happens when one dies."""

import asyncio
import http.client
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tollgate import demo
from tollgate.children import Child, Children, Program
from tollgate.failure import CommandFailed
from tollgate.first_catalog import set_catalog
from tollgate.folder import edge_environment, local_model_port, service_environment
from tollgate.narration import Narration
from tollgate.processes import SERVICES, Service
from tollgate.running import RUN_FILE, Run, forget_run, write_run
from tollgate.services import Addresses, Services

_EDGE_READY_S_MAX = 60.0
_CALL_TIMEOUT_S = 30.0
_POLL_S = 0.05
_KILLED = 130
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared with, not bound


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. `catalog` is the text of an operator's own document."""

    data_dir: Path
    host: str
    port: int
    catalog: str | None
    with_local_model: bool
    ready_file: Path | None


class Stack:
    """Runs a plan. `lock_fd` is the data folder's lock, which every process holds."""

    def __init__(self, plan: Plan, narration: Narration, lock_fd: int) -> None:
        self._plan, self._narration, self._lock_fd = plan, narration, lock_fd
        self._stop_asked = asyncio.Event()

    async def run(self) -> int:
        """Runs until it is asked to stop. Returns the exit status.

        Raises:
            CommandFailed: a process could not be started, or died (CHILD_DIED).
            InvalidArgument: the operator's catalog is bad (CATALOG_INVALID).
        """
        async with Children(self._plan.data_dir, [self._lock_fd]) as children:
            self._listen_for_signals(children)
            stop = asyncio.create_task(self._stop_asked.wait())
            starting = asyncio.create_task(self._start(children))
            dying = asyncio.create_task(children.first_ending())
            try:
                await asyncio.wait({stop, starting, dying}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done() and not stop.done() and not dying.done():
                    starting.result()
                    await asyncio.wait({stop, dying}, return_when=asyncio.FIRST_COMPLETED)
                if not stop.done():
                    dead = dying.result()
                    self._narration.say(f"\n{dead.ending}: the rest stops, too")  # now: that may take a while
                    raise dead.death()
                return 0
            finally:
                await _cancelled(stop, starting, dying)
                forget_run(self._plan.data_dir)
                await self._stop(children)

    def _listen_for_signals(self, children: Children) -> None:
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if self._stop_asked.is_set():
                children.kill()
                os._exit(_KILLED)
            self._stop_asked.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: whoever ignores hangups wants to outlive one
                loop.add_signal_handler(number, on_signal)

    async def _start(self, children: Children) -> None:
        plan = self._plan
        model = await self._start_local_model(children) if plan.with_local_model else None
        with self._narration.step("Starting auth_svc, catalog_svc and usage_svc", "auth_svc, catalog_svc, usage_svc"):
            started = {service: await self._start_service(children, service) for service in Service}
            announced = {service: await child.ready() for service, child in started.items()}
        addresses = {service: f"127.0.0.1:{facts['port']}" for service, facts in announced.items()}
        # The edge starts while the catalog is set: it has to wait for its services anyway, and does.
        environment = edge_environment(plan.data_dir, (plan.host, plan.port), addresses, os.environ)
        edge = await children.start(Program("edge", "edge", environment=environment))
        async with Services(
            Addresses(*(addresses[service] for service in Service)), timeout_s=_CALL_TIMEOUT_S
        ) as services:
            model_url = await self._local_model_url(model) if model else None
            with self._narration.step("Setting the catalog", "catalog"):
                set_to = await set_catalog(services, plan.catalog, model_url)
            self._narration.say(f"   {set_to}")
            account = await demo.prepare_demo(services) if plan.with_local_model else None
        with self._narration.step("Starting the edge", "edge"):
            edge_facts = await edge.ready()
            await _until_edge_is_ready(_reachable(plan.host), edge_facts["port"])
        ports = {f"{service}_svc": facts["metrics_port"] for service, facts in announced.items()}
        run = _run(plan.host, edge_facts["port"], addresses, {**ports, "edge": edge_facts["metrics_port"]}, children)
        write_run(plan.data_dir / RUN_FILE, run)
        if account is not None:
            demo.explain(self._narration, account, run.base_url, plan.data_dir)
        else:
            self._explain(run)
        if plan.ready_file is not None:
            write_run(plan.ready_file, run)

    async def _start_service(self, children: Children, service: Service) -> Child:
        environment = service_environment(self._plan.data_dir, service, os.environ)
        package = SERVICES[service].package
        return await children.start(Program(package, package, environment=environment, migrate=service.value))

    async def _start_local_model(self, children: Children) -> Child:
        arguments = ("--port", str(local_model_port(self._plan.data_dir)), "--ready-file", "{ready_file}")
        return await children.start(Program("local_model", "tollgate.local_model", arguments))

    async def _local_model_url(self, model: Child) -> str:
        with self._narration.step("Loading the local model", "local model"):
            port = (await model.ready())["port"]
        local_model_port(self._plan.data_dir, remember=port)
        return f"http://127.0.0.1:{port}/v1"

    def _explain(self, run: Run) -> None:
        tollgate = demo.command_line(self._plan.data_dir)
        self._narration.heading(f"Tollgate serves at {run.base_url}")
        self._narration.say("An account, some credit and a key:\n")
        self._narration.code(
            f"{tollgate} accounts create my-customer\n"
            f"{tollgate} credits grant my-customer 5.00\n"
            f"{tollgate} keys create my-customer"
        )
        self._narration.say(f"\nLogs are in {self._plan.data_dir / 'logs'}. Ctrl-C stops everything.")

    async def _stop(self, children: Children) -> None:
        """The edge first, so that its open requests end, and are billed, while there are services to bill them."""
        if not children.pids:
            return
        with self._narration.step("Stopping: open requests may finish (Ctrl-C again ends them)", "stopped"):
            await children.stop(named="edge")
            await children.stop()


def _run(
    host: str, port: int, addresses: Mapping[Service, str], metrics_ports: Mapping[str, int], children: Children
) -> Run:
    return Run(
        pid=os.getpid(),
        base_url=f"http://{_reachable(host)}:{port}/v1",
        auth_address=addresses[Service.AUTH],
        catalog_address=addresses[Service.CATALOG],
        usage_address=addresses[Service.USAGE],
        metrics_urls={name: f"http://127.0.0.1:{metrics_port}/metrics" for name, metrics_port in metrics_ports.items()},
        child_pids=children.pids,
    )


async def _cancelled(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _reachable(host: str) -> str:
    """A host that a client on this machine can connect to, as it stands in a URL."""
    return _ANY_HOST.get(host, f"[{host}]" if ":" in host else host)


async def _until_edge_is_ready(host: str, port: int) -> None:
    """Waits until the edge has a catalog, a session, and can write its spool.

    Raises:
        CommandFailed: it was not ready in time; says what it says (EDGE_NOT_READY).
    """
    deadline = time.monotonic() + _EDGE_READY_S_MAX
    while True:
        status, answer = await asyncio.to_thread(_get, host.strip("[]"), port, "/readyz")
        if status == http.client.OK:
            return
        if time.monotonic() > deadline:
            raise CommandFailed(
                "EDGE_NOT_READY", f"the edge was not ready within {_EDGE_READY_S_MAX:.0f} s; it says: {answer}"
            )
        await asyncio.sleep(_POLL_S)


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace").strip()
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()
