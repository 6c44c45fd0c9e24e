"""The rules for streamed chat read a second time, naively: the whole stream at once, every event parsed, no short cut.

What the tap does byte by byte must equal what this says. It shares no code with the edge.
"""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Line:
    """One line: its text and its line end (empty at a torn end)."""

    text: bytes
    end: bytes


@dataclass
class Carried:
    """An event into which members are to be written: what, and what of."""

    event: bytes
    members: dict[str, Any]


@dataclass
class Verdict:
    """What must come out of a tap: `fed` by feed in all, `late` by release and ending together."""

    fed: list[bytes] = field(default_factory=list)
    late: list[bytes | Carried] = field(default_factory=list)
    usage: dict[str, int] | None = None
    ended: bool = False
    finished: set[Any] = field(default_factory=set)
    unmetered: bool = False
    error_seen: bool = False
    events: int = 0


def lines_of(stream: bytes) -> list[Line]:
    lines, text, at = [], b"", 0
    while at < len(stream):
        end = b"\r\n" if stream[at : at + 2] == b"\r\n" else stream[at : at + 1]
        at += len(end)
        if end in (b"\r\n", b"\n", b"\r"):
            lines.append(Line(text, end))
            text = b""
        else:
            text += end
    return [*lines, Line(text, b"")] if text else lines


def pieces_of(stream: bytes) -> tuple[list[list[Line]], list[Line]]:
    """Events (with their blank line), and leading comments and blank lines by themselves; and the torn rest."""
    pieces: list[list[Line]] = []
    event: list[Line] = []
    if stream.startswith(b"\xef\xbb\xbf"):
        pieces.append([Line(b"\xef\xbb\xbf", b"")])
        stream = stream[3:]
    for line in lines_of(stream):
        event.append(line)
        whole = line.end != b""
        if whole and (line.text == b"" or (len(event) == 1 and line.text.startswith(b":"))):
            pieces.append(event)
            event = []
    return pieces, event


def written(lines: list[Line]) -> bytes:
    return b"".join(line.text + line.end for line in lines)


def fields_of(lines: list[Line]) -> tuple[str, str | None]:
    name, data = "", []
    for line in lines:
        key, _, value = line.text.decode(errors="surrogateescape").partition(":")
        value = value[1:] if value.startswith(" ") else value
        if key == "event":
            name = value
        if key == "data":
            data.append(value)
    return name, "\n".join(data) if data else None


def counts_of(usage: Any) -> dict[str, int] | None:
    """The counts of one usage object, or None if they cannot be read."""
    if not isinstance(usage, dict):
        return None
    prompt_details = usage.get("prompt_tokens_details")
    completion_details = usage.get("completion_tokens_details")
    if not isinstance(prompt_details or {}, dict) or not isinstance(completion_details or {}, dict):
        return None
    named = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    for name in ("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens"):
        named[name] = (prompt_details or {}).get(name)
    named["reasoning_tokens"] = (completion_details or {}).get("reasoning_tokens")
    if any(value is not None and type(value) is not int for value in named.values()):
        return None
    total = named.pop("total_tokens")
    if total is not None and named["prompt_tokens"] is None and named["completion_tokens"] is not None:
        named["prompt_tokens"] = total - named["completion_tokens"]
    if total is not None and named["completion_tokens"] is None and named["prompt_tokens"] is not None:
        named["completion_tokens"] = total - named["prompt_tokens"]
    if named["prompt_tokens"] is None or named["completion_tokens"] is None:
        return None
    return {name: value or 0 for name, value in named.items()}


