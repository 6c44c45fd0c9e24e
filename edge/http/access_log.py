"""One JSON line per request, gathered and written together: a write per request would cost more than the line."""

import asyncio
import os
import select
import sys
import time
from datetime import UTC, datetime

import msgspec

from edge.http.record import RequestRecord

FLUSH_PERIOD_S = 0.2
PATH_CHARS_MAX = 200
PENDING_LINES_MAX = (
    10_000  # a reader of our log that stalls must not grow our memory; lines beyond are dropped, counted
)


# What repeats from request to request is encoded once: the line then costs a fifth.
_REPEATING_MAX = 10_000


class AccessLog:
    """Call `write` for every request; run `flush_for_ever` beside it."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._pending: list[str] = []
        self._dropped = 0
        self._second = 0
        self._second_text = ""
        self._repeated: dict[tuple[str, ...], str] = {}

    def write(self, record: RequestRecord, now_s: float) -> None:
        """Notes a finished request. Never a prompt, a completion or a key: its public prefix only."""
        if not self._enabled:
            return
        if len(self._pending) >= PENDING_LINES_MAX:
            self._dropped += 1
            return
        usage = record.usage
        started_at_s, first_byte_at_s = record.started_at_s, record.first_byte_at_s
        line = (
            f'"timestamp":"{self._timestamp()}","request_id":"{record.request_id}","status":{record.status},'
            f'"duration_ms":{(now_s - started_at_s) * 1000:.3f}{self._repeating(record)}'
        )
        if record.attempts:
            line += f',"attempts":{record.attempts},"charge_nanousd":{record.charge_nanousd}'
        if first_byte_at_s:
            line += f',"first_byte_ms":{(first_byte_at_s - started_at_s) * 1000:.3f}'
        if usage is not None:
            line += f',"prompt_tokens":{usage.prompt_tokens},"completion_tokens":{usage.completion_tokens}'
        self._pending.append("{" + line + "}")

    def _timestamp(self) -> str:
        now_s = time.time()
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._second_text}{int((now_s - second) * 1e6):06d}Z"

    def _repeating(self, record: RequestRecord) -> str:
        key = (
            record.method,
            record.path,
            record.endpoint,
            record.model,
            record.deployment_id,
            record.account_id,
            record.key_prefix,
            record.error,
            record.ending,
        )
        text = self._repeated.get(key)
        if text is None:
            method, path, endpoint, model, deployment, account_id, key_prefix, error, ending = key
            members = {
                "process": "edge",
                "event": "request",
                "method": method,
                "path": path[:PATH_CHARS_MAX],
                "endpoint": endpoint,
                "model": model,
                "deployment": deployment,
                "account_id": account_id,
                "key": key_prefix,
                "error": error,
                "ending": ending,
            }
            told = {name: value for name, value in members.items() if value}
            text = "," + msgspec.json.encode(told).decode()[1:-1]
            if len(self._repeated) >= _REPEATING_MAX:
                self._repeated.clear()
            self._repeated[key] = text
        return text

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
            lines.append(f'{{"process":"edge","event":"log lines dropped","count":{self._dropped}}}')
            self._dropped = 0
        if lines:
            data = ("\n".join(lines) + "\n").encode()
            fd = sys.stderr.fileno()
            while data:
                # Several edge processes may share a pipe, and only so much of it is written in one piece.
                whole_lines = data.rfind(b"\n", 0, select.PIPE_BUF) + 1 or data.find(b"\n") + 1
                data = data[os.write(fd, data[:whole_lines]) :]
