"""Every deployment of the current catalog as something that requests can be sent to."""

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from multidict import CIMultiDictProxy

from edge import metrics
from edge.routing.snapshot import CHAT, RESPONSES, Deployment, Snapshot
from edge.upstream.connection import Call, Failure, UpstreamConnection
from edge.upstream.credentials import read_credential
from edge.upstream.pool import Pool
from edge.upstream.watchdog import Watchdog

_PATHS = {CHAT: "/chat/completions", RESPONSES: "/responses"}
# All that an upstream is told of the customer's request. Authorization, cookies, addresses and the like stay here.
FORWARDED_HEADERS = ("content-type", "accept", "traceparent", "tracestate", "openai-beta")
# A credential in a file may be rotated: it is read again this often.
CREDENTIAL_REFRESH_S = 5.0
# A request may wait this long between its plan and its call.
GONE_KEPT_S = 60.0


class Upstream:
    """One deployment: its connections, and the part of a request's head that is always the same."""

    def __init__(self, deployment: Deployment, pool: Pool) -> None:
        self.deployment, self.pool = deployment, pool
        self.heads: dict[str, bytes] = {}
        self.read_credential()

    def read_credential(self) -> None:
        """Builds the heads anew with the credential as it is now."""
        parts = urlsplit(self.deployment.base_url)
        lines = f"host: {parts.netloc}\r\naccept-encoding: identity\r\nuser-agent: tollgate\r\n"
        if self.deployment.credential is not None:
            credential = read_credential(self.deployment.credential)
            if credential is not None:
                lines += f"authorization: Bearer {credential}\r\n"
        self.heads = {
            resource: f"POST {parts.path}{path} HTTP/1.1\r\n{lines}".encode() for resource, path in _PATHS.items()
        }


class Upstreams:
    """Follows the catalog: `use` for every snapshot."""

    def __init__(self, watchdog: Watchdog, *, idle_s: float, connections_max: int, answer_bytes_max: int) -> None:
        self._watchdog = watchdog
        self._idle_s, self._connections_max = idle_s, connections_max
        self._answer_bytes_max = answer_bytes_max
        self._loop = asyncio.get_running_loop()
        self._upstreams: dict[str, Upstream] = {}
        self._retired: list[Pool] = []
        self._gone: dict[str, tuple[float, Upstream]] = {}  # until when, for requests that were planned before
        self._refresh_at_s = 0.0
        self._is_closed = False
        watchdog.keep_house(self._keep_house)

    def use(self, snapshot: Snapshot) -> None:
        """Makes the upstreams equal to a snapshot's; connections to unchanged addresses live on."""
        before, self._upstreams = self._upstreams, {}
        for model in snapshot.models.values():
            for deployment in model.deployments:
                known = before.pop(deployment.deployment_id, None)
                same = known is not None and (
                    known.deployment.base_url == deployment.base_url
                    and known.deployment.connect_timeout_s == deployment.connect_timeout_s
                )
                if known is not None and not same:
                    self._retire(known.pool)
                pool = known.pool if known is not None and same else self._pool(deployment)
                self._upstreams[deployment.deployment_id] = Upstream(deployment, pool)
        for gone in before.values():
            self._retire(gone.pool)
            self._gone[gone.deployment.deployment_id] = time.monotonic() + GONE_KEPT_S, gone
            metrics.UPSTREAM_CONNECTIONS.remove(gone.deployment.deployment_id)

    def _pool(self, deployment: Deployment) -> Pool:
        return Pool(
            deployment.base_url,
            connect_timeout_s=deployment.connect_timeout_s,
            idle_s=self._idle_s,
            connections_max=self._connections_max,
        )

    def _retire(self, pool: Pool) -> None:
        pool.retire()
        self._retired.append(pool)

    def send_on_kept(self, deployment: Deployment, resource: str, headers: bytes, body: bytes) -> Call | None:
        """Sends a request on a connection that served others before; None where there is none. The peer may have closed
        it meanwhile, which shows only now.
        """
        upstream = self._upstreams.get(deployment.deployment_id)
        connection = None if upstream is None else upstream.pool.idle_connection()
        if upstream is None or connection is None:
            return None
        return self._start(upstream, connection, resource, headers, body)

    async def send_on_fresh(self, deployment: Deployment, resource: str, headers: bytes, body: bytes) -> Call:
        """Sends a request on a new connection; `headers` are whole lines.

        Raises:
            Failure: connect, connect_timeout; connect also when everything was closed.
        """
        upstream = self._upstreams.get(deployment.deployment_id)
        if upstream is None:  # the catalog changed while this request was on its way
            _, upstream = self._gone.get(deployment.deployment_id, (0.0, None))
        if upstream is None:
            raise Failure("connect", "the deployment has left the catalog")
        connection = None if self._is_closed else await upstream.pool.fresh_connection()
        if connection is None or self._is_closed:
            if connection is not None:
                connection.close()
            raise Failure("connect", "this process ends")
        return self._start(upstream, connection, resource, headers, body)

    def _start(
        self, upstream: Upstream, connection: UpstreamConnection, resource: str, headers: bytes, body: bytes
    ) -> Call:
        deployment = upstream.deployment
        call = Call(self._loop, deployment.first_byte_timeout_s, deployment.idle_timeout_s)
        call.answer_bytes_max = self._answer_bytes_max
        request = b"%b%bcontent-length: %d\r\n\r\n%b" % (upstream.heads[resource], headers, len(body), body)
        connection.start(call, request)
        self._watchdog.add(call)
        return call

    def _keep_house(self, now_s: float) -> None:
        refresh = now_s >= self._refresh_at_s
        if refresh:
            self._refresh_at_s = now_s + CREDENTIAL_REFRESH_S
        for upstream in self._upstreams.values():
            upstream.pool.close_idle(now_s)
            if refresh:
                metrics.UPSTREAM_CONNECTIONS.labels(upstream.deployment.deployment_id).set(
                    upstream.pool.open_connections
                )
                credential = upstream.deployment.credential
                if credential is not None and credential.WhichOneof("source") == "file":
                    upstream.read_credential()
        for deployment_id in [each for each, (until_s, _) in self._gone.items() if now_s >= until_s]:
            del self._gone[deployment_id]
        self._retired = [pool for pool in self._retired if pool.open_connections]

    async def close(self) -> None:
        """Closes every connection, and lets nobody make another: calls in flight fail as `stopped`."""
        self._is_closed = True
        gone = [upstream for _, upstream in self._gone.values()]
        for pool in {*(each.pool for each in (*self._upstreams.values(), *gone)), *self._retired}:
            pool.close()
        await asyncio.sleep(0)  # transports call connection_lost in the next step


def forwarded_headers(headers: CIMultiDictProxy[str], request_id: str) -> bytes:
    """The request headers that go upstream, as lines. Values came through an HTTP parser and hold no line end."""
    lines = f"x-request-id: {request_id}\r\n"
    get = headers.get
    for name in FORWARDED_HEADERS:
        if (value := get(name)) is not None:
            lines += f"{name}: {value}\r\n"
    return lines.encode("utf-8", "surrogateescape")


PASSED_HEADERS = frozenset(
    {
        "content-type",
        "retry-after",
        "retry-after-ms",
        "cache-control",
        "x-should-retry",
        "openai-model",
        "openai-processing-ms",
        "openai-version",
        "server-timing",
    }
)


def passed_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The upstream's response headers that a client gets: never cookies, never what belongs to one connection."""
    return [(name, value) for name, value in headers if name in PASSED_HEADERS]
