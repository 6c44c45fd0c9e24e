"""Members of one event's JSON object written into another event, on the bytes, so that nothing else of it changes."""

import re

import msgspec

from edge.upstream.sse import data_spans
from edge.upstream.usage_fields import NOT_JSON

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY = re.compile(rb'\s*"[^"\\]*(?:\\.[^"\\]*)*"\s*:\s*', re.DOTALL)
_COMMA = re.compile(rb"\s*,?")


def members_of(text: bytes) -> dict[str, bytes] | None:
    """The top-level members of a JSON object, values as written; None if it is not one."""
    try:
        return {key: bytes(value) for key, value in _members.decode(text).items()}
    except NOT_JSON:
        return None


def with_members(event: bytes, carried: dict[str, bytes]) -> bytes:
    """`event` with each member of `carried` that its object lacks; a `usage` of null is replaced where it stands.

    If the event has a usage of its own (an object, or anything but null), or is not a plain JSON object, it comes back
    as it is: there is never a second key of one name, and never a half-written event.
    """
    spans = data_spans(event)
    text = b"\n".join([event[start:end] for start, end in spans])
    own = members_of(text)
    if not own or own.get("usage", b"null") != b"null":
        return event
    layout = _layout(text, own)
    if layout is None:
        return event
    usage_start, closing = layout
    # JSON has line ends between tokens only, and a line end inside a data field would end it.
    added = b"".join(
        b"," + msgspec.json.encode(key) + b":" + value.replace(b"\n", b" ")
        for key, value in carried.items()
        if key not in own
    )
    at = _place(spans, closing)
    event = event[:at] + added + event[at:]
    if usage_start is not None and "usage" in carried:
        at = _place(spans, usage_start)
        event = event[:at] + carried["usage"].replace(b"\n", b" ") + event[at + len(b"null") :]
    return event


def without_usage(event: bytes) -> bytes:
    """`event` without the member `usage` of its object, and not one byte else.

    If it has none, two, or is not a plain JSON object, it comes back as it is.
    """
    spans = data_spans(event)
    text = b"\n".join([event[start:end] for start, end in spans])
    members = members_of(text)
    if not members or "usage" not in members or _layout(text, members) is None:
        return event
    at = first = text.index(b"{") + 1
    for key, value in members.items():
        found = _KEY.match(text, at)
        assert found is not None  # `_layout` came this way
        value_end = found.end() + len(value)
        comma = _COMMA.match(text, value_end)
        after = comma.end() if comma else value_end
        if key == "usage":
            # With the comma before it; the first member with the one behind it.
            start, end = (at, after) if at == first else (at - 1, value_end)
            return event[: _place(spans, start)] + event[_place(spans, end - 1) + 1 :]
        at = after
    raise AssertionError("unreachable: `usage` is one of the members")


def _layout(text: bytes, members: dict[str, bytes]) -> tuple[int | None, int] | None:
    """Where in `text` the value of `usage` starts (None if it has no such key), and where its closing brace stands.

    None if the members do not follow each other as `members` has them: a key is there twice.
    """
    usage_start = None
    position = text.index(b"{") + 1
    for key, value in members.items():
        found = _KEY.match(text, position)
        if found is None or not text.startswith(value, found.end()):
            return None
        if key == "usage":
            usage_start = found.end()
        position = found.end() + len(value)
        comma = _COMMA.match(text, position)
        position = comma.end() if comma else position
    rest = text[position:].lstrip()
    return (usage_start, len(text) - len(rest)) if rest.startswith(b"}") else None


def _place(spans: list[tuple[int, int]], offset: int) -> int:
    """Where in the event the byte at `offset` of the joined data stands."""
    for start, end in spans:
        if offset < end - start:
            return start + offset
        offset -= end - start + 1
    raise ValueError("an offset beyond the data")
