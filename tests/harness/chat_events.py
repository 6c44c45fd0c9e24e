"""Chat stream events, and a client's walk through a tap."""

import json
from typing import Any

from edge.upstream.usage_tap import StreamTap

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 3}}
DONE = b"data: [DONE]\n\n"


def drive(tap: StreamTap, chunks: list[bytes]) -> tuple[bytes, bytes]:
    """What `feed` let out in all, and what came after it."""
    fed = b"".join([tap.feed(chunk) for chunk in chunks])
    late = tap.release()
    return fed, late + (tap.ending() if tap.ended else b"")


def outcome(tap: StreamTap) -> tuple[Any, ...]:
    usage = tap.usage._asdict() if tap.usage else None
    return usage, tap.ended, tap.finished, tap.unmetered, tap.error_seen, tap.delivered_events, tap.delivered_bytes


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def event(value: object) -> bytes:
    """One event with this JSON value, with LF ends."""
    return b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **members: object) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c-1", "object": "chat.completion.chunk", "choices": [choice], **members}


def usage_chunk(usage: object = USAGE, **members: object) -> dict[str, Any]:
    return {"id": "c-1", "object": "chat.completion.chunk", "choices": [], "usage": usage, **members}


# What no server should send as its usage: an object without counts, counts that are no integers, no object at all.
ODD_USAGES: list[object] = [
    {},
    {"prompt_tokens": 1.5, "completion_tokens": 1},
    {"prompt_tokens": "5"},
    5,
    "x",
    [],
    True,
]
