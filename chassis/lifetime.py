"""How a process lives: an event loop, signals, supervised tasks, one way to stop.

The third of the three places that may catch every exception: a supervised task that fails stops the process, with the
reason in the log, since half a process is worse than none.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import uvloop

from chassis import garbage
from chassis.faults import Fault, PortTaken
from chassis.log import logger
from protos.client import TlsUnusable

# How long a task may take to clean up before it is thought to have missed its cancellation.
_CANCEL_AGAIN_S = 1.0

_log = logger(__name__)


class Lifetime:
    """What ends a process: SIGTERM, SIGINT, or the failure of something that it cannot live without."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: str | None = None

    def stop(self, failure: str | None = None) -> None:
        """Asks the process to end; the first failure decides its exit status."""
        self.failure = self.failure or failure
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    async def until_stopped(self) -> None:
        """Waits for the end. What must be shut down stands in context managers around this call."""
        await self._stopping.wait()

    def supervise(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` beside everything else; if it raises, the process stops. Cancel the task to end it."""
        task = asyncio.get_running_loop().create_task(self._watched(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watched(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the task supervisor: one of the three places
            _log.error("task failed", task=name, exc_info=error)
            self.stop(f"{name} failed: {error}")

    async def cancel_supervised(self) -> None:
        """Cancels what is still supervised and waits for it."""
        await end_tasks(self._tasks)


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels tasks and waits for their ends, which it does not judge.

    More than once, if need be: before Python 3.12, asyncio.wait_for forgets a cancellation that comes at the moment at
    which what it waits for is done, and a loop around it goes on (https://github.com/python/cpython/issues/86296).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)


def run(process: Callable[[Lifetime], Awaitable[None]]) -> int:
    """Runs a process to its end on uvloop. Returns the exit status: 0 when it was asked to stop, 1 on failure.

    A second signal ends it at once.
    """

    async def main() -> int:
        lifetime = Lifetime()
        loop = asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            if lifetime.stopping:
                os._exit(128 + number)
            _log.info("stopping", signal=number.name)
            lifetime.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        try:
            await process(lifetime)
        except (Fault, PortTaken, TlsUnusable) as error:
            lifetime.stop(str(error))
        finally:
            await lifetime.cancel_supervised()
        if lifetime.failure is not None:
            _log.error("stopped", failure=lifetime.failure)
            return 1
        return 0

    return uvloop.run(main())


def announce_ready(ready_file: Path | None, **facts: Any) -> None:
    """Tells whoever started us that we serve, and where: JSON, written whole or not at all."""
    garbage.look_seldom()
    garbage.keep_what_is_there()
    _log.info("ready", **facts)
    if ready_file is None:
        return
    unfinished = ready_file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"pid": os.getpid(), **facts}))
    unfinished.replace(ready_file)


def fail(message: str) -> int:
    """Says why a process cannot start. Returns the exit status."""
    print(message, file=sys.stderr)  # noqa: T201 - before logging is configured
    return 2
