"""The processes of a stack: started side by side, watched, stopped in order."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tollgate.failure import CommandFailed

READY_S_MAX = 90.0
STOP_S_MAX = 630.0  # an edge's own drain is bounded by its settings, 600 s by default; this is for one that hangs
LOG_TAIL_LINES = 15
_POLL_S = 0.02
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `migrate` names the service whose database is brought up to date first."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    migrate: str | None = None


class Child:
    """One running process."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process, log: Path, ready_file: Path) -> None:
        self.program, self.log = program, log
        self._process, self._ready_file = process, ready_file

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ready(self) -> dict[str, Any]:
        """What it announces once it serves: its ports.

        Raises:
            CommandFailed: it ended, or took too long (CHILD_NOT_READY).
        """
        deadline = time.monotonic() + READY_S_MAX
        while not self._ready_file.exists():
            if not self.alive:
                raise self.death()
            if time.monotonic() > deadline:
                late = f"{self.program.name} was not ready within {READY_S_MAX:.0f} s"
                raise CommandFailed("CHILD_NOT_READY", f"{late}{self._last_lines()}")
            await asyncio.sleep(_POLL_S)
        announced: dict[str, Any] = json.loads(self._ready_file.read_text())
        return announced

    async def ended(self) -> "Child":
        await self._process.wait()
        return self

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)

    @property
    def ending(self) -> str:
        """How it ended."""
        status = self._process.returncode or 0
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"{self.program.name} {how}"

    def death(self) -> CommandFailed:
        """Says how it ended, and what it said last."""
        return CommandFailed("CHILD_DIED", f"{self.ending}{self._last_lines()}")

    def _last_lines(self) -> str:
        lines = "\n".join(f"    {line}" for line in log_tail(self.log))
        return f"; the last lines of {self.log}:\n{lines}" if lines else f"; {self.log} is empty"


class Children:
    """Processes in a data folder that live no longer than this block, nor than this process.

    `held_fds` stay open in every child: the folder's lock among them is then free only once all have ended.
    """

    def __init__(self, data_dir: Path, held_fds: Iterable[int]) -> None:
        self._data_dir = data_dir
        self._held_fds = tuple(held_fds)
        self._children: list[Child] = []
        self._endings: list[asyncio.Task[Child]] = []

    async def __aenter__(self) -> "Children":
        self._first_ended: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._lifeline, self._parents_end = os.pipe()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            os.close(self._lifeline)
            os.close(self._parents_end)

    @property
    def pids(self) -> dict[str, int]:
        return {child.program.name: child.pid for child in self._children}

    async def start(self, program: Program) -> Child:
        """Starts a process with a log file of its own; what the file held before is kept once more."""
        log = self._data_dir / "logs" / f"{program.name}.log"
        ready_file = self._data_dir / "ready" / f"{program.name}.json"
        for folder in (log.parent, ready_file.parent):
            folder.mkdir(exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.before"))
        ready_file.unlink(missing_ok=True)
        migrate = ("--migrate", program.migrate) if program.migrate else ()
        arguments = (argument.replace("{ready_file}", str(ready_file)) for argument in program.arguments)
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "tollgate.child", "--lifeline", str(self._lifeline), *migrate),
                program.module,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    **{
                        name: value.replace("{ready_file}", str(ready_file))
                        for name, value in (program.environment or {}).items()
                    },
                    "PYTHONUNBUFFERED": "1",
                },
                pass_fds=(self._lifeline, *self._held_fds),
                start_new_session=True,  # Ctrl-C in the terminal is the parent's alone: it knows the order
            )
        child = Child(program, process, log, ready_file)
        self._children.append(child)
        ending = asyncio.create_task(child.ended(), name=f"{program.name} ends")
        ending.add_done_callback(self._note_ending)
        self._endings.append(ending)
        return child

    def _note_ending(self, ending: "asyncio.Task[Child]") -> None:
        if not ending.cancelled() and not self._first_ended.done():
            self._first_ended.set_result(ending.result())

    async def first_ending(self) -> Child:
        """Waits until any process ends, for whatever reason; also one that is only started later."""
        return await asyncio.shield(self._first_ended)

    async def stop(self, named: str | None = None) -> None:
        """Asks processes to end, all at once or the named one, and waits; kills what takes longer than a drain may."""
        children = [child for child in self._children if child.alive and named in (None, child.program.name)]
        for child in children:
            child.signal(signal.SIGTERM)
        waiting = [asyncio.ensure_future(child.ended()) for child in children]
        if not waiting:
            return
        _, late = await asyncio.wait(waiting, timeout=STOP_S_MAX)
        if late:
            for child in children:
                child.signal(signal.SIGKILL)
            await asyncio.wait(late)

    def kill(self) -> None:
        """Ends everything at once, unfinished requests too."""
        for child in self._children:
            child.signal(signal.SIGKILL)


def log_tail(log: Path) -> list[str]:
    """The last lines of a log, JSON lines as people read them."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [_readable(line) for line in deque(filter(str.strip, text.splitlines()), maxlen=LOG_TAIL_LINES)]


def _readable(line: str) -> str:
    """`{"event": "x", "level": "info", ...}` as `12:00:00 info x name=value ...`; other lines as they are."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict) or "event" not in fields:
        return line
    moment = str(fields.pop("timestamp", ""))[11:19]
    head = f"{moment} {fields.pop('level', '')} {fields.pop('event')}"
    fields.pop("process", None)
    for trace in fields.pop("exception", None) or ():
        fields[trace.get("exc_type", "exception")] = trace.get("exc_value", "")
    return " ".join([head, *(f"{name}={value}" for name, value in fields.items())])
