"""What the taps of both APIs share: pieces in, verbatim bytes out, and the end kept back until the bill is written."""

from abc import ABC, abstractmethod
from typing import Protocol

from edge.upstream.sse import (
    MAX_EVENT_BYTES,
    EventSplitter,
    EventTooLarge,
    completed_event,
    event_data,
    is_event,
)
from edge.upstream.usage_splice import members_of
from pricing.token_usage import TokenUsage


class StreamTap(Protocol):
    """One streamed answer on its way from the upstream to the client (docs/http-api.md, "Usage is always there").

    Call `feed` for every read and pass on what it returns. When `ended` is set: write the bill, then send `ending()`.
    If the upstream dies, idles too long or closes without that: send `release()`, then look at `ended` again, for the
    last event may have lacked no more than its blank line; otherwise `finished` says whether the answer was whole.
    Everything sent ends between two events, so a keep-alive comment or an error event may follow at any time.
    """

    def withhold_running_usage(self) -> None:
        """From the start: usage on events with choices is there since we asked for it, and the client does not see it,
        but for the last one where it carries usage (chat only)."""

    @property
    def usage(self) -> TokenUsage | None:
        """The last readable usage seen: final if it came with the end, partial (cumulative) before."""

    @property
    def ended(self) -> bool:
        """The upstream ended its answer: `[DONE]`, or the terminal Responses event."""

    @property
    def finished(self) -> bool:
        """The answer is whole: every choice has a finish_reason, or (Responses) `ended`."""

    @property
    def unmetered(self) -> bool:
        """The usage cannot be trusted: a second end, data that is no JSON object, or a last usage that is
        unreadable."""

    @property
    def error_seen(self) -> bool:
        """The upstream reported a failure in the stream, and the client has seen it or will see it in `ending()`."""

    @property
    def sequence_number(self) -> int:
        """Responses: the last one seen; an error event takes the next. 0 if none was seen, and for chat."""

    @property
    def delivered_bytes(self) -> int:
        """Bytes handed out so far."""

    @property
    def delivered_events(self) -> int:
        """Events handed out so far, comments not counted: about the number of tokens that the client saw."""

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now; never a part of an event, never the end.

        Raises:
            EventTooLarge: an event, or what is kept back, is over the limit.
        """

    def ending(self) -> bytes:
        """Once `ended`: all that was kept back, and what followed the end, verbatim; called again, what came since."""

    def release(self) -> bytes:
        """After the upstream's last byte: the events still held, if there was no end.

        A trailing event that is whole but for its blank line counts, and gets what it lacks; any other is dropped, as
        its reader would, so that whatever is sent next is read as an event of its own. b"" once `ended`.
        """


class PieceTap(ABC):
    """A `StreamTap` without the rules of its API: these are `_take` and `_is_end`, and a fast path in `feed`.

    `_held` is what waits for a later event: first the event itself (`_held_size` bytes of it), then those that must
    not overtake it. `_late_to` is where the last piece went, for its late LF; None means to the client. `_watching`
    is set by the rules once every event must be looked at.
    """

    __slots__ = (
        "_ending",
        "_faulty",
        "_held",
        "_held_events",
        "_held_size",
        "_late_to",
        "_max_event_bytes",
        "_quiet",
        "_splitter",
        "_watching",
        "delivered_bytes",
        "delivered_events",
        "ended",
        "error_seen",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._splitter = EventSplitter(max_event_bytes)
        self._held = bytearray()
        self._held_size = 0
        self._held_events = 0
        self._ending = bytearray()
        self._late_to: bytearray | None = None
        self._faulty = False
        self._watching = False
        self._quiet = False  # nothing is begun, watched or over: a read of plain events may pass as it is
        self.ended = False
        self.error_seen = False
        self.delivered_bytes = 0
        self.delivered_events = 0

    def ending(self) -> bytes:
        """See `StreamTap`."""
        out: list[bytes] = []
        self._let_go_last(out)
        out += [bytes(self._ending), self._splitter.finish()]
        self.delivered_events += 1 if self._ending else 0
        self._ending.clear()
        return self._handed_out(out)

    def release(self) -> bytes:
        """See `StreamTap`."""
        if self.ended:
            return b""
        out: list[bytes] = []
        rest = self._splitter.finish()
        if rest and is_event(rest) and _is_whole(rest):
            self._take(completed_event(rest), out)
        if not self.ended:
            self._let_go_last(out)
        return self._handed_out(out)

    def _feed_pieces(self, data: bytes) -> bytes:
        pieces = self._splitter.feed(data)
        out: list[bytes] = []
        if self._splitter.late_line_feed:
            if self._late_to is None:
                out.append(b"\n")
            else:
                self._late_to += b"\n"
        for piece in pieces:
            if self.ended:
                self._faulty = self._faulty or (is_event(piece) and self._is_end(piece))
                self._ending += piece
            elif is_event(piece):
                self._take(piece, out)
            else:  # comments pass ahead of what is held
                out.append(piece)
                self._late_to = None
        if len(self._held) - self._held_size > self._max_event_bytes or len(self._ending) > 2 * self._max_event_bytes:
            raise EventTooLarge(f"more than {self._max_event_bytes} bytes kept back")
        self._quiet = self._splitter.between_events and not self._watching and not self.ended
        return self._handed_out(out)

    @abstractmethod
    def _take(self, event: bytes, out: list[bytes]) -> None:
        """Decides on one complete event before the end: calls `_pass`, `_hold`, `_drop` or `_end`."""

    @abstractmethod
    def _is_end(self, event: bytes) -> bool:
        """Whether an event after the end is an end again."""

    @abstractmethod
    def _let_go_last(self, out: list[bytes]) -> None:
        """Lets go of what is held, knowing that no event will follow it but the end."""

    def _pass(self, event: bytes, out: list[bytes]) -> None:
        out.append(event)
        self.delivered_events += 1
        self._late_to = None

    def _hold(self, event: bytes) -> None:
        if not self._held:
            self._held_size = len(event)
        self._held += event
        self._held_events += 1
        self._late_to = self._held

    def _drop(self) -> None:
        self._late_to = bytearray()

    def _end(self, event: bytes) -> None:
        self.ended = True
        self._ending += event
        self._late_to = self._ending

    def _let_go(self, out: list[bytes]) -> None:
        if self._held:
            out.append(bytes(self._held))
            self.delivered_events += self._held_events
            self._forget_held()

    def _forget_held(self) -> None:
        self._held = bytearray()
        self._held_size = self._held_events = 0

    def _handed_out(self, out: list[bytes]) -> bytes:
        released = out[0] if len(out) == 1 else b"".join(out)
        self.delivered_bytes += len(released)
        return released


def _is_whole(rest: bytes) -> bool:
    data = event_data(rest)
    return data is not None and (data.strip() == b"[DONE]" or members_of(data) is not None)
