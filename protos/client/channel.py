"""Channels: TLS from files that may change, keepalive, round robin over what a name resolves to, bounded messages."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from protos.client.tls import TlsContent, TlsFiles, TlsReader

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
# An error may name many fields, and its details travel as metadata: the default of 8 KB would lose the call.
MAX_METADATA_BYTES = 64 * 1024
# What a call that is open when certificates change may take to finish on the old connection.
DRAIN_S = 30.0

_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        # Every call is safe to repeat: reads are, and writes carry an id made by their first sender.
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # else an unanswered ping is waited for a whole minute (measured; 1.85)
    ("grpc.keepalive_permit_without_calls", 1),
    # A restarted service must be found again within a second, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A connection that was handed over for its age asks the name again, and finds new replicas; not the 30 s of gRPC.
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),
    # Connections of its own: else a new channel takes over those that an old one made with its certificates, or waits
    # as long as that one would after refusals by whoever had the address before.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(
    address: str, tls: TlsFiles | None = None, *, on_trouble: Callable[[str], None] = lambda trouble: None
) -> grpc.aio.Channel:
    """A channel to `host:port`, for stubs. Costs nothing until the first call; close it with `async with`.

    A name that resolves to several addresses (a headless Service) is balanced over, call by call. With TLS the server
    must have a certificate for the name; files that change are used from the next call on, without a restart.

    Raises:
        TlsUnusable: the files cannot be read, or do not belong together.
    """
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    return RenewedChannel(address, TlsReader(tls, on_trouble=on_trouble))


class RenewedChannel(grpc.aio.Channel):
    """A channel that is made anew when its certificates change; calls that are open finish on the one before.

    gRPC itself reads a client's certificates once. A watch that is still open on the old channel after DRAIN_S is
    cancelled there; `watch` in calls.py takes that for its end, and `follow` resumes on the new channel.
    """

    def __init__(self, address: str, reader: TlsReader) -> None:
        self._address, self._reader = address, reader
        self._content = reader.newest()
        self._channel = self._made()
        self._draining: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """The channel for the next call."""
        content: TlsContent = self._reader.newest()
        if content is not self._content:
            old, self._content = self._channel, content
            self._channel = self._made()
            task = asyncio.get_running_loop().create_task(old.close(DRAIN_S))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
        return self._channel

    def _made(self) -> grpc.aio.Channel:
        certificate, key, ca = self._content
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return grpc.aio.secure_channel(self._address, credentials, options=_OPTIONS)

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "unary_unary", method, arguments, options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "unary_stream", method, arguments, options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "stream_unary", method, arguments, options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return _Method(self, "stream_stream", method, arguments, options)

    async def __aenter__(self) -> "RenewedChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._draining, self._channel.close(grace), return_exceptions=True)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel_ready()


class _Method:
    """A multi-callable that belongs to whichever channel is current when it is called."""

    def __init__(
        self, owner: RenewedChannel, kind: str, method: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._owner, self._kind, self._method = owner, kind, method
        self._arguments, self._options = arguments, options
        self._channel: grpc.aio.Channel | None = None
        self._callable: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._channel = channel
            self._callable = getattr(channel, self._kind)(self._method, *self._arguments, **self._options)
        return self._callable(*arguments, **options)