def judge_chat(stream: bytes, carry: str) -> Verdict:
    """`carry` is "unchanged", "withhold" or "carry"."""
    verdict = Verdict()
    held: list[bytes] = []
    carried: dict[str, Any] = {}
    per_choice: dict[Any, dict[str, int] | None] = {}
    unreadable = False
    pieces, rest = pieces_of(stream)
    torn = rest
    judged = [(piece, True) for piece in pieces]
    if rest and not rest[0].text.startswith(b":"):
        data = fields_of(rest)[1]
        if data is not None and (data.strip() == "[DONE]" or isinstance(_parsed(data), dict)):
            last = rest[-1].end
            judged.append(([*rest, Line(b"", last or b"\n\n")], False))
            rest = []
    for lines, whole in judged:
        raw = written(lines)
        out: list[Any] = verdict.fed if whole else verdict.late
        comment = raw[:1] in (b":", b"\n", b"\r") or raw == b"\xef\xbb\xbf"
        name, data = ("", None) if comment else fields_of(lines)
        text = (data or "").strip()
        if verdict.ended:
            verdict.late.append(raw if whole else written(torn))
            verdict.unmetered |= whole and text.startswith("[DONE]")
            continue
        if comment:
            out.append(raw)
            continue
        if text.startswith("[DONE]"):
            verdict.ended = True
            _last(verdict, held, carried)
            verdict.late.append(raw)
            verdict.events += 1
            continue
        chunk = _parsed(text)
        if text and not isinstance(chunk, dict):
            verdict.unmetered = True
        chunk = chunk if isinstance(chunk, dict) else {}
        choices = chunk.get("choices")
        if chunk.get("usage") is not None:
            counts = counts_of(chunk["usage"])
            unreadable = counts is None
            verdict.usage = counts or verdict.usage
        elif any(choice.get("usage") is not None for choice in choices or []):
            for choice in choices or []:
                if choice.get("usage") is not None:
                    per_choice[choice.get("index", 0)] = counts_of(choice["usage"])
            readable = [counts for counts in per_choice.values() if counts is not None]
            unreadable = len(readable) < len(per_choice)
            if not unreadable:
                verdict.usage = _folded(readable)
        if chunk.get("error") or chunk.get("object") == "error" or name == "error":
            verdict.error_seen = True
            verdict.events += len(held) + 1
            out += [*held, raw]
            held.clear()
            continue
        for choice in choices or []:
            if choice.get("finish_reason"):
                verdict.finished.add(choice.get("index", 0))
        finish = bool(verdict.finished)
        if carry != "unchanged" and choices == []:
            usage = chunk.get("usage", "absent")
            null = usage is None or (usage == "absent" and carry == "carry")
            if isinstance(usage, dict) or (null and finish):
                carried |= {key: value for key, value in chunk.items() if (key, value) != ("usage", None)}
                continue
        if carry == "carry" and finish and choices:
            verdict.events += len(held)
            out += held
            held[:] = [raw]
        elif held:
            held.append(raw)
        else:
            verdict.events += 1
            out.append(raw)
    if verdict.ended:
        verdict.late.append(written(rest))
    else:
        _last(verdict, held, carried)
    verdict.unmetered |= unreadable
    return verdict


def _last(verdict: Verdict, held: list[bytes], carried: dict[str, Any]) -> None:
    if held:
        verdict.late += [Carried(held[0], dict(carried)), *held[1:]]
        verdict.events += len(held)
        held.clear()


def _folded(counts: list[dict[str, int]]) -> dict[str, int]:
    summed = ("completion_tokens", "reasoning_tokens")
    return {name: (sum if name in summed else max)(count[name] for count in counts) for name in counts[0]}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def check_carried(carried: Carried, actual: bytes) -> None:
    """`actual` is the event with the members written in, each once, and nothing else changed."""
    own = json.loads(fields_of(lines_of(carried.event))[1] or "")
    expected = list(own.items())
    if own.get("usage") is None:
        usage = carried.members.get("usage")
        expected = [(key, usage if key == "usage" and usage is not None else value) for key, value in expected]
        expected += [(key, value) for key, value in carried.members.items() if key not in own]
    pairs = json.loads(fields_of(lines_of(actual))[1] or "", object_pairs_hook=lambda pairs: pairs)
    assert pairs == _as_pairs(dict(expected)), actual
    head = _common(carried.event, actual)
    rest, now = carried.event[head:], actual[head:]
    tail = _common(rest[::-1], now[::-1])
    rest, now = rest[: len(rest) - tail], now[: len(now) - tail]
    assert rest.removeprefix(b"null") in now, "bytes of the event were changed, not only added to"


def _as_pairs(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _as_pairs(item)) for key, item in value.items()]
    return [_as_pairs(item) for item in value] if isinstance(value, list) else value


def _common(left: bytes, right: bytes) -> int:
    size = 0
    while size < min(len(left), len(right)) and left[size] == right[size]:
        size += 1
    return size
