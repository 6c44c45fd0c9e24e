"""What the scripted upstream is told to do: one `Answer`, and the named modes that are shorthand for one.

Each field of an Answer is a switch of its own with a realistic default, so modes combine: `crlf+comments+azure`.

| mode | what the upstream does |
|---|---|
| `ok` | the default: a small honest answer with correct usage |
| `slow` | waits before its headers and between events |
| `stall_before_headers`, `stall_mid_stream` | never starts; starts and falls silent |
| `reset_before_headers`, `reset_mid_stream` | dies by RST |
| `close_before_headers`, `close_mid_stream` | closes cleanly without having finished |
| `no_usage`, `no_done`, `no_usage_no_done` | leaves out usage, `data: [DONE]`, or both |
| `usage_last_chunk` | usage in an extra last chunk with empty choices, asked for or not |
| `usage_last_content`, `usage_in_choice` | usage in the finishing chunk; in its `choices[].usage` (Moonshot) |
| `usage_null_everywhere` | `usage: null` in every chunk but the extra last one |
| `usage_cumulative` | running usage in every chunk |
| `usage_then_null` | usage in the finishing chunk, then a trailing chunk with `choices: []`, `usage: null` |
| `finish_on_content` | the finish reason is on the last content chunk, not on one of its own |
| `azure`, `llamacpp` | Azure's opening event without choices; llama.cpp's `timings` beside usage |
| `crlf`, `cr`, `comments`, `bom` | legal but rare forms of an event stream |
| `multiline`, `tight` | an event's data on several lines; no space after `data:` |
| `byte_by_byte`, `split_multibyte` | every byte in a write of its own; text cut inside each multi-byte character |
| `tricky_content` | content that looks like usage, `[DONE]` and event boundaries |
| `big_event` | one content event of 1 MB |
| `gzip`, `deflate`, `br`, `zstd` | compresses although identity was asked for |
| `length_body`, `chunked_body`, `close_body` | how the body's end is told |
| `status` (with `status=503 retry_after=2`) | an error status with OpenAI's error body |
| `unauthorized`, `payment_required`, `forbidden`, `rate_limited` | 401, 402, 403, 429 |
| `html_502` | a proxy's page in place of an answer |
| `refuse_stream_options` | 400 that names stream_options, when the request has it |
| `refuse_continuous_usage` | 422 that names stream_options.continuous_usage_stats, when the request has it |
| `error_with_usage`, `error_event` | usage inside an error answer; an error event in the middle of a stream |
| `failed`, `incomplete` | the other ends of a Responses stream |
| `second_terminal` | a second, different end after the first |
| `garbage`, `not_json`, `not_an_object` | not HTTP; a body that is not JSON; one that is not an object |
| `close_after`, `close_on_next`, `reset_on_next` | a pooled connection goes stale: at once; upon the next request |
| `odd_headers` | Set-Cookie, hop-by-hop headers and one named by Connection |
| `negative_usage`, `absurd_usage` | counts that no meter may believe |
"""

import re
import shlex
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import msgspec


class UsageAt(StrEnum):
    """Where in a streamed chat the usage stands."""

    ASKED = "asked"  # an extra last chunk, only if stream_options.include_usage asks for it; as vLLM does
    LAST_CHUNK = "last_chunk"
    LAST_CONTENT = "last_content"
    CHOICE = "choice"
    NULL_EVERYWHERE = "null_everywhere"
    CUMULATIVE = "cumulative"
    THEN_NULL = "then_null"
    NOWHERE = "nowhere"  # also in answers that are not streamed


class Ending(StrEnum):
    """How the answer stops."""

    WHOLE = "whole"
    STALL = "stall"
    RESET = "reset"
    CLOSE = "close"


class Afterwards(StrEnum):
    """What becomes of the connection after a whole answer that promised to keep it."""

    KEEP = "keep"
    CLOSE = "close"
    CLOSE_ON_NEXT = "close_on_next"
    RESET_ON_NEXT = "reset_on_next"


class Framing(StrEnum):
    """How the end of the body is told; NATURAL is chunked for streams and a length for the rest."""

    NATURAL = "natural"
    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


