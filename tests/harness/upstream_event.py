"""One event of the scripted upstream: its JSON text, and its bytes in every legal form of an event stream. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from tests.harness.upstream_answer import Answer, LineEnd
from tests.harness.upstream_question import Question, usage_fields

Json = dict[str, Any]

_USAGE_MARK = "\x00usage\x00"
_LINE_ENDS = {LineEnd.LF: "\n", LineEnd.CRLF: "\r\n", LineEnd.CR: "\r"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event, or a whole JSON body. `usage` is what it tells of usage, as told; None: nothing."""

    text: str
    name: str | None = None
    usage: Any = None


def said_usage(question: Question, answer: Answer, events_sent: int | None = None) -> Any:
    """What the upstream says that the request used; a mark in its place where the script has JSON of its own."""
    return _USAGE_MARK if answer.usage_json is not None else usage_fields(question, answer, events_sent)


def doubled(usage: Any) -> Json:
    """A different usage, for a second end that contradicts the first."""
    fields = usage if isinstance(usage, dict) else {}
    return {name: 2 * count for name, count in fields.items() if isinstance(count, int)}


def event(body: Json, answer: Answer, *, name: str | None = None, usage: Any = None) -> Event:
    """The event that holds `body`."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), indent=1 if answer.multiline_data else None)
    if answer.usage_json is not None:
        text = text.replace(json.dumps(_USAGE_MARK), answer.usage_json)
        usage = answer.usage_json if usage == _USAGE_MARK else usage
    return Event(text, name, usage)


def event_bytes(item: Event, answer: Answer, *, first: bool) -> bytes:
    """The event in the stream's form; the first one may carry the byte order mark."""
    colon = ":" if answer.tight else ": "
    lines = [] if item.name is None else [f"event{colon}{item.name}"]
    lines += [f"data{colon}{line}" for line in item.text.split("\n")]
    if answer.comments:
        lines = [": a comment that stands alone", "", ': {"usage": {"prompt_tokens": 9}}', *lines, ":"]
    line_end = _LINE_ENDS[answer.line_end]
    mark = "\ufeff" if first and answer.bom else ""
    return (mark + line_end.join(lines) + 2 * line_end).encode()
