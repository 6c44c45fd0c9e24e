"""Connections to one deployment, kept open between calls."""

import asyncio
import ssl
from collections import deque
from urllib.parse import SplitResult, urlsplit

from edge.upstream.connection import Failure, UpstreamConnection


class Pool:
    """Opens, hands out and takes back connections. The one used last is handed out first, so the others can age out."""

    def __init__(self, base_url: str, *, connect_timeout_s: float, idle_s: float, connections_max: int) -> None:
        self.base_url = base_url
        parts: SplitResult = urlsplit(base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connect_timeout_s, self._idle_s, self._connections_max = connect_timeout_s, idle_s, connections_max
        self._idle: deque[UpstreamConnection] = deque()
        self._all: set[UpstreamConnection] = set()
        self._opening: set[asyncio.Timeout] = set()
        self._retired = False
        self._loop = asyncio.get_running_loop()

    @property
    def open_connections(self) -> int:
        return len(self._all)

    def idle_connection(self) -> UpstreamConnection | None:
        """An open connection without a call, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def fresh_connection(self) -> UpstreamConnection:
        """A new connection.

        Raises:
            Failure: connect, connect_timeout.
        """
        if len(self._all) + len(self._opening) >= self._connections_max:
            raise Failure("connect", f"all {self._connections_max} connections to this deployment are in use")
        opening = asyncio.timeout(self._connect_timeout_s)
        self._opening.add(opening)
        try:
            async with opening:
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise Failure("connect_timeout", f"after {self._connect_timeout_s:g} s") from None
        except OSError as error:  # refused, unreachable, no such host, TLS
            raise Failure("connect", str(error)) from None
        finally:
            self._opening.discard(opening)
        self._all.add(connection)
        return connection

    def take_back(self, connection: UpstreamConnection) -> None:
        if self._retired:
            connection.close()
        else:
            self._idle.append(connection)

    def retire(self) -> None:
        """Closes what is idle now and the rest when its answers are read: this address is not called any more."""
        self._retired = True
        while self._idle:
            self._idle.popleft().close()

    def forget(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)

    def close_idle(self, now_s: float) -> None:
        """Closes what was unused for too long; called by the watchdog."""
        while self._idle and (not self._idle[0].open or now_s - self._idle[0].idle_since_s > self._idle_s):
            self._idle.popleft().close()

    def close(self) -> None:
        """Closes everything; calls in flight fail as `stopped`, and nobody waits for a connection any more."""
        for connection in list(self._all):
            connection.stop()
        for opening in self._opening:
            if not opening.expired():
                opening.reschedule(self._loop.time())
