"""What stands for gRPC: an edge's stub calls usage_svc's servicer, after as long as a call takes. Counts calls."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

_LATENCY_S = (0.001, 0.004)


class Wire:
    """One for all edges. `calls` are counted by method, `demands` by account."""

    def __init__(self, servicer: Any, dice: random.Random) -> None:
        self._servicer, self._dice = servicer, dice
        self.calls: Counter[str] = Counter()
        self.demands = 0

    def stub(self) -> Any:
        """In the place of MeteringServiceStub."""
        return _Stub(self)

    async def call(self, method: str, request: Any) -> Any:
        self.calls[method] += 1
        if method == "Acquire":
            self.demands += len(request.demands)
        await asyncio.sleep(self._dice.uniform(*_LATENCY_S))
        return await getattr(self._servicer, method)(request, None)

    def watch(self, method: str, request: Any) -> AsyncIterator[Any]:
        messages: AsyncIterator[Any] = getattr(self._servicer, method)(request, None)
        return messages


class _Stub:
    def __init__(self, wire: Wire) -> None:
        for method in ("OpenSession", "Heartbeat", "Acquire", "RecordUsage", "Seal"):
            setattr(self, method, _Unary(method, wire.call))
        self.Recall = _Watch("Recall", wire.watch)


class _Watch:
    """What chassis.client.watch expects of one."""

    def __init__(self, method: str, watch: Callable[[str, Any], AsyncIterator[Any]]) -> None:
        self._method, self._watch = method, watch

    def __call__(self, request: Any, **_: Any) -> "_Messages":
        return _Messages(self._watch(self._method, request))


class _Messages:
    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages

    async def read(self) -> Any:
        try:
            return await anext(self._messages)
        except StopAsyncIteration:
            return grpc.aio.EOF

    def cancel(self) -> None:
        return None


class _Unary:
    """What chassis.client.call expects of a multi-callable."""

    def __init__(self, method: str, call: Callable[[str, Any], Awaitable[Any]]) -> None:
        self._method, self._call = method, call

    async def __call__(self, request: Any, **_: Any) -> Any:
        return await self._call(self._method, request)