class Terminal(StrEnum):
    """The last event of a Responses stream; a chat that is `incomplete` finishes with "length"."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class LineEnd(StrEnum):
    LF = "lf"
    CRLF = "crlf"
    CR = "cr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One scripted answer. Times are milliseconds; token counts left at None are the honest ones."""

    # Time.
    headers_delay_ms: float = 0
    gap_ms: float = 0  # before every event but the first
    # What is said. Every content event is one completion token unless told otherwise.
    events: int = 5
    text: str | None = None  # cut into `events` pieces; None: one word for each event
    event_chars: int = 0  # pads every content event to that many characters
    reasoning_events: int = 0  # how many of the events are reasoning
    obey_max_tokens: bool = True
    # Usage.
    usage_at: UsageAt = UsageAt.ASKED
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_json: str | None = None  # this JSON text, whatever it is, in place of the usage object
    # The stream.
    done: bool = True
    finish_on_content: bool = False
    azure: bool = False
    timings: bool = False
    terminal: Terminal = Terminal.COMPLETED
    second_terminal: bool = False
    error_event: bool = False
    line_end: LineEnd = LineEnd.LF
    comments: bool = False
    bom: bool = False
    multiline_data: bool = False
    tight: bool = False
    # The bytes. Splits count bytes of the body as sent (after compression, before chunked framing).
    split_at: tuple[int, ...] = ()  # the writes are exactly the slices between these
    split_every: int = 0
    split_multibyte: bool = False
    compress: str = ""  # gzip, deflate, br, zstd
    framing: Framing = Framing.NATURAL
    # Status and headers.
    status: int = 200
    retry_after: str | None = None
    error_usage: bool = False
    refuse_stream_options: int = 0  # the status to refuse it with
    refuse_continuous_usage: int = 0  # the same for stream_options.continuous_usage_stats
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    # Faults.
    ending: Ending = Ending.WHOLE
    ending_after: int = -1  # events sent by then; -1: not even headers; half of a body that is not streamed
    ending_after_bytes: int | None = None  # body bytes sent by then, instead of events
    afterwards: Afterwards = Afterwards.KEEP
    raw: bytes | None = None  # the whole answer, head included, in place of HTTP; then the connection closes
    body: bytes | None = None  # the whole body, under our head


