"""The tap of a streamed chat completion: usage read, and carried, withheld or left alone."""

import enum
from typing import Any

import msgspec

from edge.upstream.plain_events import frame_of, is_marked, plain_events
from edge.upstream.sse import MAX_EVENT_BYTES, EventTooLarge, event_data, event_name
from edge.upstream.stream_tap import PieceTap
from edge.upstream.usage_fields import NOT_JSON, ChatUsage, folded_token_usage, says_counts
from edge.upstream.usage_splice import members_of, with_members, without_usage
from pricing.token_usage import TokenUsage


class Carry(enum.Enum):
    """What the client's `stream_options.include_usage` asks of the stream."""

    UNCHANGED = "unchanged"  # true: the upstream's stream, unchanged
    WITHHOLD = "withhold"  # false: the chunk that we asked for is withheld
    CARRY = "carry"  # not said: usage rides on the last event that has choices


# How often a stream may show a new frame before it has paid for the last one, and what pays for one.
_FRAME_LESSONS = 16
_LESSON_PAYS_EVENTS = 4
_NO_FRAME = b"\n"  # no event starts with it


class _Choice(msgspec.Struct, gc=False):
    index: Any = 0
    finish_reason: Any = None
    usage: ChatUsage | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: ChatUsage | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None
    object: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_usage = msgspec.json.Decoder(ChatUsage)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])

_NOTHING = _Chunk()
_FALSE = (b"null", b"false", b"0", b'""', b"{}", b"[]")  # what SDKs take for no error at all
# Stand for a usage whose counts are no integers, and for one that is not even an object: neither says any count.
_UNREADABLE_USAGE = ChatUsage()
_NO_OBJECT_USAGE = ChatUsage()


