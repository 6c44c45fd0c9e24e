"""An event loop whose clock jumps to the next thing to do, and whose threads are not any."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs in real time until `is_virtual` is set; from then on nobody waits, and `run_in_executor` runs at once."""

    def __init__(self) -> None:
        self.is_virtual = False
        self.skipped_s = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._stopped_s + self.skipped_s if self.is_virtual else super().time()

    def begin(self) -> None:
        """From now on time is simulated."""
        self._stopped_s = super().time()
        self.is_virtual = True

    def run_in_executor(  # type: ignore[override]  # asyncio's has a type variable for its arguments
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        async def run() -> Any:
            return func(*args)

        return self.create_task(run())


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._loop.is_virtual or timeout is None:
            return super().select(timeout)
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.skipped_s += timeout
        return ready


class VirtualClock:
    """The loop's time as what processes of ours are told of time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._start = datetime.now(UTC)
        self.monotonic = loop.time

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.skipped_s)

    def epoch_s(self) -> float:
        return self.now().timestamp()