_MID = {"ending_after": 3}
MODES: dict[str, dict[str, Any]] = {
    "ok": {},
    "slow": {"headers_delay_ms": 200, "gap_ms": 20},
    "stall_before_headers": {"ending": "stall"},
    "stall_mid_stream": {"ending": "stall", **_MID},
    "reset_before_headers": {"ending": "reset"},
    "reset_mid_stream": {"ending": "reset", **_MID},
    "close_before_headers": {"ending": "close"},
    "close_mid_stream": {"ending": "close", **_MID},
    "no_usage": {"usage_at": "nowhere"},
    "no_done": {"done": False},
    "no_usage_no_done": {"usage_at": "nowhere", "done": False},
    "usage_last_chunk": {"usage_at": "last_chunk"},
    "usage_last_content": {"usage_at": "last_content"},
    "usage_in_choice": {"usage_at": "choice"},
    "usage_null_everywhere": {"usage_at": "null_everywhere"},
    "usage_cumulative": {"usage_at": "cumulative"},
    "usage_then_null": {"usage_at": "then_null"},
    "finish_on_content": {"finish_on_content": True},
    "azure": {"azure": True},
    "llamacpp": {"timings": True},
    "crlf": {"line_end": "crlf"},
    "cr": {"line_end": "cr"},
    "comments": {"comments": True},
    "bom": {"bom": True},
    "multiline": {"multiline_data": True},
    "tight": {"tight": True},
    "byte_by_byte": {"split_every": 1},
    "split_multibyte": {"split_multibyte": True, "text": "é世界🎉 ñandú 漢字 👩‍🚀"},
    "tricky_content": {
        "text": 'data: [DONE]\n\ndata: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\r\n\r\n'
        ' "usage":{"prompt_tokens":2}, {"type":"response.completed"} \\" \u2028 [DONE]',
        "events": 2,
    },
    "big_event": {"events": 1, "event_chars": 1 << 20},
    "gzip": {"compress": "gzip"},
    "deflate": {"compress": "deflate"},
    "br": {"compress": "br"},
    "zstd": {"compress": "zstd"},
    "length_body": {"framing": "length"},
    "chunked_body": {"framing": "chunked"},
    "close_body": {"framing": "close"},
    "status": {"status": 500},
    "unauthorized": {"status": 401},
    "payment_required": {"status": 402},
    "forbidden": {"status": 403},
    "rate_limited": {"status": 429, "retry_after": "1"},
    "html_502": {
        "status": 502,
        "content_type": "text/html",
        "body": b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\r\n",
    },
    "refuse_stream_options": {"refuse_stream_options": 400},
    "refuse_continuous_usage": {"refuse_continuous_usage": 422},
    "error_with_usage": {"status": 500, "error_usage": True},
    "error_event": {"error_event": True, **_MID},
    "failed": {"terminal": "failed"},
    "incomplete": {"terminal": "incomplete"},
    "second_terminal": {"second_terminal": True},
    "garbage": {"raw": b"SSH-2.0-OpenSSH_9.6\r\n\x00\xff\x13not HTTP at all\r\n\r\n"},
    "not_json": {"body": b'{"id": "chatcmpl-1", "choices": [', "content_type": "application/json"},
    "not_an_object": {"body": b'["usage", {"prompt_tokens": 1}]', "content_type": "application/json"},
    "close_after": {"afterwards": "close"},
    "close_on_next": {"afterwards": "close_on_next"},
    "reset_on_next": {"afterwards": "reset_on_next"},
    "odd_headers": {
        "headers": (
            ("Set-Cookie", "upstream=1; Path=/"),
            ("Set-Cookie", "second=2"),
            ("Connection", "X-Hop"),
            ("X-Hop", "must not travel"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("Trailer", "Expires"),
            ("X-Harmless", "may travel"),
        )
    },
    "negative_usage": {"prompt_tokens": -5, "completion_tokens": 7, "usage_at": "last_chunk"},
    "absurd_usage": {"prompt_tokens": 10**15, "completion_tokens": 10**15, "usage_at": "last_chunk"},
}

_FIELDS = frozenset(field.name for field in fields(Answer))
_DIRECTIVE = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


def answer_from_options(options: dict[str, Any]) -> Answer:
    """An Answer from a mode's name and field values, which may be text (bytes fields: base64; lists: commas).

    Raises:
        ValueError: an unknown mode or field, or a value that does not fit; the text says which.
    """
    values: dict[str, Any] = {}
    for name in str(options.get("mode", "ok")).replace("-", "_").split("+"):
        if name not in MODES:
            raise ValueError(f"the scripted upstream has no mode {name!r}")
        values |= MODES[name]
    values |= {key: value for key, value in options.items() if key != "mode"}
    if unknown := values.keys() - _FIELDS:
        raise ValueError(f"the scripted upstream's Answer has no field {sorted(unknown)}")
    if isinstance(values.get("split_at"), str):
        values["split_at"] = [int(position) for position in values["split_at"].split(",")]
    try:
        return msgspec.convert(values, Answer, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"the scripted upstream cannot read {values}: {error}") from error


def options_from_model(model: str) -> dict[str, Any]:
    """`scripted/usage-in-choice+crlf:gap_ms=5:events=64` -> its options; any other name has none."""
    if not model.startswith("scripted/"):
        return {}
    mode, *settings = model.removeprefix("scripted/").split(":")
    return {"mode": mode, **_options_from_words(settings)}


def options_from_text(text: str) -> dict[str, Any]:
    """The first `[[mode=... key=value key="two words"]]` in what the customer wrote; none: no options."""
    found = _DIRECTIVE.search(text)
    return _options_from_words(shlex.split(found[1])) if found else {}


def _options_from_words(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"the scripted upstream reads key=value, not {word!r}")
        options[key] = value
    return options
