"""How the edge taps a streamed answer: the two taps, and what they promise to the call that drives them."""

from edge.upstream.chat_stream import Carry, ChatTap
from edge.upstream.responses_stream import ResponsesTap
from edge.upstream.sse import MAX_EVENT_BYTES, EventTooLarge
from edge.upstream.stream_tap import StreamTap
from edge.upstream.usage_fields import usage_from_body

__all__ = ["Carry", "EventTooLarge", "StreamTap", "chat_tap", "responses_tap", "usage_from_body"]


def chat_tap(carry: Carry, n: int = 1, max_event_bytes: int = MAX_EVENT_BYTES) -> StreamTap:
    """The tap of one streamed chat completion with `n` choices."""
    return ChatTap(carry, n, max_event_bytes)


def responses_tap(max_event_bytes: int = MAX_EVENT_BYTES) -> StreamTap:
    """The tap of one streamed response."""
    return ResponsesTap(max_event_bytes)
