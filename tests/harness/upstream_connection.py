"""One connection to the scripted upstream: reads requests, plays answers, and dies as scripted."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from tests.harness.upstream_answer import Afterwards, Answer, Ending
from tests.harness.upstream_http import RawRequest, RequestCutter
from tests.harness.upstream_question import Question
from tests.harness.upstream_record import Record, Reported
from tests.harness.upstream_wire import head_and_parts

Play = Callable[["Connection", RawRequest], Awaitable[None]]


class Connection(asyncio.Protocol):
    """A Protocol with an answering task of its own, which ends with the connection."""

    def __init__(
        self, number: int, record: Record, play: Play, alive: "set[Connection]", tasks: list[asyncio.Task[None]]
    ) -> None:
        self.number = number
        self._task: asyncio.Task[None]
        self._tasks = tasks
        self._record = record
        self._play = play
        self._alive = alive
        self._cutter = RequestCutter()
        self._transport: asyncio.Transport
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._stale = Afterwards.KEEP
        self._sent_continue = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        # Writable means empty: what was "sent" has then truly left this process, and back-pressure is felt at once.
        self._transport.set_write_buffer_limits(high=0)
        self._writable.set()
        self._alive.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._tasks.append(self._task)

    def data_received(self, data: bytes) -> None:
        if self._stale is not Afterwards.KEEP:
            self._record.dropped += 1
            self.close(reset=self._stale is Afterwards.RESET_ON_NEXT)
            return
        self._cutter.feed(data)
        if not self._sent_continue and self._cutter.wants_continue():
            self._sent_continue = True
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._alive.discard(self)
        self._task.cancel()

    # What a script does.

    def close(self, *, reset: bool = False) -> None:
        """Ends the connection: by FIN after what was written, or at once by RST."""
        if reset:
            sock = self._transport.get_extra_info("socket")
            # Linger 0 turns the close into an RST.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    async def write(self, data: bytes) -> None:
        """Writes, and waits until the kernel has taken everything."""
        self._transport.write(data)
        await self._writable.wait()

    async def answer(self, request: RawRequest, question: Question, answer: Answer, report: Reported) -> None:
        """Plays one scripted answer to its end, and keeps `report` true while it does."""
        await asyncio.sleep(answer.headers_delay_ms / 1000)
        if answer.raw is not None:
            await self.write(answer.raw)
            report.whole = True
            self.close()
            return
        if answer.ending is not Ending.WHOLE and answer.ending_after < 0 and answer.ending_after_bytes is None:
            await self._end(answer.ending)
            return
        head, parts = head_and_parts(question, answer, report.answer_id, close=request.wants_close)
        await self.write(head)
        report.status = int(head[9:12])
        first = True
        for part in parts:
            if part.starts_event and not first and answer.gap_ms:
                await asyncio.sleep(answer.gap_ms / 1000)
            await self.write(part.data)
            await asyncio.sleep(0)  # lets a reader in this process see this write on its own
            first = False
            report.body_bytes += part.body_bytes
            report.usage = part.usage if part.usage is not None else report.usage
        if answer.ending is not Ending.WHOLE:
            await self._end(answer.ending)
            return
        report.whole = True
        self._stale = answer.afterwards if "on_next" in answer.afterwards else Afterwards.KEEP
        if answer.afterwards is Afterwards.CLOSE or b"connection: close\r\n" in head:
            self.close()

    async def _end(self, ending: Ending) -> None:
        if ending is Ending.STALL:
            await asyncio.get_running_loop().create_future()  # until the peer gives up
        self.close(reset=ending is Ending.RESET)

    async def _serve(self) -> None:
        try:
            while not self._transport.is_closing():
                try:
                    request = self._cutter.next()
                except ValueError as mistake:
                    await self.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n" + str(mistake).encode())
                    self.close()
                    return
                if request is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                self._sent_continue = False
                await self._play(self, request)
                if request.wants_close:
                    self.close()
        except asyncio.CancelledError:
            # Only connection_lost cancels: the peer went away, which is an ordinary end of a connection.
            return
