"""Server-sent events cut into verbatim pieces, whatever their line ends and wherever the network cut them.

The rules are those of WHATWG HTML, "Server-sent events": lines end in LF, CR or CRLF, a blank line ends an event, a
line that starts with a colon is a comment, one BOM may open the stream. Nothing is re-serialised: the pieces, joined,
are what was fed. Pure: no I/O, no clock.
"""

import re

# One event (or one comment line) is at most this many bytes: what a stream can make the edge remember.
MAX_EVENT_BYTES = 16 * 1024 * 1024

BOM = b"\xef\xbb\xbf"

_COLON, _CR, _LF = b":\r\n"
_LINE_END = re.compile(rb"\n|\r\n?")
# The end of a line and the blank line after it. A CRLF needs no alternative of its own on the left: its LF is one.
_BLANK_LINE = re.compile(rb"\n(?:\n|\r\n?)|\r\r\n?")
# The longest proper prefix of what _BLANK_LINE matches: where a search must start again in what it has seen before.
_OVERLAP = 2


class EventTooLarge(Exception):
    """An event exceeds the limit: the stream cannot be carried on, and what came in the same read is lost with it."""


class EventSplitter:
    """Cuts a stream into pieces: an event with its blank line, one leading comment line, one blank line, or the BOM.

    Linear in the bytes fed, however small the reads are. A piece is handed out as soon as its last line end has begun:
    if a read stops inside a CRLF there, the LF comes with the next read, which sets `late_line_feed` and gives no piece
    for it: that LF belongs wherever the last piece went.
    """

    __slots__ = ("_after_cr", "_max_event_bytes", "_pending", "_started", "late_line_feed")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        self._started = False
        self._after_cr = False
        self.late_line_feed = False

    @property
    def between_events(self) -> bool:
        """Whether the next byte starts a new piece, so that a reader may look at a read by itself."""
        return self._started and not self._pending and not self._after_cr

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that `data` completes, in order.

        Raises:
            EventTooLarge: an event, complete or not, is over the limit.
        """
        pieces: list[bytes] = []
        if not data:
            self.late_line_feed = False
            return pieces
        self.late_line_feed = self._after_cr and data[0] == _LF
        self._after_cr = False
        position = 1 if self.late_line_feed else 0
        if not self._started:
            data = bytes(self._pending) + data
            self._pending.clear()
            if len(data) < len(BOM) and BOM.startswith(data):
                self._pending += data
                return pieces
            self._started = True
            if data.startswith(BOM):
                pieces.append(BOM)
                position = len(BOM)
        has_cr = b"\r" in data
        if self._pending:
            data = self._complete_pending(data, position, has_cr, pieces)
            position = 0
        size = len(data)
        while position < size:
            end = _piece_end(data, position, position, has_cr)
            if end < 0:
                self._pending += memoryview(data)[position:]
                self._check(size - position)
                return pieces
            self._check(end - position)
            pieces.append(data[position:end])
            position = end
        # Also right for a read that completed nothing but a late LF: then there is no piece to wait behind.
        self._after_cr = bool(pieces) and position == size and pieces[-1][-1] == _CR
        return pieces

    def finish(self) -> bytes:
        """The incomplete piece at the end of the stream, if any; the splitter is then empty."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _complete_pending(self, data: bytes, position: int, has_cr: bool, pieces: list[bytes]) -> bytes:
        """Adds `data` to the piece begun in an earlier read; what follows that piece, if it ends here."""
        pending = self._pending
        search_from = max(0, len(pending) - _OVERLAP)
        pending += memoryview(data)[position:]
        # An end that needs a CR needs one in `data`: a pending CR has ended its line, and an LF after it belongs to it.
        end = _piece_end(pending, 0, search_from, has_cr)
        if end < 0:
            self._check(len(pending))
            return b""
        self._check(end)
        pieces.append(bytes(pending[:end]))
        rest = bytes(pending[end:])
        self._pending = bytearray()
        return rest

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")


def _piece_end(buffer: bytes | bytearray, start: int, search_from: int, has_cr: bool) -> int:
    """Where the piece that begins at `start` ends, or -1. What lies before `search_from` is known to hold no end."""
    if buffer[start] in (_COLON, _CR, _LF):
        found = _LINE_END.search(buffer, search_from)
    elif has_cr:
        found = _BLANK_LINE.search(buffer, search_from)
    else:
        end = buffer.find(b"\n\n", search_from)
        return end + 2 if end >= 0 else -1
    return found.end() if found else -1


def is_event(piece: bytes) -> bool:
    """Whether a piece is an event, not a comment, a blank line or the BOM."""
    return piece[0] not in (_COLON, _CR, _LF) and piece != BOM


def data_spans(event: bytes) -> list[tuple[int, int]]:
    """Where in `event` the values of its `data` fields stand, in order: their text joined by LF is the event's data."""
    spans = []
    start = 0
    for line in event.splitlines(keepends=True):  # bytes are split at LF, CR and CRLF only
        end = start + len(line.rstrip(b"\r\n"))
        if line.startswith(b"data: "):
            spans.append((start + 6, end))
        elif line.startswith(b"data:"):
            spans.append((start + 5, end))
        elif event[start:end] == b"data":
            spans.append((end, end))
        start += len(line)
    return spans


def event_data(event: bytes) -> bytes | None:
    """The data of an event as its reader sees it; None if it has none, so that a reader would not even notice it."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and event.find(b"\r") < 0:
        return event[6:-2]  # one line, as nearly always
    spans = data_spans(event)
    return b"\n".join([event[start:end] for start, end in spans]) if spans else None


def event_name(event: bytes) -> bytes:
    """The value of the last `event` field; b"" if there is none."""
    if event.find(b"\nevent") < 0 and event.find(b"\revent") < 0 and not event.startswith(b"event"):
        return b""
    name = b""
    for line in event.splitlines():
        field, _, value = line.partition(b":")
        if field == b"event":
            name = value.removeprefix(b" ")
    return name


def completed_event(rest: bytes) -> bytes:
    """`rest`, which lacks its blank line or even its last line end, with what it lacks, in the line ends it uses."""
    if rest.endswith(b"\r\n"):
        return rest + b"\r\n"
    if rest.endswith((b"\n", b"\r")):
        return rest + rest[-1:]
    return rest + b"\n\n"
