"""What is remembered of one request whose key logs: while it runs, and until it is on disk; within a bound for all."""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from edge.access.key_cache import Grant
from edge.http.record import CLIENT_GONE_STATUS, RequestRecord
from edge.logs.assembly import Assembly, ChatAssembly
from edge.logs.responses_assembly import ResponsesAssembly
from edge.openai.ask import Ask
from protos.usage.v1 import usage_pb2

SECONDS_PER_DAY = 86_400


class MemoryBudget:
    """Bytes of all captures together, from their first byte until they are on disk."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max, self.used_bytes = bytes_max, 0

    def take(self, size: int) -> bool:
        """Whether there is room; then it is taken."""
        if self.used_bytes + size > self.bytes_max:
            return False
        self.used_bytes += size
        return True

    def give_back(self, size: int) -> None:
        self.used_bytes -= size


@dataclass(frozen=True, slots=True)
class CaptureBounds:
    """How much is kept of each body, and for how long where the key does not say."""

    body_bytes_max: int
    retention_days: int


class Capture:
    """One request. Tell it how it was answered, a stream piece by piece, then `end` it once.

    Nothing here waits, and nothing here can fail a request.
    """

    def __init__(
        self,
        bounds: CaptureBounds,
        budget: MemoryBudget,
        record: RequestRecord,
        grant: Grant,
        resource: "usage_pb2.Resource.ValueType",
        ask: Ask,
        on_end: "Callable[[Capture], None]",
    ) -> None:
        assert grant.logging is not None
        self.ended_at_s: float | None = None  # seconds since the epoch; set by `end`, or by whoever takes it then
        self.held_bytes = 0  # of the budget
        self._bounds, self._budget, self._on_end = bounds, budget, on_end
        self._record, self._grant, self._resource, self._streamed = record, grant, resource, ask.stream
        self._logging = grant.logging
        self._status = CLIENT_GONE_STATUS
        self._input_bytes, self._output_bytes = len(ask.body), 0
        self._input = self._beginning(ask.body) if self._logging.inputs else None
        self._output: bytes | None = None
        self._raw: bytearray | None = None
        self._raw_truncated = self._is_full = False
        self._assembly: Assembly | None = None

    def answered(self, status: int, body: bytes) -> None:
        """The client was sent a whole answer."""
        self._status, self._output_bytes = status, len(body)
        if self._logging.outputs and self._raw is None:
            self._output = self._beginning(body)

    def streams(self) -> None:
        """The client was sent the head of a stream."""
        self._status = 200
        if self._logging.outputs and self._raw is None:
            is_chat = self._resource == usage_pb2.RESOURCE_CHAT_COMPLETIONS
            self._assembly = (ChatAssembly if is_chat else ResponsesAssembly)(self._bounds.body_bytes_max)
            self._raw = bytearray()

    def feed(self, data: bytes) -> None:
        """The client was sent a piece of the stream."""
        self._output_bytes += len(data)
        if self._raw is None or self._assembly is None:
            return
        if not self._raw_truncated:
            room = self._bounds.body_bytes_max - len(self._raw)
            # Twice: what is assembled of it takes no more than that again.
            if len(data) <= room and self._take(2 * len(data)):
                self._raw += data
            else:
                self._raw_truncated = True
                if self._take(min(room, len(data))):
                    self._raw += data[:room]
                # From here on its texts alone, which are much less than their events.
                self._is_full = not self._take(self._bounds.body_bytes_max)
        if self._is_full:
            self._assembly.truncated = True
        else:
            self._assembly.feed(data)

    def end(self, end_time_s: float | None) -> None:
        """The request is over, and ended when its bill says; None where it has none: now."""
        self.ended_at_s = end_time_s
        self._on_end(self)

    def log(self) -> usage_pb2.Log | None:
        """What is to be kept; None for nothing."""
        assembled = self._assembly.finish() if self._assembly is not None else None
        output = self._output if self._assembly is None else assembled
        if self._input is None and output is None and not self._raw:
            return None
        assert self.ended_at_s is not None
        end_us = int(self.ended_at_s * 1_000_000)
        retention_s = (self._logging.retention_days or self._bounds.retention_days) * SECONDS_PER_DAY
        return usage_pb2.Log(
            request_id=self._record.request_id,
            account_id=self._grant.account_id,
            key_id=self._grant.key_id,
            model_id=self._record.model,
            resource=self._resource,
            status_code=self._status,
            streamed=self._streamed,
            end_time=_timestamp(end_us),
            expire_time=_timestamp(end_us + retention_s * 1_000_000),
            input=self._input,
            input_bytes=self._input_bytes,
            input_truncated=self._input is not None and len(self._input) < self._input_bytes,
            output=output,
            output_bytes=self._output_bytes,
            output_truncated=self._assembly.truncated
            if self._assembly is not None
            else output is not None and len(output) < self._output_bytes,
            output_raw=None if self._raw is None else bytes(self._raw),
            output_raw_truncated=self._raw_truncated,
        )

    def _beginning(self, body: bytes) -> bytes:
        """As much of a body as is kept; nothing of it where there is no room for that."""
        kept = body[: self._bounds.body_bytes_max]  # no copy, if it is all of it
        return kept if self._take(len(kept)) else b""

    def _take(self, size: int) -> bool:
        if not self._budget.take(size):
            return False
        self.held_bytes += size
        return True


def _timestamp(moment_us: int) -> Timestamp:
    return Timestamp(seconds=moment_us // 1_000_000, nanos=moment_us % 1_000_000 * 1000)