class ChatTap(PieceTap):
    """See `StreamTap`. `n` is how many choices the request asked for.

    An event is decoded only if it is marked (`is_marked`). From the first finish on, `CARRY` and `WITHHOLD` look at
    every event; `CARRY` delays those with choices by one, and one without choices stays behind the one that is held, so
    that order is kept.
    """

    __slots__ = (
        "_carried",
        "_carry",
        "_choice_usages",
        "_finished_indexes",
        "_head",
        "_head_size",
        "_learnt_after",
        "_lessons_left",
        "_n",
        "_reported",
        "_strips",
        "_tail",
        "_tail_size",
        "_usage_unreadable",
    )

    def __init__(self, carry: Carry, n: int = 1, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event_bytes)
        self._carry = carry
        self._n = n
        self._finished_indexes: set[str] = set()
        self._reported: list[ChatUsage] = []
        self._choice_usages: dict[str, ChatUsage] = {}
        self._usage_unreadable = False
        self._strips = False
        self._carried: dict[str, bytes] = {}
        self._head, self._tail = _NO_FRAME, b""
        self._head_size = self._tail_size = 0
        self._lessons_left = _FRAME_LESSONS
        self._learnt_after = 0

    def withhold_running_usage(self) -> None:
        """See `StreamTap`."""
        self._strips = True

    @property
    def usage(self) -> TokenUsage | None:
        """See `StreamTap`."""
        return folded_token_usage(self._reported)

    @property
    def finished(self) -> bool:
        """See `StreamTap`."""
        return len(self._finished_indexes) >= self._n

    @property
    def unmetered(self) -> bool:
        """See `StreamTap`."""
        return self._faulty or self._usage_unreadable

    @property
    def sequence_number(self) -> int:
        """See `StreamTap`."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """See `StreamTap`."""
        # The common event: the last plain one with another text in it (`frame_of`), passed on as the object that it is.
        if self._quiet and data.startswith(self._head) and data.endswith(self._tail):
            size = len(data)
            if data.find(b'"', self._head_size) + self._tail_size == size and size <= self._max_event_bytes:
                self.delivered_bytes += size
                self.delivered_events += 1
                return data
        return self._feed_unframed(data)

    def _feed_unframed(self, data: bytes) -> bytes:
        events = plain_events(data) if self._quiet and len(data) <= self._max_event_bytes else 0
        if not events:
            return self._feed_pieces(data)
        if not is_marked(data):
            if events == 1 and self._lessons_left:
                self._learn_frame(data)
            self.delivered_bytes += len(data)
            self.delivered_events += events
            return data
        if events > 1:
            return self._feed_pieces(data)
        out: list[bytes] = []  # usage in every event, the finish, or a text with `error` in it
        self._consider(data, True, out)
        self._quiet = not self._watching
        return self._handed_out(out)

    def _learn_frame(self, event: bytes) -> None:
        # A stream with something else that varies (OpenAI's `obfuscation`) has no frame: stop looking for it.
        if self.delivered_events - self._learnt_after < _LESSON_PAYS_EVENTS:
            self._lessons_left -= 1
        self._learnt_after = self.delivered_events
        frame = frame_of(event)
        if frame is not None:
            self._head, self._tail = frame
            self._head_size, self._tail_size = len(self._head), len(self._tail)

    def _take(self, event: bytes, out: list[bytes]) -> None:
        marked = is_marked(event)
        if marked or self._watching or not event.startswith(b"data: {"):
            self._consider(event, marked, out)
        else:
            self._pass(event, out)

    def _consider(self, event: bytes, marked: bool, out: list[bytes]) -> None:
        text = (event_data(event) or b"").strip()
        if text.startswith(b"[DONE]"):
            self._end(event)
            return
        chunk = _NOTHING
        no_object = text != b"" and not text.startswith(b"{")
        if marked or no_object or (text and self._watching):
            read = _chunk_from_text(text)
            chunk = read or _NOTHING
            self._faulty = self._faulty or (read is None and (marked or no_object))
            self._note_usage(chunk)
        if chunk.error or chunk.object == "error" or event_name(event) == b"error":
            self.error_seen = True
            self._let_go(out)
            self._pass(event, out)
            return
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self._finished_indexes.add(str(choice.index))
                self._watching = self._carry is not Carry.UNCHANGED
        self._place(event, chunk, text, out)

    def _place(self, event: bytes, chunk: _Chunk, text: bytes, out: list[bytes]) -> None:
        if self._withholds(chunk):
            self._keep_members(text)
            self._drop()
        elif self._carry is not Carry.CARRY or not self._watching:
            self._pass(self._stripped(event, chunk), out)
        elif chunk.choices:
            self._strip_held()
            self._let_go(out)
            self._hold(event)
        elif self._held:
            self._hold(event)
        else:
            self._pass(event, out)

    def _stripped(self, event: bytes, chunk: _Chunk) -> bytes:
        running = self._strips and chunk.choices and isinstance(chunk.usage, ChatUsage)
        return without_usage(event) if running else event

    def _strip_held(self) -> None:
        if self._strips and self._held:
            event = without_usage(bytes(self._held[: self._held_size]))
            self._held[: self._held_size] = event
            self._held_size = len(event)

    def _withholds(self, chunk: _Chunk) -> bool:
        """Whether the client is not to see this event, since only our asking for usage explains it.

        A chunk without choices crashes the loop that reads `choices[0]`, and one without usage after the finish makes
        the SDKs' stream helpers forget the usage. Under `WITHHOLD` a chunk that does not name usage is not our doing.
        """
        if self._carry is Carry.UNCHANGED or chunk.choices is None or chunk.choices:
            return False
        if chunk.usage is None:
            return bool(self._finished_indexes)
        if chunk.usage is msgspec.UNSET:
            return bool(self._finished_indexes) and self._carry is Carry.CARRY
        return chunk.usage is not _NO_OBJECT_USAGE

    def _keep_members(self, text: bytes) -> None:
        """Keeps what the withheld chunk says for the event that will carry it; the last one to say a thing wins."""
        if self._carry is not Carry.CARRY:
            return
        members = members_of(text) or {}
        if members.get("usage") == b"null":
            del members["usage"]
        self._carried.update(members)
        if sum(map(len, self._carried.values())) > self._max_event_bytes:
            raise EventTooLarge(f"more than {self._max_event_bytes} bytes kept back")

    def _note_usage(self, chunk: _Chunk) -> None:
        if isinstance(chunk.usage, ChatUsage):
            reported = [chunk.usage]
        else:
            in_choices = {str(choice.index): choice.usage for choice in chunk.choices or () if choice.usage is not None}
            if not in_choices:
                return
            self._choice_usages.update(in_choices)
            reported = list(self._choice_usages.values())
        self._usage_unreadable = not all(map(says_counts, reported))
        if not self._usage_unreadable:
            self._reported = reported

    def _is_end(self, event: bytes) -> bool:
        return (event_data(event) or b"").strip().startswith(b"[DONE]")

    def _let_go_last(self, out: list[bytes]) -> None:
        if self._held and self._carried:
            if "usage" in self._carried:
                self._strip_held()
            event = with_members(bytes(self._held[: self._held_size]), self._carried)
            self._held[: self._held_size] = event
        self._let_go(out)


def _chunk_from_text(text: bytes) -> _Chunk | None:
    """The few members of a chunk that decide; None if it is no JSON object.

    A member of an unexpected type spoils that member only.
    """
    try:
        return _chunk.decode(text)
    except NOT_JSON:
        members = members_of(text)
    if members is None:
        return None
    chunk = _Chunk(
        choices=_odd_choices(members.get("choices", b"null")),
        error=members.get("error", b"null") not in _FALSE,
        object="error" if members.get("object") == b'"error"' else None,
    )
    if "usage" in members:
        chunk.usage = _odd_usage(members["usage"])
    return chunk


def _odd_choices(text: bytes) -> list[_Choice] | None:
    try:
        raw_choices = _raw_list.decode(text)
    except NOT_JSON:
        return None
    choices = []
    for index, raw in enumerate(raw_choices):
        members = members_of(bytes(raw)) or {}
        finish_reason = members.get("finish_reason", b"null") not in _FALSE
        usage = _odd_usage(members.get("usage", b"null"))
        choices.append(_Choice(members.get("index", b"%d" % index).decode("latin-1"), finish_reason, usage))
    return choices


def _odd_usage(text: bytes) -> ChatUsage | None:
    if text == b"null":
        return None
    try:
        return _usage.decode(text)
    except NOT_JSON:
        return _UNREADABLE_USAGE if text.startswith(b"{") else _NO_OBJECT_USAGE
