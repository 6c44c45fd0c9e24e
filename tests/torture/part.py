"""One process under torture: started again and again, killed, paused and asked to end."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

_START_S_MAX = 120.0  # two cores that may be busy with something else
_STOP_S_MAX = 60.0
_POLL_S = 0.05
_LOG_TAIL_LINES = 15


class Part:
    """A process of ours, by the launcher. `environment` is asked anew for each start. Complaints are violations."""

    def __init__(
        self,
        name: str,
        module: str,
        folder: Path,
        environment: Callable[[], dict[str, str]],
        complain: Callable[[str], None],
        lifeline: int,
    ) -> None:
        self.name, self._module, self._environment = name, module, environment
        self._complain, self._lifeline = complain, lifeline
        self._ready_file = folder / f"{name}.ready.json"
        self.log = folder / f"{name}.log"
        self.port = self.metrics_port = 0
        self.is_without_database = False  # then a start may fail, and is tried again
        self.database_back_s = 0.0  # since when it has one again
        self.kill_times_s: list[float] = []  # since the epoch
        self.power_cut_times_s: list[float] = []  # those of them that cost it what was not synced
        self.drain_times_s: list[tuple[float, float]] = []  # from SIGTERM to the end
        self._process: asyncio.subprocess.Process | None = None
        self._start_s = 0.0
        self._is_expected_to_end = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts it and waits until it serves; one that ends instead is started again."""
        if self.is_running:
            return
        deadline = time.monotonic() + _START_S_MAX
        while not await self._try_start(deadline):
            if not self.is_without_database and self.database_back_s < self._start_s:
                self._complain(f"{self.name} ended instead of starting: {self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not start within {_START_S_MAX} s: {self.tail()}")
            await asyncio.sleep(0.3)

    async def _try_start(self, deadline: float) -> bool:
        self._start_s = time.monotonic()
        self._ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as output:
            process = self._process = await self._spawn(output, self._environment())
        self._is_expected_to_end = False
        while not self._ready_file.exists():
            if process.returncode is not None:
                return self._is_expected_to_end
            if time.monotonic() > deadline:
                process.kill()
                await process.wait()
                return False
            await asyncio.sleep(_POLL_S)
        facts = json.loads(self._ready_file.read_text())
        self.port, self.metrics_port = facts["port"], facts["metrics_port"]
        self._watch = asyncio.create_task(self._watch_end(process))
        return True

    async def _spawn(self, output: IO[bytes], environment: dict[str, str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.torture.launcher", self._module),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment, "TORTURE_LIFELINE": str(self._lifeline)},
            pass_fds=(self._lifeline,),
            start_new_session=True,
        )

    async def _watch_end(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        if not self._is_expected_to_end:
            self._complain(f"{self.name} ended by itself with status {status}: {self.tail()}")
            await self.start()

    async def kill(self) -> None:
        """kill -9. Nothing happens if it does not run."""
        await self._end(signal.SIGKILL)

    async def lose_power(self, cut: Callable[[], None]) -> None:
        """kill -9, and `cut` has its disk lose something. Nothing happens if it does not run."""
        if await self._end(signal.SIGKILL):
            self.power_cut_times_s.append(self.kill_times_s[-1])
            cut()

    async def intrude(self) -> None:
        """A second process of the same kind with the same settings. It must end by itself, and say why."""
        if not self.is_running:
            return
        log = self.log.with_name(f"{self.name}-second.log")
        environment = {name: value for name, value in self._environment().items() if not name.endswith("READY_FILE")}
        with log.open("wb") as output:
            process = await self._spawn(output, environment)
        try:
            status = await asyncio.wait_for(process.wait(), _START_S_MAX)
        except TimeoutError:
            status = 0
            process.kill()
            await process.wait()
        if status == 0 or b"SPOOL_IN_USE" not in log.read_bytes():
            self._complain(f"{self.name}: a second edge shares its folder, or does not say why not: status {status}")

    async def terminate(self) -> None:
        """SIGTERM, and waits for the end; complains of another status than 0."""
        process, asked_s = self._process, time.time()
        if not await self._end(signal.SIGTERM) or process is None:
            return
        self.drain_times_s.append((asked_s, time.time()))
        if process.returncode != 0:
            self._complain(f"{self.name} ended with status {process.returncode} after SIGTERM: {self.tail()}")

    async def _end(self, number: signal.Signals) -> bool:
        process = self._process
        if process is None or process.returncode is not None:
            return False
        self._is_expected_to_end = True
        if number is signal.SIGKILL:
            self.kill_times_s.append(time.time())
        process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S_MAX)
        except TimeoutError:
            self._complain(f"{self.name} did not end within {_STOP_S_MAX} s after {number.name}")
            self.kill_times_s.append(time.time())
            process.kill()
            await process.wait()
            return False
        return True

    def pause(self) -> None:
        if self.is_running and self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.is_running and self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def tail(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "no log"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 6000))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n    ".join(["", *lines[-_LOG_TAIL_LINES:]])
