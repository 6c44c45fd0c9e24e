"""The one place where a test waits: poll a check until it holds, or fail with its own last failure."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_INTERVAL_S_MIN = 0.002  # most things hold at once or within a few milliseconds
_INTERVAL_S_MAX = 0.05


class _Patience:
    """The deadline, the growing interval, and the last thing that went wrong; shared by both twins."""

    def __init__(self, check: Callable[[], object], timeout_s: float) -> None:
        self._check = check
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._interval_s = _INTERVAL_S_MIN
        self._last: AssertionError | None = None

    def holds(self, value: object) -> bool:
        """Whether the check's answer ends the wait."""
        if value or (value is None and _is_block_of_asserts(self._check)):
            return True
        name = getattr(self._check, "__qualname__", repr(self._check))
        hint = "; a block of asserts must be declared `-> None`" if value is None else ""
        self._last = AssertionError(f"{name} was still {value!r} after {self._timeout_s} s{hint}")
        return False

    def failed(self, failure: AssertionError) -> None:
        self._last = failure

    def next_pause_s(self) -> float:
        """How long to wait before the next try.

        Raises:
            AssertionError: the deadline has passed; the check's own last failure.
        """
        left_s = self._deadline - time.monotonic()
        if left_s <= 0 and self._last is not None:
            raise self._last
        pause_s = min(self._interval_s, max(left_s, 0))
        self._interval_s = min(self._interval_s * 1.5, _INTERVAL_S_MAX)
        return pause_s


@overload
async def eventually(check: Callable[[], Awaitable[T]], timeout_s: float = 5.0) -> T: ...
@overload
async def eventually(check: Callable[[], T], timeout_s: float = 5.0) -> T: ...
async def eventually(check: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """Wait until `check` holds, and return what it returned.

    A check is sync or async. An AssertionError or a falsy answer means "not yet"; any other exception passes through
    at once. A check declared `-> None` is a block of asserts, and holds as soon as it does not raise.

    Raises:
        AssertionError: it did not hold within `timeout_s`; the last failure of the check.
    """
    patience = _Patience(check, timeout_s)
    while True:
        try:
            answer = check()
            value = await answer if inspect.isawaitable(answer) else answer
            if patience.holds(value):
                return value
        except AssertionError as failure:
            patience.failed(failure)
        await asyncio.sleep(patience.next_pause_s())


def eventually_sync(check: Callable[[], T], timeout_s: float = 5.0) -> T:
    """The same for tests without an event loop."""
    patience = _Patience(check, timeout_s)
    while True:
        try:
            value = check()
            if patience.holds(value):
                return value
        except AssertionError as failure:
            patience.failed(failure)
        time.sleep(patience.next_pause_s())


def _is_block_of_asserts(check: Callable[[], object]) -> bool:
    # The annotation tells `def check() -> None: assert ...` from a look-up that found nothing, which must not pass.
    annotations: dict[str, Any] = getattr(check, "__annotations__", {})
    return annotations.get("return", "missing") in (None, "None")
