"""One JSON line per request, gathered and written together: a write per request would cost more than the line."""

import asyncio
import os
import sys
from datetime import UTC, datetime

import msgspec

from edge.http.record import RequestRecord

FLUSH_PERIOD_S = 0.2
PENDING_LINES_MAX = (
    10_000  # a reader of our log that stalls must not grow our memory; lines beyond are dropped, counted
)


class _Line(msgspec.Struct, omit_defaults=True):
    timestamp: str
    process: str
    event: str
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    endpoint: str = ""
    model: str = ""
    deployment: str = ""
    account_id: str = ""
    key: str = ""
    error: str = ""
    ending: str = ""
    attempts: int = 0
    first_byte_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    charge_nanousd: int = 0


class AccessLog:
    """Call `write` for every request; run `flush_for_ever` beside it."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._encode = msgspec.json.Encoder().encode
        self._pending: list[bytes] = []
        self._dropped = 0

    def write(self, record: RequestRecord, now_s: float) -> None:
        """Notes a finished request. Never a prompt, a completion or a key: its public prefix only."""
        if not self._enabled:
            return
        if len(self._pending) >= PENDING_LINES_MAX:
            self._dropped += 1
            return
        usage = record.usage
        line = _Line(
            timestamp=datetime.now(UTC).isoformat(),
            process="edge",
            event="request",
            request_id=record.request_id,
            method=record.method,
            path=record.path[:200],
            status=record.status,
            duration_ms=round((now_s - record.started_at_s) * 1000, 3),
            endpoint=record.endpoint,
            model=record.model,
            deployment=record.deployment_id,
            account_id=record.account_id,
            key=record.key_prefix,
            error=record.error,
            ending=record.ending,
            attempts=record.attempts,
            first_byte_ms=round((record.first_byte_at_s - record.started_at_s) * 1000, 3)
            if record.first_byte_at_s
            else 0.0,
            prompt_tokens=usage.prompt_tokens if usage is not None else 0,
            completion_tokens=usage.completion_tokens if usage is not None else 0,
            charge_nanousd=record.charge_nanousd,
        )
        self._pending.append(self._encode(line))

    async def flush_for_ever(self) -> None:
        """Writes what has gathered, a few times a second."""
        while True:
            await asyncio.sleep(FLUSH_PERIOD_S)
            if self._pending:
                await asyncio.get_running_loop().run_in_executor(None, self.flush)

    def flush(self) -> None:
        """Writes what has gathered."""
        lines, self._pending = self._pending, []
        if self._dropped:
            lines.append(self._encode({"process": "edge", "event": "log lines dropped", "count": self._dropped}))
            self._dropped = 0
        if lines:
            data = b"\n".join(lines) + b"\n"
            fd = sys.stderr.fileno()
            while data:
                data = data[os.write(fd, data) :]
