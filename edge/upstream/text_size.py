"""How much text a request and an answer hold: what an estimate goes by where nobody reported usage."""

from typing import Any

import msgspec

from edge.upstream.usage_fields import NOT_JSON

_any = msgspec.json.Decoder()
# Where generated text stands, in both APIs: messages, reasoning, calls of functions.
_ANSWERS = ("choices", "output")
_TEXTS = frozenset({"content", "reasoning_content", "reasoning", "arguments", "text", "refusal"})


def answer_text_bytes(body: bytes) -> int | None:
    """Bytes of generated text (UTF-8) in a whole answer of either API; None if it is no such answer."""
    try:
        answer = _any.decode(body)
    except NOT_JSON:
        return None
    if not isinstance(answer, dict):
        return None
    parts = [answer[name] for name in _ANSWERS if isinstance(answer.get(name), list)]
    return _text_bytes(parts, _TEXTS) if parts else None


def request_text_bytes(body: bytes) -> int:
    """Bytes of all text in a request that was read before, wherever it stands; media in `data:` URLs is none."""
    try:
        return _text_bytes(_any.decode(body), None)
    except NOT_JSON:  # a number beyond what floats hold
        return len(body)


def _text_bytes(value: Any, names: frozenset[str] | None) -> int:
    """Of the strings under these names, or of all. Without recursion: how deep an answer nests is not ours to say."""
    size = 0
    waiting = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            if names is None or name in names:
                size += 0 if value.startswith("data:") else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, list):
            waiting += [(name, each) for each in value]
        elif isinstance(value, dict):
            waiting += value.items()
    return size
