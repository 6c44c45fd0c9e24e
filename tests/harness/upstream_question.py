"""What a request asks the scripted upstream, and what its honest bill is. Pure; tests predict bills with it."""

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.harness.upstream_answer import Answer

_WORDS = ("Hello", " from", " the", " scripted", " upstream.", " Once", " more:")


@dataclass(frozen=True, slots=True)
class Question:
    """The few things of a request body that shape an answer; whatever is missing has its default."""

    path: str  # /v1/chat/completions or /v1/responses
    model: str
    stream: bool = False
    asks_stream_options: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    choices: int = 1
    max_tokens: int | None = None
    text: str = ""  # everything that the customer wrote, in order


def question_from_body(path: str, body: bytes) -> Question:
    """Reads leniently, as real model servers do: what has a wrong type counts as absent."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    given = fields.get("stream_options")
    options: dict[str, Any] = given if isinstance(given, dict) else {}
    limits = [fields.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    choices = fields.get("n") if path.endswith("/chat/completions") else None
    return Question(
        path=path,
        model=str(fields.get("model", "scripted/ok")),
        stream=fields.get("stream") is True,
        asks_stream_options="stream_options" in fields,
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True,
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
        max_tokens=next((limit for limit in limits if isinstance(limit, int)), None),
        text=" ".join(_texts([fields.get(name) for name in ("instructions", "messages", "input")])),
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        return _texts([value.get("content"), value.get("text")])
    return []


def honest_prompt_tokens(question: Question) -> int:
    """One token for every word, wherever it stands; never 0."""
    return max(len(re.findall(r"\S+", question.text)), 1)


def content_events(question: Question, answer: Answer) -> int:
    """How many content events each choice gets: the script's number, within the request's own output limit."""
    if answer.obey_max_tokens and question.max_tokens is not None:
        return min(answer.events, max(question.max_tokens, 0))
    return answer.events


def content_pieces(question: Question, answer: Answer) -> list[str]:
    """The text of each content event."""
    count = content_events(question, answer)
    if answer.text is None:
        pieces = [_WORDS[number % len(_WORDS)] for number in range(count)]
    else:
        size = -(-len(answer.text) // max(answer.events, 1))
        pieces = [answer.text[number * size : (number + 1) * size] for number in range(count)]
    padded = {piece: piece.ljust(answer.event_chars, "x") for piece in set(pieces)}  # one copy of each, however large
    return [padded[piece] for piece in pieces]


def was_cut_short(question: Question, answer: Answer) -> bool:
    """Whether the request's output limit ended the answer."""
    return content_events(question, answer) < answer.events


def usage_fields(question: Question, answer: Answer, events_sent: int | None = None) -> dict[str, Any]:
    """The usage object in the resource's own words, after `events_sent` of the content events (None: all)."""
    events = content_events(question, answer)
    sent = events if events_sent is None else events_sent
    prompt = honest_prompt_tokens(question) if answer.prompt_tokens is None else answer.prompt_tokens
    if answer.completion_tokens is None:
        completion = sent * question.choices
    else:
        completion = answer.completion_tokens * sent // max(events, 1) if sent < events else answer.completion_tokens
    reasoning = answer.reasoning_tokens
    if reasoning is None and answer.reasoning_events:
        reasoning = min(sent, answer.reasoning_events) * question.choices
    chat = question.path.endswith("/chat/completions")
    prompt_name, completion_name = ("prompt", "completion") if chat else ("input", "output")
    usage: dict[str, Any] = {
        f"{prompt_name}_tokens": prompt,
        f"{completion_name}_tokens": completion,
        "total_tokens": prompt + completion,
    }
    details = {"cached_tokens": answer.cached_tokens, "cache_write_tokens": answer.cache_write_tokens}
    details = {name: count for name, count in details.items() if count is not None}
    if not chat:
        # OpenAI's SDK requires both details objects of the Responses API.
        details.setdefault("cached_tokens", 0)
        reasoning = reasoning or 0
    if details:
        usage[f"{prompt_name}_tokens_details"] = details
    if reasoning is not None:
        usage[f"{completion_name}_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage
