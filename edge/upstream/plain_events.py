"""Telling, without decoding, the events of a chat stream that say nothing to us from those that may.

This runs for every event of every stream, so it is written for CPython: `find` and `count`, since `in` on bytes first
tries its operand as an integer, which costs more than the search.
"""

import re

# The one string that differs from event to event, in the servers' various words.
_VARYING_STRING = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments|text)": ?"')


def is_marked(data: bytes) -> bool:
    """Whether one event or several may say something: an error, or a usage or finish reason that is not null.

    Many servers put `"usage":null` and `"finish_reason":null` into every event: if all those keys are followed by
    null, they say nothing. A key written with escapes, as no server does, is not found.
    """
    if data.find(b"error") >= 0:
        return True
    keys = data.count(b'"finish_reason"')
    if keys and data.count(b'"finish_reason":null') != keys and data.count(b'"finish_reason": null') != keys:
        return True
    keys = data.count(b'"usage"')
    return keys != 0 and data.count(b'"usage":null') != keys and data.count(b'"usage": null') != keys


def plain_events(data: bytes) -> int:
    """How many events `data` is, if it is whole events that each start with `data: {`, with LF ends, or one with CRLF.

    Otherwise 0. Such an event is no comment and not the end, and its data is an object.
    """
    if not data.startswith(b"data: {"):
        return 0
    if data.find(b"\r") >= 0:
        return 1 if data.endswith(b"\r\n\r\n") and data.count(b"\r") == data.count(b"\n") == 2 else 0
    if data.find(b"\n\n") == len(data) - 2:
        return 1
    events = data.split(b"\n\n")
    if events.pop():
        return 0
    return len(events) if all(event.startswith(b"data: {") for event in events) else 0


def frame_of(event: bytes) -> tuple[bytes, bytes] | None:
    """What comes before and after the text of an unmarked event; None if it has no text, or one with a quote in it.

    The events of one stream differ in little else. A later one that is the same head, then bytes without a quote, then
    the same tail has the same keys with the same values: it says no more than this one did, and three comparisons
    tell. (Words of ours within the text are text.)
    """
    found = _VARYING_STRING.search(event)
    if found is None:
        return None
    end = event.find(b'"', found.end())
    if end < 0 or event[end - 1] == _BACKSLASH:  # the tail would begin within the text
        return None
    return event[: found.end()], event[end:]


_BACKSLASH = ord("\\")
