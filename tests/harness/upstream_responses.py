"""The Responses API as OpenAI answers it: one JSON object, or its sequence of named events. Pure."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.harness.upstream_answer import Answer, Terminal, UsageAt
from tests.harness.upstream_event import Event, Json, doubled, event, said_usage
from tests.harness.upstream_question import Question, content_pieces, was_cut_short

_CREATED = 1_760_000_000
_FAULT = {"code": "server_error", "message": "the engine died"}


def response(question: Question, answer: Answer, answer_id: str) -> Event:
    """The answer that is not streamed."""
    usage = None if answer.usage_at is UsageAt.NOWHERE else said_usage(question, answer)
    body = _response(question, answer_id, _terminal(question, answer), "".join(content_pieces(question, answer)), usage)
    return event(body, answer, usage=usage)


def response_events(question: Question, answer: Answer, answer_id: str) -> Iterator[Event]:
    """The stream; it has no `[DONE]`."""
    numbers = count()

    def make(kind: str, fields: Json, usage: Any = None) -> Event:
        body = {"type": kind, "sequence_number": next(numbers), **fields}
        return event(body, answer, name=kind, usage=usage)

    at = {"item_id": f"msg_{answer_id}", "output_index": 0, "content_index": 0}
    opening = _response(question, answer_id, "in_progress", None, None)
    yield make("response.created", {"response": opening})
    yield make("response.in_progress", {"response": opening})
    yield make("response.output_item.added", {"output_index": 0, "item": _item(answer_id, "in_progress", None)})
    yield make("response.content_part.added", {**at, "part": _part("")})
    pieces = content_pieces(question, answer)
    for number, piece in enumerate(pieces):
        if answer.error_event and number == answer.ending_after:
            yield make("error", {**_FAULT, "param": None})
            return
        yield make("response.output_text.delta", {**at, "delta": piece, "logprobs": []})
    text = "".join(pieces)
    yield make("response.output_text.done", {**at, "text": text, "logprobs": []})
    yield make("response.content_part.done", {**at, "part": _part(text)})
    yield make("response.output_item.done", {"output_index": 0, "item": _item(answer_id, "completed", text)})
    usage = None if answer.usage_at is UsageAt.NOWHERE else said_usage(question, answer)
    terminal = _terminal(question, answer)
    yield make(f"response.{terminal}", {"response": _response(question, answer_id, terminal, text, usage)}, usage=usage)
    if answer.second_terminal:
        second = doubled(usage)
        body = _response(question, answer_id, Terminal.COMPLETED, text, second)
        yield make("response.completed", {"response": body}, usage=second)


def _terminal(question: Question, answer: Answer) -> Terminal:
    if answer.terminal is Terminal.COMPLETED and was_cut_short(question, answer):
        return Terminal.INCOMPLETE
    return answer.terminal


def _response(question: Question, answer_id: str, status: str, text: str | None, usage: Any) -> Json:
    return {
        "id": f"resp_{answer_id}",
        "object": "response",
        "created_at": _CREATED,
        "status": status,
        "error": _FAULT if status == Terminal.FAILED else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == Terminal.INCOMPLETE else None,
        "instructions": None,
        "max_output_tokens": question.max_tokens,
        "model": question.model,
        "output": [] if text is None else [_item(answer_id, "completed", text)],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "metadata": {},
        "usage": usage,
    }


def _item(answer_id: str, status: str, text: str | None) -> Json:
    content = [] if text is None else [_part(text)]
    return {"id": f"msg_{answer_id}", "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
