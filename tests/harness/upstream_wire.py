"""An answer's way to the wire: parts, compressed, split, cut off where it dies, and framed. Pure."""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import islice, pairwise
from typing import Any

import brotli
import zstandard

from tests.harness.upstream_answer import Answer, Ending, Framing
from tests.harness.upstream_chat import chat_chunks, chat_completion
from tests.harness.upstream_event import event_bytes
from tests.harness.upstream_question import Question, usage_fields
from tests.harness.upstream_responses import response, response_events


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes for one write. `usage` is what the upstream has told once they are out; None: nothing new."""

    data: bytes
    usage: Any = None
    starts_event: bool = True  # so the gap between events comes before it
    body_bytes: int = 0  # how many of the bytes are body, not framing


def head_and_parts(question: Question, answer: Answer, answer_id: str, *, close: bool) -> tuple[bytes, Iterator[Part]]:
    """The head of the answer, and its framed body as the writes that the script asks for.

    `close` says that the request itself wants the connection closed.
    """
    _, refused_with = _refused_option(question, answer)
    status = refused_with or answer.status
    stream = question.stream and status < HTTPStatus.MULTIPLE_CHOICES
    parts = _plain_parts(question, answer, answer_id, status, stream=stream)
    if answer.compress:
        parts = _compressed(parts, answer.compress)
    framing = answer.framing
    if framing is Framing.NATURAL:
        framing = Framing.CHUNKED if stream else Framing.LENGTH
    headers = [("content-type", _content_type(answer, stream=stream)), ("x-upstream-answer", answer_id)]
    if stream:
        headers.append(("cache-control", "no-cache"))
    if answer.retry_after is not None:
        headers.append(("retry-after", answer.retry_after))
    if answer.compress:
        headers.append(("content-encoding", answer.compress))
    if framing is Framing.LENGTH:
        whole = list(parts)
        parts = iter(whole)
        headers.append(("content-length", str(sum(len(part.data) for part in whole))))
    elif framing is Framing.CHUNKED:
        headers.append(("transfer-encoding", "chunked"))
    if close or framing is Framing.CLOSE:
        headers.append(("connection", "close"))
    parts = _split(_cut_off(parts, answer, stream=stream), answer)
    return http_head(status, [*headers, *answer.headers]), _framed(parts, answer, framing)


def _refused_option(question: Question, answer: Answer) -> tuple[str, int]:
    """What of the request's `stream_options` is refused, and with which status; "" and 0 for nothing."""
    if answer.refuse_stream_options and question.asks_stream_options:
        return "stream_options", answer.refuse_stream_options
    if answer.refuse_continuous_usage and question.continuous_usage:
        return "stream_options.continuous_usage_stats", answer.refuse_continuous_usage
    return "", 0


def http_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """The status line and the headers, in the order and case given."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Scripted"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _content_type(answer: Answer, *, stream: bool) -> str:
    if answer.content_type is not None:
        return answer.content_type
    return "text/event-stream; charset=utf-8" if stream else "application/json"


def _plain_parts(question: Question, answer: Answer, answer_id: str, status: int, *, stream: bool) -> Iterator[Part]:
    chat = question.path.endswith("/chat/completions")
    if answer.body is not None:
        yield Part(answer.body)
    elif status >= HTTPStatus.MULTIPLE_CHOICES:
        yield _error(question, answer, status)
    elif not stream:
        whole = (chat_completion if chat else response)(question, answer, answer_id)
        yield Part(whole.text.encode(), whole.usage)
    else:
        events = (chat_chunks if chat else response_events)(question, answer, answer_id)
        for number, item in enumerate(events):
            yield Part(event_bytes(item, answer, first=number == 0), item.usage)


def _error(question: Question, answer: Answer, status: int) -> Part:
    refused, _ = _refused_option(question, answer)
    message = f"Unrecognized request argument supplied: {refused}" if refused else f"scripted error {status}"
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    param = refused or None
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": f"scripted_{status}"}}
    usage = usage_fields(question, answer) if answer.error_usage else None
    if usage is not None:
        body["usage"] = usage
    return Part(json.dumps(body).encode(), usage)


def _compressed(parts: Iterator[Part], coding: str) -> Iterator[Part]:
    """Each part is flushed, so that it can be read as soon as it arrives."""
    compress, flush, finish = _compressor(coding)
    for part in parts:
        yield replace(part, data=compress(part.data) + flush())
    yield Part(finish(), starts_event=False)


def _compressor(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes], Callable[[], bytes]]:
    if coding in ("gzip", "deflate"):
        squeeze = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        return squeeze.compress, lambda: squeeze.flush(zlib.Z_SYNC_FLUSH), squeeze.flush
    if coding == "br":
        press = brotli.Compressor()
        return press.process, press.flush, press.finish
    if coding == "zstd":
        pack = zstandard.ZstdCompressor().compressobj()
        return pack.compress, lambda: pack.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), pack.flush
    raise ValueError(f"the scripted upstream cannot compress with {coding!r}")


def _cut_off(parts: Iterator[Part], answer: Answer, *, stream: bool) -> Iterator[Part]:
    if answer.ending is Ending.WHOLE:
        yield from parts
    elif answer.ending_after_bytes is not None:
        left = answer.ending_after_bytes
        for part in parts:
            if len(part.data) > left:
                yield Part(part.data[:left])
                return
            left -= len(part.data)
            yield part
    elif stream:
        yield from islice(parts, max(answer.ending_after, 0))
    else:
        whole = b"".join(part.data for part in parts)
        yield Part(whole[: len(whole) // 2])


def _split(parts: Iterator[Part], answer: Answer) -> Iterator[Part]:
    if answer.split_at:
        yield from _split_at(parts, sorted(set(answer.split_at)))
        return
    for part in parts:
        data = part.data
        if answer.split_every:
            cuts = list(range(answer.split_every, len(data), answer.split_every))
        elif answer.split_multibyte:
            cuts = [position + 1 for position, byte in enumerate(data) if byte >= 0xC0]
        else:
            cuts = []
        edges = [0, *cuts, len(data)]
        for start, end in pairwise(edges):
            yield Part(data[start:end], part.usage if end == len(data) else None, part.starts_event and start == 0)


def _split_at(parts: Iterator[Part], positions: list[int]) -> Iterator[Part]:
    """Slices between fixed positions of the whole body, whatever the events' own boundaries are."""
    waiting = bytearray()
    usage: Any = None
    offset = 0  # of the first waiting byte
    for part in parts:
        waiting += part.data
        while positions and positions[0] < offset + len(waiting):
            length = positions.pop(0) - offset
            if length > 0:
                yield Part(bytes(waiting[:length]), usage)
                del waiting[:length]
                offset += length
        usage = part.usage if part.usage is not None else usage
    if waiting:
        yield Part(bytes(waiting), usage)


def _framed(parts: Iterator[Part], answer: Answer, framing: Framing) -> Iterator[Part]:
    chunked = framing is Framing.CHUNKED
    for part in parts:
        if part.data:
            data = b"%x\r\n%b\r\n" % (len(part.data), part.data) if chunked else part.data
            yield replace(part, data=data, body_bytes=len(part.data))
    if chunked and answer.ending is Ending.WHOLE:
        yield Part(b"0\r\n\r\n", starts_event=False)
