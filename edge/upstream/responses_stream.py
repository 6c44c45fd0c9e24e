"""The tap of a streamed response: nothing is changed, and usage is in the terminal event."""

from typing import Any

import msgspec

from edge.upstream.sse import MAX_EVENT_BYTES, EventSplitter, event_data, event_name, is_event
from edge.upstream.stream_tap import PieceTap
from edge.upstream.usage_fields import NOT_JSON, ResponsesUsage, says_counts, token_usage
from edge.upstream.usage_splice import members_of
from pricing.token_usage import TokenUsage

_TERMINAL_TYPES = frozenset({"response.completed", "response.incomplete", "response.failed"})
_MARKS = (b"response.completed", b"response.incomplete", b"response.failed", b"error")


class _Response(msgspec.Struct, gc=False):
    usage: ResponsesUsage | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    sequence_number: Any = None
    response: _Response | None = None
    error: Any = None


class _Numbered(msgspec.Struct, gc=False):
    sequence_number: Any = None


_event = msgspec.json.Decoder(_Event)
_numbered = msgspec.json.Decoder(_Numbered)
_string = msgspec.json.Decoder(str)
_usage = msgspec.json.Decoder(ResponsesUsage)

_NOTHING = _Event()
_UNREADABLE_USAGE = ResponsesUsage()  # says no count


class ResponsesTap(PieceTap):
    """See `StreamTap`. The client's stream is the upstream's, byte for byte.

    The end is `response.completed`, `response.incomplete` or `response.failed`, by the event's type or its name; what
    is named a delta is believed to be one, and not decoded. A `[DONE]` that some servers send after it is part of the
    ending; one that comes without it is held back and never sent on release, since readers stop at it and would not
    see that the answer was cut.
    """

    __slots__ = ("_numbered_data", "_reported", "_sequence_number", "_usage_unreadable")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event_bytes)
        self._reported: ResponsesUsage | None = None
        self._usage_unreadable = False
        self._sequence_number = 0
        self._numbered_data = b""  # passed on undecoded since `_sequence_number` was read

    def withhold_running_usage(self) -> None:
        """See `StreamTap`: there is none."""

    @property
    def usage(self) -> TokenUsage | None:
        """See `StreamTap`."""
        return token_usage(self._reported) if self._reported else None

    @property
    def finished(self) -> bool:
        """See `StreamTap`."""
        return self.ended

    @property
    def unmetered(self) -> bool:
        """See `StreamTap`."""
        return self._faulty or self._usage_unreadable

    @property
    def sequence_number(self) -> int:
        """See `StreamTap`. Decoded when asked for, which is when a stream has broken."""
        if self._numbered_data:
            for piece in reversed(EventSplitter().feed(b"\n" + self._numbered_data)):
                number = _number(event_data(piece) or b"") if is_event(piece) else None
                if number is not None:
                    self._sequence_number = number
                    break
            self._numbered_data = b""
        return self._sequence_number

    def feed(self, data: bytes) -> bytes:
        """See `StreamTap`."""
        # The common read, whole events named deltas, is told by a few comparisons and passed on as the object it is.
        if self._quiet and data.startswith(b"event: ") and len(data) <= self._max_event_bytes:
            events = _deltas(data)
            if events:
                self.delivered_bytes += len(data)
                self.delivered_events += events
                self._numbered_data = data
                return data
        return self._feed_pieces(data)

    def _take(self, event: bytes, out: list[bytes]) -> None:
        if event.find(b'"sequence_number"') >= 0:
            self._numbered_data = event
        text = (event_data(event) or b"").strip()
        if text.startswith(b"[DONE]"):
            self._watching = True
            self._hold(event)
            return
        name = event_name(event).decode("latin-1")
        if _is_marked(event) and not name.endswith(".delta"):
            decoded = _event_from_text(text) if text else _NOTHING
            self._faulty = self._faulty or decoded is None
            read = decoded or _NOTHING
            if read.type in _TERMINAL_TYPES or name in _TERMINAL_TYPES:
                self._note_usage(read)
                self.error_seen = self.error_seen or "response.failed" in (read.type, name)
                self._end(event)
                return
            self.error_seen = self.error_seen or bool(read.error) or read.type == "error" or name == "error"
        elif text and not text.startswith(b"{"):
            self._faulty = True
        if self._held:
            self._hold(event)
        else:
            self._pass(event, out)

    def _note_usage(self, terminal: _Event) -> None:
        response = terminal.response
        if response is None:
            self._faulty = True
        elif response.usage is not None:
            self._usage_unreadable = not says_counts(response.usage)
            if not self._usage_unreadable:
                self._reported = response.usage

    def _is_end(self, event: bytes) -> bool:
        if not _is_marked(event):
            return False
        read = _event_from_text(event_data(event) or b"") or _NOTHING
        return read.type in _TERMINAL_TYPES or event_name(event).decode("latin-1") in _TERMINAL_TYPES

    def _let_go_last(self, out: list[bytes]) -> None:
        if self.ended:
            self._let_go(out)
        else:
            self._forget_held()


def _is_marked(event: bytes) -> bool:
    """Whether an event may be an end or an error."""
    return any(event.find(mark) >= 0 for mark in _MARKS)


def _deltas(data: bytes) -> int:
    """How many events `data` is, if it is whole events named deltas, with LF ends, or one with CRLF, else 0."""
    cr = data.find(b"\r")
    if cr >= 0:
        whole = data.endswith(b"\r\n\r\n") and data.count(b"\r") == data.count(b"\n") == 3
        return 1 if whole and data.startswith(b".delta\r\ndata: {", cr - 6) and data.startswith(b"event: ") else 0
    if data.find(b"\n\n") == len(data) - 2:
        return 1 if _is_delta(data) else 0
    events = data.split(b"\n\n")
    if events.pop():
        return 0
    return len(events) if all(map(_is_delta, events)) else 0


def _is_delta(event: bytes) -> bool:
    return event.startswith(b".delta\ndata: {", event.find(b"\n") - 6) and event.startswith(b"event: ")


def _event_from_text(text: bytes) -> _Event | None:
    """The few members of an event that decide; None if it is no JSON object.

    A member of an unexpected type spoils that member only.
    """
    try:
        return _event.decode(text)
    except NOT_JSON:
        members = members_of(text)
    if members is None:
        return None
    return _Event(
        type=_decoded(_string, members.get("type")),
        response=_odd_response(members.get("response")),
        error=members.get("error", b"null") != b"null",
    )


def _odd_response(text: bytes | None) -> _Response | None:
    """A response whose usage is unreadable, if that is what it is: its other members are not looked at."""
    members = members_of(text) if text else None
    if members is None:
        return None
    return _Response(usage=None if members.get("usage", b"null") == b"null" else _odd_usage(members["usage"]))


def _odd_usage(text: bytes) -> ResponsesUsage:
    try:
        return _usage.decode(text)
    except NOT_JSON:
        return _UNREADABLE_USAGE


def _decoded(decoder: msgspec.json.Decoder[str], text: bytes | None) -> str | None:
    try:
        return decoder.decode(text) if text else None
    except NOT_JSON:
        return None


def _number(text: bytes) -> int | None:
    try:
        number = _numbered.decode(text).sequence_number
    except NOT_JSON:
        return None
    return number if type(number) is int else None
