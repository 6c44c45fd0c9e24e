"""Thin helpers for whoever calls Tollgate's services: channels, calls, pages, watches. See docs/grpc.md."""

from protos.client.calls import (
    REQUEST_ID_KEY,
    Observer,
    call,
    follow,
    heartbeat_interval_s,
    new_request_id,
    pages,
    watch,
)
from protos.client.channel import MAX_MESSAGE_BYTES, open_channel
from protos.client.failure import CallFailed, Violation, failure_from_rpc
from protos.client.tls import TlsContent, TlsFiles, TlsReader, TlsUnusable, check_pair, file_stamp

__all__ = [
    "MAX_MESSAGE_BYTES",
    "REQUEST_ID_KEY",
    "CallFailed",
    "Observer",
    "TlsContent",
    "TlsFiles",
    "TlsReader",
    "TlsUnusable",
    "Violation",
    "call",
    "check_pair",
    "failure_from_rpc",
    "file_stamp",
    "follow",
    "heartbeat_interval_s",
    "new_request_id",
    "open_channel",
    "pages",
    "watch",
]
